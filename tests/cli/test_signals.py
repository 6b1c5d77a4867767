"""A command that is asked to end does, however it was started, and so does all that it started."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from corridor_proposals import answer
from model_server import ModelServer, say

from flowrl_cli.server.processes import MARK_VARIABLE, marked, stop
from flowrl_cli.server.record import Record
from flowrl_core.skills.knowledge import load_knowledge
from flowrl_core.specs.campaign import parse_campaign
from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
FLOWRL = str(Path(sys.executable).with_name("flowrl"))
CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}
# Never over, of shapes that compile in seconds, and that other tests have compiled.
ENDLESS = [
    f"--{name}={value}"
    for name, value in {
        "training.frames": 10**9,
        "evaluation.min-frames": 10**9,
        "training.num-envs": 16,
        "training.rollout-length": 16,
        "training.minibatch-size": 64,
        "training.width": 16,
        "training.episode-limit": 60,
        "training.world-pool": 32,
        "training.snapshot-capacity": 32,
    }.items()
]


@pytest.fixture(scope="module", autouse=True)
def heard() -> Iterator[None]:
    """No signal is ignored from the start, as SIGHUP is below `nohup make test`: commands respect that."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


# A command reduced to what is tested: the same handlers, the same way to start a child, the same way to stop it.
COMMAND = """
import asyncio, os, sys, time
from pathlib import Path
from flowrl_cli.server.processes import find, spawn, stop
from flowrl_cli.process.signals import Interrupted, audience, check, deferred, end_at_once, heed, run

async def deaf():
    print("begun", flush=True)
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            print("deaf", flush=True)

heed()
kind, place = sys.argv[1], Path(sys.argv[2])
child = spawn("child", [sys.executable, "-c", CHILD], environment=os.environ, directory=place, log=place / "child")
code = 0
try:
    while not (place / "child").read_text():
        time.sleep(0.01)
    (place / "up").write_text(str(child.pid))
    print("up", flush=True)
    if kind == "deaf":
        run(deaf())
    if kind == "importing":
        sys.path.insert(0, str(place))
        import swallowing
        time.sleep(60)
    if kind == "loop":
        run(asyncio.sleep(60))
    while True:
        time.sleep(0.05)
        check()
        if kind == "telling":
            with audience():
                print("on", flush=True)
except Interrupted as exc:
    code = exc.code
    with deferred() as again:
        (place / "stopping").touch()
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            time.sleep(0.01)
        stop([process] if (process := find(child)) else [])
        (place / "again").write_text(str(again()))
end_at_once()
os._exit(code)
"""
# A module that tries what may be missing, as many do.
SWALLOWING = """
import pathlib, time
pathlib.Path(__file__).with_name("importing").touch()
try:
    time.sleep(1)
except BaseException:
    pass
"""
# What it has inherited, as the kernel says; then it waits for its own end.
CHILD = """
import signal
status = dict(line.split(":") for line in open("/proc/self/status") if line.startswith(("SigBlk", "SigIgn")))
masks = {name: int(mask, 16) for name, mask in status.items()}
held = [n.name for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
        if any(mask >> n - 1 & 1 for mask in masks.values())]
print("began", *held, flush=True)
signal.pause()
"""
IGNORE = "[signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)]"
BLOCK = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])"


def after(code: str, *command: str) -> list[str]:
    """A parent that does this, and then becomes the command."""
    return [sys.executable, "-c", f"import os, signal, sys; {code}; os.execvp(sys.argv[1], sys.argv[1:])", *command]


WAYS: dict[str, Callable[..., list[str]]] = {
    "session": lambda *command: list(command),
    "script": lambda *command: ["sh", "-c", '"$@" & wait $!', "sh", *command],
    "nohup": lambda *command: ["nohup", *command],
    "ignored": lambda *command: after(IGNORE, *command),
    "blocked": lambda *command: after(BLOCK, *command),
    "init": lambda *command: ["unshare", "--pid", "--fork", "--mount-proc", *command],
}


def can_unshare() -> bool:
    return subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"], check=False).returncode == 0


@dataclass(frozen=True)
class Waiting:
    """The command, started in one of the ways; `place`: where it writes."""

    process: subprocess.Popen[str]
    place: Path

    def up(self) -> psutil.Process:
        """The command's own process, once it is ready to be asked."""
        until(lambda: (self.place / "up").exists() and (self.place / "up").read_text())
        # Those that became it, or wait for it, have it among their arguments.
        return next(one for one in marked(str(self.place)) if one.cmdline()[1] == "-P")

    def end(self) -> int:
        """Its exit code; nothing of it is left."""
        code = self.process.wait(30)
        until(lambda: not marked(str(self.place)))
        return code


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def waiting(place: Path, way: str, kind: str = "plain", **options: object) -> Waiting:
    place.mkdir(exist_ok=True)
    code = f"CHILD = {CHILD!r}\n{COMMAND}"
    command = WAYS[way](sys.executable, "-P", "-c", code, kind, str(place))
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | options
    environment = {**os.environ, MARK_VARIABLE: str(place)}
    return Waiting(subprocess.Popen(command, env=environment, start_new_session=True, **streams), place)


@pytest.fixture(scope="module")
def started(tmp_path_factory) -> Iterator[Callable[[str, str], Waiting]]:
    """One for each case, all begun at once: what a case waits for has long happened then."""
    root = tmp_path_factory.mktemp("signals")
    ways = [way for way in WAYS if way != "init" or can_unshare()]
    all_of_them = {(way, name): waiting(root / f"{way} {name}", way) for way in ways for name in CODES}

    def get(way: str, name: str) -> Waiting:
        if (way, name) not in all_of_them:
            pytest.skip("only root may make a process the first of a namespace, where the kernel lets it")
        return all_of_them[way, name]

    try:
        yield get
    finally:
        for one in all_of_them.values():
            for process in marked(str(one.place)):
                process.kill()
            one.process.wait(30)


@pytest.mark.parametrize("name", CODES)
@pytest.mark.parametrize("way", WAYS)
def test_a_command_ends_however_it_was_started_and_takes_its_children_with_it(started, way, name):
    one = started(way, name)
    process = one.up()
    kept = ["SIGHUP"] if way == "nohup" else []
    assert (one.place / "child").read_text().split() == ["began", *kept], "its children can be asked to end, too"
    process.send_signal(signal.Signals[name])
    if name in kept:
        time.sleep(0.3)
        assert process.is_running() and not (one.place / "stopping").exists(), "that is what nohup is for"
        process.terminate()
        assert one.end() == CODES["SIGTERM"]
    else:
        assert one.end() == CODES[name]
    assert (one.place / "again").read_text() == "0"


def test_a_process_of_ours_undoes_what_it_has_inherited_by_itself():
    """A worker that somebody else starts, for example; and its runs inherit what it makes of it."""
    tell = CHILD.replace("signal.pause()", "")
    code = f"import flowrl_cli; from flowrl_core.signals import restore; restore()\n{tell}"
    for parent, kept in ((f"{IGNORE}; {BLOCK}", []), ("signal.signal(signal.SIGHUP, signal.SIG_IGN)", ["SIGHUP"])):
        command = after(parent, sys.executable, "-c", code)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.split() == ["began", *kept]


def test_the_first_process_of_a_container_takes_leave_of_those_it_inherits():
    if not can_unshare():
        pytest.skip("only root may make a process the first of a namespace, where the kernel lets it")
    code = (
        "import subprocess, time; from flowrl_cli.server.processes import reap; import psutil\n"
        "subprocess.run(['sh', '-c', 'sleep 0.1 &'])\n"
        "left = lambda: [p.status() for p in psutil.Process().children()]\n"
        "while left() != ['zombie']: time.sleep(0.01)\n"
        "reap(); assert left() == ['zombie'], 'somebody may be waiting for it'\n"
        "reap(); assert left() == []"
    )
    subprocess.run(WAYS["init"](sys.executable, "-c", code), timeout=60, check=True)


@pytest.mark.parametrize("kind", ["plain", "loop"])
def test_who_is_asked_again_while_ending_ends_in_order_and_knows_of_it(tmp_path, kind):
    one = waiting(tmp_path / "one", "session", kind)
    process = one.up()
    process.terminate()
    until((one.place / "stopping").exists)
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    process.send_signal(signal.SIGHUP)
    assert one.end() == CODES["SIGTERM"], "the first one counts"
    assert (one.place / "again").read_text() == "2"


def test_what_swallows_requests_is_interrupted_at_last(tmp_path):
    one = waiting(tmp_path / "one", "session", "deaf", stdout=subprocess.PIPE, text=True)
    process, lines = one.up(), iter(one.process.stdout)
    assert [next(lines), next(lines)] == ["up\n", "begun\n"]
    process.terminate()
    assert next(lines) == "deaf\n"
    until(lambda: one.process.poll() is not None or process.terminate() or time.sleep(0.2))
    assert one.end() == CODES["SIGTERM"]


def test_a_request_while_a_module_is_imported_interrupts_what_comes_after(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "swallowing.py").write_text(SWALLOWING)
    one = waiting(tmp_path / "one", "session", "importing")
    process = one.up()
    until((one.place / "importing").exists)
    process.terminate()
    assert one.end() == CODES["SIGTERM"]


@pytest.mark.parametrize("kind", ["plain", "telling"])
@pytest.mark.parametrize("is_terminal_its_own", [True, False])
def test_a_terminal_that_closes_ends_a_command_whether_or_not_the_kernel_tells_it(tmp_path, is_terminal_its_own, kind):
    """Without a terminal of its own (`setsid`) it has to look whether anybody is still there."""
    mine, its = pty.openpty()
    take = f"fcntl.ioctl(1, {termios.TIOCSCTTY}, 0)" if is_terminal_its_own else "0"
    WAYS["terminal"] = lambda *command: after(f"import fcntl; {take}", *command)
    one = waiting(tmp_path / "one", "terminal", kind, stdin=its, stdout=its, stderr=its)
    os.close(its)
    fcntl.fcntl(mine, fcntl.F_SETFL, os.O_NONBLOCK)
    one.up()
    os.close(mine)
    assert one.end() == CODES["SIGHUP"]


@pytest.mark.parametrize("kind", ["plain", "telling"])
def test_a_command_that_is_to_outlive_its_terminal_goes_on_in_silence(tmp_path, kind):
    mine, its = pty.openpty()
    take = f"import fcntl; fcntl.ioctl(1, {termios.TIOCSCTTY}, 0); signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    WAYS["terminal"] = lambda *command: after(take, *command)
    one = waiting(tmp_path / "one", "terminal", kind, stdin=its, stdout=its, stderr=its)
    os.close(its)
    process = one.up()
    os.close(mine)
    time.sleep(0.5)
    assert process.is_running() and not (one.place / "stopping").exists()
    process.terminate()
    assert one.end() == CODES["SIGTERM"]


def test_a_reader_that_ends_ends_a_command(tmp_path):
    one = waiting(tmp_path / "one", "session", stdout=subprocess.PIPE, text=True)
    one.up()
    one.process.stdout.close()
    assert one.end() == CODES["SIGHUP"]


# The command, with a request, or a burst of them, in the middle of what it imports.
IMPORTING = """
import os, runpy, signal, sys
place, burst, way = sys.argv[1:4]
sys.argv = ["flowrl", *sys.argv[4:]]
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == place:
            sys.meta_path.remove(self)
            for number in burst.split(","):
                os.kill(os.getpid(), int(number))
sys.meta_path.insert(0, Finder())
if way == "module":
    sys.argv[0] = "-m"
    runpy.run_module("flowrl_cli", run_name="__main__", alter_sys=True)
else:
    runpy.run_path(way, run_name="__main__")
"""
SCRIPT = "from {} import {}\n{}()\n"


@pytest.mark.parametrize("way", ["script", "module"])
@pytest.mark.parametrize("burst", [("SIGINT",), ("SIGTERM", "SIGHUP"), ("SIGHUP", "SIGTERM", "SIGINT")])
@pytest.mark.parametrize("place", ["flowrl_core.installation", "cyclopts"])
def test_a_request_while_it_is_imported_ends_the_command_in_a_line(home, tmp_path, place, burst, way):
    if way == "script":
        module, _, main = tomllib.loads(PROJECT.read_text())["project"]["scripts"]["flowrl"].partition(":")
        (tmp_path / "flowrl").write_text(SCRIPT.format(module, main, main))
        way = str(tmp_path / "flowrl")
    numbers = ",".join(str(int(signal.Signals[name])) for name in burst)
    command = [sys.executable, "-c", IMPORTING, place, numbers, way, "status"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (CODES[burst[0]], ""), done.stderr
    assert done.stderr == f"flowrl: stopped by {burst[0]}\n"


def test_a_log_that_is_followed_can_be_left(home):
    with Registry.open(Home(home)) as registry:
        spec = parse_campaign(campaign="one", env="corridor", targets=["dig_a"])
        registry.campaigns.record(spec, load_knowledge("corridor").skills)
        run = registry.skill_runs.get(
            registry.skill_runs.begin("one", registry.skills.get("one", "dig_a").identity).run
        )
    directory = Home(home).run_directory("one", "dig_a", run.ordinal)
    directory.path.mkdir(parents=True)
    directory.log.write_text("a line\n")
    command = begin("logs", "dig_a", "--follow")
    assert command.stdout.readline() == "a line\n"
    command.terminate()
    assert command.communicate(timeout=30) == ("", "flowrl: stopped by SIGTERM\n")
    assert command.returncode == CODES["SIGTERM"]


@pytest.mark.parametrize("command", [("up",), ("campaign", "--env", "corridor", "--target", "make_b")])
def test_a_start_that_is_cut_short_leaves_nothing(home, command):
    started = begin(*command, stderr=subprocess.STDOUT)
    assert started.stdout.readline() == "starting a local Prefect server ...\n"
    until(lambda: Record.load(Home(home)).alive("workers"))
    mark = Record.load(Home(home)).mark
    started.terminate()
    said, _ = started.communicate(timeout=60)
    assert started.returncode == CODES["SIGTERM"] and "topped by SIGTERM" in said and len(said.splitlines()) == 1
    assert marked(mark) == [] and not Home(home).embedded.exists()


def test_a_campaign_in_the_background_of_a_script_stops_and_is_said_to_be_stopped(home, compiled):
    home.mkdir()
    (home / "cache").symlink_to(compiled)
    arguments = ("campaign", "--env", "corridor", "--target", "make_b", *ENDLESS)
    script = begin("-c", '"$@" & wait $!', "sh", FLOWRL, *arguments, executable="sh")
    until(lambda: Record.load(Home(home)) and Record.load(Home(home)).users)
    record = Record.load(Home(home))
    (user,) = record.users
    try:
        assert "goto_bench: submitted\n" in iter(script.stdout.readline, "")
        began = time.monotonic()
        os.kill(user.pid, signal.SIGINT)
        said, _ = script.communicate(timeout=120)
        print(f"\nstopped in {time.monotonic() - began:.1f} s")
        assert script.returncode == CODES["SIGINT"]
        assert said.splitlines()[-2:] == [
            "Stopping (SIGINT): runs save a checkpoint (interrupt again to stop at once) ...",
            "Stopped. Run the same command again to resume",
        ]
        assert marked(record.mark) == [] and not Home(home).embedded.exists()
    finally:
        stop(marked(record.mark))
    told = begin("status", "--json")
    states = {skill["name"]: skill["state"] for skill in json.loads(told.communicate(timeout=60)[0])["skills"]}
    assert states == {"dig_a": "stopped", "goto_bench": "stopped", "make_b": "blocked"}


def test_a_campaign_that_is_detached_runs_until_it_is_attached_or_flowrl_down_stops_it(home, compiled, monkeypatch):
    """The command that it leaves the server to ends by itself; a campaign stopped by `flowrl down` is not repeated."""
    monkeypatch.setenv("FLOWRL_SLOTS", "2")
    home.mkdir()
    (home / "cache").symlink_to(compiled)
    endless = ("campaign", "--campaign", "endless", "--env", "corridor", "--target", "dig_a", *ENDLESS)
    with ModelServer([say(answer()) for _ in range(3)]) as model:
        asking = ("--frontier.kind", "model", "--frontier.model", model.model, "--frontier.fruitless-rounds", "1")
        first = begin(*endless)
        try:
            assert "dig_a: submitted\n" in iter(first.stdout.readline, "")
            mark = Record.load(Home(home)).mark
            second = begin("campaign", "--campaign", "short", "--env", "corridor", "--target", "inv.b", *asking)
            until(lambda: len(Record.load(Home(home)).users) == 2)
            first.send_signal(signal.SIGINT)
            said, _ = first.communicate(timeout=60)
            assert first.returncode == CODES["SIGINT"]
            assert said.endswith("Detached: campaign endless keeps running. Run the same command again to attach\n")
            _, complaints = second.communicate(timeout=120)
            assert second.returncode == 1, "its model proposes nothing"
            assert "campaign endless is still running, so server and workers stay up; `flowrl down` stops" in complaints
            assert Record.load(Home(home)).mark == mark
            third = begin(*endless)
            assert "attached to the run in progress\n" in iter(third.stdout.readline, "")
            assert begin("down").communicate(timeout=60) == ("server and workers: stopped\n", "")
            said, complaints = third.communicate(timeout=60)
            assert third.returncode == 1 and "campaign submitted" not in said, (said, complaints)
            assert "flowrl: server, workers and runs were stopped by `flowrl down`" in complaints.splitlines()[-1]
            assert marked(mark) == []
        finally:
            begin("down").communicate(timeout=60)


def begin(*arguments: str, executable: str = FLOWRL, **options: object) -> subprocess.Popen[str]:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen([executable, *arguments], text=True, start_new_session=True, **streams)
