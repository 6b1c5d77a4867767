"""What the registry tells of a campaign, with no server anywhere: status, logs and experts."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.states import Crashed, Running

from flowrl_cli.request.campaign import make_request
from flowrl_cli.request.written import Written
from flowrl_cli.server.processes import MARK_VARIABLE
from flowrl_cli.server.record import Record
from flowrl_cli.views.live import Narrator, live_table
from flowrl_cli.views.summary import how_to_go_on, outcome_lines
from flowrl_cli.views.tables import console, number, percent, seconds
from flowrl_cli.views.view import latest_directory, read_progress, view_campaign
from flowrl_core.skills.knowledge import load_knowledge
from flowrl_core.skills.planner import make_plan
from flowrl_core.specs.campaign import parse_campaign
from flowrl_core.specs.skill import SkillConfig
from flowrl_core.storage.atomic import write_json
from flowrl_core.storage.layout import Home
from flowrl_core.storage.records.library import BundleFacts, ExpertResult
from flowrl_core.storage.records.skill_runs import Look
from flowrl_core.storage.registry import Registry
from tasks.orchestration.runs.tags import campaign_tags

FLOWRL = str(Path(sys.executable).with_name("flowrl"))
KNOWLEDGE = load_knowledge("corridor")


def prepared_run(registry: Registry, campaign: str, skill: str) -> int:
    """An open, sealed run of the skill; its experts exist."""
    record = registry.skills.get(campaign, skill)
    run = registry.skill_runs.begin(campaign, record.identity).run
    plan = make_plan(KNOWLEDGE, skill)
    identities = [registry.skills.get(campaign, name).identity for name in plan.skills]
    sizes = {"observation_size": 9, "num_actions": 18, "width": 64, "line": registry.campaigns.get(campaign).line}
    experts = [registry.library.allocate(identity, **sizes) for identity in identities]
    indices = sorted(expert.global_index for expert in experts)
    heads = {expert.global_index: expert.head.id if expert.head else None for expert in experts}
    remap = {index: local for local, index in enumerate(indices)}
    registry.skill_runs.seal(run, plan=plan, remap=remap, config=SkillConfig(), seeds=heads)
    return run


def end_run(registry: Registry, run: int, *, successes: int, verdict: str) -> None:
    plan, seeds = registry.skill_runs.get(run).plan, registry.skill_runs.get(run).seeds
    assert plan is not None
    assert seeds is not None
    look = Look(1000, 100, successes, successes / 100 - 0.05, 0.0125, 0.9, steps=(0.5,) * len(plan.steps))
    registry.skill_runs.record_look(run, look)
    registry.skill_runs.commit(
        run,
        verdict=verdict,
        run_frames=1000,
        results=[ExpertResult(index, f"{run}-{index}", 500, seed) for index, seed in seeds.items()],
        policy="most_frames",
        bundle=BundleFacts(successes / 100, successes / 100 - 0.05, 100, 0.75) if verdict == "learned" else None,
        reason="" if verdict == "learned" else "too hard",
    )


def make_whole(home: Home, registry: Registry) -> None:
    """Make what heads and bundles need whole, though without any file."""
    for version in registry.library.relied_on():
        write_json(home.version(version.content) / "manifest.json", {"format": 1, "files": {}})


@pytest.fixture(scope="module")
def grown(tmp_path_factory) -> Home:
    """make_b and make_c need dig_a (learned); make_b failed, make_c runs; make_p needs both and more."""
    home = Home(tmp_path_factory.mktemp("with space ü") / "home")
    with Registry.open(home) as registry:
        for name, targets in (("older", ["dig_a"]), ("demo", ["make_b", "make_c", "make_p"])):
            spec = parse_campaign(campaign=name, env="corridor", targets=targets)
            registry.campaigns.record(spec, KNOWLEDGE.skills)
        for skill in ("dig_a", "goto_bench"):
            end_run(registry, prepared_run(registry, "demo", skill), successes=95, verdict="learned")
        end_run(registry, prepared_run(registry, "demo", "make_b"), successes=10, verdict="failed")
        run = registry.skill_runs.get(prepared_run(registry, "demo", "make_c"))
        make_whole(home, registry)
        registry.attempts.count_retry(registry.attempts.outstanding("demo")[-1].id, "Crashed: killed")
    directory = home.run_directory("demo", "make_c", run.ordinal)
    directory.path.mkdir(parents=True)
    directory.log.write_text("one line\n")
    lines = [{"run_frames": k * 100, "time": float(k), "success": k / 10} for k in range(1, 6)]
    directory.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"run_frames": 999')
    return home


@pytest.fixture
def at_grown(grown, flowrl_here, monkeypatch):
    """The command at the home that has grown."""
    monkeypatch.setenv("FLOWRL_HOME", str(grown.root))
    return flowrl_here


def test_status_json_has_exactly_the_agreed_shape(grown, at_grown):
    done = at_grown("status", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {
        "campaign",
        "line",
        "env",
        "targets",
        "skills",
        "proposals",
        "spending",
        "damaged",
        "troubles",
    }
    assert found["proposals"] == [] and found["spending"]["requests"] == 0
    assert found["troubles"] == []
    assert (found["campaign"], found["line"]) == ("demo", "")
    assert found["targets"] == ["make_b", "make_c", "make_p"]
    skills = {skill["name"]: skill for skill in found["skills"]}
    assert skills["dig_a"] == {
        "name": "dig_a",
        "state": "learned",
        "expert": 0,
        "campaign": "demo",
        "run": 1,
        "run_frames": 1000,
        "routed_frames": 500,
        "success": 0.95,
        "success_lower_bound": pytest.approx(0.9),
        "episodes": 100,
        "looks": 1,
        "threshold": 0.75,
        "bundle": skills["dig_a"]["bundle"],
        "merges": skills["dig_a"]["merges"],
        "started_at": skills["dig_a"]["started_at"],
        "ended_at": skills["dig_a"]["ended_at"],
        "seconds": skills["dig_a"]["ended_at"] - skills["dig_a"]["started_at"],
        "cause": "",
        "retries": 0,
        "why": "",
        "training": None,
    }
    assert [merge["action"] for merge in skills["dig_a"]["merges"]] == ["new"]
    assert skills["dig_a"]["bundle"] is not None
    states = {name: skill["state"] for name, skill in skills.items()}
    assert states["make_b"] == "failed"
    assert states["make_c"] == "submitted", "perhaps on another machine"
    assert states["make_p"] == "blocked_by_failed"
    assert states["make_d"] == "ready"
    assert skills["make_d"]["expert"] is None


def test_status_prints_a_table_and_exits_0_whatever_the_states(grown, at_grown):
    done = at_grown("status")
    assert done.returncode == 0
    assert "Campaign demo" in done.stdout
    assert "too hard" in done.stdout
    assert "95.0 %" in done.stdout
    older = json.loads(at_grown("status", "older", "--json").stdout)
    assert [skill["name"] for skill in older["skills"]] == ["dig_a"]


def leaves(value):
    """All that a JSON document says."""
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from leaves(one)
    else:
        yield value


@pytest.mark.parametrize("command", [("status",), ("experts",), ("experts", "dig_a"), ("devices",)])
def test_json_says_all_that_the_table_shows(grown, at_grown, command):
    table = at_grown(*command).stdout
    said = [one for one in leaves(json.loads(at_grown(*command, "--json").stdout)) if one is not None]
    words = {word for one in said for form in (number, percent, seconds) for word in in_words(form, one)}
    words |= {"cpu", "free", "-"}
    rows = itertools.dropwhile(lambda line: "──" not in line, table.splitlines())
    lines = list(itertools.takewhile(str.strip, itertools.islice(rows, 1, None)))
    shown = [word.strip("(),:") for line in lines for word in line.split()]
    assert [word for word in shown if word and word not in {one.strip("(),:") for one in words}] == []
    assert len(shown) > 5


def in_words(form, value):
    if form is number:
        return number(value).split()
    return form(value).split() if isinstance(value, int | float) else []


def test_what_broke_a_run_off_is_told_and_that_it_goes_on(grown, at_grown):
    assert "was interrupted (Crashed: killed); retried (1 of 2)" in at_grown("status").stdout
    with Registry.open(grown) as registry:
        views = view_campaign(grown, registry, registry.campaigns.get("demo"))
    fact = next(view for view in views if view.name == "make_c").figures.fact
    calm = [replace(view, figures=replace(view.figures, fact=replace(view.figures.fact, retries=0))) for view in views]
    assert fact.retries == 1
    narrator = Narrator()
    list(narrator.tell(calm))
    assert list(narrator.tell(views)) == ["make_c: was interrupted (Crashed: killed); retried (1 of 2)"]
    assert list(narrator.tell(views)) == []


def test_what_another_campaign_has_learned_is_said_with_its_seed_and_what_differs(grown, home, flowrl_here):
    shutil.copytree(grown.root, home)
    named = ("--campaign", "second", "--env", "corridor", "--target", "dig_a")
    done = flowrl_here("campaign", *named, "--training.seed", "7", "--override", "dig_a.frames=40000")
    told = "already learned by campaign demo with seed 0 (here 7), training.frames 4000000 (here 40000)"
    assert done.returncode == 0 and told in done.stdout
    found = json.loads(flowrl_here("status", "second", "--json").stdout)["skills"][0]
    assert found["why"] == told and found["campaign"] == "demo"
    assert "already learned" not in flowrl_here("status", "demo").stdout


def test_status_of_an_unknown_campaign_is_refused(grown, at_grown):
    done = at_grown("status", "demoo")
    assert done.returncode == 2
    assert "demo" in done.stderr


def test_status_without_a_registry_says_so_and_makes_nothing(home, flowrl_here):
    done = flowrl_here("status", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"campaign": None, "targets": [], "skills": [], "troubles": []}
    assert "No campaign" in flowrl_here("status").stdout
    assert json.loads(flowrl_here("experts", "--json").stdout) == {"experts": []}
    assert not home.exists()


def test_a_campaign_with_nothing_to_do_says_so_and_starts_no_server(grown, home, flowrl_here):
    shutil.copytree(grown.root, home)
    done = flowrl_here("campaign", "--campaign", "older", "--env", "corridor", "--target", "dig_a")
    assert done.returncode == 0
    assert done.stdout.startswith("Nothing to do")
    assert "95.0 %" in done.stdout
    assert not Home(home).embedded.exists()


@pytest.fixture
def side_by_side(grown, home) -> Home:
    """The home that has grown, with two campaigns that have learned `dig_a` in libraries of their own."""
    shutil.copytree(grown.root, home)
    with Registry.open(Home(home)) as registry:
        for seed in (1, 2):
            named = {"campaign": f"seed-{seed}", "env": "corridor", "targets": ["dig_a"], "fresh": True}
            registry.campaigns.record(parse_campaign(**named, training={"seed": seed}), KNOWLEDGE.skills)
            end_run(registry, prepared_run(registry, f"seed-{seed}", "dig_a"), successes=90 + seed, verdict="learned")
        make_whole(Home(home), registry)
    return Home(home)


def test_results_side_by_side_are_told_apart(side_by_side, flowrl_here, refused):
    found = json.loads(flowrl_here("experts", "--json").stdout)["experts"]
    assert [(e["line"], e["expert"]) for e in found if e["skill"] == "dig_a"] == [("", 0), ("seed-1", 4), ("seed-2", 5)]
    assert len({e["head"] for e in found if e["skill"] == "dig_a"}) == 3
    one = json.loads(flowrl_here("experts", "--line", "seed-2", "--json").stdout)["experts"]
    assert one == [e for e in found if e["line"] == "seed-2"]
    table = flowrl_here("experts").stdout
    assert [line.split()[:3] for line in table.splitlines() if "seed-" in line] == [
        ["4", "dig_a", "seed-1"],
        ["5", "dig_a", "seed-2"],
    ]
    assert table.count("shared") == len(found) - 2 and "seed-" not in flowrl_here("experts", "--line", "shared").stdout
    by_name = json.loads(flowrl_here("experts", "dig_a", "--line", "seed-1", "--json").stdout)
    assert (by_name["expert"], len(by_name["versions"])) == (4, 1)
    assert json.loads(flowrl_here("experts", "dig_a", "--json").stdout)["expert"] == 0, "the shared one"
    refused(flowrl_here("experts", "goto_bench", "--line", "seed-1"), "in this library. Use --line shared")
    refused(flowrl_here("experts", "--line", "seed_1"), "--line: there is no library 'seed_1'. Did you mean seed-1")
    for seed in (1, 2):
        status = json.loads(flowrl_here("status", f"seed-{seed}", "--json").stdout)
        (skill,) = status["skills"]
        assert (status["line"], skill["state"], skill["success"]) == (f"seed-{seed}", "learned", 0.9 + seed / 100)
    assert "Campaign seed-2 (corridor), with a library of its own" in flowrl_here("status").stdout
    assert "library of its own" not in flowrl_here("status", "demo").stdout


def test_what_a_later_start_may_not_say_of_a_library_or_a_retry_is_refused(side_by_side, flowrl_here, refused):
    asked = ("campaign", "--env", "corridor", "--target", "make_b", "--target", "make_c", "--target", "make_p")
    for arguments, said in (
        (("--campaign", "demo", "--fresh"), "--fresh: campaign 'demo' was started in the shared library"),
        (("--campaign", "shared", "--fresh"), "--campaign: 'shared' is the name of the library that campaigns share"),
        (("--campaign", "demo", "--from-scratch"), "--from-scratch: there are no skills to retry. Name them (--retry"),
        (("--campaign", "demo", "--override", "make_b.frames=7e5"), "--override make_b.frames: campaign 'demo' was"),
        (
            ("--campaign", "demo", "--retry", "make_b", "--override", "make_c.frames=7e5"),
            "--override make_c.frames: campaign 'demo' was started without it, not with '7e5'",
        ),
        (
            ("--campaign", "demo", "--retry", "dig_a", "--override", "dig_a.frames=7e5"),
            "--override dig_a.frames: dig_a is learned",
        ),
        (
            ("--campaign", "demo", "--retry", "make_c", "--override", "make_c.frames=7e5"),
            "--override make_c.frames: a run of make_c has begun with other settings",
        ),
        (
            ("--campaign", "demo", "--retry", "make_p"),
            "--retry: make_p waits for make_b, which failed. Write --retry make_b --retry make_p",
        ),
    ):
        with Registry.open(side_by_side) as registry:
            before = registry.campaigns.all()
        refused(flowrl_here(*asked, *arguments), said)
        with Registry.open(side_by_side) as registry:
            assert registry.campaigns.all() == before


def test_a_campaigns_end_and_a_retry_say_what_can_be_retried(side_by_side):
    with Registry.open(side_by_side) as registry:
        views = view_campaign(side_by_side, registry, registry.campaigns.get("demo"))
        others = view_campaign(side_by_side, registry, registry.campaigns.get("older"))
    (line,) = how_to_go_on("demo", views)
    command = "flowrl campaign --campaign demo --retry make_b"
    assert line == f"To go on with make_b: {command} (with more frames: --override make_b.frames=N)"
    assert how_to_go_on("older", others) == []
    needs = {"make_p": ("make_b", "make_c"), "make_b": ("dig_a",)}
    said = outcome_lines(views, needs)
    assert said[0] == f"Learned: {sum(view.state == 'learned' for view in views)} of {len(views)} skills"
    assert "Failed: make_b: too hard" in said and "Blocked: make_p needs make_b" in said
    assert "Not ended (submitted): make_c" in said
    assert all(any(view.name in line for line in said[1:]) == (view.state != "learned") for view in views)
    named = make_request({"campaign": "demo", "retry": ["dig_a", "make_b", "make_c", "make_d", "make_o"]}, Written())
    assert [note.partition(",")[0] for note in named.notes] == [
        "--retry: dig_a is learned",
        "--retry: make_d has not failed",
        "--retry: make_o: no target needs that skill",
    ]


def test_experts_are_listed_and_an_unknown_one_is_refused(grown, at_grown):
    found = json.loads(at_grown("experts", "--json").stdout)["experts"]
    assert [(e["expert"], e["skill"], e["width"]) for e in found[:2]] == [(0, "dig_a", 64), (1, "goto_bench", 64)]
    assert found[0]["frames"] == 500
    versions = json.loads(at_grown("experts", "dig_a", "--json").stdout)["versions"]
    assert sum(version["is_head"] for version in versions) == 1
    done = at_grown("experts", "99")
    assert done.returncode == 2
    assert "99" in done.stderr


def test_logs_shows_the_latest_run(grown, at_grown):
    assert at_grown("logs", "make_c").stdout == "one line\n"
    wrong = (("make_cc",), "make_c"), (("make_d",), "not been trained"), (("dig_a", "--campaign", "x"), "x")
    for arguments, said in wrong:
        done = at_grown("logs", *arguments)
        assert done.returncode == 2
        assert said in done.stderr


def test_logs_follows_a_run_until_its_end(home):
    with Registry.open(Home(home)) as registry:
        registry.campaigns.record(parse_campaign(env="corridor", targets=["dig_a"]), KNOWLEDGE.skills)
        run = prepared_run(registry, "default", "dig_a")
        directory = latest_directory(Home(home), "default", "dig_a", 1)
        live = Home(home).run_directory("default", "dig_a", 1)
        live.path.mkdir(parents=True)
        live.log.write_text("first\n")
        process = subprocess.Popen(
            [FLOWRL, "logs", "dig_a", "--follow"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "FLOWRL_HOME": str(home)},
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "first\n"
        with live.log.open("a") as file:
            file.write("second\n")
        assert process.stdout.readline() == "second\n"
        directory.path.parent.mkdir(parents=True, exist_ok=True)
        live.path.rename(directory.path)
        end_run(registry, run, successes=95, verdict="learned")
        assert process.wait(timeout=30) == 0


def test_progress_is_the_last_whole_line_of_the_metrics(grown):
    found = read_progress(grown.run_directory("demo", "make_c", 1).metrics)
    assert found is not None
    assert (found.run_frames, found.success, found.frames_per_second) == (500, 0.5, 100.0)
    assert read_progress(grown.root / "nothing") is None


def test_the_narrator_tells_each_change_once(grown):
    with Registry.open(grown) as registry:
        views = view_campaign(grown, registry, registry.campaigns.get("demo"))
    narrator = Narrator()
    blank = [replace(view, state="blocked", looks=(), progress=None) for view in views]
    assert list(narrator.tell(blank)) == []
    lines = list(narrator.tell(views))
    assert "make_c: submitted" in lines
    assert "make_c: training success 50.0 % after 500 frames" in lines
    assert "make_b: look 1: 10/100 succeeded, lower bound 0.050" in lines
    assert "make_b: failed: too hard" in lines
    assert "dig_a: learned, success 95.0 % (lower bound 0.900)" in lines
    assert list(narrator.tell(views)) == []


@pytest.mark.parametrize("width", [40, 80])
def test_the_board_fits_its_terminal_and_tells_what_broke_off(grown, monkeypatch, capsys, width):
    monkeypatch.setenv("COLUMNS", str(width))
    with Registry.open(grown) as registry:
        console().print(live_table(view_campaign(grown, registry, registry.campaigns.get("demo"))))
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    assert "make_c: was interrupted (Crashed: killed); retried (1 of 2)" in " ".join(out.split())
    assert "make_b: too hard" in out


def test_a_narrator_that_comes_late_tells_no_old_news(grown):
    with Registry.open(grown) as registry:
        views = view_campaign(grown, registry, registry.campaigns.get("demo"))
    narrator = Narrator()
    assert sorted(narrator.tell(views)) == [
        "dig_a: already learned, success 95.0 %",
        "goto_bench: already learned, success 95.0 %",
        "make_c: under way",
        "make_c: was interrupted (Crashed: killed); retried (1 of 2)",
    ]
    assert list(narrator.tell(views)) == []


def test_what_was_under_way_is_stopped_once_nothing_of_the_homes_own_prefect_lives(grown, tmp_path, monkeypatch):
    """A kill leaves nobody who would note it."""
    root = tmp_path / "home"
    shutil.copytree(grown.root, root)
    home = Home(root)
    home.prefect.mkdir()
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def state() -> str:
        with Registry.open(home) as registry:
            views = view_campaign(home, registry, registry.campaigns.get("demo"))
        return {view.name: str(view.state) for view in views}["make_c"]

    assert state() == "stopped"
    mark = {**os.environ, MARK_VARIABLE: "left"}
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=mark)
    Record("left", 1).save(home)
    assert state() == "submitted", "a run goes on without its server"
    left.kill()
    left.wait()
    assert state() == "stopped"
    monkeypatch.setenv("PREFECT_API_URL", "http://there:4200/api")
    assert state() == "submitted", "who knows"


def test_what_the_server_says_has_ended_is_stopped_unless_its_campaign_goes_on(server, tmp_path, monkeypatch):
    """Declared lost by a later start, for example: nobody was left to note it in the registry."""
    home = Home(tmp_path / "home")
    monkeypatch.setenv("PREFECT_API_URL", server.url)
    with Registry.open(home) as registry, get_client(sync_client=True) as client:
        campaign = registry.campaigns.record(parse_campaign(env="corridor", targets=["dig_a"]), KNOWLEDGE.skills)
        attempt = registry.skill_runs.begin("default", registry.skills.get("default", "dig_a").identity)
        tags = campaign_tags(registry.uuid, "default")

        def begin(deployment: str, parameters: dict[str, object]) -> UUID:
            made = client.read_deployment_by_name(deployment).id
            return client.create_flow_run_from_deployment(made, parameters=parameters, state=Running(), tags=tags).id

        def end(run: UUID) -> None:
            client.set_flow_run_state(run, Crashed(message="its process is gone"), force=True)

        def seen(*, asks_server: bool = True) -> tuple[str, str]:
            (view,) = view_campaign(home, registry, campaign, asks_server=asks_server)
            return view.state, view.remark

        assert seen() == ("stopped", "it was never submitted; the campaign's next start resumes it")
        leading = begin("campaign/default", {"targets": ["dig_a"]})
        assert seen() == ("submitted", "")
        run = begin("train-skill/gpu", {"campaign": "none", "skill": "none", "attempt": 1, "run": 1})
        registry.attempts.set_flow_run(attempt.id, str(run))
        end(run)
        assert seen() == ("submitted", ""), "its campaign has it run again"
        end(leading)
        said = "its run ended as Crashed: its process is gone; the campaign's next start resumes it"
        assert seen() == ("stopped", said)
        assert seen(asks_server=False) == ("submitted", "")
        client.delete_flow_run(run)
        assert seen() == ("stopped", "Prefect has no record of its run; the campaign's next start resumes it")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{taken.getsockname()[1]}/api")
    with Registry.open(home) as registry:
        (view,) = view_campaign(home, registry, campaign, asks_server=True)
    assert view.state == "submitted" and view.remark.startswith("whether it is still running is unknown: ")
