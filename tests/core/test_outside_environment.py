"""An environment of somebody else's package, found by its entry point: it plans, trains, and counts where it must."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import corridor_runs
import pytest

from flowrl_core.compiled import fingerprint
from flowrl_core.envs.adapter import make_adapter
from flowrl_core.errors import InputError
from flowrl_core.learning.shapes import shapes_of
from flowrl_core.skills.knowledge import load_knowledge
from flowrl_core.specs.overrides import resolve
from flowrl_core.storage.layout import Home
from flowrl_core.testing.environments import check_environment
from flowrl_core.vocabulary.catalogue import environment

SOURCES = Path(__file__).parent / "lamps"
COMMAND = Path(sys.executable).with_name("flowrl")
_numbers = itertools.count()


def install(
    site: Path, name: str, *, entry: str = "", distribution: str = "", changes: tuple[str, str] = ("", "")
) -> Path:
    """The package as an installer leaves it: sources, and a dist-info directory with its entry point.

    Args:
        changes: a text in the package's sources, and what stands there instead.
    """
    package, info = site / name, site / f"{distribution or name}-1.0.dist-info"
    shutil.copytree(SOURCES, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "entry.py").rename(package / "__init__.py")
    for path in package.iterdir():
        path.write_text(path.read_text().replace("lamps", name).replace(*changes))
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution or name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[flowrl.environments]\n{name} = {entry or f'{name}:ENVIRONMENT'}\n")
    return package


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of packages that this process and those that it starts look into."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", str(site))
    return site


@pytest.fixture
def name() -> str:
    """No other test has imported a package of this name."""
    return f"lamps{next(_numbers)}"


def test_an_outside_environment_passes_the_same_checks(site: Path, name: str) -> None:
    install(site, name)
    check_environment(name)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("jnp.zeros(2, jnp.int32)", "jnp.full(2, 10, jnp.int32)"), "read: inv.oil"),
        (("state.astype(jnp.float32)", "state"), "read: not f32"),
        (("state[1:] == 0,", "state[1:] + 2,"), "num_flags"),
        ((".astype(jnp.int32)\n", ".astype(jnp.float32)\n"), "step: "),
        (("target == 0", "target < 1"), "sight: not all zeros"),
        (("jnp.zeros(2, jnp.int32)", "jnp.full(2, 1, jnp.int32)"), "reset: inv.oil"),
        (('"inv.oil", "count", 0, 9', '"inv.oil", "total", 0, 9'), "step: inv.oil is a total and falls by 1"),
        (('"inv.light", "count", 0, 9', '"inv.light", "count", 0, 9, most_gained=0'), "step: inv.light rises by 1"),
        (
            ('"inv.light", "count", 0, 9', '"inv.light", "count", 0, 9, is_hidden=True'),
            "it shows inv.light, which is hid",
        ),
        (("0, 0, 0, 0, 1, 1", "1, 0, 0, 0, 1, 1"), "sight: the signs"),
        (("wanted.get(name, state[i])", "wanted.get(name, 0) // 2 * 2"), "place: "),
        (("wanted = wanted_values(ENVIRONMENT.vocabulary, values)", "wanted = dict(values)"), "place: inv.oil was set"),
        (("jnp.full((1, 1), WELL", "jnp.full((1, 1), 0"), "terrain: a cell in view"),
        (("view_size=(1, 1)", "view_size=(1, 3)"), "terrain: the view is"),
        (("jnp.zeros(2, jnp.int32),  #", "jnp.ones(2, jnp.int32),  #"), "terrain: the player is outside"),
        (("np.array([0], np.uint32)", "np.array([0, 0], np.uint32)"), "terrain: ground is not u32"),
        (("[0, 0, 0, 0, 1, 1]", "[0, 0, 0, 0, 0, 0]"), "terrain: well is in view"),
        (('packages=("', 'packages=("no_'), "packages: no_"),
        (('gain = { "inv.oil" = "n" }', 'gain = { "inv.light" = "n" }'), "no skill gains inv.oil"),
    ],
)
def test_the_checks_find_what_is_wrong(site: Path, name: str, changes: tuple[str, str], said: str) -> None:
    install(site, name, changes=changes)
    with pytest.raises((AssertionError, InputError), match=said):
        check_environment(name)


def test_the_command_plans_with_it_and_lists_its_fluents(site: Path, name: str, tmp_path: Path) -> None:
    install(site, name)

    def flowrl(*arguments: str) -> str:
        command = [str(COMMAND), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout

    assert "inv.oil" in flowrl("env", "fluents", "--env", name)
    assert "draw_oil" in flowrl("plan", "kindle_lamp", "--env", name)


@pytest.mark.long
def test_a_skill_of_it_is_learned(site: Path, name: str, new_home: Home) -> None:
    install(site, name)
    knowledge = load_knowledge(name)
    spec = corridor_runs.make_spec("lit", "draw_oil").model_copy(update={"env": name})
    attempt = corridor_runs.begin(new_home, spec, "draw_oil", skills=knowledge.skills)
    outcome = corridor_runs.drive(new_home, attempt.run, resolve("draw_oil", spec))
    assert outcome is not None and outcome.verdict == "learned"


def test_its_sources_and_its_release_count_for_its_learners_alone(site: Path, name: str) -> None:
    package = install(site, name)
    training = corridor_runs.TRAINING

    def fingerprints() -> list[str]:
        fingerprint._code.cache_clear()
        return [fingerprint.fingerprint(shapes_of(env, training, 2)) for env in (name, "corridor", "craftax-classic")]

    seen = [fingerprints()]
    (package / "rules.py").write_text((package / "rules.py").read_text() + "# changed\n")
    seen.append(fingerprints())
    (package / "unused.py").write_text("")
    seen.append(fingerprints())
    info = site / f"{name}-1.0.dist-info" / "METADATA"
    info.write_text(info.read_text().replace("Version: 1.0", "Version: 1.1"))
    seen.append(fingerprints())
    own, corridors, games = zip(*seen, strict=True)
    assert own[0] != own[1] == own[2] != own[3] and own[3] != own[0]
    assert len(set(corridors)) == len(set(games)) == 1


def test_a_package_without_an_init_counts_too(site: Path, name: str) -> None:
    (site / name).mkdir()
    (site / name / "adapter.py").write_text(f"from {name} import rules\n")
    (site / name / "rules.py").write_text("")
    assert fingerprint.import_closure([f"{name}.adapter"]).keys() == {f"{name}.adapter", f"{name}.rules"}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("no_such_module:ENVIRONMENT", "cannot be loaded: ModuleNotFoundError"),
        ("OURS:NOTHING", "cannot be loaded: AttributeError"),
        ("OURS.adapter:NAMES", "is a list, not an Environment"),
        ("flowrl_core.envs.corridor:ENVIRONMENT", "has a vocabulary of 'corridor'"),
    ],
)
def test_a_broken_entry_is_refused_with_its_package(site: Path, name: str, entry: str, said: str) -> None:
    install(site, name, entry=entry.replace("OURS", name))
    with pytest.raises(InputError, match=f"of {name} {said}"):
        environment(name)


def test_two_packages_cannot_bring_one_environment(site: Path, name: str) -> None:
    install(site, name, distribution="first")
    other = site / "second-1.0.dist-info"
    shutil.copytree(site / "first-1.0.dist-info", other)
    (other / "METADATA").write_text((other / "METADATA").read_text().replace("first", "second"))
    with pytest.raises(InputError, match="brought by first and second"):
        environment(name)


def test_a_shipped_environment_is_not_replaced(site: Path) -> None:
    install(site, "corridor")
    assert make_adapter("corridor").vocabulary.capacity == 9
    assert environment("corridor").adapter.startswith("flowrl_core.")


def test_a_name_that_is_nearly_that_of_an_outside_environment_is_told(site: Path, name: str) -> None:
    install(site, name)
    with pytest.raises(InputError, match=f"Did you mean {name}"):
        environment(name.replace("lamps", "lamp"))
