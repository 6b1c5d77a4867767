"""Sources of a campaign's skills: its knowledge base, or a language model that proposes while others train."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from prefect import task
from prefect.blocks.system import Secret

from flowrl_core.errors import BudgetError, ConflictError, ModelError
from flowrl_core.llm.client import connect
from flowrl_core.llm.drafts import draft
from flowrl_core.llm.keys import KEY_VARIABLES
from flowrl_core.llm.seam import LanguageModel, Question, Reply
from flowrl_core.proposals.accepted import is_wanting
from flowrl_core.skills.frontier import Frontier
from flowrl_core.skills.knowledge import Knowledge
from flowrl_core.specs.campaign import CampaignSpec
from flowrl_core.stages.proposals.context import ProposalContext, initial_knowledge, read_context
from flowrl_core.stages.proposals.propose import propose, question_of, record
from flowrl_core.stages.proposals.spending import CampaignBook, estimate
from flowrl_core.storage.journal import FileJournal
from flowrl_core.storage.layout import Home
from flowrl_core.storage.records.campaigns import Campaign
from flowrl_core.storage.registry import Registry
from tasks.options import PAID

__all__ = ["KnowledgeSource", "ModelSource", "SkillSource", "connect_model", "skill_source"]

logger = logging.getLogger(__name__)


class SkillSource(Protocol):
    """A source of a campaign's skills."""

    @property
    def reason(self) -> str:
        """Why no more skills will be added; empty while some may, or if the source never adds any."""
        ...

    def knowledge(self) -> Knowledge:
        """Return the current skills."""
        ...

    def settings(self, skill: str) -> dict[str, dict[str, Any]]:
        """Return the fields that a skill sets for its own runs; see `Knowledge.settings`."""
        ...

    def look(self, found: Frontier) -> bool:
        """Ask for more skills if needed; return whether some may come, or have come since `knowledge` was last read."""
        ...

    async def close(self) -> None:
        """Stop asking."""
        ...


@dataclass(frozen=True)
class KnowledgeSource:
    """A fixed source: the skills of a knowledge base."""

    given: Knowledge
    reason: str = ""

    def knowledge(self) -> Knowledge:
        """See `SkillSource.knowledge`."""
        return self.given

    def settings(self, skill: str) -> dict[str, dict[str, Any]]:
        """See `SkillSource.settings`."""
        return self.given.settings(skill)

    def look(self, found: Frontier) -> bool:
        """See `SkillSource.look`."""
        return False

    async def close(self) -> None:
        """See `SkillSource.close`."""


@dataclass
class ModelSource:
    """A growing source: a knowledge base, and skills that a language model adds in rounds while others train.

    A round runs beside the campaign's turns. Its results are in the registry, its answers in the journal; the state
    here only prevents asking the same question again in the same situation.

    Attributes:
        base: the initial skills of the campaign.
        model: None to use the skills accepted before and ask for no more.
        wake: triggers the campaign's next turn.
    """

    registry: Registry
    campaign: Campaign
    base: Knowledge
    model: LanguageModel | None
    wake: Callable[[], None]
    reason: str = ""
    _context: ProposalContext | None = field(default=None, repr=False)
    _round: asyncio.Task[None] | None = field(default=None, repr=False)
    _asked: tuple[object, int] | None = field(default=None, repr=False)
    _states: object = field(default=None, repr=False)
    _forgiven: int = 0
    _is_spent: bool = False

    def knowledge(self) -> Knowledge:
        """See `SkillSource.knowledge`."""
        self._context = self._read()
        return self._context.knowledge

    def settings(self, skill: str) -> dict[str, dict[str, Any]]:
        """See `SkillSource.settings`."""
        return (self._context or self._read()).settings(skill)

    def look(self, found: Frontier) -> bool:
        """See `SkillSource.look`."""
        if self._round is not None:
            if self._round.done():
                ended, self._round = self._round, None
                self._note(ended)
                self.wake()  # the next turn sees the new skills
            return True
        if self.model is None or self._is_spent:
            return False
        context = self._context or self._read()
        if not is_wanting(found, context.facts):
            self.reason = ""
            return False
        if not self._may_ask(context, found):
            return False
        self._round = asyncio.create_task(self._propose(context, self.model))
        self._round.add_done_callback(lambda _: self.wake())
        return True

    async def close(self) -> None:
        """See `SkillSource.close`."""
        if self._round is not None:
            self._round.cancel()
            await asyncio.gather(self._round, return_exceptions=True)

    def _read(self) -> ProposalContext:
        return read_context(self.registry, self.campaign.name, self.campaign.spec, self.base, before=self._context)

    def _may_ask(self, context: ProposalContext, found: Frontier) -> bool:
        """Whether a round is due: never twice in the same situation, nor after too many fruitless rounds."""
        states = tuple(found.states.items())
        if states != self._states:
            self._states, self._forgiven = states, context.fruitless
        self._forgiven = min(self._forgiven, context.fruitless)
        most, rounds = context.spec.limits.max_skills, context.spec.frontier.fruitless_rounds
        if len(context.added) >= most and not found.failed:
            self.reason = f"the campaign has reached its limit of {most} proposed skills (limits.max_skills)"
            return False
        if context.fruitless - self._forgiven >= rounds:
            self.reason = f"{rounds} rounds without an accepted proposal (frontier.fruitless_rounds)"
            return False
        if (states, context.rounds) == self._asked:
            return False
        self._asked = (states, context.rounds)
        self.reason = ""
        return True

    async def _propose(self, context: ProposalContext, model: LanguageModel) -> None:
        if not context.history:
            limits = context.spec.frontier
            logger.info("%s", estimate(limits, draft(question_of(context), limits).input_tokens))
        outcome = await propose(context, self._ask_of(model), later=self._read)
        rows = record(self.registry, self._read(), outcome)
        accepted = [row.name for row in rows if row.state == "accepted"]
        logger.info("round %d: accepted %s of %d proposals", rows[0].round, ", ".join(accepted) or "none", len(rows))

    def _ask_of(self, model: LanguageModel) -> Callable[[Question[Any]], Awaitable[Reply[Any]]]:
        limits = self.campaign.spec.frontier
        settings = [limits.fallbacks, limits.output, limits.temperature, limits.max_output_tokens]
        settings += [limits.thinking, limits.extra]
        ask_once = ask_model if limits.journal == "cached" else ask_model.with_options(refresh_cache=True)

        async def ask(question: Question[Any]) -> Reply[Any]:
            async def call() -> dict[str, Any]:
                reply = await model.ask(question)
                return {**dataclasses.asdict(reply), "answer": reply.answer.model_dump(mode="json")}

            kept = await ask_once(_key(self.registry.uuid, model.name, settings, question), call)
            return Reply(**{**kept, "answer": question.answer.model_validate(kept["answer"])})

        return ask

    def _note(self, ended: asyncio.Task[None]) -> None:
        """Record what the end of a round means for the next ones."""
        try:
            ended.result()
        except BudgetError as exc:
            self.reason, self._is_spent = str(exc), True
        except ModelError as exc:
            self.reason = str(exc)  # asked again once the situation has changed: the model may answer by then
        except ConflictError:
            self._asked = None
        if self.reason:
            logger.warning("no proposals: %s", self.reason)


@task(name="ask", **PAID)
async def ask_model(key: str, call: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    """Return the answer to one question, as JSON.

    Args:
        key: identifies the question; a question that was answered before is not asked again.
        call: asks the question.
    """
    return await call()


async def connect_model(registry: Registry, spec: CampaignSpec, home: Home) -> LanguageModel | None:
    """Return the campaign's language model without asking it; None if its frontier has none.

    Raises:
        InputError: a model cannot be connected to.
    """
    if spec.frontier.kind == "knowledge":
        return None
    book, journal = CampaignBook(registry, spec), FileJournal(home.journal)
    return connect(spec.frontier, book=book, journal=journal, secrets=await _secrets())


def skill_source(
    registry: Registry,
    campaign: Campaign,
    knowledge: Knowledge,
    model: LanguageModel | None,
    wake: Callable[[], None],
) -> SkillSource:
    """Return the source of the campaign's skills: `knowledge`, plus what `model` adds or what was accepted before."""
    if model is None and not any(one.state == "accepted" for one in registry.proposals.of(campaign.name)):
        return KnowledgeSource(knowledge)
    return ModelSource(registry, campaign, initial_knowledge(knowledge, campaign.spec), model, wake)


async def _secrets() -> dict[str, str]:
    """Return the keys from Prefect's Secret blocks, named after the variables: `openai-api-key` for OPENAI_API_KEY."""
    found = {}
    for variable in KEY_VARIABLES.values():
        if variable not in os.environ:
            with contextlib.suppress(ValueError):  # no such block
                block: Secret[Any] = await Secret.aload(variable.lower().replace("_", "-"))
                found[variable] = str(block.get())
    return found


def _key(registry: str, model: str, settings: Sequence[Any], question: Question[Any]) -> str:
    """Return the question's key: a hash of all that can change its answer, and of the registry among the server's."""
    form = question.answer.model_json_schema()
    asked = [registry, model, settings, question.instructions, question.text, form, question.sample]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
