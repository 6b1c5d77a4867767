"""The cost book: what a request can cost at most is booked before it is sent, and no limit is ever exceeded."""

from collections.abc import Iterator
from typing import Any

import pytest
from registry_steps import SKILLS, make_spec

from flowrl_core.errors import BudgetError, StorageError
from flowrl_core.specs.campaign import FrontierSpec
from flowrl_core.storage.layout import Home
from flowrl_core.storage.limits import Spending
from flowrl_core.storage.registry import Registry


@pytest.fixture
def registry(new_home: Home, database: str) -> Iterator[Registry]:
    with Registry.open(new_home) as opened:
        for campaign in ("default", "other"):
            opened.campaigns.record(make_spec(campaign=campaign), SKILLS)
        yield opened


def reserve(registry: Registry, campaign: str = "default", cost: float | None = 0.1, **limits: Any) -> int:
    bounds = {"input_tokens": 100, "output_tokens": 50}
    return registry.requests.reserve(campaign, "openai:m", **bounds, cost=cost, limits=FrontierSpec(**limits))


def test_a_request_counts_with_the_most_it_can_be_until_it_is_settled(registry: Registry) -> None:
    assert registry.requests.spending("default") == Spending(0, 0, 0, 0, 0.0, 0)
    first, second = reserve(registry), reserve(registry)
    assert registry.requests.spending("default") == Spending(2, 0, 200, 100, 0.2, 0)
    registry.requests.settle(first, "answered", input_tokens=80, output_tokens=10, cost=0.02)
    assert registry.requests.spending("default") == Spending(2, 1, 180, 60, pytest.approx(0.12), 0)
    registry.requests.settle(second, "timeout")
    assert registry.requests.spending("default").tokens == 240, "what was not told counts with its bound"
    assert registry.requests.spending("other").requests == 0


def test_the_first_settlement_stands_and_nonsense_frees_nothing(registry: Registry) -> None:
    request = reserve(registry)
    registry.requests.settle(request, "answered", input_tokens=-5_000, output_tokens=10**30, cost=-1.0)
    assert registry.requests.spending("default") == Spending(1, 1, 0, 2**53, 0.0, 0)
    registry.requests.settle(request, "timeout", input_tokens=1, output_tokens=1, cost=1.0)
    assert registry.requests.spending("default").cost == 0.0
    with pytest.raises(StorageError, match="no request 99"):
        registry.requests.settle(99, "answered")


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (
            {"max_requests": 3},
            r"frontier.max_requests is 3: 3 requests were sent. Raise frontier.max_requests and start",
        ),
        ({"max_tokens": 599}, r"frontier.max_tokens is 599: 450 tokens are spent, and the next request could take 150"),
        ({"max_cost": 0.39}, r"max_cost is 0.39: 0.3000 US dollars are spent, and the next request could cost 0.1000"),
    ],
)
def test_a_request_that_could_exceed_a_limit_is_not_booked(
    registry: Registry, limits: dict[str, Any], said: str
) -> None:
    for _ in range(3):
        reserve(registry, **limits)
    with pytest.raises(BudgetError, match=said):
        reserve(registry, **limits)
    assert registry.requests.spending("default").requests == 3
    reserve(registry, "other", **limits)
    reserve(registry, **{name: 2 * limit for name, limit in limits.items()})


def test_a_limit_can_be_used_up_to_the_last_cent_and_token(registry: Registry) -> None:
    for _ in range(10):
        reserve(registry, max_cost=1.0, max_requests=10, max_tokens=1_500)
    assert registry.requests.spending("default").requests == 10


def test_money_is_limited_only_where_prices_are_known(registry: Registry) -> None:
    reserve(registry, cost=None)
    assert registry.requests.spending("default").unpriced == 1
    with pytest.raises(BudgetError, match=r"'openai:m' has no known price. Set it in frontier.prices"):
        reserve(registry, cost=None, max_cost=1.0)
    with pytest.raises(BudgetError, match="and 1 requests without a known price"):
        reserve(registry, cost=2.0, max_cost=1.0)
