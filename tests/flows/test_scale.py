"""A few skills that do nothing, as `make scale` runs hundreds; its table says what grows with their number."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import scale

from flowrl_core.skills.frontier import frontier
from flowrl_core.skills.knowledge import load_knowledge

SKILLS = 8


@pytest.fixture(scope="module")
def measured(server, tmp_path_factory):
    return scale.measure(server.home, SKILLS, 2, tmp_path_factory.mktemp("scale"))


def test_a_campaign_of_many_skills_learns_all_of_them(measured, registry):
    assert len(measured.runs) == SKILLS - 2
    facts = registry.skills.facts(scale.NAME)
    assert len(facts) == SKILLS and all(fact.learned for fact in facts.values())
    assert registry.attempts.outstanding(scale.NAME) == []


def test_each_skill_is_begun_when_it_can_be_and_costs_few_requests(measured):
    for run in measured.runs:
        assert run.free <= run.begun <= run.submitted <= run.taken <= run.running <= run.ended
    rows = measured.rows(SKILLS // 2 - 1)
    assert max(rows["requests"]) < 15 and rows["memory"][1] < 1.5 * rows["memory"][0]


def test_of_a_thousand_skills_the_frontier_knows_which_are_needed_and_ready(tmp_path):
    file = tmp_path / "thousand.toml"
    file.write_text(scale.knowledge(1000))
    known = load_knowledge(file)
    assert len(frontier(known, known.skills, {}).needed) == 1000
    learned = {name: "learned" for name in known.skills if name != "s999"}
    assert frontier(known, known.skills, learned).ready == ("s999",)
