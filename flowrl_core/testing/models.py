"""A scripted language model, a journal in memory, and a book that allows a fixed number of requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel

from flowrl_core.errors import BudgetError
from flowrl_core.llm.seam import Question, Reply

__all__ = ["Booking", "EphemeralJournal", "ListBook", "ScriptedModel"]

A = TypeVar("A", bound=BaseModel)
Answer = BaseModel | Mapping[str, Any] | Exception


@dataclass
class ScriptedModel:
    """A language model that gives each scripted answer once, in order, or what a function returns.

    Attributes:
        answers: an exception is raised; a mapping is checked against the question's form.
        questions: the questions asked so far.
    """

    answers: Sequence[Answer] | Callable[[Question[Any]], Answer]
    name: str = "scripted:model"
    questions: list[Question[Any]] = field(default_factory=list)

    async def ask(self, question: Question[A]) -> Reply[A]:
        """The next answer.

        Raises:
            AssertionError: no answers are left.
        """
        self.questions.append(question)
        if callable(self.answers):
            answer = self.answers(question)
        else:
            assert len(self.questions) <= len(self.answers), f"asked for the {len(self.questions)}th time: {question}"
            answer = self.answers[len(self.questions) - 1]
        if isinstance(answer, Exception):
            raise answer
        content = answer.model_dump() if isinstance(answer, BaseModel) else answer
        return Reply(question.answer.model_validate(content), self.name, num_sent=1)


@dataclass
class EphemeralJournal:
    """A journal in memory."""

    entries: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def read(self, key: str) -> Mapping[str, Any] | None:
        """The entry under the key; None if there is none."""
        return self.entries.get(key)

    def write(self, key: str, entry: Mapping[str, Any]) -> None:
        """Keep the entry."""
        self.entries[key] = entry


@dataclass
class Booking:
    """One request: its bounds, and once settled its outcome."""

    model: str
    input_bound: int
    output_bound: int
    outcome: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None


@dataclass
class ListBook:
    """Keeps every booking; allows `max_requests`."""

    max_requests: int = 1_000_000
    bookings: list[Booking] = field(default_factory=list)

    @property
    def outcomes(self) -> list[str | None]:
        """The outcome of each booking; None if it was never settled."""
        return [booking.outcome for booking in self.bookings]

    def reserve(self, model: str, *, input_tokens: int, output_tokens: int) -> int:
        """The number of the request.

        Raises:
            BudgetError: it would exceed `max_requests`.
        """
        if len(self.bookings) >= self.max_requests:
            raise BudgetError(f"{self.max_requests} requests were allowed, and they were sent")
        self.bookings.append(Booking(model, input_tokens, output_tokens))
        return len(self.bookings) - 1

    def settle(self, request: int, outcome: str, *, input_tokens: int | None, output_tokens: int | None) -> None:
        """Record the outcome of the request.

        Raises:
            AssertionError: it is settled already.
        """
        booking = self.bookings[request]
        assert booking.outcome is None, f"request {request} is settled twice"
        booking.outcome, booking.input_tokens, booking.output_tokens = outcome, input_tokens, output_tokens
