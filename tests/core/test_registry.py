import resource
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from registry_steps import SIZES, SKILLS, begin, commit, make_skill, make_spec, seal

from flowrl_core.errors import InputError, StorageError
from flowrl_core.skills.model import Plan, Step
from flowrl_core.specs.skill import SkillConfig
from flowrl_core.storage import schema
from flowrl_core.storage.database import make_engine, writing
from flowrl_core.storage.layout import Home
from flowrl_core.storage.records.skill_runs import Look
from flowrl_core.storage.registry import Registry
from flowrl_core.text import folded


def test_a_new_registry_has_exactly_the_tables_of_the_schema(registry: Registry, new_home: Home) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with make_engine(new_home.registry_url).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_full_disk_is_an_error_that_changes_nothing(registry: Registry, new_home: Home) -> None:
    before = registry.campaigns.all()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (new_home.registry.with_name("registry.sqlite-wal").stat().st_size, hard))
    try:
        with pytest.raises(StorageError, match="nothing was changed"):
            registry.campaigns.record(
                make_spec(campaign="other"), SKILLS | {f"s{i}": make_skill(f"s{i}") for i in range(100)}
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert registry.campaigns.all() == before
    assert "s1" not in registry.skills.of("default")
    registry.campaigns.record(make_spec(campaign="other"), SKILLS)


def test_a_campaign_is_told_as_it_was_started(registry: Registry) -> None:
    campaign = registry.campaigns.get("default")
    assert campaign.targets == ("pickaxe",)
    assert campaign.spec == make_spec()
    assert registry.skills.get("default", "wood").skill == SKILLS["wood"]
    assert registry.skills.get("default", "wood").identity == SKILLS["wood"].identity("corridor")


def test_targets_are_added_and_limits_of_the_machine_may_change(registry: Registry) -> None:
    registry.campaigns.record(make_spec(targets=["table", "pickaxe"], limits={"max_retries": 5}), SKILLS)
    campaign = registry.campaigns.get("default")
    assert campaign.targets == ("pickaxe", "table")
    assert campaign.spec.limits.max_retries == 5


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"env": "craftax-classic"}, "env"),
        ({"training": {"frames": 7}}, "training.frames"),
        ({"evaluation": {"threshold": 0.5}}, "evaluation.threshold"),
        ({"limits": {"merge": "frozen"}}, "limits.merge"),
        ({"knowledge": "other.toml"}, "knowledge"),
        ({"overrides": ["wood.frames=7"]}, "overrides.wood.frames"),
        ({"fresh": True}, "fresh"),
        ({"targets": ["woodd"]}, "targets"),
        ({"retry": ["stone"]}, "retry"),
    ],
)
def test_other_parameters_under_one_name_are_refused_and_change_nothing(
    registry: Registry, changes: dict[str, Any], field: str
) -> None:
    before = registry.campaigns.get("default")
    with pytest.raises(InputError) as error:
        registry.campaigns.record(make_spec(**changes), SKILLS)
    assert error.value.field == field
    assert registry.campaigns.get("default") == before


def test_skills_of_one_name_in_two_environments_are_two_skills(registry: Registry) -> None:
    registry.campaigns.record(make_spec(campaign="other", env="craftax-classic"), SKILLS)
    here, there = (registry.skills.get(campaign, "wood") for campaign in ("default", "other"))
    assert (here.env, there.env) == ("corridor", "craftax-classic") and here.identity != there.identity
    runs = {registry.skill_runs.get(begin(registry, "wood", campaign).run).ordinal for campaign in ("default", "other")}
    assert runs == {1, 2}, "both are trained at once, in directories of their own"


def test_the_campaign_started_last_is_told_whatever_the_clock_says(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1.0)
    registry.campaigns.record(make_spec(campaign="other"), SKILLS)
    assert [campaign.name for campaign in registry.campaigns.all()] == ["other", "default"]
    registry.campaigns.record(make_spec(), SKILLS)
    assert registry.campaigns.last() == registry.campaigns.get("other"), "recorded, and not begun"
    registry.campaigns.begin_start(make_spec())
    assert (registry.campaigns.last() or pytest.fail("none")).name == "default"


def test_an_unknown_campaign_or_skill_is_named_with_those_that_exist(registry: Registry) -> None:
    with pytest.raises(InputError, match="default"):
        registry.campaigns.get("defualt")
    with pytest.raises(InputError, match="pickaxe"):
        registry.skills.get("default", "pickax")


def test_the_figures_of_a_campaign_tell_runs_looks_and_merges(registry: Registry) -> None:
    attempt = begin(registry, "wood")
    seal(registry, attempt.run, ["wood"])
    registry.skill_runs.record_look(attempt.run, Look(1000, 512, 300, 0.5, 0.0125, 0.88))
    registry.skill_runs.record_look(attempt.run, Look(2000, 512, 480, 0.9, 0.0125, 0.9))
    merges = commit(registry, attempt.run, {0: ("c1", 50)})
    begin(registry, "table")
    figures = registry.skills.figures("default")

    wood = figures["wood"]
    assert wood.fact.learned and (wood.expert, wood.run, wood.looks, wood.episodes) == (0, attempt.run, 2, 512)
    assert (wood.success, wood.success_lower_bound, wood.threshold) == (480 / 512, 0.9, 0.75)
    assert (wood.routed_frames, wood.run_frames, wood.bundle) == (50, 100, registry.library.experts()[0].bundle)
    assert wood.merges == tuple(merges)
    assert wood.started_at and wood.ended_at and wood.ended_at >= wood.started_at

    table = figures["table"]
    assert table.fact.executing and (table.routed_frames, table.success, table.ended_at) == (0, None, None)
    assert figures["pickaxe"].run is None

    registry.campaigns.record(make_spec(campaign="other"), SKILLS)
    other = registry.skills.figures("other")
    assert (other["wood"].run, other["wood"].run_campaign) == (attempt.run, "default")
    assert other["table"].run is None


def test_names_that_differ_by_case_or_unicode_form_only_are_skills_of_their_own(new_home: Home) -> None:
    """Also where the file system takes their directories' names for one."""
    names = ["wood", "Wood", "\u212b", "\u00c5"]
    with Registry.open(new_home) as registry:
        paths = []
        for campaign in ("night", "Night"):
            skills = {name: make_skill(name, ephemeral=campaign == "Night") for name in names}
            registry.campaigns.record(make_spec(campaign=campaign, targets=names), skills)
            for name in names:
                run = registry.skill_runs.get(begin(registry, name, campaign).run)
                directories = (new_home.run_directory, new_home.archived_run)
                paths += [directory(campaign, run.skill, run.ordinal).path for directory in directories]
        assert len({folded(str(path)) for path in paths}) == len(paths) == 16
        registry.attempts.end(registry.attempts.outstanding("night")[0].id, "cancelled")
        assert {n: f.cause for n, f in registry.skills.facts("night").items()} == dict.fromkeys(names, "") | {
            "wood": "cancelled"
        }
        assert not any(fact.failed for fact in registry.skills.facts("Night").values())


def _ended_runs(home: Home, count: int) -> None:
    """A campaign of so many learned skills, each with two looks and a version of the one before it."""
    names = [f"s{i:04}" for i in range(count)]
    with Registry.open(home) as registry:
        registry.campaigns.record(make_spec(targets=names), {name: make_skill(name) for name in names})
        known = registry.skills.of("default")
    skills = [known[name].identity for name in names]
    plan = Plan("x", (Step("x", 1),))
    sealed = {"plan": plan.as_dict(), "plan_hash": plan.hash, "remap": {"0": 0}, "seeds": {"0": None}}
    ended = {"config": SkillConfig().model_dump(mode="json"), "ended_at": 2.0, "verdict": "learned"}
    common = {"campaign": "default", "created_at": 1.0}
    rows: dict[sa.Table, list[dict[str, Any]]] = {
        schema.runs: [
            {"id": i + 1, "family": "skill", "subject": skills[i], "name": name, "ordinal": 1} | (common | ended)
            for i, name in enumerate(names)
        ],
        schema.skill_runs: [{"run": i + 1, "identity": skills[i]} | sealed for i in range(count)],
        schema.attempts: [
            {"id": i + 1, "run": i + 1, "subject": skills[i], "name": name, "number": 1, "key": name, **common}
            | {"ended": "verdict", "ended_in_start": 1}
            for i, name in enumerate(names)
        ],
        schema.interruptions: [
            {"attempt": i + 1, "number": 1, "start": 1, "reason": "killed", "created_at": 1.0} for i in range(count)
        ],
        schema.looks: [
            {"run": i + 1, "number": k, "frames": k, "episodes": 512, "successes": 500, "lower_bound": 0.9}
            | {"level": 0.0125, "target": 0.88, "steps": [0.9] * 6, "worlds": [i, k], "created_at": 1.0}
            for i in range(count)
            for k in (1, 2)
        ],
        schema.experts: [
            {"global_index": i, "identity": identity, "kind": "skill", **SIZES} for i, identity in enumerate(skills)
        ],
        schema.versions: [
            {"id": 1 + 2 * i + k, "kind": "skill", "expert": max(0, i - k), "content": f"{i}-{k}", "frames": 100}
            | {"run": i + 1, "created_at": 1.0}
            for i in range(count)
            for k in (0, 1)
        ],
        schema.heads: [{"expert": i, "version": 1 + 2 * i} for i in range(count)],
        schema.merges: [
            {"run": i + 1, "expert": max(0, i - k), "action": "new", "version": 1 + 2 * i + k, "frames": 100}
            | {"to_version": 1 + 2 * i + k, "routed_frames": 100}
            for i in range(count)
            for k in ((0, 1) if i else (0,))
        ],
        schema.bundles: [
            {"id": i + 1, "run": i + 1, "identity": identity, "plan": plan.as_dict(), "success": 0.9}
            | {"lower_bound": 0.8, "episodes": 512, "threshold": 0.75, "created_at": 1.0}
            for i, identity in enumerate(skills)
        ],
        schema.bundle_versions: [{"bundle": i + 1, "expert": i, "version": 1 + 2 * i} for i in range(count)],
    }
    with writing(make_engine(home.registry_url)) as tx:
        for table, entries in rows.items():
            tx.execute(sa.insert(table), entries)


def _resumed(home: Home, count: int) -> int:
    """Statements of all that a resumed campaign, and its table, read of `count` ended runs."""
    _ended_runs(home, count)
    spec, skills = make_spec(targets=["s0000"]), {f"s{i:04}": make_skill(f"s{i:04}") for i in range(count)}
    statements = []
    with Registry.open(home) as registry:
        sa.event.listen(registry._engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
        registry.campaigns.record(spec, skills)
        assert registry.attempts.outstanding("default") == []
        facts, figures = registry.skills.facts("default"), registry.skills.figures("default")
        assert len(registry.library.experts()) == len(registry.skills.of("default")) == count
    assert sum(fact.retries for fact in facts.values()) == sum(fact.learned for fact in facts.values()) == count
    assert {(one.looks, one.success, one.bundle is not None) for one in figures.values()} == {(2, 500 / 512, True)}
    assert sum(len(one.merges) for one in figures.values()) == 2 * count - 1
    return len(statements)


def test_a_thousand_ended_runs_are_read_in_as_many_statements_as_ten(tmp_path: Path, new_home: Home) -> None:
    assert _resumed(new_home, 1000) == _resumed(Home(tmp_path / "few"), 10) < 50
