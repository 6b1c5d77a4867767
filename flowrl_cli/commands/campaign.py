"""`flowrl campaign`: check everything, start or attach, show, and stop what was started."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from flowrl_core.specs.campaign import FrontierSpec, LimitsSpec
from flowrl_core.specs.skill import EvaluationSpec, TrainingSpec

__all__ = ["campaign"]

_TRAINING = Group("Training", sort_key=2)
_EVALUATION = Group("Evaluation", sort_key=3)
_LIMITS = Group("Limits", sort_key=4)
_FRONTIER = Group("Frontier", sort_key=5)

_DEFAULTS = TrainingSpec(), EvaluationSpec(), LimitsSpec(), FrontierSpec()


def campaign(
    *,
    target: Annotated[list[str] | None, Parameter(negative="")] = None,
    all: Annotated[bool | None, Parameter(negative="")] = None,
    campaign: str | None = None,
    env: str | None = None,
    knowledge: str | None = None,
    fresh: Annotated[bool | None, Parameter(negative="")] = None,
    override: Annotated[list[str] | None, Parameter(negative="")] = None,
    retry: Annotated[list[str] | None, Parameter(negative="")] = None,
    from_scratch: Annotated[bool | None, Parameter(negative="")] = None,
    keep: Annotated[bool, Parameter(negative="")] = False,
    config: Path | None = None,
    training: Annotated[TrainingSpec, Parameter(group=_TRAINING)] = _DEFAULTS[0],
    evaluation: Annotated[EvaluationSpec, Parameter(group=_EVALUATION)] = _DEFAULTS[1],
    limits: Annotated[LimitsSpec, Parameter(group=_LIMITS)] = _DEFAULTS[2],
    frontier: Annotated[FrontierSpec, Parameter(group=_FRONTIER)] = _DEFAULTS[3],
) -> int:
    """Learn the targets and all skills they need. Run it again to resume: no finished skill is repeated.

    Exit code 0 only if all targets are learned.

    Parameters
    ----------
    target
        A skill to learn, or a fluent to obtain (inv.iron_pickaxe); repeat it for more. Without any, nor --all, the
        campaign resumes with its earlier settings and those given.
    all
        Every skill of the knowledge base is a target.
    campaign
        The campaign's name ("default" if not given).
    env
        The environment (default: that of the campaign, else craftax-classic).
    knowledge
        A TOML file, or the name of a shipped knowledge base (default: the campaign's, else the environment's).
    fresh
        Give the campaign a library of its own: it learns everything anew and leaves the shared one alone.
    override
        SKILL.FIELD=VALUE: one training or evaluation field of one skill; repeat it for more.
    retry
        A failed skill whose training continues from where it stopped, with other overrides if you like; repeat it for
        more.
    from_scratch
        Begin the training of the skills to retry anew, instead of continuing it.
    keep
        Leave the local server and workers running at the end.
    config
        A TOML file with `targets`, `all`, `campaign`, `env`, `knowledge`, `fresh`, `overrides`, `retry`, `from_scratch`
        and the tables `[training]`, `[evaluation]`, `[limits]`, `[frontier]`. Options override it.
    """
    from flowrl_cli.checks.installed import check_installation
    from flowrl_cli.process.account import check_directory

    check_installation()  # before other imports fail for lack of a file
    check_directory()
    from flowrl_cli.request.campaign import make_request, merge_sources
    from flowrl_cli.session import run_campaign

    single = {"all": all, "campaign": campaign, "env": env, "knowledge": knowledge, "fresh": fresh}
    single["from_scratch"] = from_scratch
    several = {"targets": target, "overrides": override, "retry": retry}
    typed: dict[str, Any] = {name: value for name, value in {**single, **several}.items() if value is not None}
    for name, group in (
        ("training", training),
        ("evaluation", evaluation),
        ("limits", limits),
        ("frontier", frontier),
    ):
        if given := group.model_dump(exclude_unset=True):
            typed[name] = given
    parameters, written = merge_sources(config, typed)
    with written.errors():
        request = make_request(parameters, written)
        return run_campaign(request, keep=keep)
