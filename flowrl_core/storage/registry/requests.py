"""The cost book: every HTTP request to a language model, booked at its maximum cost before it is sent."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from flowrl_core.errors import StorageError
from flowrl_core.specs.campaign import FrontierSpec
from flowrl_core.storage import schema
from flowrl_core.storage.database import reading, writing
from flowrl_core.storage.limits import Spending, check_limits
from flowrl_core.storage.registry.rows.campaigns import campaign_by_name

__all__ = ["Requests"]

_rows = schema.requests.c
_MOST_TOKENS = 2**53
"""Cap on reported token counts, which are not trusted: above any real request, and within every database's range."""


@dataclass(frozen=True)
class Requests:
    """The requests to language models of a registry."""

    engine: sa.Engine

    def reserve(
        self,
        campaign: str,
        model: str,
        *,
        input_tokens: int,
        output_tokens: int,
        cost: float | None,
        limits: FrontierSpec,
    ) -> int:
        """Book a request at its maximum cost and return its number; it may then be sent.

        Args:
            input_tokens, output_tokens: upper bounds.
            cost: upper bound in US dollars; None if the model has no known price.
            limits: of the campaign as it was last started.

        Raises:
            InputError: there is no such campaign.
            BudgetError: the campaign could exceed a limit, which the message names; nothing was booked.
        """
        with writing(self.engine) as tx:
            name = campaign_by_name(tx, campaign).name
            check_limits(_spending(tx, name), input_tokens + output_tokens, cost, limits, model)
            values: dict[str, Any] = {"campaign": name, "model": model, "cost": cost, "created_at": time.time()}
            values |= {"input_tokens": input_tokens, "output_tokens": output_tokens}
            return int(tx.execute(sa.insert(schema.requests).values(**values).returning(_rows.id)).scalar_one())

    def settle(
        self,
        request: int,
        outcome: str,
        *,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cost: float | None = None,
    ) -> None:
        """Record the outcome of a request; the first settlement stands.

        Args:
            outcome: `answered`, or the code of an error.
            input_tokens, output_tokens, cost: actual values; for None, the upper bound keeps counting.

        Raises:
            StorageError: there is no such request.
        """
        values: dict[str, Any] = {"outcome": outcome, "settled_at": time.time()}
        actual = {"input_tokens": input_tokens, "output_tokens": output_tokens}
        values |= {name: max(0, min(number, _MOST_TOKENS)) for name, number in actual.items() if number is not None}
        if cost is not None:
            values["cost"] = max(0.0, cost)
        is_open = (_rows.id == request, _rows.settled_at.is_(None))
        with writing(self.engine) as tx:
            if tx.execute(sa.select(_rows.id).where(_rows.id == request)).first() is None:
                raise StorageError(f"the registry has no request {request}")
            tx.execute(sa.update(schema.requests).where(*is_open).values(**values))

    def spending(self, campaign: str) -> Spending:
        """Return what the campaign has spent on language models so far.

        Raises:
            InputError: there is no such campaign.
        """
        with reading(self.engine) as tx:
            return _spending(tx, campaign_by_name(tx, campaign).name)


def _spending(tx: sa.Connection, campaign: str) -> Spending:
    count, total = sa.func.count, sa.func.sum
    query = sa.select(
        count(),
        count().filter(_rows.outcome == "answered"),
        total(_rows.input_tokens),
        total(_rows.output_tokens),
        total(_rows.cost),
        count().filter(_rows.cost.is_(None)),
    )
    requests, answered, asked, written, cost, unpriced = tx.execute(query.where(_rows.campaign == campaign)).one()
    # Postgres returns sums of integers as decimals.
    return Spending(requests, answered, int(asked or 0), int(written or 0), float(cost or 0.0), unpriced)
