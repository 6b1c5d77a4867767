"""A person's settings of Prefect: each is decided, and those that are not theirs to change here change nothing."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import yaml
from others_settings import FILES, HOSTILE
from prefect.settings import Settings, temporary_settings
from prefect.settings.base import PrefectBaseSettings
from pydantic import AliasChoices

from flowrl_cli.server.environment import child_environment
from flowrl_core.storage.layout import Home
from tasks.orchestration.server.prefect_settings import DECISIONS, RUN, decided, decision, variable_of
from tasks.orchestration.server.workers import _until_there

ROOT = Path(__file__).resolve().parents[2]


def settings_of(model, path=()):
    """Every setting of Prefect, with all names of the variables that set it."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, PrefectBaseSettings):
            yield from settings_of(field.annotation, (*path, name))
            continue
        setting = ".".join((*path, name))
        aliases = field.validation_alias
        names = [one for one in aliases.choices if isinstance(one, str)] if isinstance(aliases, AliasChoices) else []
        yield setting, [variable_of(setting), *(one.upper() for one in names)]


def decided_as(setting):
    """The decision on a setting or on its group."""
    while setting and setting not in DECISIONS:
        setting = setting.rpartition(".")[0]
    return DECISIONS.get(setting)


def test_every_setting_of_prefect_is_decided_under_each_of_its_names():
    found = dict(settings_of(Settings))
    assert len(found) > 200
    assert [setting for setting in found if decided_as(setting) is None] == []
    wrong = {
        name: setting for setting, names in found.items() for name in names if decision(name) != decided_as(setting)
    }
    assert wrong == {}
    unknown = [one for one in DECISIONS if not any(f"{setting}.".startswith(f"{one}.") for setting in found)]
    assert unknown == []


def test_no_group_that_flows_and_their_clients_live_by_is_decided_as_a_whole():
    """So that a setting which a new Prefect brings there has to be decided, too."""
    assert not DECISIONS.keys() & {"flows", "tasks", "results", "logging", "api", "client", "cloud", "worker"}


def test_decisions_say_nothing_of_values_that_people_set():
    assert decided(HOSTILE, "connection").keys() == {
        "PREFECT_API_ENABLE_HTTP2",
        "PREFECT_CLIENT_CUSTOM_HEADERS",
        "PREFECT_API_KEY",
    }
    assert decision("PREFECT_A_SETTING_OF_TOMORROW").rule == "ignored"


def test_every_deployment_takes_our_rules_to_whoevers_worker():
    document = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    for one in document["deployments"]:
        assert one["work_pool"]["job_variables"]["env"] == dict(RUN), one["name"]


def run(code, directory, environment):
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=directory, env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


SETTINGS = (
    "import json; from prefect.settings import Settings; found = Settings().to_environment_variables();"
    "print(json.dumps(found))"
)


def test_what_we_start_is_given_the_same_settings_whatever_a_person_has_set(tmp_path, monkeypatch):
    clean, theirs = tmp_path / "clean", tmp_path / "theirs"
    clean.mkdir(), theirs.mkdir()
    for name, text in FILES.items():
        (theirs / name).write_text(text)
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    home = Home(tmp_path / "home")
    arguments = (home, home.prefect, "mark", "http://127.0.0.1:4200/api", {})
    undisturbed = run(SETTINGS, clean, child_environment(*arguments, serves=True))
    assert undisturbed["PREFECT_RESULTS_DEFAULT_SERIALIZER"] == "json" and "PREFECT_API_KEY" not in undisturbed
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    assert not [name for name in child_environment(*arguments) if name.startswith("PREFECT__FLOW")]
    assert run(SETTINGS, theirs, child_environment(*arguments, serves=True)) == undisturbed


def test_what_a_person_may_decide_reaches_what_we_start(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "DEBUG")
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", "postgresql+asyncpg://me@db/prefect")
    monkeypatch.setenv("PREFECT_LOGGING_SERVER_LEVEL", "ERROR")
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "")
    home = Home(tmp_path)
    arguments = (home, home.prefect, "mark", "http://127.0.0.1:4200/api", {"PREFECT_API_KEY": "theirs"})
    server, workers = child_environment(*arguments, serves=True), child_environment(*arguments)
    assert server["PREFECT_LOGGING_LEVEL"] == workers["PREFECT_LOGGING_LEVEL"] == "DEBUG"
    assert workers["PREFECT_API_KEY"] == "theirs" and "PREFECT_SERVER_API_AUTH_STRING" not in server
    assert "PREFECT_API_DATABASE_CONNECTION_URL" in server and "PREFECT_API_DATABASE_CONNECTION_URL" not in workers
    assert server["PREFECT_LOGGING_SERVER_LEVEL"] == "ERROR" and "PREFECT_SERVER_LOGGING_LEVEL" not in server


STATED = """
import importlib, json, pkgutil
import flows, tasks
from prefect import Flow, Task
found = {}
for package in (flows, tasks):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        for one in vars(importlib.import_module(module.name)).values():
            if isinstance(one, (Flow, Task)):
                found[one.name] = [
                    one.retries, one.retry_delay_seconds, one.timeout_seconds, one.persist_result,
                    one.result_serializer, one.log_prints, type(getattr(one, "cache_policy", None)).__name__,
                    getattr(one, "refresh_cache", False),
                ]
print(json.dumps(found))
"""


def test_flows_and_tasks_state_their_rules_themselves(tmp_path):
    """Those of runs that a worker starts which somebody has started by hand, with all that they have set."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    undisturbed = run(STATED, tmp_path, others)
    assert undisturbed.keys() == {
        *("campaign", "train-skill", "evaluate-skill", "housekeeping", "refused"),
        *("prepare", "train", "evaluate", "reflect", "process", "assess", "find", "remove", "ask"),
    }
    assert run(STATED, tmp_path, {**others, **HOSTILE, "PREFECT_TASKS_DEFAULT_NO_CACHE": "1"}) == undisturbed
    assert all(None not in stated[3:] and stated[3] is (name == "ask") for name, stated in undisturbed.items())


def test_workers_reach_a_server_of_a_persons_own_as_they_say():
    asked = []

    class Pools(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Pools) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/api"
        settings = {"api.url": url, "api.key": "a-key", "client.custom_headers": {"X-Door": "open"}}
        with temporary_settings(settings):
            asyncio.run(asyncio.wait_for(_until_there("gpu"), 10))
        server.shutdown()
    assert asked[0]["authorization"] == "Bearer a-key" and asked[0]["x-door"] == "open"
