"""What models cost, and that a limit in money is refused where it could not be kept."""

import socket

import pytest

from flowrl_core.errors import InputError
from flowrl_core.llm.names import parse_model
from flowrl_core.llm.prices import Price, check_affordable, price_of
from flowrl_core.specs.campaign import FrontierSpec

OWN = parse_model("llama3.2:1b@http://localhost:11434/v1")


def test_a_price_is_per_million_tokens():
    assert Price(2.0, 10.0).cost(500_000, 250_000) == pytest.approx(3.5)
    assert Price(0.0, 0.0).cost(10**9, 10**9) == 0.0


@pytest.mark.parametrize("name", [str(OWN), "llama3.2:1b"])
def test_the_users_price_is_taken_by_either_name(name):
    assert price_of(OWN, ["other=9/9", f"{name}=0.1/0.2"]) == Price(0.1, 0.2)


def test_the_users_price_comes_before_what_is_known_and_the_whole_name_before_its_own():
    model = parse_model("openai:gpt-4o-mini")
    assert price_of(model, ["gpt-4o-mini=7/8"]) == Price(7.0, 8.0)
    assert price_of(model, ["openai:gpt-4o-mini=1/2", "gpt-4o-mini=7/8"]) == Price(1.0, 2.0)
    assert price_of(model, ["gpt-4o-mini=7/8", "gpt-4o-mini=3/4"]) == Price(3.0, 4.0)


def test_known_prices_need_no_network(monkeypatch):
    def no_network(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    assert price_of(parse_model("openai:gpt-4o-mini"), []) == Price(0.15, 0.6)
    assert price_of(parse_model("deepseek-chat@https://api.deepseek.com/v1"), []) is not None
    assert price_of(OWN, []) is None
    assert price_of(parse_model("openai:no-such-model"), []) is None


def test_of_prices_that_depend_on_a_questions_length_the_highest_is_taken():
    from genai_prices import Usage, calc_price

    model = parse_model("google:gemini-2.5-pro")
    long = calc_price(Usage(input_tokens=1_000_000, output_tokens=1_000_000), model.name, provider_id="google")
    short = calc_price(Usage(input_tokens=1_000, output_tokens=1_000), model.name, provider_id="google")
    price = price_of(model, [])
    assert price.cost(1_000_000, 1_000_000) == pytest.approx(float(long.total_price))
    assert price.cost(1_000, 1_000) > float(short.total_price)


@pytest.mark.parametrize(
    "entry", ["", "m", "m=1", "=1/2", "m=a/b", "m=-1/2", "m=1/-2", "m=nan/1", "m=1/inf", "m=1/2/3"]
)
def test_an_entry_that_is_no_price_is_refused_whatever_model_is_asked_for(entry):
    with pytest.raises(InputError) as caught:
        price_of(parse_model("openai:gpt-4o-mini"), ["gpt-4o-mini=1/2", entry])
    assert caught.value.field == "frontier.prices" and "MODEL=INPUT/OUTPUT" in caught.value.remedy


def test_a_limit_in_money_needs_a_price_for_every_model():
    known = "openai:gpt-4o-mini"
    check_affordable(FrontierSpec(model=known, max_cost=1.0))
    check_affordable(FrontierSpec(model=str(OWN), max_cost=0.0))
    check_affordable(FrontierSpec(model=known, fallbacks=[str(OWN)], max_cost=1.0, prices=[f"{OWN}=0/0"]))
    with pytest.raises(InputError) as caught:
        check_affordable(FrontierSpec(model=known, fallbacks=[str(OWN)], max_cost=1.0))
    assert caught.value.field == "frontier.max_cost"
    assert f'frontier.prices = ["{OWN}=IN/OUT"]' in caught.value.remedy and known not in caught.value.remedy
