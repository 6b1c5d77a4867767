"""Spending: the cost books that a language model's client writes to, and what a call may cost."""

from __future__ import annotations

from dataclasses import dataclass, field

from flowrl_core.llm.names import parse_model
from flowrl_core.llm.prices import price_of
from flowrl_core.specs.campaign import CampaignSpec, FrontierSpec
from flowrl_core.storage.limits import Spending, check_limits
from flowrl_core.storage.registry import Registry

__all__ = ["CampaignBook", "UnboundBook", "cost_of", "estimate"]


@dataclass(frozen=True)
class CampaignBook:
    """Books every request of a campaign in the registry; see `llm.seam.Book`."""

    registry: Registry
    spec: CampaignSpec
    _models: dict[int, str] = field(default_factory=dict, repr=False)

    def reserve(self, model: str, *, input_tokens: int, output_tokens: int) -> int:
        """See `Book.reserve`."""
        limits = self.spec.frontier
        bounds = {"input_tokens": input_tokens, "output_tokens": output_tokens}
        cost = cost_of(limits, model, **bounds)
        request = self.registry.requests.reserve(self.spec.campaign, model, **bounds, cost=cost, limits=limits)
        self._models[request] = model
        return request

    def settle(self, request: int, outcome: str, *, input_tokens: int | None, output_tokens: int | None) -> None:
        """See `Book.settle`."""
        cost = None
        if input_tokens is not None and output_tokens is not None:
            cost = cost_of(self.spec.frontier, self._models[request], input_tokens, output_tokens)
        told = {"input_tokens": input_tokens, "output_tokens": output_tokens}
        self.registry.requests.settle(request, outcome, **told, cost=cost)


@dataclass
class UnboundBook:
    """Books requests that belong to no campaign; the limits hold for the lifetime of this object."""

    limits: FrontierSpec
    spent: Spending = field(default_factory=Spending)

    def reserve(self, model: str, *, input_tokens: int, output_tokens: int) -> int:
        """See `Book.reserve`."""
        cost = cost_of(self.limits, model, input_tokens, output_tokens)
        check_limits(self.spent, input_tokens + output_tokens, cost, self.limits, model)
        before = self.spent
        self.spent = Spending(
            requests=before.requests + 1,
            input_tokens=before.input_tokens + input_tokens,
            output_tokens=before.output_tokens + output_tokens,
            cost=before.cost + (cost or 0.0),
            unpriced=before.unpriced + (cost is None),
        )
        return self.spent.requests

    def settle(self, request: int, outcome: str, *, input_tokens: int | None, output_tokens: int | None) -> None:
        """See `Book.settle`. The bounds keep counting, since nothing shows the actual figures."""


def cost_of(frontier: FrontierSpec, model: str, input_tokens: int, output_tokens: int) -> float | None:
    """US dollars of one request; None where the model has no known price."""
    price = price_of(parse_model(model), frontier.prices)
    return None if price is None else price.cost(input_tokens, output_tokens)


def estimate(frontier: FrontierSpec, input_tokens: int) -> str:
    """One line: the maximum cost of the next request, and the campaign's spending limit.

    Args:
        input_tokens: upper bound of the tokens sent.
    """
    cost = cost_of(frontier, frontier.model, input_tokens, frontier.max_output_tokens)
    money = "its price is unknown" if cost is None else f"at most {cost:.4f} US dollars"
    tokens = f"at most {input_tokens + frontier.max_output_tokens:,} tokens"
    limits = [f"{frontier.max_requests:,} requests", f"{frontier.max_tokens:,} tokens"]
    limits += [f"{frontier.max_cost:g} US dollars"] if frontier.max_cost else []
    return f"One request to {frontier.model}: {tokens}, {money}. The campaign spends no more than {', '.join(limits)}"
