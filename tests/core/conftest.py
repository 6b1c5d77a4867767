"""What the tests of stages and learning share: the compiled programs and a home with two learned skills."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))  # also for the processes that tests start

import corridor_runs
import registry_steps
from postgres_server import PostgresServer

from flowrl_core.llm.keys import KEY_VARIABLES
from flowrl_core.storage.database import bring_up_to_date, make_engine
from flowrl_core.storage.layout import URL_VARIABLE, Home
from flowrl_core.storage.registry import Registry


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The kind of database in which the test's home, and processes that it starts, have their registry."""
    return _choose(request, monkeypatch, "postgres_registry")


@pytest.fixture(params=["sqlite", "postgres"])
def empty_database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same for a registry that is still to be made."""
    return _choose(request, monkeypatch, "postgres_database")


def _choose(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, postgres: str) -> str:
    if request.param == "postgres":
        monkeypatch.setenv(URL_VARIABLE, request.getfixturevalue(postgres))
    else:
        monkeypatch.delenv(URL_VARIABLE, raising=False)
    return str(request.param)


@pytest.fixture
def new_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Home:
    """A home that is still to be made, on SQLite unless the test asks for a database."""
    if not {"database", "empty_database"} & set(request.fixturenames):
        monkeypatch.delenv(URL_VARIABLE, raising=False)
    return Home(tmp_path / "hö me")


@pytest.fixture
def registry(new_home: Home, database: str) -> Iterator[Registry]:
    """A registry with a campaign of the skills of `registry_steps`, on SQLite and on Postgres."""
    with Registry.open(new_home) as opened:
        opened.campaigns.record(registry_steps.make_spec(), registry_steps.SKILLS)
        yield opened


@pytest.fixture
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key of a language model is in the environment."""
    for variable in KEY_VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with the registry's schema and nothing else, to be copied: that is quicker than to migrate."""
    name = postgres.create()
    engine = make_engine(postgres.url(name))
    bring_up_to_date(Home(tmp_path_factory.mktemp("template")), engine)
    engine.dispose()
    return name


@pytest.fixture
def postgres_registry(postgres: PostgresServer, postgres_template: str) -> Iterator[str]:
    """The URL of an empty registry."""
    name = postgres.create(template=postgres_template)
    yield postgres.url(name)
    postgres.drop(name)


@dataclass(frozen=True)
class ColdStart:
    """Two processes that started at once with no compiled programs, and learned `dig_a` and `goto_bench`."""

    homes: tuple[Home, Home]
    answers: tuple[dict[str, Any], dict[str, Any]]


@pytest.fixture(scope="session")
def cold_start(tmp_path_factory: pytest.TempPathFactory) -> ColdStart:
    """Builds the session's compiled programs. Their directory is shared by every test's home."""
    root = tmp_path_factory.mktemp("cold")
    (root / "cache").mkdir()
    spec = corridor_runs.make_spec("basics", "dig_a", "goto_bench")
    homes, children = [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(URL_VARIABLE, raising=False)
        for name in ("first", "second"):
            home = Home(root / name)
            home.root.mkdir()
            home.cache.symlink_to(root / "cache")
            work = (home, spec, ["dig_a", "goto_bench"])
            children.append(corridor_runs.start(corridor_runs.learn_in_child, *work, report=root / f"{name}.json"))
            homes.append(home)
        first, second = (child.answer() for child in children)
    return ColdStart((homes[0], homes[1]), (first, second))


@pytest.fixture(scope="session")
def basics(cold_start: ColdStart) -> Home:
    """A home in which `dig_a` and `goto_bench` are learned: to be copied, not changed."""
    return cold_start.homes[0]


@pytest.fixture
def home(basics: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home of the test's own in which `dig_a` and `goto_bench` are learned."""
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    return corridor_runs.copy_home(basics, tmp_path / "home")


@pytest.fixture(scope="session")
def learner(basics: Home) -> Any:
    """The compiled learner of the tests' shapes."""
    from flowrl_core.compiled.cache import compiled_learner
    from flowrl_core.learning.shapes import shapes_of

    return compiled_learner(basics.cache, shapes_of("corridor", corridor_runs.TRAINING, 3))


@pytest.fixture(scope="session")
def network(learner: Any) -> Any:
    """The network of one expert."""
    from flowrl_core.networks.policy_value import ActorCritic

    return ActorCritic(width=learner.shapes.width, num_actions=learner.num_actions)


@pytest.fixture(scope="session")
def play(learner: Any) -> Any:
    """`rollout` as the learner runs it, with the mode as an argument; it consumes what is played."""
    return learner.functions.play


@pytest.fixture(scope="session")
def improve(learner: Any) -> Any:
    """`update` as the learner runs it; it consumes parameters and optimizer state."""
    return learner.functions.improve


@pytest.fixture
def fresh_params(learner: Any) -> Any:
    """Stacked parameters of untrained experts, [16, ...], as numpy arrays."""
    import numpy as np

    from flowrl_core.networks.initialisation import initial_params
    from flowrl_core.skills.experts import stack_experts

    rng, shapes = np.random.default_rng(0), learner.shapes
    sizes = (learner.observation_size, shapes.width, learner.num_actions)
    return stack_experts([initial_params(rng, *sizes) for _ in range(shapes.num_experts)], shapes.num_experts)
