"""Numbers are understood however they are written, and what is refused is said in words."""

import itertools
import json
import math
import re
import shlex
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from flowrl_cli.app import app
from flowrl_cli.request.written import Written
from flowrl_core.errors import InputError
from flowrl_core.naming import AS_PATHS, Naming, TomlNaming
from flowrl_core.skills.knowledge import load_knowledge
from flowrl_core.specs.campaign import CampaignSpec, FrontierSpec, LimitsSpec, parse_campaign
from flowrl_core.specs.overrides import resolve
from flowrl_core.specs.skill import EvaluationSpec, TrainingSpec
from flowrl_core.toml_files import read_toml

SPECS = {"training": TrainingSpec, "evaluation": EvaluationSpec, "limits": LimitsSpec, "frontier": FrontierSpec}
FIELDS = [(group, name) for group, spec in SPECS.items() for name in spec.model_fields]
WRONG = (
    math.nan, math.inf, -math.inf, None, "", " ", "nan", "-inf", "1,5", "1.500.000", "many", "x" * 5_000, "9" * 5_000,
    -1, 10**400, 2.5, -0.5, True, [], [3], {}, {"a": 1}, b"\xff", object, "\u0661", "0x10", "1__0", "3 000",
)  # fmt: skip
PYDANTICS = (
    "Input should",
    "should match",
    "Unable to parse",
    "unable to parse",
    "valid integer",
    "pydantic",
    "Extra ",
)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("200000", 200_000), ("2e5", 200_000), ("2E5", 200_000), ("2.5e5", 250_000), ("+2e5", 200_000), (2e5, 200_000),
        ("200_000", 200_000), (" 200000 ", 200_000), ("200000.0", 200_000), (200_000.0, 200_000), ("1e+6", 1_000_000),
    ],
)  # fmt: skip
def test_a_whole_number_is_read_alike_everywhere(written, meant, tmp_path):
    assert parse_campaign(training={"frames": written}).training.frames == meant
    assert type(parse_campaign(training={"frames": written}).training.frames) is int
    assert resolve("dig_a", parse_campaign(overrides=[f"dig_a.frames={written}"])).training.frames == meant
    text = '[skills.dig_a]\ndescription = ""\ndone = "since.a >= n"\nreward = "gained.a"\ngain = { "inv.a" = "n" }\n'
    value = f'"{written}"' if isinstance(written, str) else str(written)
    (tmp_path / "k.toml").write_text(f'env = "corridor"\n{text}[skills.dig_a.training]\nframes = {value}\n')
    assert load_knowledge(tmp_path / "k.toml").training["dig_a"] == {"frames": meant}


@given(st.integers(1, 10**15))
def test_every_spelling_of_python_for_a_whole_number_is_understood(number):
    for text in (str(number), f"{number:_}", f"{number}.0", f"{number:e}"):
        meant = int(float(text)) if "e" in text else number
        assert parse_campaign(training={"frames": text}).training.frames == meant


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("2.5", "must be a whole number (got '2.5')"),
        ("1,5", "a decimal point instead of a comma"),
        ("200.000", "without separators between the digits: 200000?"),
        ("1'000'000", "without separators between the digits: 1000000?"),
        (math.nan, "must be a whole number (got NaN)"),
        ("nan", "must be a whole number (got NaN)"),
        (-math.inf, "must be a whole number (got -infinity)"),
        (None, "NaN and infinity"),
        (True, "must be a whole number (got true)"),
        (0, "must be at least 1 (got 0)"),
        (10**40, "is too large"),
        ("9" * 5_000, "(5000 characters)"),
    ],
)
def test_what_is_no_whole_number_is_said_with_what_was_given(written, said):
    with pytest.raises(InputError) as found:
        parse_campaign(training={"frames": written})
    assert str(found.value).startswith("training.frames: ") and said in str(found.value)


@pytest.mark.parametrize(("group", "name"), FIELDS)
def test_no_field_is_refused_in_the_words_of_pydantic_nor_takes_what_is_not_finite(group, name):
    for value in WRONG:
        try:
            taken = getattr(getattr(parse_campaign(**{group: {name: value}}), group), name)
        except InputError as exc:
            said = str(exc)
            assert said.startswith(f"{group}.{name}") and len(said) < 300, said
            assert not any(words in said.lower() for words in PYDANTICS) and "^[" not in said, said
        else:
            assert not isinstance(taken, float) or math.isfinite(taken)


class Strange:
    """No field takes it."""


@pytest.mark.parametrize("path", [*CampaignSpec.model_fields, *(f"{group}.{name}" for group, name in FIELDS)])
def test_what_a_refusal_says_to_write_is_what_each_way_in_takes(path):
    """Forms and Prefect's API take JSON, files lines of TOML, and the command its options."""
    group, _, name = path.rpartition(".")

    def nested(value):
        return {group: {name: value}} if group else {name: value}

    written = {}
    for named in (AS_PATHS, TomlNaming(), Written()):
        with pytest.raises(InputError) as found:
            parse_campaign(named, **nested(Strange()))
        assert found.value.remedy.startswith("Write, for example, ")
        written[type(named)] = found.value.remedy.removeprefix("Write, for example, ")
    line, _, table = written[TomlNaming].partition(" under ")
    meant = tomllib.loads(f"{table}\n{line}")
    assert meant == nested(json.loads(written[Naming]))
    bound = app.parse_args(["campaign", *shlex.split(written[Written])], exit_on_error=False, print_error=False)[1]
    top = (group or name).removesuffix("s") if (group or name) in ("targets", "overrides") else group or name
    typed = bound.arguments[top]
    typed = typed.model_dump(exclude_unset=True) if isinstance(typed, BaseModel) else typed
    assert parse_campaign(**{group or name: typed}) == parse_campaign(**meant)


@pytest.mark.parametrize("name", ["a b", "", "../up", "-x", "x" * 65, "a\n", "ä", "^"])
def test_a_name_that_cannot_be_is_refused_in_words(name):
    with pytest.raises(InputError) as found:
        parse_campaign(campaign=name)
    assert "at most 64 letters, digits, - and _" in str(found.value) and "[A-Z" not in str(found.value)


def test_a_form_still_checks_what_it_can():
    schema = CampaignSpec.model_json_schema()
    frames = schema["$defs"]["TrainingSpec"]["properties"]["frames"]
    assert (frames["type"], frames["minimum"]) == ("integer", 1)
    assert re.compile(schema["properties"]["campaign"]["pattern"]).match("a-name")
    kinds = [field.get("type") for model in schema["$defs"].values() for field in model["properties"].values()]
    assert set(kinds) <= {"integer", "number", "string", "boolean", "array"}


def test_words_are_joined_by_either_mark_in_every_way_in(tmp_path):
    joined = {"training": {"num-envs": 32, "learning-rate": 0.5}, "evaluation": {"min-frames": 9}}
    spec = parse_campaign(**joined)
    assert (spec.training.num_envs, spec.training.learning_rate, spec.evaluation.min_frames) == (32, 0.5, 9)
    assert resolve("a", parse_campaign(overrides=["a.learning-rate=0.5"])).training.learning_rate == 0.5
    text = '[skills.dig_a]\ndescription = ""\ndone = "since.a >= n"\nreward = "gained.a"\ngain = { "inv.a" = "n" }\n'
    more = "learn-count = 2e0\n[skills.dig_a.training]\nepisode-limit = 4e2\n"
    (tmp_path / "k.toml").write_text(f'env = "corridor"\n{text}{more}')
    known = load_knowledge(tmp_path / "k.toml")
    assert known.skills["dig_a"].learn_count == 2 and known.training["dig_a"] == {"episode_limit": 400}
    with pytest.raises(InputError, match="twice, once with - and once with _"):
        parse_campaign(training={"num-envs": 32, "num_envs": 32})


@pytest.mark.parametrize("mark, end", itertools.product((b"", b"\xef\xbb\xbf"), (b"\n", b"\r\n")))
def test_a_byte_order_mark_and_other_ends_of_lines_change_nothing(tmp_path, mark, end):
    lines = [b'env = "corridor"', b"[skills.dig_a]", b'description = "d"', b'done = "since.a >= n"']
    lines += [b'reward = "gained.a"', b'gain = { "inv.a" = "n" }', b""]
    (tmp_path / "k.toml").write_bytes(mark + end.join(lines))
    assert list(load_knowledge(tmp_path / "k.toml").skills) == ["dig_a"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("frames = 1".encode("utf-16"), "UTF-16"),
        (b"\xff\xfe\xfa", "UTF-16"),
        ("frames = 1".encode("utf-16-le"), "UTF-16"),
        (b"a = 1\rb = 2", "end with a CR only"),
        ("a = 1\nb = \u201cx\u201d".encode(), "line 2 has .* a straight"),
        (b"a = 1\nb = '\xe9'", r"not UTF-8 text \(line 2\)"),
        (b"a = '\xe9'", "not UTF-8"),
        (b"frames = " + b"9" * 5_000, "not valid TOML"),
        (b"a = " + b"[" * 50_000, "not valid TOML"),
        (b"frames = 1,5", "line 1"),
    ],
)
def test_what_is_no_toml_is_said(tmp_path, content, said):
    (tmp_path / "c.toml").write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_toml(tmp_path / "c.toml")
