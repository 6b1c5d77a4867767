"""A language model that is one: small, served on this machine, killed in the middle of an answer."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from llm_server import LlmServer, NoModelError, running
from pydantic import BaseModel, ConfigDict, Field, field_validator

from flowrl_core.errors import ModelError
from flowrl_core.llm.answers import to_proposals
from flowrl_core.llm.briefing import Briefing, Known, propose_question
from flowrl_core.llm.client import connect
from flowrl_core.llm.seam import LanguageModel, Question, Reply
from flowrl_core.skills.knowledge import load_knowledge
from flowrl_core.specs.campaign import FrontierSpec
from flowrl_core.testing import EphemeralJournal, ListBook

pytestmark = pytest.mark.real_llm

KNOWLEDGE = load_knowledge("corridor")
# A part of the corridor: on a busy machine each hundred tokens of a question takes a second.
_WORDS = ("inv.a", "inv.b", "near.bench", "dist.bench", "dist.mine")
VOCABULARY = replace(
    KNOWLEDGE.vocabulary,
    fluents=tuple(fluent for fluent in KNOWLEDGE.vocabulary.fluents if fluent.name in _WORDS),
    actions=("left", "right", "dig", "make_b"),
)
BRIEFING = Briefing(
    goals=("make_b",),
    vocabulary=VOCABULARY,
    known=(Known(KNOWLEDGE.skills["dig_a"], "learned", 0.97, 40_000),),
    most=1,
)


class Greeting(BaseModel):
    """A greeting in one word."""

    model_config = ConfigDict(extra="forbid")

    word: str = Field(max_length=12)


class NeverRight(Greeting):
    """A greeting in one word."""

    @field_validator("word")
    @classmethod
    def _refused(cls, word: str) -> str:
        raise ValueError("this is no greeting: say it in Latin")


class Story(BaseModel):
    """A long story."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(min_length=300, max_length=400)


@pytest.fixture(scope="module")
def server() -> Iterator[LlmServer]:
    try:
        with running() as server:
            yield server
    except NoModelError as exc:
        pytest.skip(str(exc))


class Campaign:
    """What asks the server, with all that is kept of it."""

    def __init__(self, server: LlmServer, **options: Any) -> None:
        self.book, self.journal = ListBook(), EphemeralJournal()
        # Without chance in it: an unlikely draw can end in a text that does not end.
        defaults = {"max_output_tokens": 600, "timeout_s": 240, "temperature": 0.0}
        spec = FrontierSpec(model=server.model, **{**defaults, **options})
        self.model: LanguageModel = connect(spec, book=self.book, journal=self.journal)

    def ask(self, question: Question[Any]) -> Reply[Any]:
        return asyncio.run(self.model.ask(question))


def said(entry: Any) -> str:
    """The text that the model answered."""
    return "".join(part["content"] for part in entry["response"]["parts"])


def test_an_answer_has_its_form_and_is_asked_for_once(server: LlmServer) -> None:
    campaign = Campaign(server)
    question = Question("You greet people.", "Greet me.", Greeting)
    reply = campaign.ask(question)
    assert isinstance(reply.answer, Greeting) and reply.malformed == ()
    (booking,) = campaign.book.bookings
    assert booking.outcome == "answered"
    assert 10 < booking.input_tokens <= booking.input_bound and 2 < booking.output_tokens <= 600
    (entry,) = campaign.journal.entries.values()
    assert Greeting.model_validate_json(said(entry)) == reply.answer
    again = campaign.ask(question)
    assert (again.answer, again.num_sent, len(campaign.book.bookings)) == (reply.answer, 0, 1)


def test_proposals_have_their_form_or_the_model_is_told_what_is_wrong(server: LlmServer) -> None:
    """How a model so small does is luck; that it is either an answer or an error that says why is not."""
    campaign = Campaign(server, answer_retries=0, max_output_tokens=200)
    try:
        reply = campaign.ask(propose_question(BRIEFING))
        assert len(to_proposals(reply.answer)) <= 1
    except ModelError as exc:
        assert exc.code in ("malformed", "too_long") and not exc.is_passing
    assert campaign.book.outcomes == ["answered"]
    (entry,) = campaign.journal.entries.values()
    assert said(entry).lstrip().startswith("{")


def test_an_answer_that_is_refused_is_sent_back_with_the_reason_and_kept(server: LlmServer) -> None:
    campaign = Campaign(server, answer_retries=1, max_output_tokens=50)
    with pytest.raises(ModelError, match="say it in Latin") as caught:
        campaign.ask(Question("You greet people.", "Greet me.", NeverRight))
    assert caught.value.code == "malformed"
    first, second = campaign.journal.entries.values()
    for entry in (first, second):
        Greeting.model_validate_json(said(entry))
    told = second["messages"][-1]["text"]
    assert "say it in Latin" in told and second["messages"][-2]["text"] == said(first)
    assert campaign.book.outcomes == ["answered", "answered"]


def test_a_server_that_is_killed_in_the_middle_of_an_answer_is_asked_again(server: LlmServer) -> None:
    campaign = Campaign(server)
    ends: list[Any] = []

    def ask() -> None:
        try:
            ends.append(campaign.ask(Question("You tell stories.", "Tell a long story.", Story)))
        except ModelError as exc:
            ends.append(exc)

    asking = threading.Thread(target=ask)
    asking.start()
    deadline = time.monotonic() + 60
    while not server.is_answering():
        assert asking.is_alive() and time.monotonic() < deadline
        time.sleep(0.02)
    server.restart()
    asking.join(240)
    (end,) = ends
    if isinstance(end, ModelError):  # the machine was so busy that the server came back after the last attempt
        assert end.is_passing
        end = campaign.ask(Question("You tell stories.", "Tell a long story.", Story))
    assert len(end.answer.text) >= 300
    assert campaign.book.outcomes[0] in ("cut_off", "unreachable") and campaign.book.outcomes[-1] == "answered"
    assert len(campaign.journal.entries) == 1
