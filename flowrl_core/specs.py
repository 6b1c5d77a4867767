"""Flow parameters as pydantic models: they make the forms of the Prefect UI and are validated again inside flows."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from flowrl_core.errors import InputError
from flowrl_core.model_requests import ExtraField, Temperature, extra_field
from flowrl_core.naming import AS_PATHS, Naming
from flowrl_core.nearest import nearest
from flowrl_core.quantities import Number, Whole
from flowrl_core.refusals import refusal, shown
from flowrl_core.skills.merging import MergePolicy

__all__ = [
    "CampaignName",
    "CampaignSpec",
    "EvaluationSpec",
    "FrontierSpec",
    "LimitsSpec",
    "Override",
    "SkillConfig",
    "Spec",
    "TrainingSpec",
    "check_episodes",
    "continued",
    "origins",
    "overrides_of",
    "parse_campaign",
    "resolve",
]

_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"


def _check_name(name: str) -> str:
    if not re.match(_NAME, name) or name.endswith("\n"):
        raise PydanticCustomError(
            "name", "must begin with a letter or a digit, and have only letters, digits, - and _, 64 at most"
        )
    return name


# A form checks the pattern; what a person is told is said in words.
CampaignName = Annotated[str, AfterValidator(_check_name), Field(json_schema_extra={"pattern": _NAME})]
Fraction = Annotated[Number, Field(ge=0.0, le=1.0)]


class Spec(BaseModel):
    """What comes from a person or from Prefect: fields of these names only, written with - or _."""

    # A form shows a field under the name that overrides and command lines use.
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, field_title_generator=lambda name, _: name
    )

    @model_validator(mode="before")
    @classmethod
    def _join_words(cls, given: Any) -> Any:
        """The fields with the names that they have here: `num-envs` is `num_envs`."""
        if not isinstance(given, dict):
            return given
        joined: dict[Any, Any] = {}
        for name, value in given.items():
            plain = name.replace("-", "_") if isinstance(name, str) else name
            if plain in joined:
                raise PydanticCustomError("twice", "has {name} twice, with - and with _", {"name": name})
            joined[plain] = value
        return joined


class TrainingSpec(Spec):
    """How one skill is trained."""

    frames: Whole = Field(default=600_000, ge=1, description="Most environment steps of one run (its budget)")
    num_envs: Whole = Field(default=64, ge=1, le=65_536, description="Environments stepped together")
    rollout_length: Whole = Field(default=32, ge=1, le=4_096, description="Steps per environment and update (T)")
    minibatch_size: Whole = Field(default=256, ge=1, description="Samples of one expert in one gradient step")
    epochs: Whole = Field(default=4, ge=1, le=64, description="Passes over each rollout")
    learning_rate: Number = Field(default=1e-3, gt=0.0, le=1.0, description="Adam's step size")
    discount: Fraction = Field(default=0.99, description="Gamma")
    gae_lambda: Fraction = Field(default=0.9, description="Lambda of generalised advantage estimation")
    clip: Number = Field(
        default=0.2, gt=0.0, le=10.0, description="PPO's clipping range, of the policy and of the value"
    )
    entropy_weight: Number = Field(default=0.01, ge=0.0, le=10.0, description="Weight of the entropy bonus")
    value_weight: Number = Field(default=0.5, ge=0.0, le=10.0, description="Weight of the value loss")
    max_grad_norm: Number = Field(default=0.5, gt=0.0, description="Gradients are clipped to this global norm")
    width: Whole = Field(default=64, ge=1, le=4_096, description="Units of each hidden layer of an expert")
    max_experts: Whole = Field(
        default=8, ge=1, le=256, description="Local experts a run has room for; grows to the next power of two"
    )
    episode_limit: Whole = Field(
        default=300, ge=1, le=10_000, description="Steps after which an episode counts as failed"
    )
    credit: Literal["bootstrap", "terminal"] = Field(
        default="bootstrap",
        description="Credit across skill boundaries: the next expert's value counts, or the boundary is terminal",
    )
    snapshot_fraction: Fraction = Field(
        default=0.5, description="Share of resets that start at the entry of the last plan step"
    )
    snapshot_capacity: Whole = Field(default=256, ge=1, description="Entry states kept")
    world_pool: Whole = Field(default=256, ge=1, description="Pre-generated worlds for resets")
    world_uses: Whole = Field(default=8, ge=1, le=1_000, description="Episodes after which a pool world is replaced")
    action_masks: bool = Field(default=False, description="Use the skills' declared lists of allowed actions")
    checkpoint_updates: Whole = Field(default=40, ge=1, description="Updates between mid-run checkpoints")
    seed: Whole = Field(default=0, ge=0, le=2**31 - 1, description="Seed of the run")


class EvaluationSpec(Spec):
    """How a skill is judged."""

    threshold: Number = Field(
        default=0.75, gt=0.0, lt=1.0, description="Learned only if the lower bound of success reaches this"
    )
    level: Number = Field(default=0.05, gt=0.0, lt=0.5, description="One-sided error level, shared by all looks")
    looks: Whole = Field(default=4, ge=1, le=16, description="Most looks of one run")
    episodes: Whole = Field(default=512, ge=1, le=65_536, description="Episodes of one look, each from a fresh world")
    target: Number = Field(
        default=0.88, gt=0.0, le=1.0, description="Smoothed training success that triggers the first look"
    )
    target_step: Number = Field(
        default=0.02, ge=0.0, le=0.5, description="The target rises by this after a failed look"
    )
    min_frames: Whole = Field(default=16_384, ge=0, description="Frames before the first look and between two looks")
    min_episodes: Whole = Field(default=64, ge=1, description="Finished episodes in the smoothing window before a look")
    head_episodes: Whole = Field(
        default=128,
        ge=0,
        description="Fewest episodes that measure the heads before a run starts (a multiple of num_envs is played); "
        "0: do not measure",
    )


class LimitsSpec(Spec):
    """How a campaign may use the machine, and what it does with results."""

    max_parallel: Whole = Field(default=8, ge=1, le=1_024, description="Skills submitted at the same time")
    max_retries: Whole = Field(default=2, ge=0, le=100, description="New tries of a skill after infrastructure trouble")
    max_skills: Whole = Field(
        default=64, ge=1, le=10_000, description="Most skills that a language model may add to the campaign"
    )
    merge: MergePolicy = Field(
        default="most_frames",
        description="Which version of a shared expert the next runs start from: the one with more frames, the new one "
        "unless it is measured to be worse at its own skill (evaluated), or always the first (frozen)",
    )
    approval: Literal["none", "required"] = Field(
        default="none",
        description="required: each skill's run waits in the Prefect UI until a person resumes it (with changes, "
        "perhaps) or cancels it",
    )
    stall_minutes: Number = Field(
        default=15.0, gt=0.0, le=1_440.0, description="A run without progress for so long is stopped and tried again"
    )


class FrontierSpec(Spec):
    """Who proposes a campaign's skills, and what that may cost."""

    kind: Literal["knowledge", "model", "hybrid"] = Field(
        default="knowledge",
        description="The knowledge base, a language model, or both: the model proposes what the knowledge base lacks",
    )
    model: str = Field(
        default="",
        max_length=300,
        examples=["openai:NAME"],
        description="PROVIDER:NAME (openai, anthropic, google), or NAME@URL of a server that speaks OpenAI's protocol. "
        "Keys are read from the environment of the campaign's process, or from Prefect Secret blocks",
    )
    fallbacks: list[str] = Field(
        default=[],
        max_length=8,
        examples=[["openai:NAME"]],
        description="Models to ask, in this order, where the ones before do not answer",
    )
    journal: Literal["cached", "record", "replay"] = Field(
        default="cached",
        description="cached: no call is made twice. record: every call is made. replay: none is",
    )
    output: Literal["native", "tool", "prompted"] = Field(
        default="native",
        description="How the answer's schema is enforced; small models manage native only",
    )
    temperature: Temperature = Field(
        default="0.7", description="Of the model's sampling, from 0 to 2; empty: none is sent, the server's own holds"
    )
    thinking: Literal["default", "off", "minimal", "low", "medium", "high"] = Field(
        default="default",
        description="Effort of a model that thinks before it answers, where its provider takes one; default: its own",
    )
    extra: list[ExtraField] = Field(
        default=[],
        max_length=16,
        examples=[['reasoning_effort="low"']],
        description='KEY=JSON: more fields of each request, as in reasoning_effort="low" or provider={"order": ["x"]}',
    )
    max_output_tokens: Whole = Field(default=4_096, ge=16, le=131_072, description="Longest answer")
    timeout_s: Number = Field(default=120.0, gt=0.0, le=3_600.0, description="Longest wait for one answer")
    answer_retries: Whole = Field(
        default=2, ge=0, le=10, description="Times that a malformed answer is sent back with what is wrong with it"
    )
    max_cost: Number = Field(
        default=0.0,
        ge=0.0,
        description="Most US dollars that the campaign spends, ever. 0: no limit in money, only in requests and tokens",
    )
    max_requests: Whole = Field(default=200, ge=1, description="Most HTTP requests to models, ever, retries included")
    max_tokens: Whole = Field(default=2_000_000, ge=1, description="Most tokens, asked and answered, ever")
    prices: list[str] = Field(
        default=[],
        max_length=32,
        examples=[["NAME=0.5/2"]],
        description="MODEL=INPUT/OUTPUT in US dollars per million tokens, for models without a known price",
    )
    proposals: Whole = Field(default=4, ge=1, le=8, description="Most skills that one call proposes")
    fruitless_rounds: Whole = Field(
        default=3, ge=1, le=100, description="Rounds without a sound proposal after which the model is asked no more"
    )
    max_revisions: Whole = Field(default=2, ge=0, le=20, description="Times that a skill that failed is proposed anew")
    cool_down: Whole = Field(
        default=3, ge=0, le=100, description="Rounds in which a skill that was refused is not looked at again"
    )
    judge: bool = Field(
        default=False, description="Ask the model, of each sound proposal, whether it is worth learning"
    )

    @field_validator("extra")
    @classmethod
    def _each_once(cls, extra: list[str]) -> list[str]:
        keys = [extra_field(text)[0] for text in extra]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise PydanticCustomError("twice", "has {key} more than once", {"key": twice})
        return extra

    @property
    def extra_fields(self) -> dict[str, Any]:
        """What `extra` says, key by key."""
        return dict(map(extra_field, self.extra))

    @property
    def sampling_temperature(self) -> float | None:
        """The temperature as a number; None: none is sent."""
        return float(self.temperature) if self.temperature else None


class CampaignSpec(Spec):
    """All parameters of a campaign. Without targets: those of its earlier start (see `continued`)."""

    campaign: CampaignName = "default"
    env: str = Field(default="craftax-classic", min_length=1)
    targets: list[str] = Field(default=[], examples=[["collect_wood"]])
    knowledge: str = Field(
        default="",
        examples=["craftax-classic"],
        description="A shipped knowledge base, or a TOML file in FLOWRL_HOME/knowledge; empty: the one shipped for the "
        "environment",
    )
    training: TrainingSpec = TrainingSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    limits: LimitsSpec = LimitsSpec()
    frontier: FrontierSpec = FrontierSpec()
    overrides: list[str] = Field(
        default=[],
        examples=[["collect_wood.frames=100000"]],
        description="SKILL.FIELD=VALUE: one training or evaluation field of one skill",
    )
    retry: list[str] = Field(
        default=[], examples=[["collect_wood"]], description="Skills that failed and are to be tried again"
    )


class SkillConfig(Spec):
    """What is decided about one skill's run: recorded in its config.json."""

    training: TrainingSpec = TrainingSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    merge: MergePolicy = "most_frames"
    stall_minutes: Number = LimitsSpec().stall_minutes
    reflect: bool = Field(
        default=False, description="Record how episodes went at the run's end, for a model that proposes skills"
    )


def parse_campaign(named: Naming = AS_PATHS, /, **parameters: Any) -> CampaignSpec:
    """The validated parameters of a campaign.

    Args:
        named: how a person wrote a field, by its path (`training.frames`).

    Raises:
        InputError: the first field that is wrong, by name, with what is allowed.
    """
    try:
        return CampaignSpec.model_validate(parameters)
    except ValidationError as exc:
        raise refusal(exc, named, model=CampaignSpec) from exc


def continued(spec: CampaignSpec, before: CampaignSpec) -> CampaignSpec:
    """A start without targets as it is meant: the earlier one again, but for what is given besides.

    What equals a default counts as not given. What may not change under one name is refused by who starts it.
    """
    given = spec.model_dump(exclude_defaults=True, exclude={"targets", "retry"})
    return before.model_copy(
        update={
            "retry": spec.retry,
            **{
                name: getattr(before, name).model_copy(update=value) if isinstance(value, dict) else value
                for name, value in given.items()
            },
        }
    )


_OVERRIDE = re.compile(r"^(?P<skill>[^.=\s]+)\.(?P<field>[^=\s]+)=(?P<value>.+)$", re.DOTALL)


@dataclass(frozen=True)
class Override:
    """One field of one skill, as a person set it.

    Attributes:
        written: the field as errors name it, `overrides.SKILL.FIELD`.
        group, field: of the configuration.
    """

    written: str
    skill: str
    group: str
    field: str
    value: str


def overrides_of(spec: CampaignSpec, named: Naming = AS_PATHS) -> list[Override]:
    """The campaign's overrides, in their order.

    Raises:
        InputError: one that is not SKILL.FIELD=VALUE, or names no such field.
    """
    return [_parse_override(text, named) for text in spec.overrides]


def _parse_override(text: str, named: Naming) -> Override:
    found = _OVERRIDE.match(text.lstrip("\ufeff").strip())
    if not found:
        problem = f"{shown(text)} is not SKILL.FIELD=VALUE"
        example = named.example("overrides.collect_wood.frames", 100_000)
        raise InputError(named("overrides"), problem, f"Write for example {example}")
    written, field = f"overrides.{found['skill']}.{found['field']}", found["field"].replace("-", "_")
    group = next((name for name, model in _GROUPS.items() if field in model.model_fields), None)
    if group is None:
        known = [name for model in _GROUPS.values() for name in model.model_fields]
        near = nearest(field.rpartition(".")[2], known, cutoff=0.6)
        remedy = f"Did you mean {' or '.join(near)}?" if near else f"Known fields: {', '.join(known)}"
        raise InputError(named(written), f"{found['field']!r} is no training or evaluation field", remedy)
    return Override(written, found["skill"], group, field, found["value"].strip())


def resolve(
    skill: str,
    spec: CampaignSpec,
    named: Naming = AS_PATHS,
    /,
    *,
    training: Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
) -> SkillConfig:
    """The configuration of one skill's run: the campaign's, the knowledge base's own, then the overrides.

    Args:
        named: how a person wrote a field, by its path (`training.frames`, `overrides.SKILL.frames`).
        training, evaluation: the fields that the knowledge base sets for the skill.

    Raises:
        InputError: an override that names no such field, or a value outside its range.
    """
    own = {"training": training or {}, "evaluation": evaluation or {}}
    groups = {group: {**getattr(spec, group).model_dump(), **values} for group, values in own.items()}
    for override in overrides_of(spec, named):
        if override.skill == skill:
            groups[override.group][override.field] = override.value
    where = origins(skill, spec, **own)
    try:
        return SkillConfig.model_validate(
            {
                **groups,
                "merge": spec.limits.merge,
                "stall_minutes": spec.limits.stall_minutes,
                "reflect": spec.frontier.kind != "knowledge",
            }
        )
    except ValidationError as exc:
        raise refusal(exc, named.at(where), model=SkillConfig) from exc


def origins(
    skill: str, spec: CampaignSpec, *, training: Mapping[str, Any], evaluation: Mapping[str, Any]
) -> Callable[[str], str]:
    """Where the value of a skill's field comes from: `training.frames` -> that, or the path of what was stronger.

    Args:
        training, evaluation: the fields that the knowledge base sets for the skill.
    """
    own = {"training": training, "evaluation": evaluation}
    found = {f"{group}.{field}": f"skills.{skill}.{group}.{field}" for group, values in own.items() for field in values}
    found |= {f"{one.group}.{one.field}": one.written for one in overrides_of(spec) if one.skill == skill}
    return lambda path: found.get(path, path)


def check_episodes(field: str, episodes: int, environments: int, *, num_envs: str = "num_envs") -> None:
    """Refuse a number of episodes that the environments cannot share equally.

    Args:
        field, num_envs: how a person wrote the fields of the two.

    Raises:
        InputError: `episodes` is no multiple of `num_envs`; the nearest one is named.
    """
    if episodes % environments:
        nearest = max(1, round(episodes / environments)) * environments
        raise InputError(
            field, f"{episodes} is no multiple of {num_envs} ({environments})", f"Use for example {nearest}"
        )


_GROUPS: dict[str, type[Spec]] = {"training": TrainingSpec, "evaluation": EvaluationSpec}
