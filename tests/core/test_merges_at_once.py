"""Two runs that share an expert end at the same time: the one that waits decides by what the first has left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from registry_steps import SIZES, SKILLS, begin, commit, learn, make_spec, seal

from flowrl_core.errors import ConflictError
from flowrl_core.storage.layout import URL_VARIABLE, Home
from flowrl_core.storage.records.library import Compared, Measured, Merge
from flowrl_core.storage.registry import Registry
from flowrl_core.storage.registry import commit as committing

M = 1_000_000
SHARED = 0
_LOCKS = ("BEGIN IMMEDIATE", "SELECT pg_advisory_xact_lock")
_SECONDS = 30


@dataclass(frozen=True)
class Ended:
    """What became of a commit: its merge of the shared expert, or why it was refused."""

    merge: Merge | None
    error: Exception | None = None


@pytest.fixture(params=["sqlite", "postgres", "postgres, serializable by default"])
def home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    if request.param != "sqlite":
        url = request.getfixturevalue("postgres_registry")
        monkeypatch.setenv(URL_VARIABLE, url)
        if "serializable" in request.param:
            with request.getfixturevalue("postgres").connected() as admin:
                name = sa.make_url(url).database
                admin.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    return Home(tmp_path)


@pytest.fixture
def registry(home: Home) -> Iterator[Registry]:
    with Registry.open(home) as registry:
        registry.campaigns.record(make_spec(targets=["table", "pickaxe"]), SKILLS)
        yield registry


@pytest.fixture
def at_once(home: Home, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Ended, Ended]]:
    """Runs two commits that overlap: the second asks for its transaction while the first has read the heads."""
    has_read, may_go_on = threading.Event(), threading.Event()

    def hold_first(point: str) -> None:
        if point == "commit_version" and threading.current_thread().name == "first":
            has_read.set()
            assert may_go_on.wait(_SECONDS)

    def run_both(*commits: Callable[[Registry], list[Merge]]) -> tuple[Ended, Ended]:
        monkeypatch.setattr(committing, "crash_point", hold_first)
        asks, ended = threading.Event(), {}

        def run(name: str, commit: Callable[[Registry], list[Merge]]) -> None:
            with Registry.open(home) as own:
                if name == "second":
                    sa.event.listen(own.runs.engine, "before_cursor_execute", lambda *call: _note(asks, call[2]))
                try:
                    ended[name] = Ended(next(m for m in commit(own) if m.expert == SHARED))
                except Exception as exc:
                    ended[name] = Ended(None, exc)

        first, second = (
            threading.Thread(target=run, args=(name, commit), name=name, daemon=True)
            for name, commit in zip(("first", "second"), commits, strict=True)
        )
        first.start()
        assert has_read.wait(_SECONDS)
        second.start()
        assert asks.wait(_SECONDS)
        second.join(0.3)
        assert second.is_alive(), "it waits for the first: writers come one after another"
        may_go_on.set()
        for thread in (first, second):
            thread.join(_SECONDS)
        return ended["first"], ended["second"]

    return run_both


def _note(asks: threading.Event, statement: str) -> None:
    if statement.startswith(_LOCKS):
        asks.set()


def _seed(registry: Registry) -> None:
    """The shared expert's head has 100 million frames; runs of two skills that build upon it are sealed with it."""
    learn(registry, ["wood"], {SHARED: ("seed", 100 * M)})
    _begin_both(registry)


def _begin_both(registry: Registry) -> None:
    for name in SKILLS:
        registry.library.allocate(registry.skills.get("default", name).identity, **SIZES)
    for name in ("table", "pickaxe"):
        seal(registry, begin(registry, name).run, ["wood", name])


def _run(registry: Registry, name: str) -> int:
    (run,) = registry.skill_runs.of(registry.skills.get("default", name).identity)
    return run.id


def _ending(name: str, frames: int, **changes: Any) -> Callable[[Registry], list[Merge]]:
    """Commits the run of a skill, which routed so many frames to the shared expert."""

    def end(registry: Registry) -> list[Merge]:
        own = registry.library.expert(registry.skills.get("default", name).identity)
        assert own is not None
        contents = {SHARED: (f"shared by {name}", frames), own.global_index: (f"own of {name}", 5)}
        return commit(registry, _run(registry, name), contents, **changes)

    return end


@pytest.mark.parametrize("frames", [(30 * M, 50 * M), (50 * M, 30 * M)], ids=["130M first", "150M first"])
def test_the_version_with_more_frames_becomes_the_head_whichever_run_commits_first(
    registry: Registry, at_once: Callable[..., tuple[Ended, Ended]], frames: tuple[int, int]
) -> None:
    _seed(registry)
    first, second = at_once(_ending("table", frames[0]), _ending("pickaxe", frames[1]))
    assert (first.error, second.error) == (None, None) and first.merge and second.merge
    assert first.merge.action == "updated"
    assert second.merge.action == ("updated" if frames[1] > frames[0] else "kept")
    assert second.merge.from_version == first.merge.to_version, "it was decided against the head that the first left"
    head = registry.library.head(SHARED)
    assert head is not None and head.frames == 150 * M
    kept = {version.frames: version.parent for version in registry.library.versions(SHARED)}
    seed = registry.library.versions(SHARED)[0].id
    assert kept == {100 * M: None, 130 * M: seed, 150 * M: seed}
    for name in ("table", "pickaxe"):
        bundle = registry.library.bundle(registry.skills.get("default", name).identity)
        assert bundle is not None and bundle.versions[SHARED].content == f"shared by {name}"


@pytest.mark.parametrize("frames", [(30, 50), (50, 30), (30, 30)])
def test_a_first_head_that_two_runs_would_insert_is_inserted_by_one_and_compared_by_the_other(
    registry: Registry, at_once: Callable[..., tuple[Ended, Ended]], frames: tuple[int, int]
) -> None:
    _begin_both(registry)
    first, second = at_once(_ending("table", frames[0]), _ending("pickaxe", frames[1]))
    assert (first.error, second.error) == (None, None) and first.merge and second.merge
    assert (first.merge.action, second.merge.action) == ("new", "updated" if frames[1] > frames[0] else "kept")
    head = registry.library.head(SHARED)
    assert head is not None and head.frames == max(frames)
    assert len(registry.library.versions(SHARED)) == 2


def test_a_version_that_was_measured_against_a_head_that_has_moved_is_measured_again(
    registry: Registry, at_once: Callable[..., tuple[Ended, Ended]]
) -> None:
    _seed(registry)

    def measured(name: str, *, successes: int) -> Callable[[Registry], list[Merge]]:
        head = registry.library.head(SHARED)
        own = registry.library.expert(registry.skills.get("default", name).identity)
        assert head is not None and own is not None
        against = Measured(head.id, 512, worth[head.id], successes)
        compared = Compared({SHARED: head.id, own.global_index: None}, {SHARED: against})
        return _ending(name, 10, policy="evaluated", compared=compared)

    seed = registry.library.head(SHARED)
    assert seed is not None
    worth = {seed.id: 400}
    # Both are better than the seed; the second is worse than what the first makes the head.
    first, second = at_once(measured("table", successes=450), measured("pickaxe", successes=420))
    assert first.merge is not None and first.merge.action == "updated"
    assert isinstance(second.error, ConflictError) and "moved while it was measured" in str(second.error)
    run = registry.skill_runs.get(_run(registry, "pickaxe"))
    assert run.verdict is None and registry.skill_runs.merges(run.id) == []
    assert len(registry.library.versions(SHARED)) == 2, "nothing of the refused commit is there"

    assert first.merge.to_version is not None
    worth[first.merge.to_version] = 450
    again = measured("pickaxe", successes=420)(registry)[SHARED]
    assert (again.action, again.from_version) == ("kept", first.merge.to_version)
    assert registry.skill_runs.get(run.id).verdict == "learned" and len(registry.library.versions(SHARED)) == 3
