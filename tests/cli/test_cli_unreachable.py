"""Whatever stands where a Prefect server should be: doctor says what it is, in time, and waiting is announced."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from flowrl_cli.checks.finding import Diagnosis, bounded
from flowrl_cli.checks.services import examine_server
from flowrl_cli.server.configured import Configured, check_server, configured, credentials, wait_healthy
from flowrl_cli.server.connection import asking
from flowrl_cli.server.fetching import NoAnswerError, fetch
from flowrl_cli.server.record import Server
from flowrl_core.errors import InputError, ServiceError
from flowrl_core.storage.layout import Home

FLOWRL = str(Path(sys.executable).with_name("flowrl"))
NO_PROXY_ANSWERS = "http://127.0.0.1:1"
DRIP = None


@contextlib.contextmanager
def speaking(*answers: bytes | None) -> Iterator[str]:
    """A port that gives one answer to each connection, the last for ever: bytes as they are, or DRIP."""
    released = threading.Event()

    def serve() -> None:
        for number in range(1_000):
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(
                target=answer, args=(connection, answers[min(number, len(answers) - 1)]), daemon=True
            ).start()

    def answer(connection: socket.socket, content: bytes | None) -> None:
        with contextlib.suppress(OSError), connection:
            if content is not DRIP:
                connection.recv(10_000)
                connection.sendall(content)
                return
            for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000:
                connection.sendall(bytes([byte]))
                if released.wait(0.1):
                    return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/api"
        released.set()
        listening.shutdown(socket.SHUT_RDWR)


def http(status: str, *headers: str, body: str = "") -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "Connection: close", "", body]
    return "\r\n".join(lines).encode()


HEALTHY = http("200 OK", body="true")
# What each connection gets, and what is said of it.
STRANGE = {
    "silence": ((DRIP,), "no complete response|no answer in time"),
    "an end": ((b"",), "closed connection without response"),
    "garbage": ((b"\x00\x16SSH-2.0-OpenSSH_9.6\r\n",), "is not HTTP"),
    "HTML": ((HEALTHY, http("200 OK", "Content-Type: text/html", body="<html>")), "is not the API of a Prefect"),
    "deep JSON": ((HEALTHY, http("200 OK", body="[" * 9_000)), "is not the API of a Prefect"),
    "another page": ((http("404 Not Found"),), r"HTTP 404\)"),
    "a bad gateway": ((http("502 Bad Gateway"),), "HTTP 502"),
    "an error of its own": ((HEALTHY, http("500 Internal Server Error")), "HTTP 500: see its log"),
    "a loop": ((http("302 Found", "Location: /api/health"),), "HTTP 302"),
    "a move": (
        (http("301 Moved", "Location: https://there/api?key=se-cret"),),
        "redirects to https://there/api, a different",
    ),
    "a password": ((http("401 Unauthorized"),), "requires a password"),
    "the end after the version": (
        (HEALTHY, http("200 OK", body='"3.8.8"'), b""),
        "not checked within|RemoteProtocolError",
    ),
    "silence after the version": ((HEALTHY, http("200 OK", body='"3.8.8"'), DRIP), "not checked within"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_doctor_says_what_a_server_does_wrong(name, home, monkeypatch):
    for limit in ("_ANSWER_S", "_INVENTORY_S"):
        monkeypatch.setattr(f"flowrl_cli.checks.services.{limit}", 0.8)
    answers, said = STRANGE[name]
    with speaking(*answers) as url:
        monkeypatch.setenv("PREFECT_API_URL", url)
        found = list(examine_server(Home(home)))
    assert re.search(said, found[-1].found), found
    assert (found[-1].what, found[-1].state) == ("server", "wrong") and found[-1].mend
    assert "se-cret" not in str(found)


def test_doctor_says_that_a_server_does_not_speak_tls(home, monkeypatch):
    monkeypatch.setattr("flowrl_cli.checks.services._ANSWER_S", 0.8)
    with speaking(HEALTHY) as url:
        monkeypatch.setenv("PREFECT_API_URL", url.replace("http:", "https:"))
        (found,) = examine_server(Home(home))
    assert found.state == "wrong" and "does not speak TLS" in found.found and "SSL" in found.found


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "file:///etc/passwd",
        "http://",
        "http://[::1/api",
        "http://there:99999/api",
        "http://there:port/api",
        "http://a b/api",
        "http://0177.0.0.1/api",
        "http://me:se-cret@there/api",
        "http://there/api?key=se-cret",
        "http://there/api#there",
        "http://a..b/api",
        "http://１２７.0.0.1/api",
        "http://999.1.1.1/api",
        f"http://{'x' * 70}/api",
    ],
)
def test_what_is_no_url_is_told_at_once(url):
    with pytest.raises(ServiceError, match="is not a URL") as caught:
        wait_healthy(Configured(url, "prefect.toml", "remove it"))
    assert str(caught.value).startswith("prefect.toml: ") and "se-cret" not in str(caught.value)


@pytest.mark.parametrize("form", [" {}", "{}//\n", "\t{}/ "])
def test_blanks_slashes_and_capitals_around_an_address_are_no_fault(form, monkeypatch):
    with speaking(HEALTHY) as url:
        monkeypatch.setenv("PREFECT_API_URL", form.format(url.replace("http", "HTTP")))
        assert configured().url == Configured.by_option(form.format(url)).url == url
        wait_healthy(configured(), seconds=5)
    monkeypatch.setenv("PREFECT_API_URL", " ")
    assert configured() is None


def test_a_server_whose_address_lacks_its_end_is_told_so(monkeypatch):
    monkeypatch.setattr("flowrl_cli.server.configured._HOPELESS_S", 0.1)
    with speaking(http("404 Not Found")) as url, pytest.raises(ServiceError, match=r"HTTP 404; .* ends with /api"):
        wait_healthy(url.removesuffix("/api"))


def test_no_password_follows_a_redirection():
    with (
        speaking(http("200 OK")) as elsewhere,
        speaking(http("307 There", f"Location: {elsewhere}")) as url,
        pytest.raises(NoAnswerError, match="redirects to"),
    ):
        fetch(url, headers={"Authorization": "Basic c2U6Y3JldA=="}, seconds=5)


@pytest.fixture
def no_proxies(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "all_proxy"])
def test_a_server_elsewhere_is_looked_up_as_prefects_clients_will_ask_for_it(variable, no_proxies):
    with speaking(http("200 OK", body="by the proxy")) as url:
        no_proxies.setenv(variable, url.removesuffix("/api"))
        assert fetch("http://there.invalid:4200/api", seconds=5).body == b"by the proxy"
        no_proxies.setenv("NO_PROXY", "*.invalid")
        with pytest.raises(NoAnswerError, match="not known"):
            fetch("http://there.invalid:4200/api", seconds=5)


# What the proxy is, and what is said of it.
PROXIES = {
    "nobody": ("http://127.0.0.1:1", "refused"),
    "nobody's SOCKS": ("socks5://me:se-cret@127.0.0.1:1", "refused"),
    "unknown": ("http://no-such-host.invalid:1", "not known"),
    "of another kind": ("socks4://me:se-cret@there:1", "ALL_PROXY: 'socks4://there:1' is not a usable proxy"),
    "a way to elsewhere": (http("302 Found", "Location: http://other/"), "redirects to http://other/, a different"),
    "an end": (b"", "isconnected"),
    "no SOCKS": ("socks5", "Malformed reply"),
}


@pytest.mark.parametrize("name", PROXIES)
def test_what_a_proxy_does_wrong_is_told_with_the_proxy(name, no_proxies):
    proxy, said = PROXIES[name]
    with speaking(proxy if isinstance(proxy, bytes) else HEALTHY) as url:
        if not isinstance(proxy, str) or proxy == "socks5":
            proxy = url.removesuffix("/api").replace("http:", f"{proxy}:" if isinstance(proxy, str) else "http:")
        no_proxies.setenv("ALL_PROXY", proxy)
        no_proxies.setattr("flowrl_cli.server.configured._HOPELESS_S", 0.1)
        with pytest.raises(ServiceError, match=said) as caught:
            wait_healthy("http://there.invalid/api", seconds=0.5)
    assert "of ALL_PROXY" in str(caught.value) and "se-cret" not in str(caught.value)


def test_an_examination_that_fails_or_hangs_is_a_finding():
    ok = Diagnosis("a", "ok", "fine")

    def failing():
        yield ok
        raise RuntimeError("no such thing\nat all")

    def hanging():
        yield ok
        time.sleep(60)

    def refusing():
        raise InputError("X_Y", "is not Z", "export X_Y=Z")
        yield

    assert list(bounded("b", failing, seconds=5, mend="m")) == [
        ok,
        Diagnosis("b", "wrong", "RuntimeError: no such thing", "m"),
    ]
    assert list(bounded("b", hanging, seconds=0.1, mend="m")) == [
        ok,
        Diagnosis("b", "wrong", "was not checked within 0 s", "m"),
    ]
    assert list(bounded("b", refusing, seconds=5, mend="m")) == [
        Diagnosis("b", "wrong", "X_Y: is not Z", "export X_Y=Z")
    ]


def test_a_server_is_waited_for_in_words_and_ctrl_c_ends_it(home):
    with speaking(DRIP) as url:
        environment = {**os.environ, "PREFECT_API_URL": url}
        waiting = subprocess.Popen([FLOWRL, "up"], env=environment, stderr=subprocess.PIPE, text=True)
        line = waiting.stderr.readline()
        assert re.fullmatch(
            rf"waiting for the Prefect server {url} \(of PREFECT_API_URL\) until \d\d:\d\d:\d\d: no complete.*\n",
            line,
        )
        waiting.send_signal(signal.SIGINT)
        assert waiting.wait(timeout=20) == 130
    assert not home.exists()


def test_what_no_wait_cures_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("flowrl_cli.server.configured._HOPELESS_S", 0.2)
    here = Configured("http://no-such-host.invalid/api", "prefect.toml", "remove it")
    with pytest.raises(ServiceError, match=r"of prefect\.toml.*remove it"):
        wait_healthy(here)


@contextlib.contextmanager
def silent() -> Iterator[str]:
    """A port that takes connections, and no more."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/api"


@pytest.mark.parametrize(
    ("server", "said"),
    [
        (silent(), "no longer answers .its runs.: no answer in time"),
        (speaking(b""), "disconnected"),
        (speaking(http("500 Oh", body="no room")), "answers 500 to /api/.*no room.*`flowrl doctor`"),
        (speaking(http("409 Oh", body="no field")), "answers 409 to /api/.*no field.*`flowrl up --redeploy`"),
    ],
    ids=["silence", "ends", "errors", "old form"],
)
def test_a_server_that_falls_silent_while_it_is_asked_is_told_and_given_up(server, said, monkeypatch, capsys):
    from prefect import get_client

    for name, value in {"_SILENT_S": 0.0, "_ANSWER_S": 0.5, "_MORE_TRIES": 0}.items():
        monkeypatch.setattr(f"flowrl_cli.server.connection.{name}", value)
    with server as url, pytest.raises(ServiceError, match=said), asking(Server(url, False), "its runs"):
        while not (told := capsys.readouterr().err):
            time.sleep(0.01)
        assert f"waiting for the Prefect server {url}: its runs" in told
        with get_client(sync_client=True) as client:
            client.read_deployment_by_name("train-skill/gpu")


@contextlib.contextmanager
def guarded_by_a_key(key: str) -> Iterator[tuple[str, list[str]]]:
    """What is known of Prefect Cloud: no version, no health, and a key to all else; the paths that were asked."""
    asked = []

    class Cloud(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            is_there = "/work_pools/" in self.path
            is_let_in = self.headers.get("Authorization") == f"Bearer {key}"
            self.send_response(404 if not is_there else 200 if is_let_in else 401)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Cloud) as cloud:
        threading.Thread(target=cloud.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{cloud.server_port}/api", asked
        cloud.shutdown()


def test_cloud_is_asked_by_its_key_and_for_no_version(home, monkeypatch):
    with guarded_by_a_key("pnu_key") as (url, asked):
        monkeypatch.setenv("PREFECT_CLOUD_API_URL", url)
        monkeypatch.setenv("PREFECT_API_URL", f"{url}/accounts/a/workspaces/w")
        for key, said in ((None, "export PREFECT_API_KEY=KEY"), ("pnu_other", "rejected the key")):
            if key:
                monkeypatch.setenv("PREFECT_API_KEY", key)
            wait_healthy(configured())
            with pytest.raises(ServiceError, match=said) as caught:
                check_server(configured().url, credentials())
            assert "pnu_other" not in str(caught.value)
        monkeypatch.setenv("PREFECT_API_KEY", "pnu_key")
        assert check_server(configured().url, credentials()) == "cloud"
    assert not any("version" in path for path in asked)


def test_a_worker_waits_for_its_pool_with_the_key_of_the_server():
    from prefect.settings import temporary_settings

    from tasks.orchestration.server.workers import _until_there

    async def wait():
        await asyncio.wait_for(_until_there("gpu"), timeout=10)

    with (
        guarded_by_a_key("pnu_key") as (url, _),
        temporary_settings({"PREFECT_API_URL": url, "PREFECT_API_KEY": "pnu_key"}),
    ):
        asyncio.run(wait())


def test_the_pages_of_cloud_are_found():
    api = "https://api.prefect.cloud/api/accounts/a/workspaces/w"
    assert Server(api, is_embedded=False).ui == "https://app.prefect.cloud/account/a/workspace/w"


@pytest.mark.parametrize(("theirs", "said"), [("2.20.1", "of Prefect 3"), ("3.8.4", "3.8.5 or later")])
def test_a_version_that_does_not_fit_is_told(theirs, said, home, monkeypatch):
    with speaking(HEALTHY, http("200 OK", body=f'"{theirs}"')) as url:
        monkeypatch.setenv("PREFECT_API_URL", url)
        (found,) = examine_server(Home(home))
    assert found.state == "wrong" and theirs in found.found and said in found.found


def test_a_version_that_was_not_tried_in_full_is_told_as_such(home, monkeypatch):
    monkeypatch.setattr("flowrl_cli.checks.services._INVENTORY_S", 0.5)
    with speaking(HEALTHY, http("200 OK", body='"3.99.1"'), HEALTHY, b"") as url:
        monkeypatch.setenv("PREFECT_API_URL", url)
        found = {one.what: one for one in examine_server(Home(home))}
    assert found["server's version"].state == "ok" and "tested in full with" in found["server's version"].found


def test_doctor_does_not_ask_a_proxy_for_this_machine(server, home, flowrl):
    """Nor do Prefect's own clients within it, by whatever name the machine is called."""
    port = server.url.rpartition(":")[2]
    for host in ("localhost", "127.1"):
        variables = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), NO_PROXY_ANSWERS)
        done = flowrl("doctor", **variables, PREFECT_API_URL=f"http://{host}:{port}")
        assert "No problems found" in done.stdout, done
