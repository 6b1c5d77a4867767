"""What a person has set, of Prefect and of the terminal: refused by its name where it cannot be read, or ignored."""

from __future__ import annotations

import os
import re

import pytest
from others_settings import FILES, HOSTILE

from flowrl_cli.checks.services import examine_server
from flowrl_cli.checks.variables import examine_variables
from flowrl_cli.process.surroundings import as_set, settle
from flowrl_cli.server.configured import check_settings
from flowrl_core.errors import InputError
from flowrl_core.storage.layout import Home

PROFILE = 'active = "mine"\n[profiles.mine]\n'
# File and its content, or variable and its value: field, problem and remedy of the error.
UNREADABLE = {
    "a variable": ("PREFECT_LOGGING_LEVEL", "LOUD", "PREFECT_LOGGING_LEVEL", "'LOUD' .* 'DEBUG', 'INFO'", "unset"),
    "one that FlowRL ignores": ("PREFECT_SERVER_API_PORT", "abc", "PREFECT_SERVER_API_PORT", "integer", "unset"),
    "an older name": ("PREFECT_EVENTS_RETENTION_PERIOD", "a", "PREFECT_EVENTS_RETENTION_PERIOD", "'a' ", "unset"),
    "a member of a list": ("PREFECT_CLIENT_RETRY_EXTRA_CODES", "502,x", "PREFECT_CLIENT_R", "'502,x' ", "unset"),
    "a mapping": ("PREFECT_CLIENT_CUSTOM_HEADERS", "{", "PREFECT_CLIENT_CUSTOM_HEADERS", "is not JSON", "unset"),
    "a whole group": ("PREFECT_API", "soon", "PREFECT_API", "'soon' .*is not JSON", "unset PREFECT_API$"),
    "together": (
        "PREFECT_SERVER_DATABASE_DRIVER",
        "postgresql+asyncpg",
        "",
        "Missing .* host",
        "Correct PREFECT_SERVER_",
    ),
    "no such profile": ("PREFECT_PROFILE", "nosuch", "PREFECT_PROFILE", "profile 'nosuch'", "ephemeral, local"),
    "no database": ("PREFECT_API_DATABASE_CONNECTION_URL", "x", "PREFECT_API_DATABASE", "'x' is not a URL", "sqlite"),
    "its driver": ("PREFECT_SERVER_DATABASE_CONNECTION_URL", "mysql://a/b", "PREFECT_SERVER_D", "driver", "sqlite"),
    "dotenv": (".env", "PREFECT_API_REQUEST_TIMEOUT=soon\n", r"PREFECT_API_REQ.*/\.env", "'soon'", r"from .*/\.env"),
    "dotenv of bytes": (".env", "\xff", r"/here/\.env", "codec", "Correct the file"),
    "TOML": (
        "prefect.toml",
        "[api]\nrequest_timeout = 'soon'\n",
        r"request_timeout of \[api\] in",
        "soon",
        "prefect.toml",
    ),
    "no TOML": ("prefect.toml", "[api", "/here/prefect.toml", "is not valid TOML", "Write key = value"),
    "no TOML of others": ("pyproject.toml", "[project", "/here/pyproject.toml", "no.* valid TOML", "Write key = value"),
    "no table": ("pyproject.toml", "tool = 5", "/here/pyproject.toml", "tool.prefect is not a table", "Correct"),
    "no group": (
        "pyproject.toml",
        "[tool.prefect]\napi = 5",
        "Prefect's settings",
        "not int",
        "api of .*pyproject.toml",
    ),
    "profiles": ("profiles.toml", "[api", "/profiles.toml", "is not valid TOML", "Write key = value"),
    "no profiles": ("profiles.toml", "profiles = 5", "/profiles.toml", "profiles is not a table", "Correct"),
    "no active one": ("profiles.toml", 'active = "x"', "active in .*/profiles.toml", "no profile 'x'", "ephemeral"),
    "the active one": (
        "profiles.toml",
        f"{PROFILE}PREFECT_API_REQUEST_TIMEOUT = 'soon'",
        "profile mine in",
        "soon",
        "config unset",
    ),
}


@pytest.fixture
def set_as(home, tmp_path, monkeypatch):
    """Writes a file of settings, or sets a variable."""
    (tmp_path / "elsewhere" / "prefect").mkdir()

    def write(name, text):
        if name.startswith("PREFECT_"):
            monkeypatch.setenv(name, text)
        else:
            place = tmp_path / "elsewhere" / "prefect" if name == "profiles.toml" else tmp_path / "here"
            (place / name).write_text(text, encoding="latin-1")

    return write


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_prefect_cannot_read_is_named_with_its_value_and_the_remedy(name, set_as, home):
    where, text, *said = UNREADABLE[name]
    set_as(where, text)
    with pytest.raises(InputError) as caught:
        check_settings()
    for pattern, part in zip(said, (caught.value.field, caught.value.problem, caught.value.remedy), strict=True):
        assert re.search(pattern, part), caught.value
    (found,) = examine_server(Home(home))
    assert (found.what, found.state, found.mend) == ("server", "wrong", caught.value.remedy)


def test_a_command_says_so_in_one_line_before_anything_else_imports_prefect(set_as, home, flowrl, refused):
    set_as("pyproject.toml", "[tool.prefect.api]\nrequest_timeout = 'soon'\n")
    done = flowrl("up", "--worker-only", "--server", "http://127.0.0.1:1/api")
    refused(done, "request_timeout of [tool.prefect.api] in", "'soon'")
    assert not home.exists()


def test_what_can_be_read_is_not_refused(set_as, home, monkeypatch):
    set_as("profiles.toml", f"{PROFILE}PREFECT_API_REQUEST_TIMEOUT = '5'\n")
    for name, content in FILES.items():
        set_as(name, content)
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    check_settings()


def test_no_variable_makes_another_program_of_prefect(home, monkeypatch):
    modes = {"PREFECT_TEST_MODE": "1", "prefect_unit_test_mode": "0", "PREFECT_DEBUG_MODE": "maybe"}
    for name, value in {**modes, "JAX_ENABLE_X64": "maybe", "prefect_api_key": "mine"}.items():
        monkeypatch.setenv(name, value)
    settle()
    check_settings()
    assert not {*modes, "JAX_ENABLE_X64"} & set(os.environ)
    assert (
        os.environ["PREFECT_API_KEY"] == as_set()["PREFECT_API_KEY"] == "mine" and "prefect_api_key" not in os.environ
    )
    found = {one.what: one.found for one in examine_variables(as_set())}
    assert "ignored" in found["PREFECT_TEST_MODE"] and "ignored" in found["JAX_ENABLE_X64"]


@pytest.mark.parametrize("size", ["1", "3", "0", "-1", "abc", "²", "9" * 5000])
def test_no_size_of_a_terminal_is_an_error(size, flowrl_here, monkeypatch):
    monkeypatch.setenv("LINES", size)
    monkeypatch.setenv("COLUMNS", size)
    for command in (("plan", "collect_wood"), ("campaign", "--help")):
        assert flowrl_here(*command).returncode == 0


def test_tracebacks_are_shown_to_who_asks_for_them(flowrl_here, refused, monkeypatch):
    for value in ("", "0", "false"):
        monkeypatch.setenv("FLOWRL_DEBUG", value)
        refused(flowrl_here("plan", "nosuch"), "nosuch")
    monkeypatch.setenv("FLOWRL_DEBUG", "1")
    with pytest.raises(InputError, match="nosuch"):
        flowrl_here("plan", "nosuch")
