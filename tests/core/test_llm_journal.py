"""What models have answered is kept: no call is made twice, whoever is killed, and none where none must be."""

import asyncio
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import textwrap

import pytest
from model_server import ModelServer, fault, say
from pydantic import BaseModel, Field, create_model

import flowrl_core
from flowrl_core.errors import ModelError
from flowrl_core.llm.client import connect
from flowrl_core.llm.seam import Question
from flowrl_core.specs.campaign import FrontierSpec
from flowrl_core.storage.journal import FileJournal
from flowrl_core.storage.layout import Home
from flowrl_core.testing import EphemeralJournal, ListBook


class Idea(BaseModel):
    """An idea."""

    title: str = Field(max_length=40)


QUESTION = Question("You propose skills.", "Propose one.", Idea)
KEY = "ab" * 32


def numbered(_, number):
    """Another answer each time."""
    return say({"title": f"idea {number}"}, model=f"name {number}")


def ask(server, kept_in, question=QUESTION, **options):
    spec = FrontierSpec(**{"model": server.model, "timeout_s": 5, **options})
    return asyncio.run(connect(spec, book=ListBook(), journal=kept_in).ask(question))


@pytest.mark.parametrize("kind", [EphemeralJournal, FileJournal])
def test_what_was_answered_is_not_asked_again(kind, tmp_path):
    journal = kind(tmp_path / "journal") if kind is FileJournal else kind()
    with ModelServer(numbered) as server:
        first, second = ask(server, journal), ask(server, journal)
        replayed = ask(server, journal, journal="replay")
    assert len(server.requests) == 1
    assert (first.num_sent, second.num_sent) == (1, 0)
    assert second == replayed == dataclasses.replace(first, num_sent=0)


def test_a_repair_is_kept_with_what_was_repaired():
    journal = EphemeralJournal()
    with ModelServer([say({"titel": "x"}), say({"title": "x"})]) as server:
        first, second = ask(server, journal), ask(server, journal)
    assert len(server.requests) == 2 == len(journal.entries) == len(first.keys)
    assert second == dataclasses.replace(first, num_sent=0) and len(second.malformed) == 1
    roles = [[message["role"] for message in journal.entries[key]["messages"]] for key in first.keys]
    assert roles == [["system", "user"], ["system", "user", "assistant", "user"]]


def test_a_repair_that_was_interrupted_goes_on_where_it_was():
    journal = EphemeralJournal()
    with ModelServer([say({"titel": "x"}), fault("status", 400), say({"title": "x"})]) as server:
        with pytest.raises(ModelError):
            ask(server, journal)
        assert ask(server, journal).num_sent == 1
    assert len(server.requests) == 3


def test_a_replay_that_misses_sends_nothing_and_needs_no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with ModelServer(numbered) as server:
        for model in (server.model, "openai:gpt-5.4"):
            with pytest.raises(ModelError) as caught:
                ask(server, EphemeralJournal(), model=model, journal="replay")
            assert caught.value.code == "not_recorded" and not caught.value.is_passing
    assert server.requests == []


def test_a_fallbacks_answer_is_replayed_from_where_it_came():
    journal = EphemeralJournal()
    with ModelServer(
        lambda request, _: fault("status", 400) if request["model"] == "bad" else numbered(0, 0)
    ) as server:
        options = {"model": f"bad@{server.url}", "fallbacks": [server.model]}
        first = ask(server, journal, **options)
        again = ask(server, journal, journal="replay", **options)
    assert first.model == again.model == server.model
    assert (first.num_sent, again.num_sent) == (2, 0)


def test_record_asks_again_and_replaces():
    journal = EphemeralJournal()
    with ModelServer(numbered) as server:
        first, second = ask(server, journal, journal="record"), ask(server, journal, journal="record")
        third = ask(server, journal)
    assert (first.answer.title, second.answer.title, third.answer.title) == ("idea 0", "idea 1", "idea 1")
    assert len(journal.entries) == 1


def test_all_that_can_change_an_answer_is_in_its_key():
    asked_otherwise = [
        {"question": dataclasses.replace(QUESTION, sample=1)},
        {"question": dataclasses.replace(QUESTION, text="Propose two.")},
        {"question": dataclasses.replace(QUESTION, instructions="You judge skills.")},
        {"question": dataclasses.replace(QUESTION, answer=create_model("Idea", title=(str, Field(max_length=41))))},
        {"temperature": 0.1},
        {"max_output_tokens": 100},
        {"output": "prompted"},
        {"temperature": ""},
        {"thinking": "low"},
        {"extra": ["seed=1"]},
        {"extra": ["seed=2"]},
    ]
    journal = EphemeralJournal()
    with ModelServer(numbered) as server:
        keys = {ask(server, journal).keys}
        for options in asked_otherwise:
            keys.add(ask(server, journal, **options).keys)
        keys.add(ask(server, journal, model=f"other@{server.url}").keys)
    assert len(keys) == len(server.requests) == len(asked_otherwise) + 2


def test_nothing_else_is_in_its_key():
    """Neither what bounds a request's time and cost, nor when and by whom it is asked."""
    journal = EphemeralJournal()
    with ModelServer(numbered) as server:
        first = ask(server, journal)
        others = {"timeout_s": 60, "max_cost": 5.0, "max_requests": 7, "answer_retries": 0, "fallbacks": [server.model]}
        assert ask(server, journal, **others).keys == first.keys
        code = asking(FrontierSpec(model=server.model, journal="replay"), "sys.argv[1]")
        journals = {key: json.dumps(entry) for key, entry in journal.entries.items()}
        assert json.loads(in_child(code, json.dumps(journals)).stdout) == [list(first.keys), 0]


def test_an_entry_says_what_was_asked_and_holds_no_times():
    journal = EphemeralJournal()
    with ModelServer(numbered) as server:
        reply = ask(server, journal, dataclasses.replace(QUESTION, sample=3))
    ((key, entry),) = journal.entries.items()
    assert (key, entry["key"], entry["model"], entry["sample"]) == (reply.keys[0], key, server.model, 3)
    assert entry["messages"] == [
        {"role": "system", "text": QUESTION.instructions},
        {"role": "user", "text": QUESTION.text},
    ]
    assert entry["schema"] == Idea.model_json_schema()
    assert (entry["input_tokens"], entry["output_tokens"]) == (11, 7)
    assert re.fullmatch(r"[0-9a-f]{64}", key)
    text = json.dumps(entry)
    assert not re.search(r"time|20\d\d-|17000000|run_id|chatcmpl", text), text


# Files


def test_a_file_is_kept_for_each_key_and_the_last_one_holds(tmp_path):
    journal = FileJournal(tmp_path / "not" / "there")
    assert journal.read(KEY) is None
    journal.write(KEY, {"key": KEY, "n": 1})
    journal.write(KEY, {"key": KEY, "n": 2, "text": "ä\x00"})
    assert FileJournal(journal.directory).read(KEY) == {"key": KEY, "n": 2, "text": "ä\x00"}
    assert [path.name for path in journal.directory.iterdir()] == [f"{KEY}.json"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"key": "' + KEY.encode() + b'", "respo',
        b"[]",
        b'{"key": "' + b"cd" * 32 + b'"}',
        b"\xff\xfe",
        b"[" * 99_999,
    ],
    ids=["empty", "torn", "no object", "another's", "no text", "deep"],
)
def test_a_file_that_is_no_entry_is_as_if_not_there(content, tmp_path, caplog):
    (tmp_path / f"{KEY}.json").write_bytes(content)
    assert FileJournal(tmp_path).read(KEY) is None
    assert KEY in caplog.text and "ignored" in caplog.text


@pytest.mark.parametrize("response", [None, {}, {"kind": "request", "parts": []}, {"kind": "response", "parts": [{}]}])
def test_an_entry_without_an_answer_is_asked_again_and_replaced(response, tmp_path):
    journal = FileJournal(tmp_path)
    with ModelServer(numbered) as server:
        (key,) = ask(server, journal).keys
        journal.write(key, {**journal.read(key), "response": response})
        assert ask(server, journal).num_sent == 1
        assert ask(server, journal).answer.title == "idea 1"


@pytest.mark.parametrize("key", ["", "ab", "../" + "a" * 61, "AB" * 32, "ab" * 32 + "\n", "/etc/passwd"])
def test_only_a_key_becomes_a_files_name(key, tmp_path):
    with pytest.raises(ValueError, match="not a key"):
        FileJournal(tmp_path).read(key)
    with pytest.raises(ValueError, match="not a key"):
        FileJournal(tmp_path).write(key, {"key": key})
    with pytest.raises(ValueError, match="names the key"):
        FileJournal(tmp_path).write(KEY, {"key": key})
    assert list(tmp_path.iterdir()) == []


def test_the_journal_lies_in_the_home(tmp_path):
    assert Home(tmp_path).journal == tmp_path / "journal"


# Killed


def asking(spec, journal):
    """A program that asks and prints the keys and how many requests were sent."""
    return textwrap.dedent(f"""
        import asyncio, json, pathlib, sys
        from pydantic import BaseModel, Field
        from flowrl_core.llm.client import connect
        from flowrl_core.llm.seam import Question
        from flowrl_core.specs.campaign import FrontierSpec
        from flowrl_core.storage.journal import FileJournal
        from flowrl_core.testing import EphemeralJournal, ListBook

        class Idea(BaseModel):
            '''An idea.'''
            title: str = Field(max_length=40)

        given = {journal}
        if given.startswith("{{"):
            journal = EphemeralJournal({{key: json.loads(entry) for key, entry in json.loads(given).items()}})
        else:
            journal = FileJournal(pathlib.Path(given))
        spec = FrontierSpec.model_validate_json({spec.model_dump_json()!r})
        question = Question({QUESTION.instructions!r}, {QUESTION.text!r}, Idea)
        reply = asyncio.run(connect(spec, book=ListBook(), journal=journal).ask(question))
        print(json.dumps([reply.keys, reply.num_sent]))
    """)


def in_child(code, argument, crash_at=""):
    environment = {**os.environ, "FLOWRL_CRASH_AT": crash_at, "PYTHONPATH": os.path.dirname(flowrl_core.__path__[0])}
    command = [sys.executable, "-c", code, argument]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(("point", "num_sent"), [("after_model_answer", 2), ("after_model_record", 1)])
def test_a_kill_repeats_one_call_at_most(point, num_sent, tmp_path):
    with ModelServer(numbered) as server:
        code = asking(FrontierSpec(model=server.model), "sys.argv[1]")
        killed = in_child(code, str(tmp_path / "journal"), crash_at=point)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        again = ask(server, FileJournal(tmp_path / "journal"))
    assert len(server.requests) == num_sent
    assert again.num_sent == num_sent - 1
    assert again.answer.title == f"idea {num_sent - 1}"
