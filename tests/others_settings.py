"""Settings that a person may have, each of which would change what a campaign does."""

# Of Prefect.
HOSTILE = {
    "PREFECT_FLOW_DEFAULT_RETRIES": "2",
    "prefect_tasks_default_retries": "3",
    "PREFECT_TASK_DEFAULT_RETRY_DELAY_SECONDS": "7",
    "PREFECT_TASKS_REFRESH_CACHE": "1",
    "PREFECT_TASKS_DEFAULT_PERSIST_RESULT": "1",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "1",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "pickle",
    "PREFECT_DEFAULT_RESULT_STORAGE_BLOCK": "s3-bucket/mine",
    "PREFECT_LOCAL_STORAGE_PATH": "/nowhere",
    "PREFECT_LOGGING_LOG_PRINTS": "1",
    "PREFECT_LOGGING_SETTINGS_PATH": "/nowhere/logging.yml",
    "PREFECT_LOGGING_TO_API_ENABLED": "0",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "error",
    "PREFECT_LOGGING_LOGGERS_PREFECT_FLOW_RUNS_LEVEL": "CRITICAL",
    "PREFECT_CLIENT_MAX_RETRIES": "0",
    "PREFECT_API_ENABLE_HTTP2": "1",
    "PREFECT_CLIENT_CUSTOM_HEADERS": '{"Authorization": "Bearer another"}',
    "PREFECT_API_KEY": "another",
    "PREFECT_CLIENT_METRICS_ENABLED": "1",
    "PREFECT_TASK_RUNNER_THREAD_POOL_MAX_WORKERS": "1",
    "PREFECT_RUNNER_PROCESS_LIMIT": "1",
    "PREFECT_RUNNER_HEARTBEAT_FREQUENCY": "3600",
    "PREFECT_WORKER_QUERY_SECONDS": "600",
    "PREFECT_SERVER_API_BASE_PATH": "/elsewhere",
    "PREFECT_API_DEFAULT_LIMIT": "2",
    "PREFECT_SERVER_EVENTS_STREAM_OUT_ENABLED": "0",
    "PREFECT_API_SERVICES_SCHEDULER_ENABLED": "0",
    "PREFECT_MESSAGING_BROKER": "prefect_redis.messaging",
    "PREFECT_SERVER_DOCKET_URL": "redis://nowhere:6379",
    "PREFECT_TEST_MODE": "1",
    "PREFECT_DEBUG_MODE": "1",
    "PREFECT_SERVER_DATABASE_MIGRATE_ON_START": "0",
    "PREFECT_API_REQUEST_TIMEOUT": "0.01",
    "PREFECT_SERVER_EVENTS_MAXIMUM_LABELS_PER_RESOURCE": "1",
    "PREFECT_PROFILE": "mine",
    "PREFECT__FLOW_RUN_ID": "6a7b7c7d-0000-4000-8000-000000000000",
}

# What changes the interpreter of all that they start.
PYTHON = {
    "PYTHONWARNINGS": "error",
    "PYTHONOPTIMIZE": "2",
    "PYTHONDEVMODE": "1",
    "PYTHONIOENCODING": "ascii",
    "LC_ALL": "POSIX",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
}

# The file of their profiles, in their Prefect's home.
PROFILES = """
[profiles.mine]
PREFECT_FLOWS_DEFAULT_RETRIES = "4"
PREFECT_LOGGING_TO_API_ENABLED = "false"
PREFECT_SERVER_EVENTS_MAXIMUM_LABELS_PER_RESOURCE = "1"
"""

# What their files say: a worker's or a run's directory may hold such.
FILES = {
    ".env": "PREFECT_FLOWS_DEFAULT_RETRIES=4\nPREFECT_TASK_DEFAULT_RETRIES=4\nPREFECT_CLIENT_MAX_RETRIES=0\n",
    "prefect.toml": "[tasks]\nrefresh_cache = true\n[results]\ndefault_serializer = 'pickle'\n",
    "pyproject.toml": "[tool.prefect.logging]\nlog_prints = true\n[tool.prefect.logging.to_api]\nenabled = false\n",
}
