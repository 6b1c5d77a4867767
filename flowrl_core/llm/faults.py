"""Errors between a question and its answer: one code each, the remedy, and whether it is temporary."""

from __future__ import annotations

import re
from typing import Literal, get_args

from flowrl_core.errors import ModelError

__all__ = ["CODES", "Code", "Fault", "model_error", "one_line"]

Code = Literal[
    "no_key",
    "unauthorized",
    "unknown_model",
    "bad_request",
    "question_too_long",
    "rate_limited",
    "server_error",
    "unreachable",
    "timeout",
    "cut_off",
    "not_json",
    "too_long",
    "refused",
    "empty",
    "malformed",
    "not_recorded",
]
CODES: tuple[Code, ...] = get_args(Code)

_PASSING = frozenset({"rate_limited", "server_error", "unreachable", "timeout", "cut_off"})
_REMEDIES: dict[Code, str] = {
    "no_key": "Put the provider's key into the environment of the campaign's process, or into a Prefect Secret block",
    "unauthorized": "Check the key, and that its account may use this model",
    "unknown_model": "Check the model's name with its provider; the URL of a server usually ends in /v1",
    "bad_request": "Check the model's name, frontier.output, frontier.temperature (empty: none is sent), "
    "frontier.thinking, frontier.extra and frontier.max_output_tokens against what the server supports",
    "question_too_long": "Use a model with a longer context (or let its server give it one: --ctx-size, "
    "--max-model-len, num_ctx), or lower frontier.max_output_tokens and frontier.proposals, for which room is kept too",
    "rate_limited": "Wait, name other models in frontier.fallbacks, or raise the account's limit",
    "server_error": "Wait, or name other models in frontier.fallbacks",
    "unreachable": "Check that the server runs and that this machine reaches it",
    "timeout": "Raise frontier.timeout_s, or lower frontier.max_output_tokens",
    "cut_off": "Check the server's log and the network between it and this machine",
    "not_json": "Check that the URL is an API for OpenAI's chat completions",
    "too_long": "Raise frontier.max_output_tokens, or use a model that keeps to it",
    "refused": "Use another model, or reword the targets and the knowledge base",
    "empty": "Use another model or frontier.output; for a reasoning model, raise frontier.max_output_tokens or "
    "set frontier.thinking to off",
    "malformed": "Raise frontier.answer_retries, or use another model or frontier.output",
    "not_recorded": "Run once with frontier.journal record or cached",
}
_NO_CREDIT = "Add credit to the account or raise its limit, or name other models in frontier.fallbacks"

_LONGEST_LINE = 600
_WHERE_TO_READ_ON = re.compile(r"For further information visit https://errors\.pydantic\.dev\S*")


class Fault(Exception):
    """A failed attempt.

    Attributes:
        pause_s: the waiting time before the next attempt, if the server gives one.
        is_final: whether another attempt is pointless although others with this code may succeed.
        refused_field: the request field that the server refuses; empty if the cause is another.
        was_answered: False if the model certainly did nothing: the request did not arrive, or was rejected.
    """

    def __init__(
        self,
        code: Code,
        problem: str,
        *,
        pause_s: float | None = None,
        is_final: bool = False,
        was_answered: bool = True,
        refused_field: str = "",
    ) -> None:
        super().__init__(problem)
        self.code = code
        self.problem = problem
        self.pause_s = pause_s
        self.is_final = is_final
        self.was_answered = was_answered
        self.refused_field = refused_field

    @property
    def is_worth_repeating(self) -> bool:
        """Whether the same request may succeed at once: a temporary fault, or a body inserted by a proxy."""
        return not self.is_final and (self.code in _PASSING or self.code == "not_json")


def model_error(code: Code, problem: str, *, is_final: bool = False) -> ModelError:
    """Return the error of this code.

    Args:
        problem: the description, without keys.
        is_final: whether the error is permanent although others of its code are temporary.
    """
    remedy = _NO_CREDIT if code == "rate_limited" and is_final else _REMEDIES[code]
    return ModelError(code, problem.rstrip("."), remedy, is_passing=code in _PASSING and not is_final)


def one_line(text: object) -> str:
    """Return the beginning of the text as one line of printable characters, for the log."""
    words = " ".join(_WHERE_TO_READ_ON.sub("", str(text)).split())
    line = "".join(character if character.isprintable() else "?" for character in words)
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}..."
