"""Propose: one round of a model's proposals, from the question to the registry's record of the answer."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from flowrl_core.errors import InputError, ModelError
from flowrl_core.llm.answers import to_proposals
from flowrl_core.llm.briefing import judge_question, propose_question
from flowrl_core.llm.seam import Question, Reply
from flowrl_core.naming import AS_PATHS, Naming
from flowrl_core.proposals.accepted import budget
from flowrl_core.proposals.gates import examine
from flowrl_core.proposals.model import Examination, Finding
from flowrl_core.specs.campaign import CampaignSpec
from flowrl_core.stages.proposals.context import ProposalContext
from flowrl_core.storage.records.proposals import Examined, ProposalRecord
from flowrl_core.storage.registry import Registry

__all__ = ["Ask", "RoundOutcome", "check_frontier", "propose", "question_of", "record"]

logger = logging.getLogger(__name__)

Ask = Callable[[Question[Any]], Awaitable[Reply[Any]]]
"""Asks a model a question; see `llm.seam.LanguageModel.ask`."""

_OWN_FAULTS = frozenset({"malformed", "refused", "empty", "too_long"})
"""Codes of a ModelError for which the model did answer, but with nothing to examine."""


@dataclass(frozen=True)
class RoundOutcome:
    """The outcome of one round.

    Attributes:
        examinations: one per proposal, in the order of the answer.
        faults: faults of the answer as a whole; if any, there are no examinations.
        model, call: the model that answered, and the answer's journal key; empty without an answer.
    """

    question: Question[Any]
    examinations: tuple[Examination, ...] = ()
    faults: tuple[Finding, ...] = ()
    model: str = ""
    call: str = ""

    @property
    def sound(self) -> tuple[Examination, ...]:
        """The examinations of proposals that passed all gates."""
        return tuple(one for one in self.examinations if one.is_sound)


def check_frontier(spec: CampaignSpec, named: Naming = AS_PATHS) -> None:
    """Check that the campaign's frontier parameters are valid.

    Args:
        named: how the user writes a field, given its path (`frontier.model`).

    Raises:
        InputError: a field is wrong or missing; the message names it and the remedy.
    """
    from flowrl_core.llm.names import check_installed, check_takes, parse_model
    from flowrl_core.llm.prices import check_affordable

    frontier = spec.frontier
    if frontier.kind == "knowledge":
        if frontier.model:
            remedy = f"Add {named.setting('frontier.kind', 'model')}, or hybrid"
            raise InputError("frontier.kind", "is knowledge, so the named model would not be asked", remedy)
        return
    if not frontier.model:
        remedy = "Name one, such as openai:NAME, or NAME@http://127.0.0.1:8080/v1"
        raise InputError("frontier.model", f"is empty, and {named('frontier.kind')} is {frontier.kind}", remedy)
    if frontier.max_tokens < frontier.max_output_tokens:
        answer = named("frontier.max_output_tokens")
        problem = f"{frontier.max_tokens} is below {answer} ({frontier.max_output_tokens})"
        raise InputError(
            "frontier.max_tokens",
            f"{problem}: the budget does not cover a single answer",
            f"Raise it, or lower {answer}",
        )
    for name in (frontier.model, *frontier.fallbacks):
        model = parse_model(name)
        check_takes(model, frontier.extra)
        check_installed(model)
    check_affordable(frontier, named)


def question_of(context: ProposalContext) -> Question[Any]:
    """The question for a model in this context; after fruitless rounds, another draw of it."""
    return propose_question(context.briefing, sample=context.fruitless)


async def propose(
    context: ProposalContext, ask: Ask, *, later: Callable[[], ProposalContext] | None = None
) -> RoundOutcome:
    """The outcome of one round: ask the question and run every gate on each proposal. Nothing is recorded.

    Args:
        context: what the question is made from.
        later: returns the context for judging the answer; called once it arrives, as the campaign may have changed.

    Raises:
        ModelError: no answer came, and the question was not the cause.
        BudgetError: the question was not sent.
    """
    question = question_of(context)
    try:
        reply = await ask(question)
    except ModelError as exc:
        if exc.code not in _OWN_FAULTS:
            raise
        fault = Finding("answer", exc.code, f"{exc.problem}. {exc.remedy}")
        return RoundOutcome(question, faults=(fault,))
    call = reply.keys[-1] if reply.keys else ""
    proposals = to_proposals(reply.answer)
    if not proposals:
        fault = Finding("answer", "nothing_proposed", "The answer contains no skill. Propose at least one.")
        return RoundOutcome(question, faults=(fault,), model=reply.model, call=call)
    judged = later() if later else context
    examinations = examine(proposals, judged.gate_context)
    if context.spec.frontier.judge:
        examinations = [await _judged(one, judged, ask) for one in examinations]
    return RoundOutcome(question, tuple(examinations), model=reply.model, call=call)


def record(registry: Registry, context: ProposalContext, outcome: RoundOutcome) -> list[ProposalRecord]:
    """Record the round and return its records; sound proposals become skills of the campaign.

    Raises:
        ConflictError: the campaign changed after the proposals were examined.
    """
    spec = context.spec
    rows = [Examined(None, refusals=outcome.faults)] if outcome.faults else []
    for one, late in zip(outcome.examinations, _refused_late(context, outcome), strict=True):
        rows.append(Examined(one, budget(one.repaired.difficulty, spec.training), late))
    return registry.proposals.record_round(spec.campaign, rows, model=outcome.model, call=outcome.call)


def _refused_late(context: ProposalContext, outcome: RoundOutcome) -> list[tuple[Finding, ...]]:
    """Why proposals that passed the gates are still refused, per examination; usually empty.

    The campaign may have no room for more skills: those with the shortest plans are accepted first. A proposal is also
    refused if its plan needs one that was refused here or by the judge.
    """
    most = context.spec.limits.max_skills
    room = most - len(context.added)
    late: dict[str, Finding] = {}
    gone = {one.repaired.skill.name for one in outcome.examinations if any(f.gate == "interest" for f in one.refusals)}
    for one in sorted(outcome.sound, key=lambda one: len(one.plan.steps) if one.plan else 0):
        name, needs = one.repaired.skill.name, set(one.plan.skills if one.plan else ())
        if lacking := sorted(gone & needs):
            late[name] = Finding("interest", "needs_refused", f"It needs {lacking[0]}, which was refused.")
        elif name not in context.added and room < 1:
            late[name] = Finding("interest", "enough", f"The campaign accepts at most {most} proposed skills.")
        else:
            room -= name not in context.added
            continue
        gone.add(name)
    return [
        (late[one.repaired.skill.name],) if one.is_sound and one.repaired.skill.name in late else ()
        for one in outcome.examinations
    ]


async def _judged(examination: Examination, context: ProposalContext, ask: Ask) -> Examination:
    """The examination with the model's own verdict; without an answer, the gates' verdict stands."""
    if not examination.is_sound:
        return examination
    try:
        reply = await ask(judge_question(context.briefing, examination.repaired))
    except ModelError as exc:
        logger.warning("%s is not judged: %s", examination.repaired.skill.name, exc)
        return examination
    if reply.answer.worth_learning:
        return examination
    why = Finding("interest", "not_worth_learning", reply.answer.why or "It was judged not worth learning.")
    return dataclasses.replace(examination, refusals=(why,))
