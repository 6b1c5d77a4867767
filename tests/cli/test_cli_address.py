"""Where a server listens, however a person spells it: one host, one URL, and loopback is loopback."""

import socket

import pytest

from flowrl_cli.server.address import SERVER_AUTH_VARIABLE, Address, choose_address
from flowrl_core.errors import InputError


@pytest.fixture(autouse=True)
def no_password(monkeypatch):
    monkeypatch.delenv(SERVER_AUTH_VARIABLE, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("spelled", "host"),
    [
        ("127.1", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("LOCALHOST", "localhost"),
        ("[::1]", "::1"),
        ("0:0::1", "::1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        (" 127.0.0.2 ", "127.0.0.2"),
    ],
)
def test_loopback_needs_no_password_in_any_spelling(spelled, host):
    if host == "::1" and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    found = choose_address(spelled, None)
    assert (found.host, found.is_loopback) == (host, True)
    assert found.api == f"http://{'[::1]' if host == '::1' else host}:{found.port}/api"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::]", "0", "192.0.2.77", "there", "localhost.example.com", " "])
def test_what_others_reach_needs_one(host):
    with pytest.raises(InputError, match=SERVER_AUTH_VARIABLE):
        choose_address(host, None)


def test_who_listens_on_all_addresses_is_asked_by_loopback_of_the_same_kind():
    assert Address("0.0.0.0", 1).api == "http://127.0.0.1:1/api"
    assert Address("::", 1).api == "http://[::1]:1/api"
    assert "[::]" not in Address("::", 1).ui and "0.0.0.0" not in Address("0.0.0.0", 1).ui


@pytest.mark.parametrize("port", [None, 4_200])
@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", " "])
def test_what_is_no_address_is_told(host, port, no_password):
    no_password.setenv(SERVER_AUTH_VARIABLE, "me:se-cret")
    with pytest.raises(InputError, match="not an address of this machine") as caught:
        choose_address(host, port)
    assert caught.value.field == "--host"


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
