"""The cost book: every HTTP request to a language model, booked with the most it can cost before it is sent."""

from __future__ import annotations

import time
from typing import Any

import sqlalchemy as sa

from flowrl_core.errors import StorageError
from flowrl_core.specs.campaign import FrontierSpec
from flowrl_core.storage import schema
from flowrl_core.storage.limits import Spending, check_limits

__all__ = ["reserve", "settle", "spending"]

_rows = schema.requests.c
_MOST_TOKENS = 2**53
"""More than any request has, and few enough for every database: what was told is somebody else's number."""


def reserve(
    tx: sa.Connection,
    campaign: str,
    model: str,
    *,
    input_tokens: int,
    output_tokens: int,
    cost: float | None,
    limits: FrontierSpec,
) -> int:
    """See `Registry.reserve_request`."""
    check_limits(spending(tx, campaign), input_tokens + output_tokens, cost, limits, model)
    values: dict[str, Any] = {"campaign": campaign, "model": model, "cost": cost, "created_at": time.time()}
    values |= {"input_tokens": input_tokens, "output_tokens": output_tokens}
    return int(tx.execute(sa.insert(schema.requests).values(**values).returning(_rows.id)).scalar_one())


def settle(
    tx: sa.Connection,
    request: int,
    outcome: str,
    *,
    input_tokens: int | None,
    output_tokens: int | None,
    cost: float | None,
) -> None:
    """See `Registry.settle_request`."""
    if tx.execute(sa.select(_rows.id).where(_rows.id == request)).first() is None:
        raise StorageError(f"the registry has no request {request}")
    values: dict[str, Any] = {"outcome": outcome, "settled_at": time.time()}
    told = {"input_tokens": input_tokens, "output_tokens": output_tokens}
    values |= {name: max(0, min(number, _MOST_TOKENS)) for name, number in told.items() if number is not None}
    if cost is not None:
        values["cost"] = max(0.0, cost)
    is_open = (_rows.id == request, _rows.settled_at.is_(None))
    tx.execute(sa.update(schema.requests).where(*is_open).values(**values))


def spending(tx: sa.Connection, campaign: str) -> Spending:
    """See `Registry.spending`."""
    count, total = sa.func.count, sa.func.sum
    query = sa.select(
        count(),
        count().filter(_rows.outcome == "answered"),
        total(_rows.input_tokens),
        total(_rows.output_tokens),
        total(_rows.cost),
        count().filter(_rows.cost.is_(None)),
    )
    requests, answered, asked, told, cost, unpriced = tx.execute(query.where(_rows.campaign == campaign)).one()
    # Postgres adds up whole numbers to decimals.
    return Spending(requests, answered, int(asked or 0), int(told or 0), float(cost or 0.0), unpriced)
