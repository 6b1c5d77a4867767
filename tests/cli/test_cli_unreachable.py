"""Whatever stands where a Prefect server should be: doctor says what it is, in time, and waiting is announced."""

from __future__ import annotations

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
from pathlib import Path

import pytest

from flowrl_cli.configured import Configured, wait_healthy
from flowrl_cli.fetching import NoAnswerError, fetch
from flowrl_cli.finding import Finding, bounded
from flowrl_cli.services import examine_server
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
    "silence": ((DRIP,), "no whole answer|no answer in time"),
    "an end": ((b"",), "closed connection without response"),
    "garbage": ((b"\x00\x16SSH-2.0-OpenSSH_9.6\r\n",), "does not speak HTTP"),
    "HTML": ((HEALTHY, http("200 OK", "Content-Type: text/html", body="<html>")), "is not the API of a Prefect"),
    "deep JSON": ((HEALTHY, http("200 OK", body="[" * 9_000)), "is not the API of a Prefect"),
    "another page": ((http("404 Not Found"),), "HTTP 404"),
    "a bad gateway": ((http("502 Bad Gateway"),), "HTTP 502"),
    "a loop": ((http("302 Found", "Location: /api/health"),), "HTTP 302"),
    "a move": (
        (http("301 Moved", "Location: https://there/api?key=se-cret"),),
        "redirects to https://there/api, another",
    ),
    "a password": ((http("401 Unauthorized"),), "asks for a password"),
    "the end after the version": (
        (HEALTHY, http("200 OK", body='"3.8.8"'), b""),
        "is not examined|RemoteProtocolError",
    ),
    "silence after the version": ((HEALTHY, http("200 OK", body='"3.8.8"'), DRIP), "is not examined"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_doctor_says_what_a_server_does_wrong(name, home, monkeypatch):
    for limit in ("_ANSWER_S", "_INVENTORY_S"):
        monkeypatch.setattr(f"flowrl_cli.services.{limit}", 0.8)
    answers, said = STRANGE[name]
    with speaking(*answers) as url:
        monkeypatch.setenv("PREFECT_API_URL", url)
        found = list(examine_server(Home(home)))
    assert re.search(said, found[-1].found), found
    assert (found[-1].what, found[-1].state) == ("server", "wrong") and found[-1].mend
    assert "se-cret" not in str(found)


def test_doctor_says_that_a_server_does_not_speak_tls(home, monkeypatch):
    monkeypatch.setattr("flowrl_cli.services._ANSWER_S", 0.8)
    with speaking(HEALTHY) as url:
        monkeypatch.setenv("PREFECT_API_URL", url.replace("http:", "https:"))
        (found,) = examine_server(Home(home))
    assert found.state == "wrong" and "SSL" in found.found


def test_no_password_follows_a_redirection():
    with (
        speaking(http("200 OK")) as elsewhere,
        speaking(http("307 There", f"Location: {elsewhere}")) as url,
        pytest.raises(NoAnswerError, match="redirects to"),
    ):
        fetch(url, headers={"Authorization": "Basic c2U6Y3JldA=="}, seconds=5)


def test_an_examination_that_fails_or_hangs_is_a_finding():
    ok = Finding("a", "ok", "fine")

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
        Finding("b", "wrong", "RuntimeError: no such thing", "m"),
    ]
    assert list(bounded("b", hanging, seconds=0.1, mend="m")) == [
        ok,
        Finding("b", "wrong", "is not examined after 0 s", "m"),
    ]
    assert list(bounded("b", refusing, seconds=5, mend="m")) == [Finding("b", "wrong", "X_Y: is not Z", "export X_Y=Z")]


def heed():
    """Let a process heed Ctrl-C, wherever these tests were started."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_server_is_waited_for_in_words_and_ctrl_c_ends_it(home):
    with speaking(DRIP) as url:
        environment = {**os.environ, "PREFECT_API_URL": url}
        waiting = subprocess.Popen([FLOWRL, "up"], env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=heed)
        line = waiting.stderr.readline()
        assert re.fullmatch(
            rf"waiting for the Prefect server {url} \(of PREFECT_API_URL\) until \d\d:\d\d:\d\d: no whole answer.*\n",
            line,
        )
        waiting.send_signal(signal.SIGINT)
        assert waiting.wait(timeout=20) == 130
    assert not home.exists()


def test_what_no_wait_cures_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("flowrl_cli.configured._HOPELESS_S", 0.2)
    here = Configured("http://no-such-host.invalid/api", "prefect.toml", "remove it")
    with pytest.raises(ServiceError, match=r"of prefect\.toml.*remove it"):
        wait_healthy(here)


def test_doctor_does_not_ask_a_proxy_for_this_machine(server, home, flowrl):
    """Nor do Prefect's own clients within it, by whatever name the machine is called."""
    port = server.url.rpartition(":")[2]
    for host in ("localhost", "127.1"):
        variables = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), NO_PROXY_ANSWERS)
        done = flowrl("doctor", **variables, PREFECT_API_URL=f"http://{host}:{port}")
        assert "All is well" in done.stdout, done
