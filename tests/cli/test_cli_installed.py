"""FlowRL as others install it: a wheel, outside the repository, among packages of other people."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("flowrl_core", "flowrl_cli", "flows", "tasks")
UV = str(Path(sys.executable).with_name("uv"))


def called(*command: object, directory: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """What a command does that has none of this process's variables of FlowRL's and Prefect's."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("FLOWRL_", "PREFECT_"))}
    return subprocess.run(
        [str(part) for part in command],
        cwd=directory,
        env={**kept, **variables},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def build(source: Path, into: Path, *targets: str) -> None:
    done = called(sys.executable, "-m", "hatchling", "build", "-d", into, *targets, directory=source)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """The wheel and the sdist."""
    into = tmp_path_factory.mktemp("built")
    build(ROOT, into)
    (wheel,), (sdist,) = into.glob("*.whl"), into.glob("*.tar.gz")
    return wheel, sdist


def test_a_wheel_has_every_file_of_the_packages_and_takes_no_name_that_others_have(built):
    below = {"flowrl_core": "flowrl_core", "flowrl_cli": "flowrl_cli"}
    below |= {name: f"flowrl_core/root/{name}" for name in ("flows", "tasks", "prefect.yaml")}
    wanted = {
        f"{place}/{path.relative_to(ROOT / name).as_posix()}".removesuffix("/.")
        for name, place in below.items()
        for path in (ROOT / name, *(ROOT / name).rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
    }
    with zipfile.ZipFile(built[0]) as wheel:
        found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert found == wanted


def test_a_wheel_of_the_sdist_is_the_same(built, tmp_path):
    wheel, sdist = built
    with tarfile.open(sdist) as packed:
        packed.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    build(source, tmp_path / "again", "-t", "wheel")
    assert (tmp_path / "again" / wheel.name).read_bytes() == wheel.read_bytes()


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel, and a person's own directory to work in.

    Attributes:
        packages: where packages are installed.
        directory: has packages named as FlowRL's, which are on PYTHONPATH as well, and files named as what it uses.
        wheel: that it was installed from.
    """

    root: Path
    packages: Path
    directory: Path
    wheel: Path

    def python(self, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        """What the environment's interpreter does."""
        return called(self.root / "venv/bin/python", *arguments, directory=self.directory, **self._variables(variables))

    def flowrl(self, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        """What the installed command does."""
        return called(self.root / "venv/bin/flowrl", *arguments, directory=self.directory, **self._variables(variables))

    def _variables(self, given: dict[str, str]) -> dict[str, str]:
        slots = {"FLOWRL_SLOTS_DIR": os.environ["FLOWRL_SLOTS_DIR"]}
        return {"FLOWRL_HOME": str(self.root / "home"), "PYTHONPATH": "own:.", **slots, **given}


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Installed:
    root = tmp_path_factory.mktemp("elsewhere") / "an environment für all"
    called(sys.executable, "-m", "venv", "--without-pip", root / "venv", directory=Path("/"))
    (packages,) = (root / "venv" / "lib").glob("python*/site-packages")
    # What FlowRL depends on comes from this environment; the repository does not: .pth files there are not read.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    install = [UV, "pip", "install", "--quiet", "--no-deps", "--offline", "--python", root / "venv/bin/python"]
    done = called(*install, built[0], directory=root)
    assert done.returncode == 0, done.stderr
    own = root / "a person's own"
    for place in (packages, own / "own", own):
        for name in ("flows", "tasks", "tasks/orchestration", "tests"):
            (place / name).mkdir(parents=True)
            (place / name / "__init__.py").write_text("")
    (own / "flowrl.py").write_text("raise RuntimeError('another flowrl')")
    for name in ("random", "logging", "prefect", "jax", "httpx"):
        (own / "own" / f"{name}.py").write_text(f"raise RuntimeError('another {name}')")
    (packages / "imported_at_startup.pth").write_text("import tasks, flows")
    return Installed(root, packages, own, built[0])


def test_the_packages_of_the_wheel_are_used(installed):
    code = "import flowrl_core.anchored, flows, tasks; print(flows.__file__); print(tasks.__file__)"
    done = installed.python("-c", code)
    inside = installed.packages / "flowrl_core" / "root"
    assert done.stdout.splitlines() == [f"{inside}/flows/__init__.py", f"{inside}/tasks/__init__.py"], done.stderr


@contextlib.contextmanager
def lacking(installed: Installed, *names: str) -> Iterator[list[str]]:
    """Within the block the installation lacks these; as absolute paths."""
    places = [installed.packages / "flowrl_core" / name for name in names]
    away = [place.rename(installed.root / f"away-{number}") for number, place in enumerate(places)]
    try:
        yield [str(place) for place in places]
    finally:
        for place, there in zip(places, away, strict=True):
            there.rename(place)


SOME_OF_EACH = (
    "root/prefect.yaml",
    "root/flows/skill.py",
    "root/tasks/orchestration/runs/engine.py",
    "envs/corridor/knowledge.toml",
    "envs/corridor/recorded.npz",
    "llm/prompts/propose.md",
    "storage/migrations/versions",
    "learning/ppo.py",
)


@pytest.mark.parametrize("names", [SOME_OF_EACH, ("root/tasks",)], ids=["some of each", "packages"])
def test_what_is_missing_is_said_before_anything_is_begun(installed, names):
    with lacking(installed, *names) as missing:
        done = installed.flowrl("campaign", "--env", "corridor", "--target", "dig_a")
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.startswith("flowrl: this installation of FlowRL lacks ") and len(done.stderr.splitlines()) == 1
    assert [place for place in missing if place not in done.stderr] == []
    assert not (installed.root / "home").exists()


def test_what_is_missing_is_what_any_error_comes_from(installed):
    with lacking(installed, "envs/craftax_classic/knowledge.toml") as missing:
        done = installed.flowrl("plan", "make_wood_pickaxe")
    assert done.returncode == 1
    assert done.stderr.startswith(f"flowrl: this installation of FlowRL lacks {missing[0]}: install it again")
    assert f"--no-deps {installed.wheel.as_uri()}" in done.stderr


def test_the_doctor_says_what_is_missing(installed):
    with lacking(installed, "root"):
        done = installed.flowrl("doctor")
    assert done.returncode == 1 and "No problems found" not in done.stdout
    assert "files: install it again: " in done.stdout


def test_the_wheel_learns_a_skill_whatever_lies_around(installed, compiled):
    home = installed.root / "home"
    home.mkdir()
    (home / "cache").symlink_to(compiled)
    done = installed.flowrl("campaign", "--env", "corridor", "--target", "dig_a", "--training.width", 16)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "dig_a: learned" in done.stdout
    assert not (home / "embedded.json").exists()


def test_nobody_is_told_to_install_another_project_of_this_name():
    """PyPI has one; only the warning names the command."""
    texts = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *(path for name in PACKAGES for path in (ROOT / name).rglob("*.py")),
    ]
    by_name = re.compile(r"pip install[^\n`]*(?<![\w/.-])flowrl(?![\w-])")
    assert [path.name for path in texts if by_name.search(path.read_text(encoding="utf-8"))] == ["operations.md"]


def test_the_demo_keeps_its_data_in_the_checkout_wherever_that_is(tmp_path):
    checkout = tmp_path / 'a check out, "ours" & 50 % $HOME'
    (checkout / ".venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        (checkout / name).write_bytes((ROOT / name).read_bytes())
    (checkout / ".venv" / ".installed").write_text("")  # newer than what it is made of
    command = checkout / ".venv" / "bin" / "flowrl"
    command.write_text('#!/bin/sh\necho "$FLOWRL_HOME"\n')
    command.chmod(0o755)
    done = called("make", "--silent", "demo", directory=checkout)
    assert done.stdout == f"{checkout}/.flowrl\n", done.stderr
