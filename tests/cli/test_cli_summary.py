"""The figures at a campaign's end, on runs with known times."""

from __future__ import annotations

import json

import pytest

from flowrl_cli.views.summary import summary_lines
from flowrl_core.report.timeline import RunTrace, greatest_overlap, handovers, most_at_once, speed_up, trace_of
from flowrl_core.skills.model import Plan, Step
from flowrl_core.specs.skill import SkillConfig
from flowrl_core.storage.records.skill_runs import SkillRunRecord


def run(skill: str, first_line: float, ended: float, *needs: str) -> RunTrace:
    return RunTrace(skill, frozenset(needs), first_line=first_line, ended=ended)


DIAMOND = (
    run("a", 0, 10),
    run("b", 12, 22, "a"),
    run("c", 13, 33, "a"),
    run("d", 35, 45, "a", "b", "c"),
)


def test_speed_up_is_the_sum_over_the_wall_and_its_ceiling_the_longest_chain():
    found = speed_up(DIAMOND)
    assert found is not None
    assert (found.total, found.wall, found.longest_chain) == (50, 45, 40)
    assert found.achieved == pytest.approx(50 / 45)
    assert found.ceiling == pytest.approx(50 / 40)
    assert most_at_once(DIAMOND) == 2


def test_a_handover_counts_from_the_last_dependency():
    assert sorted(handovers(DIAMOND).delays) == [2, 2, 3]
    assert handovers(DIAMOND).num_waited_for_slot == 0


def test_waiting_for_a_slot_is_no_handover():
    runs = (run("a", 0, 10), run("b", 0, 30), run("c", 12, 40, "a"), run("d", 32, 50, "a"))
    found = handovers(runs)
    assert found.delays == (2,)
    assert found.num_waited_for_slot == 1


def test_the_overlap_is_where_both_train():
    trained = {"a": (1.0, 2.0, 3.0, 4.0), "b": (2.5, 3.0, 3.5, 9.0), "c": (20.0, 21.0), "d": ()}
    found = greatest_overlap([RunTrace(skill, updates=updates) for skill, updates in trained.items()])
    assert found is not None
    assert (found.skills, found.seconds, found.updates) == (("a", "b"), 1.5, (2, 3))
    assert greatest_overlap([RunTrace("a", updates=(1.0, 2.0)), RunTrace("c", updates=(3.0, 4.0))]) is None


def recorded(skill: str, *before: str, **training: object) -> SkillRunRecord:
    plan = Plan(skill, (*(Step(name, 1) for name in before), Step(skill, 1)))
    config = SkillConfig.model_validate({"training": training})
    return SkillRunRecord(
        id=1,
        family="skill",
        campaign="c",
        identity="i",
        skill=skill,
        ordinal=1,
        epoch=0,
        plan=plan,
        remap={},
        config=config,
        seeds={},
        run_frames=0,
        verdict="learned",
        reason="",
        created_at=0.0,
        ended_at=1.0,
    )


def test_what_is_missing_is_a_dash(tmp_path):
    (tmp_path / "timing.json").write_text('{"first_line": 5.0, "ended"')
    found = trace_of(recorded("b", "a"), tmp_path)
    assert found.needs == {"a"}
    assert not found.is_timed
    text = "\n".join(summary_lines([found], {"b": [("a", None), ("b", 0.5)]}))
    assert "Speed-up: -" in text
    assert "median" not in text
    assert "b: a -, b 0.500" in text
    assert summary_lines([], {})


def test_the_times_and_conditions_of_a_run_are_told(tmp_path):
    times = {"process_started": 1.0, "first_line": 2.0, "first_update": 7.5, "ended": 20.0, "compilations": 0}
    (tmp_path / "timing.json").write_text(json.dumps(times))
    text = "\n".join(summary_lines([trace_of(recorded("a", episode_limit=300), tmp_path)], {}))
    assert "a 6.5 s (0 compiled)" in text
    assert "Episode limit: 300 steps; action masks: not used" in text
