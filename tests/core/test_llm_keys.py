"""No key leaves for where it does not belong, and no proxy sees what is not its business."""

import asyncio
import json
import logging
import socket
import threading
import traceback

import pytest
from model_questions import GOOD, QUESTION, SECRET, Asked
from model_server import ModelServer, completion, fault, raw, say

from flowrl_core.errors import ModelError
from flowrl_core.llm.client import connect
from flowrl_core.llm.keys import Keys
from flowrl_core.specs.campaign import FrontierSpec
from flowrl_core.testing import EphemeralJournal, ListBook

pytestmark = pytest.mark.usefixtures("no_keys")


@pytest.mark.parametrize("status", [401, 400, 500])
def test_no_key_is_told_by_what_a_server_sends_back(status, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("FLOWRL_MODEL_KEY", SECRET)
    asked = Asked([fault("status", status, body=f"no, Bearer {SECRET} is not known")])
    assert asked.requests[0].headers["authorization"] == f"Bearer {SECRET}"
    assert "Bearer [secret] is not known" in asked.error.problem
    shown = "".join(traceback.format_exception(asked.error)) + repr(asked.error.__dict__) + caplog.text
    assert SECRET not in shown


def test_no_key_is_in_a_reply_nor_in_the_journal():
    asked = Asked([say({"title": SECRET}), GOOD], secrets={"FLOWRL_MODEL_KEY": SECRET})
    assert asked.requests[0].headers["authorization"] == f"Bearer {SECRET}"
    assert asked.reply.answer.title == "[secret]"
    assert SECRET not in repr(asked.reply) + json.dumps(asked.journal.entries)
    escaped = raw(json.dumps(completion(json.dumps({"title": SECRET}))).replace("sk-", "sk\\u002d").encode())
    asked = Asked([escaped], secrets={"FLOWRL_MODEL_KEY": SECRET})
    assert asked.reply.answer.title == "[secret]" and SECRET not in json.dumps(asked.journal.entries)
    asked = Asked([say(SECRET)], secrets={"FLOWRL_MODEL_KEY": SECRET})
    assert asked.code == "malformed" and SECRET not in str(asked.error)


def test_a_key_is_masked_and_never_part_of_a_repr(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-marked")  # part of the other
    keys = Keys({"ANTHROPIC_API_KEY": SECRET, "FLOWRL_MODEL_KEY": "none"})
    assert SECRET not in repr(keys)
    assert keys.masked_text(f"none of {SECRET} sk-marked") == "none of [secret] [secret]"


def test_no_other_key_goes_to_a_server_of_ones_own(monkeypatch):
    for variable in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(variable, SECRET)
    asked = Asked([GOOD])
    assert asked.reply is not None and SECRET not in repr(asked.requests[0].headers)


@pytest.mark.parametrize("key", [None, "", "  ", "sk-with\nnewline-in-it", "sk-schlüssel-key"])
def test_a_key_that_is_missing_is_said_before_anything_is_booked(key, monkeypatch):
    if key is not None:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    asked = Asked([GOOD], model="openai:gpt-5.4")
    assert asked.code == "no_key" and not asked.error.is_passing
    assert "OPENAI_API_KEY" in asked.error.problem and asked.book.bookings == []
    assert "sk-" not in str(asked.error)


def test_what_is_no_key_is_not_passed_over_in_silence():
    asked = Asked([GOOD], secrets={"FLOWRL_MODEL_KEY": "two\nlines"})
    assert asked.code == "no_key" and asked.requests == [] and "two" not in str(asked.error)


def ask_through(monkeypatch, proxy, model, *, excluded=""):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, excluded)
    monkeypatch.setenv("FLOWRL_MODEL_KEY", SECRET)
    spec = FrontierSpec(model=model, timeout_s=5, answer_retries=0)
    return asyncio.run(connect(spec, book=ListBook(), journal=EphemeralJournal(), sleep=no_wait).ask(QUESTION))


async def no_wait(seconds):
    pass


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "localhost.", "a.localhost", "127.1"])
def test_no_proxy_sees_what_a_model_of_this_machine_is_asked(host, monkeypatch):
    with ModelServer([GOOD]) as server, ModelServer([GOOD]) as proxy:
        try:
            ask_through(monkeypatch, proxy.url, server.model.replace("127.0.0.1", host))
        except ModelError as exc:  # not every resolver knows all names below localhost
            assert host in ("localhost.", "a.localhost") and exc.code == "unreachable"
    assert proxy.requests == []


def test_a_model_elsewhere_is_asked_through_the_proxy(monkeypatch):
    with ModelServer([GOOD]) as proxy:
        ask_through(monkeypatch, proxy.url, "m@http://model.example/v1")
    (request,) = proxy.requests
    assert request.path == "http://model.example/v1/chat/completions"


def test_a_model_that_a_person_excludes_is_not_asked_through_the_proxy(monkeypatch):
    with ModelServer([GOOD]) as proxy, pytest.raises(ModelError) as caught:
        ask_through(monkeypatch, proxy.url, "m@http://no-such-host.invalid/v1", excluded="10.0.0.0/8, *.invalid")
    assert caught.value.code == "unreachable" and proxy.requests == []


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_a_proxy_that_does_not_answer_is_told_with_its_variable_and_without_its_password(scheme, monkeypatch):
    with pytest.raises(ModelError, match=rf"through the proxy {scheme}://127.0.0.1:1 of http_proxy") as caught:
        ask_through(monkeypatch, f"{scheme}://me:se-cret@127.0.0.1:1", "m@http://model.example/v1")
    assert caught.value.code == "unreachable" and "se-cret" not in str(caught.value)


def test_what_is_no_socks_proxy_is_told(monkeypatch):
    def serve():
        for _ in range(3):
            connection, _ = listening.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        proxy = f"socks5://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(ModelError, match=proxy) as caught:
            ask_through(monkeypatch, proxy, "m@http://model.example/v1")
    assert caught.value.code == "unreachable" and caught.value.is_passing


def test_a_proxy_that_cannot_be_asked_is_told_by_its_variable(monkeypatch):
    with pytest.raises(ModelError, match="ALL_PROXY|HTTP_PROXY|http_proxy") as caught:
        ask_through(monkeypatch, "socks4://there:1080", "m@http://model.example/v1")
    assert caught.value.code == "unreachable" and not caught.value.is_passing
