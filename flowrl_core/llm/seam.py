"""The seam to language models: one question, one checked answer; what was sent is booked, what came back is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel

__all__ = ["Book", "Journal", "LanguageModel", "Question", "Reply"]

A = TypeVar("A", bound=BaseModel)


@dataclass(frozen=True)
class Question(Generic[A]):
    """What a model is asked.

    Attributes:
        instructions: who it is and what it must keep to (the system's message).
        text: what it is asked now.
        answer: the form of the answer; every list and text of it is bounded.
        sample: tells apart questions that are the same: each number is another draw.
    """

    instructions: str
    text: str
    answer: type[A]
    sample: int = 0


@dataclass(frozen=True)
class Reply(Generic[A]):
    """What came back.

    Attributes:
        answer: checked against its form.
        model: which model gave it, of several that may have been asked.
        keys: the journal's entries that it was made of, in order: the last is the answer, those before were malformed.
        malformed: what was wrong with each of those, as the model was told.
        num_sent: HTTP requests that were sent for it; 0 where the journal had it all.
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
        """As users name it; no part of it is secret."""
        ...

    async def ask(self, question: Question[A]) -> Reply[A]:
        """The checked answer.

        Raises:
            ModelError: none came; `code` says why.
            BudgetError: the next request could cost more than is left; it was not sent.
        """
        ...


class Book(Protocol):
    """Where every HTTP request to a model is booked: before it is sent with the most that it can cost, then with what
    it did. A request that was booked and never settled counts with the most.
    """

    def reserve(self, model: str, *, input_tokens: int, output_tokens: int) -> int:
        """The number of the request that may now be sent.

        Args:
            input_tokens, output_tokens: upper bounds.

        Raises:
            BudgetError: it could exceed a limit.
        """
        ...

    def settle(self, request: int, outcome: str, *, input_tokens: int | None, output_tokens: int | None) -> None:
        """Note what became of it (`answered`, or the code of an error). None: not told, so the bound counts."""
        ...


class Journal(Protocol):
    """What models have answered, by the key of what they were asked."""

    def read(self, key: str) -> Mapping[str, Any] | None:
        """The entry under the key; None if there is none."""
        ...

    def write(self, key: str, entry: Mapping[str, Any]) -> None:
        """Keep the entry, whole or not at all; one that is there already is replaced."""
        ...
