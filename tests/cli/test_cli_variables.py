"""`flowrl doctor` names each variable that is set and may matter, what it does here, and no secret."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import flowrl_core
from flowrl_cli.checks.variables import FAMILIES, examine_variables, shown

ROOT = Path(flowrl_core.__file__).parents[1]


def found(**variables):
    return {finding.what: finding for finding in examine_variables(variables)}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("JAX_ENABLE_X64", "1", "1: ignored: FlowRL pins what a number is"),
        ("JAX_EXPORT_IGNORE_FORWARD_COMPATIBILIY", "1", "ignored"),
        ("EAGER_CONSTANT_FOLDING", "1", "ignored"),
        ("NPROC", "16", "ignored: FlowRL pins how many threads"),
        ("JAX_PLATFORMS", "cpu", "chooses the kind of device"),
        ("JAX_COMPILATION_CACHE_DIR", "/there", "set for each directory of compiled programs"),
        ("JAX_LOG_COMPILES", "1", "what JAX logs"),
        ("JAX_PLATFROMS", "cpu", "did you mean JAX_PLATFORMS?"),
        ("XLA_FLAGS", "--xla_a=1", "--xla_a=1: part of the fingerprint"),
        ("NVIDIA_TF32_OVERRIDE", "0", "part of the fingerprint"),
        ("CUDA_VISIBLE_DEVICES", "0,1", "the GPUs that get slots here"),
        ("XLA_PYTHON_CLIENT_PREALLOCATE", "false", "does not change numbers"),
        (
            "PREFECT_API_URL",
            "http://127.0.0.1:4200/api",
            "http://127.0.0.1:4200/api: how a server of your own is reached",
        ),
        ("PREFECT_WORKER_QUERY_SECONDS", "5", "5: ignored, 1 is used: "),
        ("prefect_tasks_runner", "x", "x: ignored: FlowRL calls its tasks one after the other"),
        ("PREFECT_LOGGING_LEVEL", "DEBUG", "how much Prefect itself logs"),
        ("FLOWRL_SLOTS", "1", "maximum number of device slots"),
    ],
)
def test_a_variable_is_named_with_what_it_does(name, value, said):
    finding = found(**{name: value})[name]
    assert finding.state == "ok" and said in finding.found


def test_a_variable_of_flowrl_that_it_does_not_know_is_wrong():
    finding = found(FLOWRL_SLTOS="2")["FLOWRL_SLTOS"]
    assert finding.state == "wrong" and "did you mean FLOWRL_SLOTS?" in finding.found
    assert finding.mend == "unset FLOWRL_SLTOS"


def test_others_and_empty_ones_are_not_named():
    assert found(HOME="/root", PATH="/bin", JAX_PLATFORMS="", FLOWRL_SLTOS="") == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PREFECT_API_KEY", "geheim"),
        ("PREFECT_API_AUTH_STRING", "ann:geheim"),
        ("PREFECT_CLIENT_CUSTOM_HEADERS", '{"Authorization": "geheim"}'),
        ("PREFECT_SERVER_DATABASE_PASSWORD", "geheim"),
        ("PREFECT_API_DATABASE_CONNECTION_URL", "postgresql+asyncpg://ann:ge@/heim@db/prefect"),
        ("PREFECT_API_DATABASE_CONNECTION_URL", "postgresql+asyncpg://db/prefect?password=geheim"),
        ("FLOWRL_REGISTRY_URL", "postgresql+psycopg://ann:geheim@db/flowrl"),
        ("FLOWRL_MODEL_KEY", "geheim"),
    ],
)
def test_no_secret_is_shown(name, value):
    text = found(**{name: value})[name].found
    assert "heim" not in text and "ann" not in text


def test_a_long_value_is_cut():
    assert len(shown("XLA_FLAGS", "--xla_a=1 " * 100)) < 100


def test_every_variable_of_flowrl_is_in_the_table():
    packages = ("flowrl_cli", "flowrl_core", "flows", "tasks")
    text = "".join(path.read_text() for name in packages for path in (ROOT / name).rglob("*.py"))
    assert set(re.findall(r'"(FLOWRL_[A-Z_]+)"', text)) == set(FAMILIES[0].meanings)
