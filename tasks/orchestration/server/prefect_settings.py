"""How FlowRL treats each of Prefect's settings: a user's own settings must not change what FlowRL promises.

They come from variables, profiles, `.env`, `prefect.toml` and `pyproject.toml`. For those decided here, FlowRL sets
variables in the environment of everything it starts, which take precedence over every file. Runs started by other
workers get those of `RUN` from their deployment; options that flows and tasks state themselves (`tasks.options`) hold
wherever they run.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

__all__ = [
    "CLIENT",
    "DECISIONS",
    "GIVEN",
    "NO_CONNECTION",
    "RUN",
    "Decision",
    "decided",
    "decision",
    "drop_modes",
    "given_beside",
    "in_capitals",
    "is_prefects",
    "variable_of",
]

Rule = Literal["stated", "given", "connection", "server", "kept", "ignored"]
"""stated: set by flows and tasks, and also given. given: set by FlowRL in everything it starts. connection: the user's,
if the server is the user's. server: the user's, for a server that FlowRL starts. kept: the user's. ignored: has no
effect on anything that FlowRL starts.
"""


@dataclass(frozen=True)
class Decision:
    """The treatment of a setting.

    Attributes:
        rule: see `Rule`.
        why: the reason, as `flowrl doctor` prints it.
        value: the value for everything that FlowRL starts; "" for none.
    """

    rule: Rule
    why: str
    value: str = ""


_NOT_OURS = Decision("ignored", "does not reach anything that FlowRL starts")
_RETRIES = "FlowRL itself retries what is worth retrying, never what was refused"
_CACHES = "each stage derives what is left to do from the registry; answers of models are kept in the journal"
_LOGS = "FlowRL's messages belong on the pages of its runs"
_CLIENT = "runs survive a server that is temporarily unreachable"
_DATABASE = "the database of a server that FlowRL starts"
_NEWS = "with fewer, a campaign would miss parts of its runs' events"
_BROWSER = "browser settings of a server that FlowRL starts"
_REACH = "how a server of your own is reached"

DECISIONS: Mapping[str, Decision] = MappingProxyType(
    {
        # Flows and tasks.
        "flows.default_retries": Decision("stated", _RETRIES, "0"),
        "flows.default_retry_delay_seconds": Decision("stated", _RETRIES, "0"),
        "flows.heartbeat_frequency": Decision("given", "a run that misses three is declared lost", "30"),
        "tasks.default_retries": Decision("stated", _RETRIES, "0"),
        "tasks.default_retry_delay_seconds": Decision("stated", _RETRIES, "0"),
        "tasks.default_persist_result": Decision("stated", _CACHES, "false"),
        "tasks.default_no_cache": Decision("stated", _CACHES, "false"),
        "tasks.refresh_cache": Decision("stated", _CACHES, "false"),
        "tasks.disable_caching": Decision("given", _CACHES, "false"),
        "tasks.runner": Decision("ignored", "FlowRL calls its tasks one after the other"),
        "tasks.scheduling": Decision("ignored", "FlowRL defers no tasks"),
        "results.persist_by_default": Decision("stated", _CACHES, "false"),
        "results.default_serializer": Decision("stated", "no pickles on disk", "json"),
        "results.default_storage_block": Decision("ignored", "results are stored in FLOWRL_HOME"),
        "results.local_storage_path": Decision("ignored", "results are stored in FLOWRL_HOME"),
        # Logs.
        "logging.level": Decision("kept", "how much Prefect itself logs; FlowRL's messages are unaffected"),
        "logging.extra_loggers": Decision("given", _LOGS, "flowrl_core,tasks"),
        "logging.log_prints": Decision("stated", "nothing that FlowRL runs prints", "false"),
        "logging.config_path": Decision("ignored", _LOGS),
        "logging.colors": Decision("ignored", "the logs of what FlowRL starts are files"),
        "logging.markup": Decision("ignored", "the logs of what FlowRL starts are files"),
        "logging.to_api.enabled": Decision("given", _LOGS, "true"),
        "logging.to_api.when_missing_flow": Decision("given", "other logs are files", "ignore"),
        "logging.to_api.batch_interval": Decision("ignored", _LOGS),
        "logging.to_api.batch_size": Decision("ignored", _LOGS),
        "logging.to_api.max_log_size": Decision("ignored", _LOGS),
        "internal.logging_level": Decision("ignored", _LOGS),
        "debug_mode": Decision("given", "PREFECT_LOGGING_LEVEL sets how much Prefect logs", "false"),
        # How a server is reached.
        "api.url": Decision("connection", _REACH),
        "api.key": Decision("connection", _REACH),
        "api.auth_string": Decision("connection", _REACH),
        "api.tls_insecure_skip_verify": Decision("connection", _REACH),
        "api.ssl_cert_file": Decision("connection", _REACH),
        "api.enable_http2": Decision("connection", _REACH),
        "api.request_timeout": Decision("given", _CLIENT, "60"),
        "client.custom_headers": Decision("connection", _REACH),
        "client.retry_extra_codes": Decision("connection", _REACH),
        "client.max_retries": Decision("given", _CLIENT, "5"),
        "client.retry_jitter_factor": Decision("given", _CLIENT, "0.2"),
        "client.csrf_support_enabled": Decision("given", "a server may require it", "true"),
        "client.server_version_check_enabled": Decision("ignored", "a server of another version is refused at once"),
        "client.metrics.enabled": Decision("given", "every process would listen on the same port", "false"),
        "client.metrics.port": Decision("ignored", "no process serves metrics of its client"),
        "cloud.api_url": Decision("connection", _REACH),
        "cloud.ui_url": Decision("connection", _REACH),
        "cloud.enable_orchestration_telemetry": Decision("connection", "data sent to Prefect Cloud"),
        "cloud.max_log_size": Decision("connection", "what Prefect Cloud accepts"),
        "ui_url": Decision("connection", "the address of the pages of a server of your own"),
        "silence_api_url_misconfiguration": Decision("connection", _REACH),
        # Workers.
        "worker.query_seconds": Decision("given", "the default would be the largest part of a dependant's wait", "1"),
        "worker.prefetch_seconds": Decision("given", "a run is started when it is due", "1"),
        "worker.heartbeat_seconds": Decision("given", "a dead worker is noticed soon", "10"),
        "worker.enable_cancellation": Decision("ignored", "FlowRL's workers cancel runs anyway"),
        "worker.cancellation_poll_seconds": Decision("ignored", "FlowRL's workers cancel runs anyway"),
        "worker.debug_mode": Decision("ignored", "PREFECT_LOGGING_LEVEL sets how much Prefect logs"),
        "worker.webserver": Decision("ignored", "FlowRL's workers serve no HTTP"),
        "runner": Decision("ignored", "device slots limit the number of runs"),
        # The server that FlowRL starts.
        "server.database": Decision("server", _DATABASE),
        "server.database.migrate_on_start": Decision("given", "a new home's database is empty", "true"),
        "server.api.auth_string": Decision("server", "the password of a server that FlowRL starts"),
        "server.api.cors_allowed_origins": Decision("server", _BROWSER),
        "server.api.cors_allowed_methods": Decision("server", _BROWSER),
        "server.api.cors_allowed_headers": Decision("server", _BROWSER),
        "server.api.csrf_protection_enabled": Decision("server", _BROWSER),
        "server.api.csrf_token_expiration": Decision("server", _BROWSER),
        "server.api.host": Decision("ignored", "see `flowrl up --host`"),
        "server.api.port": Decision("ignored", "see `flowrl up --port`"),
        "server.api.base_path": Decision("ignored", "the address is the one that `flowrl up` prints"),
        "server.api.default_limit": Decision("ignored", "FlowRL requests one page after another"),
        "server.api.keepalive_timeout": Decision("ignored", "how FlowRL's clients talk to its server"),
        "server.api.websocket_ping_interval": Decision("ignored", "how FlowRL's clients talk to its server"),
        "server.api.websocket_ping_timeout": Decision("ignored", "how FlowRL's clients talk to its server"),
        "server.api.max_parameter_size": Decision("ignored", "campaigns with long texts fit"),
        "server.ui.api_url": Decision("server", _BROWSER),
        "server.ui.enabled": Decision("server", _BROWSER),
        "server.ui.v2_enabled": Decision("server", _BROWSER),
        "server.ui.show_promotional_content": Decision("server", _BROWSER),
        "server.ui.serve_base": Decision("ignored", "the address is the one that `flowrl up` prints"),
        "server.ui.static_directory": Decision("ignored", "FlowRL's server has its own directory"),
        "server.analytics_enabled": Decision("given", "a server that FlowRL starts sends no telemetry", "false"),
        "server.metrics_enabled": Decision("server", "a server that FlowRL starts shows its metrics"),
        "server.logging_level": Decision("server", "log level of a server that FlowRL starts", "WARNING"),
        "server.services.db_vacuum": Decision("server", "how long a server that FlowRL starts keeps finished runs"),
        "server.services.late_runs.after_seconds": Decision(
            "given", "marking a long queue as late locks the database for everyone else", "3600"
        ),
        "server.events.maximum_labels_per_resource": Decision("given", _NEWS, "500"),
        "server.events.maximum_related_resources": Decision("given", _NEWS, "100"),
        "server.events.retention_period": Decision("server", "how long a server that FlowRL starts keeps events"),
        "server.concurrency.lease_storage": Decision(
            "given",
            "in memory, leases held when the server restarts would never be released",
            "prefect.server.concurrency.lease_storage.filesystem",
        ),
        "server": Decision("ignored", "a server that FlowRL starts is set up by FlowRL"),
        # Where settings are found, and everything else.
        "home": Decision("ignored", "its profiles may name a server; what FlowRL starts has its own, in FLOWRL_HOME"),
        "profiles_path": Decision("ignored", "its profiles may name a server; what FlowRL starts reads none"),
        "plugins.enabled": Decision("given", "no third-party code in processes that FlowRL starts", "false"),
        "plugins": Decision("ignored", "no third-party code in processes that FlowRL starts"),
        "cli": Decision("ignored", "how Prefect's own command prints"),
        "deployments": Decision("ignored", "FlowRL's deployments name their pools"),
        "events": Decision("ignored", "FlowRL's runs emit few events"),
        "experiments": _NOT_OURS,
        "telemetry.enable_resource_metrics": Decision("connection", "data sent to Prefect Cloud"),
        "telemetry.resource_metrics_interval_seconds": Decision("connection", "data sent to Prefect Cloud"),
        "testing": Decision("ignored", "for tests of Prefect itself"),
    }
)
"""By the name of a setting (as in `prefect.settings`) or of a whole group; the longest matching name decides."""

_OTHER_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "PREFECT_RUNNER_HEARTBEAT_FREQUENCY": "flows.heartbeat_frequency",
        "PREFECT_FLOW_DEFAULT_RETRIES": "flows.default_retries",
        "PREFECT_FLOW_DEFAULT_RETRY_DELAY_SECONDS": "flows.default_retry_delay_seconds",
        "PREFECT_TASK_DEFAULT_RETRIES": "tasks.default_retries",
        "PREFECT_TASK_DEFAULT_RETRY_DELAY_SECONDS": "tasks.default_retry_delay_seconds",
        "PREFECT_TASK_RUNNER_THREAD_POOL_MAX_WORKERS": "tasks.runner",
        "PREFECT_TASK_SCHEDULING_DEFAULT_STORAGE_BLOCK": "tasks.scheduling",
        "PREFECT_TASK_SCHEDULING_DELETE_FAILED_SUBMISSIONS": "tasks.scheduling",
        "PREFECT_DEFAULT_RESULT_STORAGE_BLOCK": "results.default_storage_block",
        "PREFECT_LOCAL_STORAGE_PATH": "results.local_storage_path",
        "PREFECT_LOGGING_SETTINGS_PATH": "logging.config_path",
        "PREFECT_LOGGING_INTERNAL_LEVEL": "internal.logging_level",
        "PREFECT_CLIENT_ENABLE_METRICS": "client.metrics.enabled",
        "PREFECT_DEFAULT_WORK_POOL_NAME": "deployments",
        "PREFECT_DEFAULT_DOCKER_BUILD_NAMESPACE": "deployments",
        "PREFECT_EXPERIMENTAL_WARN": "experiments",
        "PREFECT_EXPERIMENTS_PLUGINS_ENABLED": "plugins.enabled",
        "PREFECT_EXPERIMENTS_PLUGINS": "plugins",
        "PREFECT_TEST_MODE": "testing",
        "PREFECT_UNIT_TEST_MODE": "testing",
        "PREFECT_UNIT_TEST_LOOP_DEBUG": "testing",
        "PREFECT_TEST_SETTING": "testing",
        # Not a setting, but it selects the profile.
        "PREFECT_PROFILE": "profiles_path",
        # Of a server.
        "PREFECT_API_DATABASE": "server.database",
        "PREFECT_API_DATABASE_MIGRATE_ON_START": "server.database.migrate_on_start",
        "PREFECT_SQLALCHEMY": "server.database",
        "PREFECT_LOGGING_SERVER_LEVEL": "server.logging_level",
        "PREFECT_API_ENABLE_METRICS": "server.metrics_enabled",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": "server.api.cors_allowed_origins",
        "PREFECT_SERVER_CORS_ALLOWED_METHODS": "server.api.cors_allowed_methods",
        "PREFECT_SERVER_CORS_ALLOWED_HEADERS": "server.api.cors_allowed_headers",
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "server.api.csrf_protection_enabled",
        "PREFECT_SERVER_CSRF_TOKEN_EXPIRATION": "server.api.csrf_token_expiration",
        "PREFECT_API_DEFAULT_LIMIT": "server.api.default_limit",
        "PREFECT_UI_API_URL": "server.ui.api_url",
        "PREFECT_UI_ENABLED": "server.ui.enabled",
        "PREFECT_UI_SERVE_BASE": "server.ui.serve_base",
        "PREFECT_UI_STATIC_DIRECTORY": "server.ui.static_directory",
        "PREFECT_EVENTS_RETENTION_PERIOD": "server.events.retention_period",
        "PREFECT_API_SERVICES_LATE_RUNS_AFTER_SECONDS": "server.services.late_runs.after_seconds",
        "PREFECT_API_SERVICES": "server",
        "PREFECT_API_EVENTS": "server",
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "server",
        "PREFECT_API_LOG_RETRYABLE_ERRORS": "server",
        "PREFECT_API_MAX_FLOW_RUN_GRAPH": "server",
        "PREFECT_API_TASK_CACHE_KEY_MAX_LENGTH": "server",
        "PREFECT_MEMOIZE_BLOCK_AUTO_REGISTRATION": "server",
        "PREFECT_MEMO_STORE_PATH": "server",
        "PREFECT_MESSAGING": "server",
        "PREFECT_EVENTS_EXPIRED_BUCKET_BUFFER": "server",
        "PREFECT_EVENTS_MAXIMUM": "server",
        "PREFECT_EVENTS_MAXIMUM_LABELS_PER_RESOURCE": "server.events.maximum_labels_per_resource",
        "PREFECT_EVENTS_MAXIMUM_RELATED_RESOURCES": "server.events.maximum_related_resources",
        "PREFECT_EVENTS_PROACTIVE_GRANULARITY": "server",
        "PREFECT_EVENTS_WEBSOCKET_BACKFILL_PAGE_SIZE": "server",
        "PREFECT_DEPLOYMENT_CONCURRENCY_SLOT_WAIT_SECONDS": "server",
        "PREFECT_DEPLOYMENT_SCHEDULE_MAX_SCHEDULED_RUNS": "server",
        "PREFECT_TASK_RUN_TAG_CONCURRENCY_SLOT_WAIT_SECONDS": "server",
        "PREFECT_TASK_SCHEDULING_MAX": "server",
        "PREFECT_TASK_SCHEDULING_PENDING_TASK_TIMEOUT": "server",
    }
)
"""Older names of settings, or prefixes of those of a group."""


def variable_of(setting: str) -> str:
    """Return the variable that sets it."""
    return f"PREFECT_{setting.replace('.', '_').upper()}"


def is_prefects(variable: str) -> bool:
    """Whether Prefect may read the variable; case does not matter."""
    return variable.upper().startswith("PREFECT_")


def decision(variable: str) -> Decision:
    """Return the treatment of a Prefect variable: that of the longest known name that it equals or begins with."""
    name = variable.upper()
    names = [known for known in _BY_VARIABLE if name == known or name.startswith(f"{known}_")]
    return _BY_VARIABLE[max(names, key=len)] if names else _NOT_OURS


def decided(environment: Mapping[str, str], rule: Rule) -> dict[str, str]:
    """Return Prefect's variables with this rule."""
    return {name: value for name, value in environment.items() if is_prefects(name) and decision(name).rule == rule}


def drop_modes(environment: MutableMapping[str, str]) -> None:
    """Remove the variables that make Prefect, when imported, behave as another program, such as its tests.

    Those of its tests do so whatever their value.
    """
    for name in [name for name in environment if is_prefects(name) and decision(name) in _MODES]:
        del environment[name]


def in_capitals(environment: MutableMapping[str, str]) -> None:
    """Rename Prefect's variables to upper case: Prefect ignores the case, but FlowRL's code does not."""
    for name in sorted(filter(is_prefects, environment), key=lambda name: name != name.upper()):
        value = environment.pop(name)
        environment.setdefault(name.upper(), value)


def given_beside(own: Mapping[str, str]) -> dict[str, str]:
    """Return `GIVEN` without the settings that these variables of a user set, under whatever name."""
    theirs = [decision(name) for name in own]
    return {name: value for name, value in GIVEN.items() if decision(name) not in theirs}


_MODES = (DECISIONS["testing"], DECISIONS["debug_mode"])
_BY_VARIABLE: Mapping[str, Decision] = {
    **{variable_of(setting): one for setting, one in DECISIONS.items()},
    **{name: DECISIONS[setting] for name, setting in _OTHER_NAMES.items()},
}

GIVEN: Mapping[str, str] = MappingProxyType(
    {variable_of(setting): one.value for setting, one in DECISIONS.items() if one.value}
)
"""Variables in the environment of everything that FlowRL starts."""

CLIENT: Mapping[str, Any] = MappingProxyType(
    # As environment variables, each of these two would switch Prefect's tests on whatever its value.
    {**GIVEN, "PREFECT_TESTING_TEST_MODE": False, "PREFECT_TESTING_UNIT_TEST_MODE": False}
)
"""Settings of Prefect's clients in FlowRL's own processes."""

NO_CONNECTION: Mapping[str, Any] = MappingProxyType(
    {
        "PREFECT_API_KEY": None,
        "PREFECT_API_AUTH_STRING": None,
        "PREFECT_API_TLS_INSECURE_SKIP_VERIFY": False,
        "PREFECT_API_ENABLE_HTTP2": False,
        "PREFECT_CLIENT_CUSTOM_HEADERS": "{}",
    }
)
"""Resets of settings for other servers, for clients of a server that FlowRL has started."""

RUN: Mapping[str, str] = MappingProxyType(
    {name: value for name, value in GIVEN.items() if not name.startswith(("PREFECT_SERVER_", "PREFECT_WORKER_"))}
)
"""Variables in the environment of every run, whichever worker starts it."""
