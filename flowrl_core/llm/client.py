"""Ask language models: one after another until one answers, from the journal if it has the answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel

from flowrl_core.errors import FlowRLError, ModelError
from flowrl_core.llm.dialects import Dialect
from flowrl_core.llm.faults import Code, model_error, one_line
from flowrl_core.llm.keys import Keys
from flowrl_core.llm.names import ModelName, check_installed, check_takes, parse_model
from flowrl_core.llm.seam import Book, Journal, LanguageModel, Question, Reply
from flowrl_core.specs.campaign import FrontierSpec
from flowrl_core.text import counted

if TYPE_CHECKING:  # pydantic_ai takes a second to import
    from flowrl_core.llm.recorded import RecordedModel

__all__ = ["connect"]

logger = logging.getLogger(__name__)

A = TypeVar("A", bound=BaseModel)


def connect(
    spec: FrontierSpec,
    *,
    book: Book,
    journal: Journal,
    secrets: Mapping[str, str] | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> LanguageModel:
    """Return the models that the spec names, as one: each fallback is asked if those before it did not answer.

    Nothing is sent yet. The model may be used from any event loop, with many questions at a time.

    Args:
        secrets: keys of providers by environment variable name; they take precedence over the environment.
        sleep: waits the given seconds between the attempts of one request.

    Raises:
        InputError: a model's name cannot be used, or a package that it requires is not installed.
    """
    models = tuple(parse_model(text) for text in [spec.model, *spec.fallbacks])
    for model in models:
        check_takes(model, spec.extra)
        check_installed(model)
    return _Models(models, spec, book, journal, Keys(dict(secrets or {})), sleep)


@dataclass(frozen=True)
class _Asked(Generic[A]):
    """The result of asking one model; an exception is to be raised."""

    result: Reply[A] | BaseException
    num_sent: int


@dataclass(frozen=True)
class _Models:
    models: tuple[ModelName, ...]
    spec: FrontierSpec
    book: Book
    journal: Journal
    keys: Keys
    sleep: Callable[[float], Awaitable[None]]

    @property
    def name(self) -> str:
        return str(self.models[0])

    async def ask(self, question: Question[A]) -> Reply[A]:
        errors: list[ModelError] = []
        num_sent = 0
        for model in self.models:
            if errors:
                logger.warning("%s; asking %s", errors[-1], model)
            asked = await self._ask_one(model, question)
            num_sent += asked.num_sent
            if isinstance(asked.result, Reply):
                return replace(asked.result, num_sent=num_sent)
            if not isinstance(asked.result, ModelError):
                raise asked.result
            errors.append(asked.result)
        # Raised here, not in the handlers of the packages' errors, which would become its context and show their
        # content.
        raise _together(errors)

    async def _ask_one(self, model: ModelName, question: Question[A]) -> _Asked[A]:
        import httpx2

        from flowrl_core.llm.connections import agent_for, connected
        from flowrl_core.llm.recorded import RecordedModel, what_was_wrong
        from flowrl_core.llm.wire import Line, Wire

        spec = self.spec
        dialect = Dialect(model, self.journal)
        wire = Wire(Line(model, self.keys, self.book, spec.timeout_s, spec.max_output_tokens, dialect, self.sleep))
        async with httpx2.AsyncClient(transport=wire, timeout=spec.timeout_s) as http:
            within = connected(model, http, self.keys.of(model))
            asked = _named(model, question, spec)
            recorded = RecordedModel(within, journal=self.journal, mode=spec.journal, asked=asked, form=question.answer)
            try:
                result = await agent_for(recorded, question, spec).run(question.text)
            except Exception as exc:
                return _Asked(self._error(model, wire.problem or exc, recorded), wire.num_sent)
        malformed = tuple(what_was_wrong(result.all_messages()))
        return _Asked(Reply(result.output, str(model), tuple(recorded.keys), malformed), wire.num_sent)

    def _error(self, model: ModelName, exc: BaseException, recorded: RecordedModel) -> BaseException:
        """Return the error to raise for a failed request; the packages' errors that remain here concern the answer."""
        from pydantic_ai.exceptions import AgentRunError

        if isinstance(exc, AgentRunError):
            code, problem = _meaning(exc, recorded, self.spec)
            return model_error(code, self.keys.masked_text(f"{model}: {problem}"))
        return exc.with_traceback(None) if isinstance(exc, FlowRLError) else exc


def _named(model: ModelName, question: Question[A], spec: FrontierSpec) -> dict[str, Any]:
    """Return everything that can change an answer, besides the messages since the question."""
    return {
        "model": str(model),
        "sample": question.sample,
        "instructions": question.instructions,
        "schema": question.answer.model_json_schema(),
        "output": spec.output,
        "temperature": spec.sampling_temperature,
        "max_output_tokens": spec.max_output_tokens,
        # Left out by default: otherwise entries written before these fields existed would have other names.
        **({"thinking": spec.thinking} if spec.thinking != "default" else {}),
        **({"extra": spec.extra_fields} if spec.extra else {}),
    }


def _meaning(exc: Exception, recorded: RecordedModel, spec: FrontierSpec) -> tuple[Code, str]:
    """Return the code and the reason why the model's output is not a valid answer."""
    from pydantic_ai.exceptions import ContentFilterError, OutputTokenLimitExceeded
    from pydantic_ai.messages import ThinkingPart

    last = recorded.responses[-1] if recorded.responses else None
    if isinstance(exc, ContentFilterError):
        refusal = (last.provider_details or {}).get("refusal") if last else None
        return "refused", f"the model refuses: {one_line(refusal or exc.message)}"
    if isinstance(exc, OutputTokenLimitExceeded):
        return "too_long", f"the answer did not end within {spec.max_output_tokens} tokens"
    if last and not (last.text or last.tool_calls):
        thoughts = any(isinstance(part, ThinkingPart) for part in last.parts)
        return "empty", "the model produced reasoning, but its answer is empty" if thoughts else "the answer is empty"
    answers = counted(len(recorded.responses), "answer")
    return "malformed", f"none of {answers} matches the schema, the last: {one_line(exc.__cause__ or exc)}"


def _together(errors: Sequence[ModelError]) -> ModelError:
    """Return one error for those of all models asked."""
    last = errors[-1]
    if len(errors) == 1:
        return last
    problem = "no model has answered: " + "; ".join(f"[{error.code}] {error.problem}" for error in errors)
    return ModelError(last.code, problem, last.remedy, is_passing=any(error.is_passing for error in errors))
