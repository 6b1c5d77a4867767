"""The interface to language models: one question, one checked answer; requests are booked, answers kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel

__all__ = ["Book", "Journal", "LanguageModel", "Question", "Reply"]

A = TypeVar("A", bound=BaseModel)


@dataclass(frozen=True)
class Question(Generic[A]):
    """A question to a model.

    Attributes:
        instructions: the model's role and rules (the system message).
        text: the question itself.
        answer: the schema of the answer; every list and text in it is bounded.
        sample: distinguishes equal questions: each number is an independent draw.
    """

    instructions: str
    text: str
    answer: type[A]
    sample: int = 0


@dataclass(frozen=True)
class Reply(Generic[A]):
    """The answer to a question.

    Attributes:
        answer: the answer, checked against its schema.
        model: the model that gave it, of several that may have been asked.
        keys: the journal entries used, in order: the last is the answer, those before were malformed.
        malformed: the error in each of those, as sent to the model.
        num_sent: HTTP requests sent for it; 0 if the journal had everything.
    """

    answer: A
    model: str
    keys: tuple[str, ...] = ()
    malformed: tuple[str, ...] = ()
    num_sent: int = 0


class LanguageModel(Protocol):
    """A model that can be asked."""

    @property
    def name(self) -> str:
        """The model's name in the user's notation; no part of it is secret."""
        ...

    async def ask(self, question: Question[A]) -> Reply[A]:
        """Return the checked answer.

        Raises:
            ModelError: there is no answer; `code` gives the reason.
            BudgetError: the next request could cost more than is left, so it was not sent.
        """
        ...


class Book(Protocol):
    """The ledger of HTTP requests to models.

    Each is booked with its maximal cost before it is sent, then settled with its actual cost. A request that is never
    settled counts with its maximum.
    """

    def reserve(self, model: str, *, input_tokens: int, output_tokens: int) -> int:
        """Book a request and return its number; it may then be sent.

        Args:
            input_tokens, output_tokens: upper bounds.

        Raises:
            BudgetError: the request could exceed a limit.
        """
        ...

    def settle(self, request: int, outcome: str, *, input_tokens: int | None, output_tokens: int | None) -> None:
        """Record the outcome (`answered`, or an error code). None for tokens: not reported, so the bound counts."""
        ...


class Journal(Protocol):
    """Answers of models, by the key of the question."""

    def read(self, key: str) -> Mapping[str, Any] | None:
        """Return the entry under the key; None if there is none."""
        ...

    def write(self, key: str, entry: Mapping[str, Any]) -> None:
        """Keep the entry, atomically; it replaces an existing one."""
        ...
