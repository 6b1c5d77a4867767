"""Spending limits for language models: the amounts spent, and whether one more request is within the limits."""

from __future__ import annotations

from dataclasses import dataclass

from flowrl_core.errors import BudgetError
from flowrl_core.specs.campaign import FrontierSpec

__all__ = ["Spending", "check_limits"]

_DUST = 1e-9
"""Tolerance in US dollars for rounding in sums."""


@dataclass(frozen=True)
class Spending:
    """A campaign's spending on language models. Reserved or unreported amounts count with their upper bounds.

    Attributes:
        requests: HTTP requests; `answered`: those that were answered.
        cost: US dollars, for requests to models with a known price.
        unpriced: requests to models without a known price.
    """

    requests: int = 0
    answered: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    unpriced: int = 0

    @property
    def tokens(self) -> int:
        """Input and output tokens."""
        return self.input_tokens + self.output_tokens


def check_limits(spent: Spending, tokens: int, cost: float | None, limits: FrontierSpec, model: str) -> None:
    """Check that a request is within the limits.

    Args:
        spent: spending before the request.
        tokens, cost: upper bounds of the request; cost None: the model has no known price.

    Raises:
        BudgetError: it could exceed a limit; the message names it.
    """
    if spent.requests + 1 > limits.max_requests:
        raise _exceeded("max_requests", limits.max_requests, f"{spent.requests} requests were sent")
    if spent.tokens + tokens > limits.max_tokens:
        booked = f"{spent.tokens} tokens are spent, and the next request could take {tokens}"
        raise _exceeded("max_tokens", limits.max_tokens, booked)
    if limits.max_cost == 0:
        return
    if cost is None:
        raise BudgetError(
            f"frontier.max_cost is {limits.max_cost:g} US dollars, and {model!r} has no known price. Set it in "
            "frontier.prices, or set max_cost to 0, and start again"
        )
    if spent.cost + cost > limits.max_cost + _DUST:
        unpriced = f" (and {spent.unpriced} requests without a known price)" if spent.unpriced else ""
        booked = f"{spent.cost:.4f} US dollars are spent{unpriced}, and the next request could cost {cost:.4f}"
        raise _exceeded("max_cost", limits.max_cost, booked)


def _exceeded(field: str, limit: float, booked: str) -> BudgetError:
    return BudgetError(f"frontier.{field} is {limit:g}: {booked}. Raise frontier.{field} and start again")
