"""Prices of models: from the user, else from the package genai-prices, without network access."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flowrl_core.errors import InputError
from flowrl_core.llm.names import ModelName, parse_model
from flowrl_core.naming import AS_PATHS, Naming
from flowrl_core.specs.campaign import FrontierSpec

__all__ = ["Price", "check_affordable", "price_of"]

_FIELD = "frontier.prices"
_FORM = "Write MODEL=INPUT/OUTPUT in US dollars per million tokens, as in openai:gpt-5=1.25/10"


@dataclass(frozen=True)
class Price:
    """US dollars per million input and output tokens."""

    input: float
    output: float

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """Return the cost in US dollars of these tokens."""
        return (self.input * input_tokens + self.output * output_tokens) / 1e6


def price_of(model: ModelName, table: Sequence[str]) -> Price | None:
    """Return the model's price; None if it is unknown.

    Args:
        table: entries MODEL=INPUT/OUTPUT, which take precedence. MODEL is a name as in `frontier.model` or the model's
            own name; a full name precedes an own name, and of several equal ones the last counts.

    Raises:
        InputError: an entry cannot be parsed, whichever model it names.
    """
    told = dict(_entry(text) for text in table)
    for name in (str(model), model.name):
        if name in told:
            return told[name]
    return _known_price(model)


def check_affordable(spec: FrontierSpec, named: Naming = AS_PATHS) -> None:
    """Check that a limit in money can be enforced: each model needs a price.

    Args:
        named: how the user writes a field, given its path (`frontier.prices`).

    Raises:
        InputError: a model has no price, or an entry of `frontier.prices` cannot be parsed.
    """
    models = [parse_model(text) for text in [spec.model, *spec.fallbacks]]
    unknown = [str(model) for model in models if price_of(model, spec.prices) is None]
    if unknown and spec.max_cost > 0:
        problem = f"the price of {', '.join(unknown)} is unknown, so a cost limit cannot be enforced"
        remedy = f"Give it: {named.setting(_FIELD, [f'{model}=IN/OUT' for model in unknown])}"
        raise InputError("frontier.max_cost", problem, f"{remedy} (US dollars per million tokens; 0/0 if it is free)")


def _entry(text: str) -> tuple[str, Price]:
    name, _, prices = text.rpartition("=")
    asked, slash, answered = prices.partition("/")
    if not name.strip() or not slash:
        raise InputError(_FIELD, f"{text!r} is not a price", _FORM)
    return _canonical(name.strip()), Price(_dollars(asked, text), _dollars(answered, text))


def _canonical(name: str) -> str:
    """Return the name as `str(ModelName)` writes it, if it is a full name."""
    try:
        return str(parse_model(name))
    except InputError:
        return name


def _dollars(number: str, text: str) -> float:
    try:
        dollars = float(number)
    except ValueError:
        raise InputError(_FIELD, f"{number!r} in {text!r} is not a number", _FORM) from None
    if not 0 <= dollars < math.inf:
        raise InputError(_FIELD, f"{number!r} in {text!r} is not a price of 0 or more", _FORM)
    return dollars


def _known_price(model: ModelName) -> Price | None:
    from genai_prices import Usage, calc_price

    usage = Usage(input_tokens=1, output_tokens=1)
    try:
        if model.provider == "compatible":
            found = calc_price(usage, model.name, provider_api_url=model.url)
        else:
            found = calc_price(usage, model.name, provider_id=model.provider)
    except LookupError:
        return None
    asked, answered = (_highest(getattr(found.model_price, name, None)) for name in ("input_mtok", "output_mtok"))
    return None if asked is None or answered is None else Price(asked, answered)


def _highest(rate: Any) -> float | None:
    """Return the rate, or the highest of several that depend on the question's length: it must hold for each."""
    if rate is None:
        return None
    tiers = getattr(rate, "tiers", None)
    if tiers is None:
        return float(rate)
    return float(max([rate.base, *(tier.price for tier in tiers)]))
