"""The base class of all parameters, and the type of campaign names."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

__all__ = ["CampaignName", "Spec"]

_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"


def _check_name(name: str) -> str:
    if not re.match(_NAME, name) or name.endswith("\n"):
        raise PydanticCustomError(
            "name", "must begin with a letter or digit and contain at most 64 letters, digits, - and _"
        )
    return name


# Forms check the pattern; the validator's message explains it in words.
CampaignName = Annotated[str, AfterValidator(_check_name), Field(json_schema_extra={"pattern": _NAME})]


class Spec(BaseModel):
    """What comes from a person or from Prefect: fields of these names only, written with - or _."""

    # Forms label a field with the name used in overrides and on command lines.
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, field_title_generator=lambda name, _: name
    )

    @model_validator(mode="before")
    @classmethod
    def _join_words(cls, given: Any) -> Any:
        """Return the fields with underscores in their names: `num-envs` becomes `num_envs`."""
        if not isinstance(given, dict):
            return given
        joined: dict[Any, Any] = {}
        for name, value in given.items():
            plain = name.replace("-", "_") if isinstance(name, str) else name
            if plain in joined:
                raise PydanticCustomError("twice", "has {name} twice, once with - and once with _", {"name": name})
            joined[plain] = value
        return joined
