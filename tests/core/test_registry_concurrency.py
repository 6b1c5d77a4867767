import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from registry_steps import SIZES, make_skill

from flowrl_core.skills.model import Plan, Step
from flowrl_core.specs.campaign import parse_campaign
from flowrl_core.specs.skill import SkillConfig
from flowrl_core.storage import schema
from flowrl_core.storage.database import bring_up_to_date, make_engine, reading, writing
from flowrl_core.storage.layout import Home
from flowrl_core.storage.records.library import BundleFacts, ExpertResult
from flowrl_core.storage.registry import Registry

pytestmark = pytest.mark.long

PROCESSES, MERGES = 8, 64

WAIT = """
import sys, json, time
from pathlib import Path
from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry
from flowrl_core.storage.records.library import BundleFacts, ExpertResult
from flowrl_core.storage.records.skill_runs import Look
root, mine = Path(sys.argv[1]), json.loads(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
registry = Registry.open(Home(root))
"""
COMMIT = """
def commit(run, results):
    results = [ExpertResult(*result) for result in results]
    bundle = BundleFacts(0.9, 0.8, 512, 0.75)
    return registry.skill_runs.commit(
        run, verdict="learned", run_frames=100, results=results, policy="most_frames", bundle=bundle
    )
for run, results in mine:
    commit(run, results)
"""


def _prepared(root: Path, names: list[str]) -> tuple[Registry, dict[str, int]]:
    """A registry in which the first skill is learned and each other has a sealed run that starts from its head."""
    registry = Registry.open(Home(root))
    registry.campaigns.record(
        parse_campaign(env="corridor", targets=[names[-1]]), {name: make_skill(name) for name in names}
    )
    skills = registry.skills.of("default")
    runs: dict[str, int] = {}
    for name in names:
        runs[name] = registry.skill_runs.begin("default", skills[name].identity).run
        plan = [names[0]] if name == names[0] else [names[0], name]
        experts = [registry.library.allocate(skills[n].identity, **SIZES) for n in plan]
        registry.skill_runs.seal(
            runs[name],
            plan=Plan(name, tuple(Step(n, 1) for n in plan)),
            remap={e.global_index: i for i, e in enumerate(experts)},
            config=SkillConfig(),
            seeds={e.global_index: e.head.id if e.head else None for e in experts},
        )
        if name == names[0]:
            ending: Any = {"policy": "most_frames", "bundle": BundleFacts(0.9, 0.8, 512, 0.75)}
            result = ExpertResult(0, "first", 50, None)
            registry.skill_runs.commit(runs[name], verdict="learned", run_frames=100, results=[result], **ending)
    return registry, runs


def _at_once(program: str, root: Path, work: list[Any], **environment: str) -> list[int]:
    """Exit codes of one process per item, which all begin when all are ready."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WAIT + program, str(root), json.dumps(item)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        for item in work
    ]
    for process in started:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [process.wait(timeout=120) for process in started]


def _dump(root: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All rows but for times and the registry's own name."""
    engine = make_engine(Home(root).registry_url)
    dump = {}
    with reading(engine) as connection:
        for name, table in schema.metadata.tables.items():
            columns = [c for c in table.columns if not c.name.endswith("_at") and c.name not in ("uuid", "key")]
            rows = connection.execute(sa.select(*columns))
            dump[name] = sorted((tuple(row) for row in rows), key=repr)
    engine.dispose()
    return dump


@pytest.mark.usefixtures("database")
def test_of_64_merges_from_8_processes_none_is_lost(tmp_path: Path) -> None:
    names = ["shared", *(f"skill{i}" for i in range(MERGES))]
    registry, runs = _prepared(tmp_path, names)
    seed = registry.library.head(0)
    assert seed is not None
    # Unlike frames, in no order: the head must end at the greatest, whoever comes last.
    frames = {name: 1 + (i * 37) % MERGES for i, name in enumerate(names[1:])}
    jobs = [
        (runs[name], [(0, f"shared by {name}", frames[name], seed.id), (i, f"own of {name}", 5, None)])
        for i, name in enumerate(names[1:], start=1)
    ]
    shares = [jobs[k::PROCESSES] for k in range(PROCESSES)]
    assert _at_once(COMMIT, tmp_path, shares) == [0] * PROCESSES

    assert all(registry.skill_runs.get(run).verdict == "learned" for run in runs.values())
    assert sorted(v.frames for v in registry.library.versions(0)) == [50, *range(51, 51 + MERGES)]
    head = registry.library.head(0)
    assert head is not None and head.frames == 50 + MERGES
    assert all(len(registry.library.versions(i)) == 1 and registry.library.head(i) for i in range(1, MERGES + 1))
    assert len(registry.library.bundles_with(0)) == MERGES + 1

    merges = [registry.skill_runs.merges(runs[name])[0] for name in names[1:]]
    updates = {merge.from_version: merge.to_version for merge in merges if merge.action == "updated"}
    # One unbroken chain from the seed to the head: no update was made on a head that had moved.
    assert len(updates) == Counter(merge.action for merge in merges)["updated"] >= 1
    at: int | None = seed.id
    while at in updates:
        at = updates.pop(at)
    assert at == head.id and not updates
    registry.close()


# What a process measures is the number in the content's name: all measure the same.
MEASURED_COMMIT = """
from flowrl_core.errors import ConflictError
from flowrl_core.storage.records.library import Compared, Measured
def worth(content):
    return int(content.split()[-1])
for run, (content, own) in mine:
    while True:
        head, other = registry.library.head(0), max(registry.skill_runs.get(run).remap)
        time.sleep(0.002)
        measured = Measured(head.id, 512, worth(head.content), worth(content))
        results = [ExpertResult(0, content, 1, 1), ExpertResult(other, own, 5, None)]
        try:
            registry.skill_runs.commit(
                run, verdict="learned", run_frames=100, results=results, policy="evaluated",
                bundle=BundleFacts(0.9, 0.8, 512, 0.75), compared=Compared({0: head.id, other: None}, {0: measured}),
            )
            break
        except ConflictError:
            pass
"""


@pytest.mark.usefixtures("database")
def test_of_merges_measured_at_once_none_moves_a_head_that_it_was_not_measured_against(tmp_path: Path) -> None:
    names = ["shared", *(f"skill{i}" for i in range(MERGES // 2))]
    registry, runs = _prepared(tmp_path, names)
    with writing(make_engine(Home(tmp_path).registry_url)) as tx:
        tx.execute(sa.update(schema.versions).values(content="worth 100"))
    worth = {name: 90 + (i * 11) % len(names) for i, name in enumerate(names[1:])}
    jobs = [(runs[name], (f"{name} worth {worth[name]}", f"own of {name}")) for name in names[1:]]
    shares = [jobs[k::PROCESSES] for k in range(PROCESSES)]
    assert _at_once(MEASURED_COMMIT, tmp_path, shares) == [0] * PROCESSES

    values = {version.id: int(version.content.split()[-1]) for version in registry.library.versions(0)}
    head = registry.library.head(0)
    assert head is not None and values[head.id] == max(worth.values()) > 100
    for name in names[1:]:
        merge = registry.skill_runs.merges(runs[name])[0]
        assert merge.measured is not None and merge.from_version == merge.measured.head
        assert merge.measured.head_successes == values[merge.measured.head]
        assert (merge.action == "updated") == (values[merge.version] >= values[merge.measured.head])
    registry.close()


def test_a_kill_while_an_older_registry_is_migrated_is_repaired_by_the_next_opening(tmp_path: Path) -> None:
    for delay in (0.05, 0.2, 0.35):
        home = Home(tmp_path / str(delay))
        home.root.mkdir()
        bring_up_to_date(home, make_engine(home.registry_url), head="0001")
        with sqlite3.connect(home.registry) as connection:
            connection.execute("INSERT INTO campaigns VALUES ('old', 'e', '{}', 1, 1.0, 1.0)")
        program = WAIT.replace("registry = ", "import alembic.command\nprint('open', flush=True)\nregistry = ")
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(home.root), "null"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
        assert [process.stdout.readline() for _ in range(2)] == [b"ready\n", b"open\n"]
        time.sleep(delay)
        process.kill()
        process.wait()
        Registry.open(home).close()
        with sqlite3.connect(home.registry) as connection:
            assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(schema.HEAD,)]
            assert connection.execute("SELECT name FROM campaigns").fetchall() == [("old",)]


@pytest.mark.usefixtures("empty_database")
def test_a_registry_opened_by_many_for_the_first_time_is_one(tmp_path: Path) -> None:
    program = "(Path(sys.argv[1]) / f'uuid{mine}').write_text(registry.uuid)"
    assert _at_once(program, tmp_path, [0, 1, 2]) == [0] * 3
    assert len({(tmp_path / f"uuid{i}").read_text() for i in range(3)}) == 1


@pytest.mark.usefixtures("database")
def test_one_skill_begun_by_many_at_once_has_one_attempt(tmp_path: Path) -> None:
    with Registry.open(Home(tmp_path)) as registry:
        registry.campaigns.record(parse_campaign(env="corridor", targets=["wood"]), {"wood": make_skill("wood")})
        identity = registry.skills.get("default", "wood").identity
        program = (
            "from flowrl_core.errors import ConflictError\n"
            "try: registry.skill_runs.begin('default', mine)\n"
            "except ConflictError: sys.exit(7)"
        )
        assert sorted(_at_once(program, tmp_path, [identity] * 3)) == [0, 7, 7]
        assert len(registry.attempts.outstanding("default")) == 1


@pytest.mark.usefixtures("database")
def test_indices_allocated_by_many_at_once_are_unlike_and_without_gaps(tmp_path: Path) -> None:
    names = [f"skill{i}" for i in range(20)]
    with Registry.open(Home(tmp_path)) as registry:
        skills = {name: make_skill(name) for name in names}
        registry.campaigns.record(parse_campaign(env="corridor", targets=[names[0]]), skills)
        identities = [skill.identity("corridor") for skill in skills.values()]
        program = f"for i in mine: registry.library.allocate(i, **{SIZES})"
        assert _at_once(program, tmp_path, [identities[k:] + identities[:k] for k in (0, 7, 14)]) == [0] * 3
        assert [expert.global_index for expert in registry.library.experts()] == list(range(20))


LOOKS = 20


@pytest.mark.usefixtures("database")
def test_numbers_given_to_many_at_once_are_unlike_and_without_gaps(tmp_path: Path) -> None:
    """Each is one more than the greatest so far: starts of campaigns, ordinals of runs, attempts, looks."""
    registry, runs = _prepared(tmp_path, ["shared", "looked at"])
    campaigns = []
    for k in range(4):
        # One name, which each campaign means in its own way: their runs share a series of ordinals.
        skills = {"twin": replace(make_skill("twin"), learn_count=k + 1)}
        spec = parse_campaign(env="corridor", targets=["twin"], campaign=f"c{k}")
        registry.campaigns.record(spec, skills)
        campaigns.append([spec.campaign, registry.skills.get(spec.campaign, "twin").identity, k, runs["looked at"]])
    program = f"""
campaign, identity, k, run = mine
for i in range({LOOKS}):
    registry.skill_runs.record_look(run, Look({LOOKS} * k + i, 8, 4, 0.1, 0.05, 0.9))
    attempt = registry.skill_runs.begin(campaign, identity)
    registry.skill_runs.fail(attempt.run, "no")
    registry.attempts.end(attempt.id, "verdict")
    spec = registry.campaigns.get(campaign).spec.model_copy(update={{"retry": ["twin"]}})
    registry.campaigns.record(spec, {{"twin": registry.skills.get(campaign, "twin").skill}})
    registry.campaigns.begin_start(spec)
"""
    assert _at_once(program, tmp_path, campaigns) == [0] * 4
    looks = registry.skill_runs.looks(runs["looked at"])
    assert [look.number for look in looks] == list(range(1, 4 * LOOKS + 1))
    found = [run for _, identity, _, _ in campaigns for run in registry.skill_runs.of(identity)]
    assert sorted(run.ordinal for run in found) == list(range(1, 4 * LOOKS + 1))
    assert max(one.start for one in registry.campaigns.all()) == 1 + 4 + 4 * LOOKS
    registry.close()


RESERVE = """
from flowrl_core.errors import BudgetError
from flowrl_core.specs.campaign import FrontierSpec
booked = 0
while True:
    try:
        number = registry.requests.reserve(
            "default", "m", input_tokens=60, output_tokens=40, cost=0.25, limits=FrontierSpec(**mine)
        )
    except BudgetError:
        break
    booked += 1
    if booked % 2:
        registry.requests.settle(number, "answered", input_tokens=60, output_tokens=40, cost=0.25)
"""


@pytest.mark.usefixtures("database")
def test_of_requests_reserved_by_many_at_once_none_exceeds_the_limit(tmp_path: Path) -> None:
    with Registry.open(Home(tmp_path)) as registry:
        registry.campaigns.record(parse_campaign(env="corridor", targets=["wood"]), {"wood": make_skill("wood")})
        assert _at_once(RESERVE, tmp_path, [{"max_cost": 10.0}] * 4) == [0] * 4
        spent = registry.requests.spending("default")
        assert (spent.requests, spent.cost) == (40, 10.0) and 0 < spent.answered < 40


# Kills

ROUND = """
from flowrl_core.skills.model import Skill
from flowrl_core.proposals.model import Examination, Finding, Proposal
from flowrl_core.storage.records.proposals import Examined
known = [Proposal(Skill.from_dict(data)) for data in mine]
sound = [Examined(Examination(proposal, proposal), 5_000) for proposal in known]
wrong = Examined(None, None, (Finding("answer", "malformed", "no JSON"),))
registry.proposals.record_round("default", [*sound, wrong], model="m", call="k")
"""


@pytest.mark.parametrize("point", ["before_round_record", "after_round_record"])
def test_a_kill_while_a_round_is_recorded_leaves_it_whole_or_not_there_and_never_twice(
    tmp_path: Path, point: str
) -> None:
    with Registry.open(Home(tmp_path)) as registry:
        registry.campaigns.record(parse_campaign(env="corridor", targets=["wood"]), {"wood": make_skill("wood")})
        work = [make_skill(name).as_dict() for name in ("stone", "iron")]
        assert _at_once(ROUND, tmp_path, [work], FLOWRL_CRASH_AT=point) == [-signal.SIGKILL]
        is_there = point == "after_round_record"
        assert len(registry.proposals.of("default")) == (3 if is_there else 0)
        assert set(registry.skills.of("default")) == {"wood", *(("stone", "iron") if is_there else ())}
        assert _at_once(ROUND, tmp_path, [work]) == [0]
        assert [record.round for record in registry.proposals.of("default")] == [1] * 3
        assert set(registry.skills.of("default")) == {"wood", "stone", "iron"}


POINTS = [
    ("commit_version", "before"),
    ("commit_version:2", "before"),
    ("commit_merge", "before"),
    ("commit_merge:2", "before"),
    ("commit_bundle", "before"),
    ("before_registry_commit", "before"),
    ("after_registry_commit", "after"),
]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("undisturbed")
    registry, runs = _prepared(root, ["shared", "skill"])
    registry.close()
    before = _dump(root)
    assert _at_once(COMMIT, root, [_job(runs)]) == [0]
    return {"before": before, "after": _dump(root)}


def _job(runs: dict[str, int]) -> list[Any]:
    return [(runs["skill"], [(0, "shared by skill", 30, 1), (1, "own", 5, None)])]


@pytest.mark.parametrize(("point", "state"), POINTS)
def test_a_kill_inside_a_commit_leaves_the_registry_as_before_or_after(
    tmp_path: Path, undisturbed: dict[str, Any], point: str, state: str
) -> None:
    registry, runs = _prepared(tmp_path, ["shared", "skill"])
    registry.close()
    assert _at_once(COMMIT, tmp_path, [_job(runs)], FLOWRL_CRASH_AT=point) == [-signal.SIGKILL]
    assert _dump(tmp_path) == undisturbed[state]
    # The rerun completes it, and a second one changes nothing.
    for _ in range(2):
        with Registry.open(Home(tmp_path)) as again:
            results = [ExpertResult(*result) for result in _job(runs)[0][1]]
            again.skill_runs.commit(
                runs["skill"],
                verdict="learned",
                run_frames=100,
                results=results,
                policy="most_frames",
                bundle=BundleFacts(0.9, 0.8, 512, 0.75),
            )
        assert _dump(tmp_path) == undisturbed["after"]


def test_a_kill_inside_a_commit_on_postgres_leaves_nothing_of_it_and_no_lock(
    tmp_path: Path, postgres_registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWRL_REGISTRY_URL", postgres_registry)
    registry, runs = _prepared(tmp_path, ["shared", "skill"])
    before = _dump(tmp_path)
    assert _at_once(COMMIT, tmp_path, [_job(runs)], FLOWRL_CRASH_AT="before_registry_commit") == [-signal.SIGKILL]
    assert _dump(tmp_path) == before
    assert _at_once(COMMIT, tmp_path, [_job(runs)]) == [0]
    assert (
        registry.skill_runs.get(runs["skill"]).verdict == "learned"
        and len(registry.skill_runs.merges(runs["skill"])) == 2
    )
    registry.close()


def test_a_kill_while_the_registry_is_made_is_repaired_by_the_next_opening(tmp_path: Path) -> None:
    # No named point lies inside a migration, so the kill comes at times all over it.
    for delay in (0.1, 0.5):
        root = tmp_path / str(delay)
        program = WAIT.replace("registry = ", "print('open', flush=True)\nregistry = ")
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(root), "null"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        assert [process.stdout.readline() for _ in range(2)] == ["ready\n", "open\n"]
        time.sleep(delay)
        process.kill()
        process.wait()
        with Registry.open(Home(root)) as registry:
            assert len(registry.uuid) == 36
