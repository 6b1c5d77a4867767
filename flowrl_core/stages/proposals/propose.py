"""Propose: one round of a model's proposals, from the question to what the registry keeps of the answer."""

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
"""How a question is put to a model; see `llm.seam.LanguageModel.ask`."""

_OWN_FAULTS = frozenset({"malformed", "refused", "empty", "too_long"})
"""Codes of a ModelError by which the model has answered, but with nothing to look at."""


@dataclass(frozen=True)
class RoundOutcome:
    """What one round brought.

    Attributes:
        examinations: of each proposal, in the order of the answer.
        faults: what was wrong with the answer as a whole; then there are no examinations.
        model, call: who answered, and the journal's key of the answer; empty where none came.
    """

    question: Question[Any]
    examinations: tuple[Examination, ...] = ()
    faults: tuple[Finding, ...] = ()
    model: str = ""
    call: str = ""

    @property
    def sound(self) -> tuple[Examination, ...]:
        """Those that all gates have passed."""
        return tuple(one for one in self.examinations if one.is_sound)


def check_frontier(spec: CampaignSpec) -> None:
    """Nothing, if the campaign's frontier can be what its parameters say.

    Raises:
        InputError: the field that is wrong or lacking, and its remedy.
    """
    from flowrl_core.llm.names import check_installed, check_takes, parse_model
    from flowrl_core.llm.prices import check_affordable

    frontier = spec.frontier
    if frontier.kind == "knowledge":
        if frontier.model:
            remedy = "Add frontier.kind = model, or hybrid"
            raise InputError("frontier.kind", "is knowledge, so the named model would not be asked", remedy)
        return
    if not frontier.model:
        remedy = "Name one, such as openai:NAME, or NAME@http://127.0.0.1:8080/v1"
        raise InputError("frontier.model", f"is empty, and frontier.kind is {frontier.kind}", remedy)
    if frontier.max_tokens < frontier.max_output_tokens:
        problem = f"{frontier.max_tokens} is below frontier.max_output_tokens ({frontier.max_output_tokens})"
        raise InputError(
            "frontier.max_tokens",
            f"{problem}: the budget does not cover a single answer",
            "Raise it, or lower frontier.max_output_tokens",
        )
    for name in (frontier.model, *frontier.fallbacks):
        model = parse_model(name)
        check_takes(model, frontier.extra)
        check_installed(model)
    check_affordable(frontier)


def question_of(context: ProposalContext) -> Question[Any]:
    """What a model is asked as things stand; after rounds that brought nothing another draw of it."""
    return propose_question(context.briefing, sample=context.fruitless)


async def propose(
    context: ProposalContext, ask: Ask, *, later: Callable[[], ProposalContext] | None = None
) -> RoundOutcome:
    """One round: the question, the answer, and what each gate says of each proposal. Nothing is recorded.

    Args:
        context: what the question is made of.
        later: the context by which the answer is judged, read when it is there: the world goes on meanwhile.

    Raises:
        ModelError: no answer came, by no fault of what was asked.
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
    """What the registry keeps of the round; the sound proposals are skills of the campaign from now on.

    Raises:
        ConflictError: the campaign has changed since the proposals were examined.
    """
    spec = context.spec
    rows = [Examined(None, refusals=outcome.faults)] if outcome.faults else []
    for one, late in zip(outcome.examinations, _refused_late(context, outcome), strict=True):
        rows.append(Examined(one, budget(one.repaired.difficulty, spec.training), late))
    return registry.proposals.record_round(spec.campaign, rows, model=outcome.model, call=outcome.call)


def _refused_late(context: ProposalContext, outcome: RoundOutcome) -> list[tuple[Finding, ...]]:
    """Why proposals that the gates have passed are refused nevertheless: none for most of them.

    The campaign may have no room for more skills; what needs least is taken first. And what was refused here, or by the
    judge, is lacking in the plans of others.
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
    """The examination with the model's own verdict, where one came: the gates' stands without it."""
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
