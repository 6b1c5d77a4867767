"""What is this machine is never asked through a proxy, in whatever spelling; everything else still is."""

import os
import socket
import urllib.request
from urllib.parse import urlsplit

import httpx
import httpx2
import psutil
import pytest
from websockets.proxy import get_proxy
from websockets.uri import parse_uri

from flowrl_core.errors import InputError
from flowrl_core.proxies import bypass_proxies, check_proxies, is_direct, named_proxies, proxy_for
from flowrl_core.this_machine import is_this_machine

PROXY = "http://192.0.2.99:3128"
HERE = [
    "127.0.0.1",
    "127.8.9.10",
    "127.1",
    "2130706433",
    "0x7f.1",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "a.b.localhost",
    "localhost.localdomain",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "0.0.0.0",
    "[::]",
    socket.gethostname(),
    socket.gethostname().upper(),
    *(one.address for found in psutil.net_if_addrs().values() for one in found if one.family == socket.AF_INET),
]
ELSEWHERE = [
    "192.0.2.77",
    "api.openai.com",
    "localhost.example.com",
    "notlocalhost",
    "127.0.0.1.example.com",
    "1270000.1",
    "[2001:db8::1]",
    "[::ffff:192.0.2.77]",
    f"{socket.gethostname()}.no-such-domain.invalid",
    "",
]


@pytest.fixture
def environment(monkeypatch):
    """Of a person whose proxy is for everything but `corp.example`."""
    for name in ("ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "http_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", "corp.example")
    return monkeypatch


def asked_through_a_proxy(url):
    """Which of the libraries that read NO_PROXY would ask the proxy for the URL."""
    found = set()
    for library in (httpx, httpx2):
        with library.Client(verify=False) as client:
            if client._transport_for_url(library.URL(url)) is not client._transport:
                found.add(library.__name__)
    if get_proxy(parse_uri(url.replace("http", "ws", 1))):
        found.add("websockets")
    if not urllib.request.proxy_bypass(urlsplit(url).netloc):
        found.add("urllib")
    return found


@pytest.mark.parametrize("host", HERE)
def test_no_library_asks_a_proxy_for_this_machine(host, environment):
    url = f"http://{host}:4200/api"
    assert is_this_machine(host) and is_direct(url)
    assert asked_through_a_proxy(url)
    bypass_proxies(os.environ, url)
    # Ours gives urllib no proxies at all; it compares the brackets, too.
    assert asked_through_a_proxy(url) <= ({"urllib"} if host.startswith("[") else set())


def test_an_address_that_only_resolvers_read_is_this_machine_too():
    assert is_this_machine("0177.0.0.1") and is_this_machine("127.000.000.001")


@pytest.mark.parametrize("host", ELSEWHERE)
def test_every_other_host_is_still_asked_through_it(host, environment):
    assert not is_this_machine(host)
    if host:
        url = f"http://{host}:4200/api"
        bypass_proxies(os.environ, url)
        assert asked_through_a_proxy(url) == {"httpx", "httpx2", "websockets", "urllib"}
        assert asked_through_a_proxy("http://a.corp.example:80/") == set()


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"NO_PROXY": "a, b"}, ["a", "b"]),
        ({"NO_PROXY": "a", "no_proxy": "b"}, ["b"]),  # as every library reads it
        ({"no_proxy": "[::2],[::3]:80,fd00::/8,10.0.0.0/8"}, ["::2", "::3", "10.0.0.0/8"]),
        ({}, []),
    ],
)
def test_what_a_person_excludes_stays_excluded_under_both_names(variables, told):
    bypass_proxies(variables, "http://there/api")
    assert (
        variables["NO_PROXY"]
        == variables["no_proxy"]
        == ",".join([*told, "localhost", ".localhost", "127.0.0.1", "::1"])
    )


@pytest.mark.parametrize(
    ("told", "hosts", "others"),
    [
        ("corp.example", ["corp.example", "a.corp.example", "CORP.example"], ["acorp.example", "corp.example.com"]),
        (".corp.example", ["corp.example", "a.b.corp.example"], ["acorp.example"]),
        ("*.corp.example", ["corp.example", "a.corp.example"], ["acorp.example"]),
        (" x.example , CORP.EXAMPLE,, ", ["corp.example", "x.example"], ["y.example"]),
        ("x.example corp.example;y.example", ["corp.example", "y.example"], ["z.example"]),
        ("corp.example:4200", ["corp.example"], []),
        ("corp.example:4201", [], ["corp.example"]),
        ("http://corp.example:4200/api", ["corp.example"], []),
        ("10.1.0.0/16", ["10.1.2.3"], ["10.2.0.1", "10.1.0.0.example"]),
        ("10.1.2.3/8", ["10.200.0.1"], ["11.0.0.1"]),
        ("10.1.2.3", ["10.1.2.3"], ["10.1.2.33"]),
        ("192.168.*", ["192.168.7.8"], ["192.169.0.1"]),
        ("build-*.corp.example", ["build-7.corp.example"], ["other.corp.example"]),
        ("2001:db8::/32", ["[2001:db8::1]"], ["[2001:db9::1]"]),
        ("[2001:db8::1]", ["[2001:0db8:0::1]"], ["[2001:db8::2]"]),
        ("[2001:db8::1]:4200,corp.example", ["[2001:db8::1]"], []),
        ("x.example,*", ["corp.example", "10.0.0.1"], []),
        ("h:port,<local>,[::,fd00::/999,ü.example,h:99999,@,corp.example", ["corp.example"], ["x.example"]),
    ],
)
def test_who_is_excluded_is_so_for_every_library_in_whichever_form(told, hosts, others, environment):
    environment.setenv("ALL_PROXY", PROXY)
    for host in (*hosts, *others):
        environment.setenv("NO_PROXY", told)
        environment.delenv("no_proxy", raising=False)
        url = f"http://{host}:4200/api"
        assert (proxy_for(url) is None) is (host in hosts)
        bypass_proxies(os.environ, url)
        # Ours gives urllib no proxies at all; it compares the brackets, too.
        asked = asked_through_a_proxy(url) - ({"urllib"} if host.startswith("[") else set())
        assert bool(asked) is (host in others)


def test_each_scheme_has_its_proxy_and_small_letters_come_first(environment):
    for name in ("HTTP_PROXY", "NO_PROXY"):
        environment.delenv(name)
    assert proxy_for("http://there/") is None
    environment.setenv("ALL_PROXY", "me:se-cret@all:2")
    environment.setenv("HTTPS_PROXY", "socks5://socks:3")
    environment.setenv("http_proxy", "")
    environment.setenv("HTTP_PROXY", PROXY)  # not read: the other says that there is none
    found = proxy_for("HTTP://there/")
    assert (str(found), found.url) == ("all:2 of ALL_PROXY", "http://me:se-cret@all:2")
    assert "se-cret" not in repr(found)
    assert str(proxy_for("https://there/")) == "socks5://socks:3 of HTTPS_PROXY"


def test_a_star_stays_alone():
    variables = {"NO_PROXY": "*"}
    bypass_proxies(variables, "http://127.0.0.1:1/api")
    assert variables["no_proxy"] == "*"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("socks4://there:1080", "not a usable proxy address"),
        ("nonsense://there", "not a usable proxy address"),
        ("http://", "not a usable proxy address"),
        ("http://me:se-cret@there:port", "http://HOST:PORT"),
        ("http://[there", "http://HOST:PORT"),
        ("http://999.1.1.1:1", "not a usable proxy address"),
        ("http://a..b:1", "not a usable proxy address"),
        ("http://１２７.0.0.1:1", "not a usable proxy address"),
        ("http://two words:1", "not a usable proxy address"),
        ("http://there:1\n", "not a usable proxy address"),
    ],
)
@pytest.mark.parametrize("name", ["all_proxy", "HTTPS_PROXY"])
def test_a_proxy_that_cannot_be_asked_is_refused_by_its_variable(name, value, said):
    with pytest.raises(InputError) as caught:
        check_proxies({name: value})
    assert caught.value.field == name and said in str(caught.value) and "se-cret" not in str(caught.value)


def test_proxies_are_shown_without_passwords():
    variables = {"HTTP_PROXY": "http://me:se-cret@there:1", "http_proxy": "", "ALL_PROXY": "me:se-cret@all:2"}
    assert named_proxies(variables) == {"ALL_PROXY": "all:2"}  # small letters come first, also where they say nothing
    check_proxies({"HTTP_PROXY": "there:3128", "https_proxy": PROXY, "ALL_PROXY": "socks5h://there:1080"})


@pytest.mark.parametrize("clients", [httpx, httpx2])
def test_who_has_a_socks_proxy_reaches_this_machine_all_the_same(clients, monkeypatch):
    # A client is made with all proxies of the environment; without the package for SOCKS that alone would fail.
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with clients.Client() as client, pytest.raises(clients.ConnectError, match="refused"):
        client.get("http://127.0.0.1:1")
