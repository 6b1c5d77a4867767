"""Parameters of campaigns."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from flowrl_core.model_requests import ExtraField, Temperature, extra_field
from flowrl_core.naming import AS_PATHS, Naming
from flowrl_core.quantities import Number, Whole
from flowrl_core.refusals import refusal
from flowrl_core.specs.base import CampaignName, Spec
from flowrl_core.specs.skill import STALL_MINUTES, EvaluationSpec, TrainingSpec
from flowrl_core.types import MergePolicy

__all__ = ["SHARED", "CampaignSpec", "FrontierSpec", "LimitsSpec", "parse_campaign"]

SHARED = "shared"
"""The name of the shared library for users; in the registry its name is empty."""


class LimitsSpec(Spec):
    """How much of the machine a campaign may use, and how it treats results."""

    max_parallel: Whole = Field(
        default=8, ge=1, le=1_024, description="Maximum number of skills submitted at the same time"
    )
    max_retries: Whole = Field(default=2, ge=0, le=100, description="Retries of a skill after infrastructure failures")
    max_skills: Whole = Field(
        default=64,
        ge=1,
        le=10_000,
        description="Maximum number of skills that a language model may add to the campaign",
    )
    merge: MergePolicy = Field(
        default="most_frames",
        description="Which version of a shared expert the next runs start from: the one with more frames, the new one "
        "unless it is measured to be worse at its own skill (evaluated), or always the first (frozen)",
    )
    approval: Literal["none", "required"] = Field(
        default="none",
        description="required: each skill's run waits in the Prefect UI until a person resumes it (optionally with "
        "changes) or cancels it",
    )
    stall_minutes: Number = Field(
        default=STALL_MINUTES,
        gt=0.0,
        le=1_440.0,
        description="A run without progress for this long is stopped and retried",
    )


class FrontierSpec(Spec):
    """What proposes a campaign's skills, and its cost limits."""

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
        description="Models to ask, in this order, if the ones before do not answer",
    )
    journal: Literal["cached", "record", "replay"] = Field(
        default="cached",
        description="cached: no call is repeated. record: every call is made. replay: no call is made",
    )
    output: Literal["native", "tool", "prompted"] = Field(
        default="native",
        description="How the answer's schema is enforced; small models manage native only",
    )
    temperature: Temperature = Field(
        default="0.7",
        description="Sampling temperature, from 0 to 2; empty: none is sent, the server's default applies",
    )
    thinking: Literal["default", "off", "minimal", "low", "medium", "high"] = Field(
        default="default",
        description="Reasoning effort, if the model's provider supports one; default: the provider's",
    )
    extra: list[ExtraField] = Field(
        default=[],
        max_length=16,
        examples=[['reasoning_effort="low"']],
        description='KEY=JSON: more fields for each request, e.g. reasoning_effort="low" or provider={"order": ["x"]}',
    )
    max_output_tokens: Whole = Field(
        default=4_096, ge=16, le=131_072, description="Maximum length of one answer, in tokens"
    )
    timeout_s: Number = Field(default=120.0, gt=0.0, le=3_600.0, description="Maximum wait for one answer, in seconds")
    answer_retries: Whole = Field(
        default=2, ge=0, le=10, description="Number of times a malformed answer is sent back with its errors"
    )
    max_cost: Number = Field(
        default=0.0,
        ge=0.0,
        description="US dollars the campaign may spend in its lifetime; 0: no limit but requests and tokens",
    )
    max_requests: Whole = Field(
        default=200, ge=1, description="HTTP requests to models in the campaign's lifetime, including retries"
    )
    max_tokens: Whole = Field(default=2_000_000, ge=1, description="Input and output tokens in the campaign's lifetime")
    prices: list[str] = Field(
        default=[],
        max_length=32,
        examples=[["NAME=0.5/2"]],
        description="MODEL=INPUT/OUTPUT in US dollars per million tokens, for models without a known price",
    )
    proposals: Whole = Field(default=4, ge=1, le=8, description="Maximum number of skills proposed per call")
    fruitless_rounds: Whole = Field(
        default=3, ge=1, le=100, description="Rounds without an accepted proposal before FlowRL stops asking"
    )
    max_revisions: Whole = Field(
        default=2, ge=0, le=20, description="Number of times a failed skill may be proposed again"
    )
    cool_down: Whole = Field(
        default=3, ge=0, le=100, description="Rounds during which a repeatedly refused skill is not examined again"
    )
    judge: bool = Field(
        default=False, description="Ask the model whether each proposal that passes the other gates is worth learning"
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
        """The parsed `extra` fields, by key."""
        return dict(map(extra_field, self.extra))

    @property
    def sampling_temperature(self) -> float | None:
        """The temperature as a number; None: omit it."""
        return float(self.temperature) if self.temperature else None


class CampaignSpec(Spec):
    """All parameters of a campaign. Without targets or `all`: those of its earlier start (see `specs.continuation`)."""

    campaign: CampaignName = "default"
    env: str = Field(default="craftax-classic", min_length=1)
    targets: list[str] = Field(default=[], examples=[["collect_wood"]])
    all: bool = Field(default=False, description="Every skill of the knowledge base is a target, besides those named")
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
        description="SKILL.FIELD=VALUE: each sets one training or evaluation field of one skill",
    )
    retry: list[str] = Field(
        default=[],
        examples=[["collect_wood"]],
        description="Failed skills whose training continues from where it stopped; their overrides may change",
    )
    from_scratch: bool = Field(
        default=False, description="Begin the training of the skills to retry anew, instead of continuing it"
    )
    fresh: bool = Field(
        default=False,
        description="Give the campaign a library of its own: it learns everything anew and leaves the shared one alone",
    )

    @property
    def line(self) -> str:
        """The library that the campaign reads and writes: its own, named after it, or the shared one, ""."""
        return self.campaign if self.fresh else ""

    @property
    def names_targets(self) -> bool:
        """Whether it says what to learn; else it means the targets of the campaign's earlier start."""
        return bool(self.targets) or self.all


def parse_campaign(named: Naming = AS_PATHS, /, **parameters: Any) -> CampaignSpec:
    """Return the validated parameters of a campaign.

    Args:
        named: how the user writes a field, given its path (`training.frames`).

    Raises:
        InputError: names the first invalid field and the allowed values.
    """
    try:
        return CampaignSpec.model_validate(parameters)
    except ValidationError as exc:
        raise refusal(exc, named, model=CampaignSpec) from exc
