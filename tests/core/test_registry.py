import dataclasses
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from flowrl_core.errors import ConflictError, CorruptError, InputError, StorageError
from flowrl_core.skills.model import Linear, Plan, Program, Skill, Step
from flowrl_core.specs import CampaignSpec, SkillConfig, parse_campaign
from flowrl_core.storage import schema
from flowrl_core.storage.database import MIGRATIONS, bring_up_to_date, make_engine, reading, writing
from flowrl_core.storage.layout import Home, folded
from flowrl_core.storage.records import Attempt, BundleFacts, Compared, ExpertResult, Look, Measured, Merge
from flowrl_core.storage.registry import Registry


def _skill(name: str, **changes: Any) -> Skill:
    gain = {f"ach.{name}": Linear(0, 1)}
    return Skill(name, "", **{"program": Program(f"ach.{name}", f"new_ach.{name}"), "gain": gain} | changes)


SKILLS = {name: _skill(name) for name in ("wood", "table", "pickaxe")}
SIZES = {"observation_size": 10, "num_actions": 4, "width": 8}


def _spec(**changes: Any) -> CampaignSpec:
    return parse_campaign(**{"env": "corridor", "targets": ["pickaxe"], "limits": {"max_retries": 1}} | changes)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Home:
    if not {"database", "empty_database"} & set(request.fixturenames):
        monkeypatch.delenv("FLOWRL_REGISTRY_URL", raising=False)
    return Home(tmp_path / "hö me")


@pytest.fixture
def registry(home: Home, database: str) -> Iterator[Registry]:
    with Registry.open(home) as opened:
        opened.start_campaign(_spec(), SKILLS)
        yield opened


def _begin(registry: Registry, name: str, campaign: str = "default", **options: Any) -> Attempt:
    return registry.begin_attempt(campaign, registry.skill(campaign, name).identity, **options)


def _seal(registry: Registry, run: int, names: list[str]) -> None:
    """Seal a run whose plan uses the named skills once each, seeded from their heads."""
    experts = [registry.allocate_expert(registry.skill("default", name).identity, **SIZES) for name in names]
    seeds = {expert.global_index: expert.head.id if expert.head else None for expert in experts}
    remap = {index: local for local, index in enumerate(sorted(seeds))}
    plan = Plan(names[-1], tuple(Step(name, 1) for name in names))
    registry.seal_run(run, plan=plan, remap=remap, config=SkillConfig(), seeds=seeds)


def _commit(registry: Registry, run: int, contents: dict[int, tuple[str, int]], **changes: Any) -> list[Merge]:
    """Commit results as `{global index: (content, routed frames)}`, seeded as the run was sealed."""
    seeds = registry.run(run).seeds or {}
    results = [ExpertResult(i, content, frames, seeds[i]) for i, (content, frames) in contents.items()]
    ending: dict[str, Any] = {"verdict": "learned", "run_frames": 100, "policy": "most_frames"}
    ending["bundle"] = BundleFacts(0.9, 0.8, 512, 0.75)
    return registry.commit_run(run, results=results, **ending | changes)


def _learn(registry: Registry, names: list[str], contents: dict[int, tuple[str, int]], **changes: Any) -> list[Merge]:
    attempt = _begin(registry, names[-1])
    _seal(registry, attempt.run, names)
    merges = _commit(registry, attempt.run, contents, **changes)
    registry.end_attempt(attempt.id, "verdict")
    return merges


# Opening


def test_opening_again_gives_the_same_registry_at_once(home: Home) -> None:
    with Registry.open(home) as first:
        uuid = first.uuid
    start = time.perf_counter()
    with Registry.open(home) as second:
        assert second.uuid == uuid
    assert time.perf_counter() - start < 0.5


def test_opening_imports_neither_jax_nor_alembic_when_nothing_is_to_migrate(home: Home) -> None:
    Registry.open(home).close()
    program = (
        "import sys; from pathlib import Path; from flowrl_core.storage.layout import Home\n"
        "from flowrl_core.storage.registry import Registry\n"
        "Registry.open(Home(Path(sys.argv[1]))).uuid\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'jax', 'alembic', 'prefect', 'orbax'}, loaded"
    )
    subprocess.run([sys.executable, "-c", program, str(home.root)], check=True, timeout=60)


def test_a_new_registry_has_exactly_the_tables_of_the_schema(registry: Registry, home: Home) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with make_engine(home.registry_url).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []


def _next_migration(directory: Path) -> Path:
    """A copy of the migrations with one more."""
    shutil.copytree(MIGRATIONS, directory)
    (directory / "versions" / "9999_next.py").write_text(
        "from alembic import op\nimport sqlalchemy as sa\nrevision = '9999'\n"
        f"down_revision = {schema.HEAD!r}\n"
        "def upgrade():\n    op.add_column('meta', sa.Column('note', sa.Text()))\n"
    )
    return directory


def _first_schema(home: Home) -> dict[str, list[dict[str, Any]]]:
    """A registry as the first migration makes it, with rows in each of its tables; these rows by table."""
    home.root.mkdir()
    engine = make_engine(home.registry_url)
    bring_up_to_date(home, engine, head="0001")
    run = {"kind": "skill", "campaign": "old", "identity": "i1", "skill": "wood", "created_at": 1.0}
    tried = {"campaign": "old", "identity": "i1", "skill": "wood", "created_at": 1.0}
    version = {"kind": "skill", "expert": 0, "run": 1, "created_at": 1.0}
    rows: dict[str, list[dict[str, Any]]] = {
        "campaigns": [{"name": "old", "env": "e", "spec": {}, "start": 1, "created_at": 1.0, "started_at": 1.0}],
        "skills": [{"identity": "i1", "name": "wood", "env": "e", "definition": {}, "created_at": 1.0}],
        "runs": [{"id": 1, "ordinal": 1, "verdict": "learned", **run}, {"id": 2, "ordinal": 2, **run}],
        "attempts": [
            {"id": 1, "run": 1, "number": 1, "key": "k1", "ended": "cancelled", "ended_in_start": 1, **tried},
            {"id": 2, "run": 2, "number": 2, "key": "k2", "flow_run_id": "f", **tried},
        ],
        "interruptions": [{"attempt": 1, "number": 1, "start": 1, "reason": "killed", "created_at": 1.0}],
        "experts": [{"global_index": 0, "identity": "i1", "kind": "skill"} | SIZES],
        "versions": [
            {"id": 1, "content": "a", "frames": 5, **version},
            {"id": 2, "content": "b", "frames": 7, "parent": 1, **version},
        ],
        "heads": [{"expert": 0, "version": 2}],
        "looks": [
            {"run": 1, "number": 1, "frames": 9, "episodes": 8, "successes": 7, "lower_bound": 0.5, "level": 0.05}
            | {"target": 0.8, "steps": [], "worlds": [], "created_at": 1.0}
        ],
        "merges": [
            {"run": 1, "expert": 0, "action": "new", "version": 1, "to_version": 1, "frames": 5, "routed_frames": 5}
        ],
        "bundles": [
            {"id": 1, "run": 1, "identity": "i1", "plan": {}, "success": 0.9, "lower_bound": 0.8, "episodes": 8}
            | {"threshold": 0.7, "created_at": 1.0}
        ],
        "bundle_versions": [{"bundle": 1, "expert": 0, "version": 1}],
        "campaign_skills": [{"campaign": "old", "name": "wood", "identity": "i1", "forgiven_run": 1}],
    }
    with writing(engine) as tx:
        for table, entries in rows.items():
            for entry in entries:
                tx.execute(sa.insert(schema.metadata.tables[table]).values(**entry))
    engine.dispose()
    return rows


def _kept(url: str, rows: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """What a database has in the places of these rows."""
    engine, kept = make_engine(url), {}
    with reading(engine) as tx:
        for name, entries in rows.items():
            table = schema.metadata.tables[name]
            found = tx.execute(sa.select(*(table.c[column] for column in entries[0])).order_by(sa.text("1")))
            kept[name] = [dict(row) for row in found.mappings()]
    engine.dispose()
    return kept


def test_a_registry_of_the_first_schema_keeps_every_row(home: Home, empty_database: str) -> None:
    rows = _first_schema(home)
    expected = {name: [{c: entry.get(c) for c in entries[0]} for entry in entries] for name, entries in rows.items()}
    uuid = _kept(home.registry_url, {"meta": [{"uuid": ""}]})
    with Registry.open(home) as registry:
        assert [{"uuid": registry.uuid}] == uuid["meta"]
        assert (registry.attempt(1).end, registry.attempt(2).end) == ("cancelled", None)
    assert _kept(home.registry_url, rows) == expected
    assert _kept(home.registry_url, {"runs": [{"epoch": 0}]}) == {"runs": [{"epoch": 0}, {"epoch": 0}]}
    if empty_database == "sqlite":
        (backup,) = home.root.glob("registry-schema-0001-*.sqlite")
        assert _kept(f"sqlite:///{backup}", rows | {"meta": [{"uuid": ""}]}) == expected | uuid
        for file, revision in ((backup, "0001"), (home.registry, "0002")):
            with sqlite3.connect(file) as connection:
                assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(revision,)]
                assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def _rules(engine: sa.Engine) -> dict[str, list[str]]:
    """All constraints, references and indexes of a database, by table."""
    inspector = sa.inspect(engine)
    found = {}
    for table in schema.metadata.tables:
        rules: list[Any] = [*inspector.get_check_constraints(table), *inspector.get_unique_constraints(table)]
        rules += [*inspector.get_foreign_keys(table), inspector.get_pk_constraint(table)]
        for index in inspector.get_indexes(table):
            options = index.pop("dialect_options", {})
            rules.append({**index, "where": str(options.get("sqlite_where", options.get("postgresql_where")))})
        columns = [(column["name"], column["nullable"]) for column in inspector.get_columns(table)]
        found[table] = sorted(str(rule) for rule in [*rules, *columns])
    return found


def test_a_migrated_registry_refuses_what_the_schema_refuses(
    home: Home, empty_database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    _first_schema(home)
    with Registry.open(home) as registry:
        assert registry.end_attempt(2, "rejected").end == "rejected"
    is_sqlite = empty_database == "sqlite"
    url = f"sqlite:///{tmp_path}/fresh.sqlite" if is_sqlite else request.getfixturevalue("postgres_registry")
    fresh, migrated = make_engine(url), make_engine(home.registry_url)
    with writing(fresh) as tx:
        schema.metadata.drop_all(tx)
        schema.metadata.create_all(tx)
    has = _rules(migrated)
    for table, rules in _rules(fresh).items():
        assert has[table] == rules, table
    nonsense = sa.update(schema.attempts).where(schema.attempts.c.id == 2).values(ended="nonsense")
    with pytest.raises(ConflictError, match="ck_attempts_ended"), writing(migrated) as tx:
        tx.execute(nonsense)
    fresh.dispose()
    migrated.dispose()


def test_an_older_schema_is_migrated_with_a_backup_and_a_newer_one_refused(home: Home, tmp_path: Path) -> None:
    with Registry.open(home) as registry:
        uuid = registry.uuid
    migrations = _next_migration(tmp_path / "migrations")
    bring_up_to_date(home, make_engine(home.registry_url), head="9999", migrations=migrations)

    (backup,) = home.root.glob(f"registry-schema-{schema.HEAD}-*.sqlite")
    for file, columns in ((backup, 4), (home.registry, 5)):
        with sqlite3.connect(file) as connection:
            (row,) = connection.execute("SELECT * FROM meta").fetchall()
            assert len(row) == columns and row[1] == uuid

    with pytest.raises(StorageError, match=f"schema 9999, this FlowRL knows up to {schema.HEAD}"):
        Registry.open(home)


def test_a_migration_that_fails_changes_nothing(home: Home, tmp_path: Path) -> None:
    Registry.open(home).close()
    migrations = _next_migration(tmp_path / "migrations")
    with open(migrations / "versions" / "9999_next.py", "a") as file:
        file.write("    op.execute('CREATE TABLE half (id INTEGER)')\n    op.execute('nonsense')\n")
    with pytest.raises(StorageError, match="nonsense"):
        bring_up_to_date(home, make_engine(home.registry_url), head="9999", migrations=migrations)
    Registry.open(home).close()
    assert not sa.inspect(make_engine(home.registry_url)).has_table("half")


def test_a_file_that_is_no_database_is_refused(home: Home) -> None:
    home.root.mkdir()
    home.registry.write_bytes(b"not a database, but long enough to look at " * 100)
    with pytest.raises(CorruptError, match="not a database"):
        Registry.open(home)


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "postgresql+psycopg:/me:secret@here/x",
        "postgresql+psycopg://me:secret@here:port/x",
        "oracle9://me:secret@here/x",
        "postgresql+nodriver://me:secret@here/x",
        "mssql+pyodbc://me:secret@here/x",
        "postgresql+asyncpg://me:secret@here/x",  # that is what Prefect's server wants
        "sqlite+aiosqlite:///x",
    ],
)
def test_a_wrong_database_url_is_refused_by_name(home: Home, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWRL_REGISTRY_URL", url)
    with pytest.raises(InputError, match=r"FLOWRL_REGISTRY_URL.*postgresql\+psycopg://user@host/name") as error:
        Registry.open(home)
    assert "secret" not in str(error.value)
    assert not home.root.exists()


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_full_disk_is_an_error_that_changes_nothing(registry: Registry, home: Home) -> None:
    before = registry.campaigns()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (home.registry.with_name("registry.sqlite-wal").stat().st_size, hard))
    try:
        with pytest.raises(StorageError, match="nothing was changed"):
            registry.start_campaign(_spec(campaign="other"), SKILLS | {f"s{i}": _skill(f"s{i}") for i in range(100)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert registry.campaigns() == before
    assert "s1" not in registry.skills("default")
    registry.start_campaign(_spec(campaign="other"), SKILLS)


# Campaigns


def test_a_campaign_is_told_as_it_was_started(registry: Registry) -> None:
    campaign = registry.campaign("default")
    assert campaign.targets == ("pickaxe",)
    assert campaign.spec == _spec()
    assert registry.skill("default", "wood").skill == SKILLS["wood"]
    assert registry.skill("default", "wood").identity == SKILLS["wood"].identity("corridor")


def test_targets_are_added_and_limits_of_the_machine_may_change(registry: Registry) -> None:
    registry.start_campaign(_spec(targets=["table", "pickaxe"], limits={"max_retries": 5}), SKILLS)
    campaign = registry.campaign("default")
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
        ({"overrides": ["wood.frames=7"]}, "overrides"),
        ({"targets": ["woodd"]}, "targets"),
        ({"retry": ["stone"]}, "retry"),
    ],
)
def test_other_parameters_under_one_name_are_refused_and_change_nothing(
    registry: Registry, changes: dict[str, Any], field: str
) -> None:
    before = registry.campaign("default")
    with pytest.raises(InputError) as error:
        registry.start_campaign(_spec(**changes), SKILLS)
    assert error.value.field == field
    assert registry.campaign("default") == before


def test_one_registry_holds_one_environment(registry: Registry) -> None:
    with pytest.raises(InputError, match="holds experts of 'corridor'"):
        registry.start_campaign(_spec(campaign="other", env="craftax-classic"), SKILLS)


def test_the_campaign_started_last_is_told_whatever_the_clock_says(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1.0)
    registry.start_campaign(_spec(campaign="other"), SKILLS)
    assert [campaign.name for campaign in registry.campaigns()] == ["other", "default"]
    registry.start_campaign(_spec(), SKILLS)
    assert (registry.last_campaign() or pytest.fail("none")).name == "default"


def test_an_unknown_campaign_or_skill_is_named_with_those_that_exist(registry: Registry) -> None:
    with pytest.raises(InputError, match="default"):
        registry.campaign("defualt")
    with pytest.raises(InputError, match="pickaxe"):
        registry.skill("default", "pickax")


# Attempts and failure


def test_an_attempt_is_named_by_registry_campaign_skill_and_number(registry: Registry) -> None:
    attempt = _begin(registry, "wood")
    assert attempt.key == f"{registry.uuid}/default/wood/1"
    assert registry.outstanding("default") == [attempt]
    assert registry.set_flow_run(attempt.id, "abc").flow_run_id == "abc"
    fact = registry.facts("default")["wood"]
    assert fact.executing and fact.attempt == registry.attempt(attempt.id)


def test_a_skill_has_one_outstanding_attempt_whichever_campaign_asks(registry: Registry) -> None:
    _begin(registry, "wood")
    registry.start_campaign(_spec(campaign="other"), SKILLS)
    for campaign in ("default", "other"):
        with pytest.raises(ConflictError, match="attempt 1 of campaign 'default' is outstanding"):
            _begin(registry, "wood", campaign)
    assert registry.facts("other")["wood"].executing


def test_infrastructure_trouble_keeps_the_run_open_until_the_retries_are_used_up(registry: Registry) -> None:
    first = _begin(registry, "wood")
    registry.end_attempt(first.id, "infrastructure", "worker died")
    fact = registry.facts("default")["wood"]
    assert (fact.failed, fact.executing, fact.retries, fact.reason) == (False, False, 1, "worker died")

    second = _begin(registry, "wood")
    assert (second.run, second.number, second.key[-2:]) == (first.run, 2, "/2")
    registry.end_attempt(second.id, "infrastructure", "out of memory")
    fact = registry.facts("default")["wood"]
    assert (fact.failed, fact.cause, fact.retries, fact.reason) == (True, "infrastructure", 2, "out of memory")
    assert registry.run(first.run).verdict is None
    with pytest.raises(ConflictError, match="out of memory"):
        _begin(registry, "wood")


def test_starting_the_campaign_again_begins_a_new_count_on_the_same_run(registry: Registry) -> None:
    attempts = [_begin(registry, "wood")]
    registry.end_attempt(attempts[0].id, "infrastructure")
    attempts.append(_begin(registry, "wood"))
    registry.end_attempt(attempts[1].id, "infrastructure")
    registry.start_campaign(_spec(), SKILLS, is_new_start=False)
    assert registry.facts("default")["wood"].failed
    registry.start_campaign(_spec(), SKILLS)
    fact = registry.facts("default")["wood"]
    assert (fact.failed, fact.retries) == (False, 0)
    assert _begin(registry, "wood").run == attempts[0].run


def test_a_retry_of_the_same_flow_run_counts_too_and_once(registry: Registry) -> None:
    attempt = _begin(registry, "wood")
    for _ in range(3):
        registry.count_retry(attempt.id, "killed", execution=1)
    fact = registry.facts("default")["wood"]
    assert (fact.retries, fact.executing, fact.failed) == (1, True, False)
    assert registry.count_retry(attempt.id, "killed again").interruptions == 2
    registry.end_attempt(attempt.id, "infrastructure", "killed at last")
    assert registry.facts("default")["wood"].retries == 3


def test_trouble_of_an_attempt_that_lives_on_counts_for_the_start_it_happened_in(registry: Registry) -> None:
    attempt = _begin(registry, "wood")
    registry.count_retry(attempt.id, "killed")
    registry.start_campaign(_spec(), SKILLS)
    assert registry.facts("default")["wood"].retries == 0
    registry.end_attempt(attempt.id, "infrastructure", "killed")
    assert registry.facts("default")["wood"].retries == 1


def test_a_cancelled_attempt_is_not_repeated_until_the_campaign_is_started_again(registry: Registry) -> None:
    attempt = _begin(registry, "wood")
    registry.end_attempt(attempt.id, "cancelled", "by hand")
    fact = registry.facts("default")["wood"]
    assert (fact.failed, fact.cause, fact.retries) == (True, "cancelled", 0)
    with pytest.raises(ConflictError, match="by hand"):
        _begin(registry, "wood")
    registry.start_campaign(_spec(), SKILLS)
    assert _begin(registry, "wood").run == attempt.run


def test_a_rejected_skill_is_not_tried_until_a_start_names_it(registry: Registry) -> None:
    attempt = _begin(registry, "wood")
    registry.end_attempt(attempt.id, "rejected", "not this one")
    for _ in range(2):
        fact = registry.facts("default")["wood"]
        assert (fact.failed, fact.cause, fact.reason) == (True, "rejected", "not this one")
        with pytest.raises(ConflictError, match="wood was rejected; start the campaign again with it"):
            _begin(registry, "wood")
        registry.start_campaign(_spec(), SKILLS)  # which does not name it
    registry.start_campaign(_spec(campaign="other"), SKILLS)
    assert not registry.facts("other")["wood"].failed, "another campaign may"
    registry.start_campaign(_spec(retry=["wood"]), SKILLS)
    assert not registry.facts("default")["wood"].failed
    again = _begin(registry, "wood")
    assert (again.run, again.number) == (attempt.run, 2)
    registry.end_attempt(again.id, "rejected", "again")
    assert registry.facts("default")["wood"].cause == "rejected", "what was forgiven is the first rejection"


def test_the_first_end_of_an_attempt_stands(registry: Registry) -> None:
    attempt = _begin(registry, "wood")
    registry.end_attempt(attempt.id, "cancelled")
    assert registry.end_attempt(attempt.id, "infrastructure").end == "cancelled"
    assert registry.facts("default")["wood"].retries == 0


def test_the_verdict_in_the_registry_wins_over_how_the_attempt_seemed_to_end(registry: Registry) -> None:
    decided = _begin(registry, "wood")
    registry.fail_run(decided.run, "it diverged")
    assert not registry.facts("default")["wood"].executing
    assert registry.end_attempt(decided.id, "infrastructure", "crashed while it archived").end == "verdict"
    undecided = _begin(registry, "table")
    assert registry.end_attempt(undecided.id, "verdict").end == "infrastructure"


def test_a_failed_skill_is_tried_again_only_if_named(registry: Registry) -> None:
    first = _begin(registry, "wood")
    registry.fail_run(first.run, "below the threshold")
    registry.end_attempt(first.id, "verdict")
    registry.start_campaign(_spec(), SKILLS)
    fact = registry.facts("default")["wood"]
    assert (fact.failed, fact.cause, fact.reason) == (True, "verdict", "below the threshold")
    with pytest.raises(ConflictError, match="retry"):
        _begin(registry, "wood")

    registry.start_campaign(_spec(retry=["wood"]), SKILLS)
    assert not registry.facts("default")["wood"].failed
    second = _begin(registry, "wood")
    assert second.run != first.run
    assert (registry.run(first.run).ordinal, registry.run(second.run).ordinal) == (1, 2)
    registry.fail_run(second.run, "again")
    registry.end_attempt(second.id, "verdict")
    assert registry.facts("default")["wood"].failed
    assert _begin(registry, "wood", new_run=True).run not in (first.run, second.run)


def test_a_changed_definition_is_another_skill_with_another_run_directory(registry: Registry) -> None:
    first = _begin(registry, "wood")
    registry.fail_run(first.run, "")
    registry.end_attempt(first.id, "verdict")
    changed = SKILLS | {"wood": _skill("wood", learn_count=4)}
    registry.start_campaign(_spec(), changed)
    assert not registry.facts("default")["wood"].failed
    second = _begin(registry, "wood")
    assert second.identity != first.identity
    runs = [registry.run(first.run), registry.run(second.run)]
    assert len({(run.campaign, run.skill, run.ordinal) for run in runs}) == 2


def test_what_another_campaign_failed_at_is_no_failure_here_but_what_it_learned_is_learned(registry: Registry) -> None:
    failed = _begin(registry, "table")
    registry.fail_run(failed.run, "")
    registry.end_attempt(failed.id, "verdict")
    _learn(registry, ["wood"], {0: ("c1", 50)})
    registry.start_campaign(_spec(campaign="other"), SKILLS)
    facts = registry.facts("other")
    assert facts["wood"].learned and not facts["table"].failed
    with pytest.raises(ConflictError, match="is learned"):
        _begin(registry, "wood", "other")


# Experts


def test_global_indices_are_given_once_and_in_order(registry: Registry) -> None:
    identities = {name: registry.skill("default", name).identity for name in SKILLS}
    given = [registry.allocate_expert(identities[name], **SIZES).global_index for name in ("table", "wood", "table")]
    assert given == [0, 1, 0]
    assert [(e.global_index, e.name, e.head, e.bundle) for e in registry.experts()] == [
        (0, "table", None, None),
        (1, "wood", None, None),
    ]
    assert registry.expert(identities["pickaxe"]) is None


@pytest.mark.parametrize("field", SIZES)
def test_an_expert_of_another_size_is_refused_with_both_sizes(registry: Registry, field: str) -> None:
    identity = registry.skill("default", "wood").identity
    registry.allocate_expert(identity, **SIZES)
    with pytest.raises(InputError, match=rf"has {SIZES[field]}, this run 99") as error:
        registry.allocate_expert(identity, **SIZES | {field: 99})
    assert error.value.field == field


# Runs


def test_a_run_is_sealed_once(registry: Registry) -> None:
    run = _begin(registry, "table").run
    assert registry.run(run).plan is None
    _seal(registry, run, ["wood", "table"])
    _seal(registry, run, ["wood", "table"])
    sealed = registry.run(run)
    assert sealed.plan == Plan("table", (Step("wood", 1), Step("table", 1)))
    assert (sealed.remap, sealed.seeds, sealed.config) == ({0: 0, 1: 1}, {0: None, 1: None}, SkillConfig())
    with pytest.raises(ConflictError, match="sealed with another"):
        _seal(registry, run, ["table"])


def test_looks_are_numbered_and_the_first_at_a_number_of_frames_stands(registry: Registry) -> None:
    run = _begin(registry, "wood").run
    look = Look(1000, 512, 256, 0.45, 0.0125, 0.88, (0.9, 0.55), (7, 8))
    first = registry.record_look(run, look)
    assert (first.number, first.success, first.steps, first.worlds) == (1, 0.5, (0.9, 0.55), (7, 8))
    assert registry.record_look(run, Look(1000, 512, 500, 0.95, 0.0125, 0.88)) == first
    second = registry.record_look(run, Look(2000, 512, 500, 0.95, 0.0125, 0.9))
    assert registry.looks(run) == [first, second] and second.number == 2
    registry.fail_run(run, "")
    with pytest.raises(ConflictError, match="has ended"):
        registry.record_look(run, Look(3000, 512, 500, 0.95, 0.0125, 0.9))


def test_a_process_whose_run_was_claimed_by_a_later_one_writes_nothing(registry: Registry) -> None:
    attempt = _begin(registry, "wood")
    zombie = registry.claim_run(attempt.run)
    _seal(registry, attempt.run, ["wood"])
    owner = registry.claim_run(attempt.run)
    assert (zombie, owner, registry.run(attempt.run).epoch) == (1, 2, 2)
    sealed = registry.run(attempt.run)
    assert sealed.plan and sealed.remap and sealed.config and sealed.seeds
    parts: dict[str, Any] = {"plan": sealed.plan, "remap": sealed.remap, "config": sealed.config, "seeds": sealed.seeds}
    look = Look(10, 512, 480, 0.9, 0.0125, 0.88)
    for write in (
        lambda epoch: registry.check_claim(attempt.run, epoch),
        lambda epoch: registry.seal_run(attempt.run, **parts, epoch=epoch),
        lambda epoch: registry.record_look(attempt.run, look, epoch=epoch),
        lambda epoch: _commit(registry, attempt.run, {0: ("a", 50)}, epoch=epoch),
        lambda epoch: registry.fail_run(attempt.run, "it diverged", epoch=epoch),
    ):
        before = (registry.run(attempt.run), registry.looks(attempt.run), registry.merges(attempt.run))
        with pytest.raises(ConflictError, match=r"taken over by another process \(claim 2, this one has 1\)"):
            write(zombie)
        assert (registry.run(attempt.run), registry.looks(attempt.run), registry.merges(attempt.run)) == before
        write(owner)
    assert registry.run(attempt.run).verdict == "learned"


@pytest.mark.parametrize("call", ["run", "version", "attempt"])
def test_an_id_that_does_not_exist_is_named(registry: Registry, call: str) -> None:
    with pytest.raises(StorageError, match="no .* 77"):
        getattr(registry, call)(77)


# Commits


def test_a_learned_run_makes_versions_heads_and_a_bundle(registry: Registry) -> None:
    (merge,) = _learn(registry, ["wood"], {0: ("c1", 50)})
    assert (merge.action, merge.name, merge.from_version, merge.frames) == ("new", "wood", None, 50)
    head = registry.head(0)
    assert head is not None and (head.id, head.content, head.frames, head.parent) == (merge.version, "c1", 50, None)
    bundle = registry.bundle(registry.skill("default", "wood").identity)
    assert bundle is not None and bundle.versions == {0: head}
    assert (bundle.success, bundle.lower_bound, bundle.threshold, bundle.plan.target) == (0.9, 0.8, 0.75, "wood")
    assert registry.experts()[0].bundle == bundle.id
    assert registry.facts("default")["wood"].learned


def test_committing_twice_changes_nothing_and_answers_the_same(registry: Registry) -> None:
    run = _begin(registry, "wood").run
    _seal(registry, run, ["wood"])
    first = _commit(registry, run, {0: ("c1", 50)})
    before = (registry.run(run), registry.versions(0), registry.experts())
    assert _commit(registry, run, {0: ("c1", 50)}) == first
    # A late commit of an old process: the registry's verdict stands.
    assert _commit(registry, run, {0: ("c2", 99)}, verdict="failed", bundle=None) == first
    assert (registry.run(run), registry.versions(0), registry.experts()) == before


def test_a_run_that_did_not_learn_moves_no_head_and_leaves_its_versions(registry: Registry) -> None:
    _learn(registry, ["wood"], {0: ("c1", 50)})
    merges = _learn(
        registry, ["wood", "table"], {0: ("c2", 500), 1: ("t1", 10)}, verdict="failed", bundle=None, reason="x"
    )
    assert [merge.action for merge in merges] == ["kept", "kept"]
    assert [version.content for version in registry.versions(0)] == ["c1", "c2"]
    assert (registry.head(0) or pytest.fail("none")).content == "c1"
    assert registry.head(1) is None
    assert not registry.facts("default")["table"].learned


@pytest.mark.parametrize("order", [("table", "pickaxe"), ("pickaxe", "table")])
def test_of_siblings_the_one_with_more_frames_wins_whichever_ends_first(
    registry: Registry, order: tuple[str, str]
) -> None:
    million = 1_000_000
    _learn(registry, ["wood"], {0: ("seed", 50 * million)})
    runs = {name: _begin(registry, name).run for name in ("table", "pickaxe")}
    for name, run in runs.items():
        _seal(registry, run, ["wood", name])
    frames = {"table": 80 * million, "pickaxe": 100 * million}
    own = {"table": 1, "pickaxe": 2}
    actions = [
        _commit(registry, runs[name], {0: (name, frames[name]), own[name]: (f"own {name}", 1)})[0].action
        for name in order
    ]
    head = registry.head(0)
    assert head is not None and (head.content, head.frames) == ("pickaxe", 150 * million)
    assert actions == ["updated", "updated" if order[0] == "table" else "kept"]
    assert sorted(v.frames // million for v in registry.versions(0)) == [50, 130, 150]


def test_unchanged_content_is_the_same_version(registry: Registry) -> None:
    _learn(registry, ["wood"], {0: ("c1", 50)})
    merges = _learn(registry, ["wood", "table"], {0: ("c1", 0), 1: ("t1", 10)})
    assert (merges[0].action, merges[0].version) == ("kept", merges[0].from_version)
    assert len(registry.versions(0)) == 1
    # Another expert may have the same content: that is another version.
    assert len({version.id for index in (0, 1) for version in registry.versions(index)}) == 2


def test_frozen_heads_stay_but_a_new_expert_gets_its_first(registry: Registry) -> None:
    _learn(registry, ["wood"], {0: ("c1", 50)})
    merges = _learn(registry, ["wood", "table"], {0: ("c2", 500), 1: ("t1", 10)}, policy="frozen")
    assert [merge.action for merge in merges] == ["kept", "new"]


def test_the_policy_evaluated_moves_a_head_by_what_was_measured_against_it_and_says_so(registry: Registry) -> None:
    _learn(registry, ["wood"], {0: ("a", 50)})
    attempt = _begin(registry, "table")
    _seal(registry, attempt.run, ["wood", "table"])
    contents = {0: ("b", 50), 1: ("c", 50)}
    with pytest.raises(InputError, match="compared: missing under the policy 'evaluated'"):
        _commit(registry, attempt.run, contents, policy="evaluated")
    measured = Measured(head=1, episodes=512, head_successes=400, version_successes=399)
    for stale in ({0: None, 1: None}, {0: 7, 1: None}, {0: 1, 1: 7}):
        with pytest.raises(ConflictError, match="was moved while it was measured"):
            _commit(registry, attempt.run, contents, policy="evaluated", compared=Compared(stale, {0: measured}))
    assert registry.run(attempt.run).verdict is None and len(registry.versions(0)) == 1
    compared = Compared({0: 1, 1: None}, {0: measured})
    merges = _commit(registry, attempt.run, contents, policy="evaluated", compared=compared)
    assert [(merge.action, merge.measured) for merge in merges] == [("kept", measured), ("new", None)]
    assert registry.merges(attempt.run) == merges
    assert registry.figures("default")["table"].merges == tuple(merges)
    registry.end_attempt(attempt.id, "verdict")
    as_good = dataclasses.replace(measured, version_successes=400)
    compared = Compared({0: 1, 2: None}, {0: as_good})
    merges = _learn(registry, ["wood", "pickaxe"], {0: ("d", 1), 2: ("e", 1)}, policy="evaluated", compared=compared)
    assert [(merge.action, merge.measured) for merge in merges] == [("updated", as_good), ("new", None)]


def test_bundles_that_hold_an_expert_come_newest_first(registry: Registry) -> None:
    _learn(registry, ["wood"], {0: ("c1", 50)})
    _learn(registry, ["wood", "table"], {0: ("c2", 5), 1: ("t1", 10)})
    assert [bundle.skill for bundle in registry.bundles_with(0)] == ["table", "wood"]
    assert [bundle.skill for bundle in registry.bundles_with(1)] == ["table"]
    assert [v.content for v in registry.bundles_with(0)[0].versions.values()] == ["c2", "t1"]


def test_a_commit_that_makes_no_sense_is_refused(registry: Registry) -> None:
    run = _begin(registry, "wood").run
    _seal(registry, run, ["wood"])
    results = [ExpertResult(0, "c", 1, None)]
    bundle = BundleFacts(1, 1, 1, 0.5)
    for results_, verdict, facts in (
        (results, "learned", None),
        (results, "failed", bundle),
        (results * 2, "learned", bundle),
        ([], "learned", bundle),
    ):
        with pytest.raises(InputError):
            registry.commit_run(
                run,
                verdict=verdict,  # type: ignore[arg-type]
                run_frames=1,
                results=results_,
                policy="most_frames",
                bundle=facts,
            )
    assert registry.run(run).verdict is None and registry.versions(0) == []


# Figures


def test_the_figures_of_a_campaign_tell_runs_looks_and_merges(registry: Registry) -> None:
    attempt = _begin(registry, "wood")
    _seal(registry, attempt.run, ["wood"])
    registry.record_look(attempt.run, Look(1000, 512, 300, 0.5, 0.0125, 0.88))
    registry.record_look(attempt.run, Look(2000, 512, 480, 0.9, 0.0125, 0.9))
    merges = _commit(registry, attempt.run, {0: ("c1", 50)})
    _begin(registry, "table")
    figures = registry.figures("default")

    wood = figures["wood"]
    assert wood.fact.learned and (wood.expert, wood.run, wood.looks, wood.episodes) == (0, attempt.run, 2, 512)
    assert (wood.success, wood.success_lower_bound, wood.threshold) == (480 / 512, 0.9, 0.75)
    assert (wood.routed_frames, wood.run_frames, wood.bundle) == (50, 100, registry.experts()[0].bundle)
    assert wood.merges == tuple(merges)
    assert wood.started_at and wood.ended_at and wood.ended_at >= wood.started_at

    table = figures["table"]
    assert table.fact.executing and (table.routed_frames, table.success, table.ended_at) == (0, None, None)
    assert figures["pickaxe"].run is None

    registry.start_campaign(_spec(campaign="other"), SKILLS)
    other = registry.figures("other")
    assert (other["wood"].run, other["wood"].run_campaign) == (attempt.run, "default")
    assert other["table"].run is None


def test_names_that_differ_by_case_or_unicode_form_only_are_skills_of_their_own(home: Home) -> None:
    """Also where the file system takes their directories' names for one."""
    names = ["wood", "Wood", "\u212b", "\u00c5"]
    with Registry.open(home) as registry:
        paths = []
        for campaign in ("night", "Night"):
            skills = {name: _skill(name, ephemeral=campaign == "Night") for name in names}
            registry.start_campaign(_spec(campaign=campaign, targets=names), skills)
            for name in names:
                run = registry.run(_begin(registry, name, campaign).run)
                directories = (home.run_directory, home.archived_run)
                paths += [directory(campaign, run.skill, run.ordinal).path for directory in directories]
        assert len({folded(str(path)) for path in paths}) == len(paths) == 16
        registry.end_attempt(registry.outstanding("night")[0].id, "cancelled")
        assert {n: f.cause for n, f in registry.facts("night").items()} == dict.fromkeys(names, "") | {
            "wood": "cancelled"
        }
        assert not any(fact.failed for fact in registry.facts("Night").values())


def _ended_runs(home: Home, count: int) -> None:
    """A campaign of so many learned skills, each with two looks and a version of the one before it."""
    names = [f"s{i:04}" for i in range(count)]
    with Registry.open(home) as registry:
        registry.start_campaign(_spec(targets=names), {name: _skill(name) for name in names})
        known = registry.skills("default")
    skills = [known[name].identity for name in names]
    plan = Plan("x", (Step("x", 1),))
    sealed = {"plan": plan.as_dict(), "plan_hash": plan.hash, "remap": {"0": 0}, "seeds": {"0": None}}
    sealed |= {"config": SkillConfig().model_dump(mode="json"), "created_at": 1.0, "ended_at": 2.0}
    common = {"campaign": "default", "created_at": 1.0}
    rows: dict[sa.Table, list[dict[str, Any]]] = {
        schema.runs: [
            {"id": i + 1, "kind": "skill", "identity": skills[i], "skill": name, "ordinal": 1, "verdict": "learned"}
            | (common | sealed)
            for i, name in enumerate(names)
        ],
        schema.attempts: [
            {"id": i + 1, "run": i + 1, "identity": skills[i], "skill": name, "number": 1, "key": name, **common}
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


def _resumed(home: Home, count: int) -> tuple[int, float]:
    """Statements and seconds of computing of all that a resumed campaign, and its table, read of `count` ended runs."""
    _ended_runs(home, count)
    spec, skills = _spec(targets=["s0000"]), {f"s{i:04}": _skill(f"s{i:04}") for i in range(count)}
    statements = []
    start = time.process_time()
    with Registry.open(home) as registry:
        sa.event.listen(registry._engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
        registry.start_campaign(spec, skills, is_new_start=False)
        assert registry.outstanding("default") == []
        facts, figures = registry.facts("default"), registry.figures("default")
        assert len(registry.experts()) == len(registry.skills("default")) == count
    seconds = time.process_time() - start
    assert sum(fact.retries for fact in facts.values()) == sum(fact.learned for fact in facts.values()) == count
    assert {(one.looks, one.success, one.bundle is not None) for one in figures.values()} == {(2, 500 / 512, True)}
    assert sum(len(one.merges) for one in figures.values()) == 2 * count - 1
    return len(statements), seconds


def test_a_thousand_ended_runs_are_read_in_as_many_statements_as_ten(tmp_path: Path, home: Home) -> None:
    few, _ = _resumed(Home(tmp_path / "few"), 10)
    many, seconds = _resumed(home, 1000)
    print(f"{many} statements, {seconds:.2f} s for 1,000 skills")
    assert many == few < 50
    assert seconds < 2.0
