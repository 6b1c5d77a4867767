"""Flow parameters as pydantic models: they make the forms of the Prefect UI and are validated again inside flows."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from flowrl_core.errors import InputError
from flowrl_core.model_requests import ExtraField, Temperature, extra_field
from flowrl_core.skills.merging import MergePolicy

__all__ = [
    "CampaignName",
    "CampaignSpec",
    "EvaluationSpec",
    "FrontierSpec",
    "LimitsSpec",
    "SkillConfig",
    "TrainingSpec",
    "check_episodes",
    "continued",
    "parse_campaign",
    "resolve",
]

CampaignName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class _Spec(BaseModel):
    # A form shows a field under the name that overrides and command lines use.
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, field_title_generator=lambda name, _: name
    )


class TrainingSpec(_Spec):
    """How one skill is trained."""

    frames: int = Field(default=600_000, ge=1, description="Most environment steps of one run (its budget)")
    num_envs: int = Field(default=64, ge=1, le=65_536, description="Environments stepped together")
    rollout_length: int = Field(default=32, ge=1, le=4_096, description="Steps per environment and update (T)")
    minibatch_size: int = Field(default=256, ge=1, description="Samples of one expert in one gradient step")
    epochs: int = Field(default=4, ge=1, le=64, description="Passes over each rollout")
    learning_rate: float = Field(default=1e-3, gt=0.0, le=1.0, description="Adam's step size")
    discount: Fraction = Field(default=0.99, description="Gamma")
    gae_lambda: Fraction = Field(default=0.9, description="Lambda of generalised advantage estimation")
    clip: float = Field(
        default=0.2, gt=0.0, le=10.0, description="PPO's clipping range, of the policy and of the value"
    )
    entropy_weight: float = Field(default=0.01, ge=0.0, le=10.0, description="Weight of the entropy bonus")
    value_weight: float = Field(default=0.5, ge=0.0, le=10.0, description="Weight of the value loss")
    max_grad_norm: float = Field(default=0.5, gt=0.0, description="Gradients are clipped to this global norm")
    width: int = Field(default=64, ge=1, le=4_096, description="Units of each hidden layer of an expert")
    max_experts: int = Field(
        default=8, ge=1, le=256, description="Local experts a run has room for; grows to the next power of two"
    )
    episode_limit: int = Field(
        default=300, ge=1, le=10_000, description="Steps after which an episode counts as failed"
    )
    credit: Literal["bootstrap", "terminal"] = Field(
        default="bootstrap",
        description="Credit across skill boundaries: the next expert's value counts, or the boundary is terminal",
    )
    snapshot_fraction: Fraction = Field(
        default=0.5, description="Share of resets that start at the entry of the last plan step"
    )
    snapshot_capacity: int = Field(default=256, ge=1, description="Entry states kept")
    world_pool: int = Field(default=256, ge=1, description="Pre-generated worlds for resets")
    world_uses: int = Field(default=8, ge=1, le=1_000, description="Episodes after which a pool world is replaced")
    action_masks: bool = Field(default=False, description="Use the skills' declared lists of allowed actions")
    checkpoint_updates: int = Field(default=40, ge=1, description="Updates between mid-run checkpoints")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of the run")


class EvaluationSpec(_Spec):
    """How a skill is judged."""

    threshold: float = Field(
        default=0.75, gt=0.0, lt=1.0, description="Learned only if the lower bound of success reaches this"
    )
    level: float = Field(default=0.05, gt=0.0, lt=0.5, description="One-sided error level, shared by all looks")
    looks: int = Field(default=4, ge=1, le=16, description="Most looks of one run")
    episodes: int = Field(default=512, ge=1, le=65_536, description="Episodes of one look, each from a fresh world")
    target: float = Field(
        default=0.88, gt=0.0, le=1.0, description="Smoothed training success that triggers the first look"
    )
    target_step: float = Field(default=0.02, ge=0.0, le=0.5, description="The target rises by this after a failed look")
    min_frames: int = Field(default=16_384, ge=0, description="Frames before the first look and between two looks")
    min_episodes: int = Field(default=64, ge=1, description="Finished episodes in the smoothing window before a look")
    head_episodes: int = Field(
        default=128,
        ge=0,
        description="Fewest episodes that measure the heads before a run starts (a multiple of num_envs is played); "
        "0: do not measure",
    )


class LimitsSpec(_Spec):
    """How a campaign may use the machine, and what it does with results."""

    max_parallel: int = Field(default=8, ge=1, le=1_024, description="Skills submitted at the same time")
    max_retries: int = Field(default=2, ge=0, le=100, description="New tries of a skill after infrastructure trouble")
    max_skills: int = Field(
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
    stall_minutes: float = Field(
        default=15.0, gt=0.0, le=1_440.0, description="A run without progress for so long is stopped and tried again"
    )


class FrontierSpec(_Spec):
    """Who proposes a campaign's skills, and what that may cost."""

    kind: Literal["knowledge", "model", "hybrid"] = Field(
        default="knowledge",
        description="The knowledge base, a language model, or both: the model proposes what the knowledge base lacks",
    )
    model: str = Field(
        default="",
        max_length=300,
        description="PROVIDER:NAME (openai, anthropic, google), or NAME@URL of a server that speaks OpenAI's protocol. "
        "Keys are read from the environment of the campaign's process, or from Prefect Secret blocks",
    )
    fallbacks: list[str] = Field(
        default=[], max_length=8, description="Models to ask, in this order, where the ones before do not answer"
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
        description='KEY=JSON: more fields of each request, as in reasoning_effort="low" or provider={"order": ["x"]}',
    )
    max_output_tokens: int = Field(default=4_096, ge=16, le=131_072, description="Longest answer")
    timeout_s: float = Field(default=120.0, gt=0.0, le=3_600.0, description="Longest wait for one answer")
    answer_retries: int = Field(
        default=2, ge=0, le=10, description="Times that a malformed answer is sent back with what is wrong with it"
    )
    max_cost: float = Field(
        default=0.0,
        ge=0.0,
        description="Most US dollars that the campaign spends, ever. 0: no limit in money, only in requests and tokens",
    )
    max_requests: int = Field(default=200, ge=1, description="Most HTTP requests to models, ever, retries included")
    max_tokens: int = Field(default=2_000_000, ge=1, description="Most tokens, asked and answered, ever")
    prices: list[str] = Field(
        default=[],
        max_length=32,
        description="MODEL=INPUT/OUTPUT in US dollars per million tokens, for models without a known price",
    )
    proposals: int = Field(default=4, ge=1, le=8, description="Most skills that one call proposes")
    fruitless_rounds: int = Field(
        default=3, ge=1, le=100, description="Rounds without a sound proposal after which the model is asked no more"
    )
    max_revisions: int = Field(default=2, ge=0, le=20, description="Times that a skill that failed is proposed anew")
    cool_down: int = Field(
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
            raise ValueError(f"{twice} is given more than once")
        return extra

    @property
    def extra_fields(self) -> dict[str, Any]:
        """What `extra` says, key by key."""
        return dict(map(extra_field, self.extra))

    @property
    def sampling_temperature(self) -> float | None:
        """The temperature as a number; None: none is sent."""
        return float(self.temperature) if self.temperature else None


class CampaignSpec(_Spec):
    """All parameters of a campaign. Without targets: those of its earlier start (see `continued`)."""

    campaign: CampaignName = "default"
    env: str = Field(default="craftax-classic", min_length=1)
    targets: list[str] = []
    knowledge: str = Field(
        default="",
        description="A shipped knowledge base, or a TOML file in FLOWRL_HOME/knowledge; empty: the one shipped for the "
        "environment",
    )
    training: TrainingSpec = TrainingSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    limits: LimitsSpec = LimitsSpec()
    frontier: FrontierSpec = FrontierSpec()
    overrides: list[str] = Field(
        default=[], description="SKILL.FIELD=VALUE: one training or evaluation field of one skill"
    )
    retry: list[str] = Field(default=[], description="Skills that failed and shall be tried again")


class SkillConfig(_Spec):
    """What is decided about one skill's run: recorded in its config.json."""

    training: TrainingSpec = TrainingSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    merge: MergePolicy = "most_frames"
    stall_minutes: float = LimitsSpec().stall_minutes
    reflect: bool = Field(
        default=False, description="Record how episodes went at the run's end, for a model that proposes skills"
    )


def parse_campaign(**parameters: Any) -> CampaignSpec:
    """The validated parameters of a campaign.

    Raises:
        InputError: the first field that is wrong, by name, with what is allowed.
    """
    try:
        return CampaignSpec.model_validate(parameters)
    except ValidationError as exc:
        raise _input_error(exc) from exc


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


_OVERRIDE = re.compile(r"^(?P<skill>[^.=\s]+)\.(?P<field>[a-z_]+)=(?P<value>.+)$")


def resolve(
    skill: str,
    spec: CampaignSpec,
    *,
    training: dict[str, Any] | None = None,
    evaluation: dict[str, Any] | None = None,
) -> SkillConfig:
    """The configuration of one skill's run: the campaign's, the knowledge base's own, then the overrides.

    Raises:
        InputError: an override that names no such field, a value outside its range, or episodes that the environments
            cannot share equally.
    """
    groups: dict[str, dict[str, Any]] = {
        "training": {**spec.training.model_dump(), **(training or {})},
        "evaluation": {**spec.evaluation.model_dump(), **(evaluation or {})},
    }
    for override in spec.overrides:
        found = _OVERRIDE.match(override)
        if not found:
            raise InputError(
                "overrides", f"{override!r} is not SKILL.FIELD=VALUE", "Write for example collect_wood.frames=100000"
            )
        if found["skill"] != skill:
            continue
        owners = [name for name, model in _GROUPS.items() if found["field"] in model.model_fields]
        if not owners:
            known = ", ".join(name for model in _GROUPS.values() for name in model.model_fields)
            raise InputError(
                "overrides", f"{found['field']!r} is no training or evaluation field", f"Known fields: {known}"
            )
        groups[owners[0]][found["field"]] = found["value"]
    try:
        config = SkillConfig.model_validate(
            {
                **groups,
                "merge": spec.limits.merge,
                "stall_minutes": spec.limits.stall_minutes,
                "reflect": spec.frontier.kind != "knowledge",
            }
        )
    except ValidationError as exc:
        raise _input_error(exc) from exc
    check_episodes("evaluation.episodes", config.evaluation.episodes, config.training.num_envs)
    return config


def check_episodes(field: str, episodes: int, num_envs: int) -> None:
    """Refuse a number of episodes that the environments cannot share equally.

    Raises:
        InputError: `episodes` is no multiple of `num_envs`; the nearest one is named.
    """
    if episodes % num_envs:
        nearest = max(1, round(episodes / num_envs)) * num_envs
        raise InputError(field, f"{episodes} is no multiple of num_envs ({num_envs})", f"Use for example {nearest}")


_GROUPS: dict[str, type[_Spec]] = {"training": TrainingSpec, "evaluation": EvaluationSpec}


def _input_error(exc: ValidationError) -> InputError:
    first = exc.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "parameters"
    if first["type"] == "extra_forbidden":
        return InputError(where, "there is no such parameter", "Remove it or correct its name")
    return InputError(where, f"{first['msg']} (got {first['input']!r})", "Correct the value")
