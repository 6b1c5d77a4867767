"""Two machines with one home: each has its own directory, Prefect home, slots and name; Postgres holds both databases.

They are started as a person starts them, by `flowrl up` and, on the second, `flowrl up --worker-only`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa
from flow_runs import end_of, process_of, spec, start, until

sys.path.append(str(Path(__file__).parents[1] / "core"))

from corridor_runs import learn

from flowrl_cli.server.connection import connected
from flowrl_cli.server.record import Record
from flowrl_core.specs.campaign import LimitsSpec
from flowrl_core.stages.skill.assessment import assess
from flowrl_core.storage.layout import URL_VARIABLE, Home
from flowrl_core.storage.ownership import hold_for_all_users
from flowrl_core.storage.registry import Registry

FLOWRL = str(Path(sys.executable).with_name("flowrl"))
BASICS = ("dig_a", "goto_bench")
CORES = sorted(os.sched_getaffinity(0))
LIMITS = LimitsSpec(max_parallel=2)


class Machine:
    """What stands for a machine: a directory of its own, a core, and a name.

    Args:
        variables: of its environment, besides its own.
    """

    def __init__(self, name: str, root: Path, core: int, home: Path, **variables: str) -> None:
        self.name, self.core, self.directory = name, core, root / name
        self.directory.mkdir()
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("FLOWRL_", "PREFECT_"))}
        own = {
            "FLOWRL_HOME": str(home),
            "FLOWRL_MACHINE": name,
            "FLOWRL_SLOTS": "1",
            "FLOWRL_SLOTS_DIR": str(self.slots),
            "PREFECT_HOME": str(self.directory / "prefect"),
        }
        self.environment = {**kept, **own, **variables}

    @property
    def slots(self) -> Path:
        return self.directory / "slots"

    def flowrl(self, *arguments: str, **variables: str) -> str:
        """What the command says here."""
        with on_core(self.core):
            done = subprocess.run(
                [FLOWRL, *arguments],
                capture_output=True,
                text=True,
                timeout=200,
                env={**self.environment, **variables},
                cwd=self.directory,
                check=False,
            )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def busy(self) -> contextlib.AbstractContextManager[None]:
        """Its slot is taken for the block, so that it trains nothing."""
        return hold_for_all_users(self.slots / f"cpu-{self.core}.lock")


@contextlib.contextmanager
def on_core(core):
    """What is started in the block has one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@pytest.fixture(scope="module")
def machines(server, postgres, tmp_path_factory):
    """Two machines that are up, their home, and their registry."""
    root = tmp_path_factory.mktemp("machines")
    home = Home(root / "shared home")
    home.root.mkdir()
    server.home.cache.mkdir(exist_ok=True)
    home.cache.symlink_to(server.home.cache)  # what other tests have compiled is not compiled again
    registry, prefect = postgres.url(postgres.create()), postgres.url(postgres.create(), driver="asyncpg")
    known = {URL_VARIABLE: registry}
    first = Machine("first", root, CORES[0], home.root, **known, PREFECT_API_DATABASE_CONNECTION_URL=prefect)
    second = Machine("second", root, CORES[-1], home.root, **known)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(URL_VARIABLE, registry)
        patch.setenv("FLOWRL_MACHINE", "first")
        try:
            first.flowrl("up")
            up = Record.load(home)
            second.flowrl("up", "--worker-only", "--server", up.server.url, "--pool", "gpu")
            with connected(up.server), Registry.open(home) as opened:
                yield first, second, home, opened
        finally:
            for machine in (second, first):
                machine.flowrl("down")


def trained_where(registry, campaign, *skills):
    """The name of the machine on which each skill's run is, by skill, when all of them run at once."""

    def look():
        found = {}
        for attempt in registry.attempts.outstanding(campaign):
            if (process := process_of(attempt.flow_run_id)) is not None:
                with contextlib.suppress(psutil.Error):
                    found[attempt.name] = process.environ()["FLOWRL_MACHINE"]
        return found if set(skills) <= set(found) else None

    return until(look, f"runs of {skills}")


@pytest.fixture(scope="module")
def basics(machines):
    """The machine on which each of two independent skills was learned."""
    *_, registry = machines
    run = start(registry, spec("basics", *BASICS, limits=LIMITS))
    where = trained_where(registry, "basics", *BASICS)
    assert end_of(run).is_completed()
    return where


def test_two_machines_train_two_skills_at_once(basics):
    assert sorted(basics.values()) == ["first", "second"], "each has one slot"


@pytest.fixture(scope="module")
def built_upon(machines, basics):
    """A skill that needs both, learned on the machine that has not trained `dig_a`."""
    first, second, _, registry = machines
    other = first if basics["dig_a"] == "second" else second
    with (first if other is second else second).busy():
        run = start(registry, spec("upon", "make_b", limits=LIMITS))
        where = trained_where(registry, "upon", "make_b")
        assert end_of(run).is_completed()
    assert where == {"make_b": other.name}
    return registry.library.bundle(registry.skills.get("upon", "make_b").identity)


def test_a_skill_trained_by_one_machine_is_used_by_the_other(machines, basics, built_upon):
    *_, registry = machines
    learned = registry.library.bundle(registry.skills.get("upon", "dig_a").identity)
    ((expert, version),) = learned.versions.items()
    assert registry.skill_runs.get(built_upon.run).seeds[expert] == version.id
    assert built_upon.versions[expert].parent == version.id


def test_the_databases_password_is_in_no_file_and_in_no_row(machines, built_upon, postgres):
    first, *_ = machines
    for path in first.directory.parent.rglob("*"):
        assert not path.is_file() or postgres.password.encode() not in path.read_bytes(), path
    for variable in (URL_VARIABLE, "PREFECT_API_DATABASE_CONNECTION_URL"):
        engine = sa.create_engine(first.environment[variable].replace("asyncpg", "psycopg"))
        with engine.connect() as connection:
            tables = sa.inspect(connection).get_table_names()
            assert tables
            for table in tables:
                rows = sa.text(f'SELECT count(*) FROM "{table}" AS row WHERE row::text LIKE :told')
                assert connection.execute(rows, {"told": f"%{postgres.password}%"}).scalar() == 0, table
        engine.dispose()


def test_run_directories_name_no_place_and_the_home_can_be_moved(machines, built_upon, tmp_path):
    first, second, home, registry = machines
    second.flowrl("down")
    first.flowrl("down")
    for path in [*home.archive.rglob("*"), *home.versions.rglob("*")]:
        assert not path.is_file() or os.fsencode(first.directory.parent) not in path.read_bytes(), path
    moved = Home(tmp_path / "elsewhere")
    home.root.rename(moved.root)
    try:
        said = second.flowrl("status", "upon", FLOWRL_HOME=str(moved.root))
        assert "make_b" in said and "learned" in said
        run, outcome = learn(moved, spec("upon", "make_c", limits=LIMITS), "make_c")
        assert outcome.verdict == "learned"
        seeds = registry.skill_runs.get(run).seeds
        assert built_upon.run in {registry.library.version(seed).run for seed in seeds.values() if seed is not None}
        assert assess(moved, "upon", "make_b", of="bundle", episodes=64).success > 0.5
    finally:
        moved.root.rename(home.root)
