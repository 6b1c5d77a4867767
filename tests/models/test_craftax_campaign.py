"""A campaign in the real game that reaches, by a model's proposals, what its knowledge base lacks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))

from model_server import ModelServer, say

from flowrl_core.skills.knowledge import load_knowledge, shipped
from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry

RECORDED = json.loads((Path(__file__).parent / "wood_pickaxe.json").read_text())


def without_tables() -> str:
    """The shipped knowledge base without the branch that begins with the crafting table."""
    text = shipped("craftax-classic").read_text()
    knowledge = load_knowledge("craftax-classic")
    gone = {"place_table"}
    while more := {
        name
        for name in knowledge.skills
        if name not in gone
        and any(providers and set(providers) <= gone for providers in map(knowledge.providers, knowledge.needs(name)))
    }:
        gone |= more
    tables = re.split(r"\n(?=\[skills\.)", text)
    return "\n".join(t for t in tables if not t.startswith(tuple(f"[skills.{name}]" for name in gone)))


def test_recorded_answers_lead_to_a_target_that_the_knowledge_base_lacks(tmp_path: Path) -> None:
    """Through `flowrl campaign` as a user would type it: server, workers, flow runs, the game."""
    (tmp_path / "lacking.toml").write_text(without_tables())
    home = Home(tmp_path / "home")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "FLOWRL_"))},
        "FLOWRL_HOME": str(home.root),
    }
    command = [str(Path(sys.executable).with_name("flowrl")), "campaign", "--knowledge", "lacking.toml"]
    with ModelServer([say(answer) for answer in RECORDED["answers"]]) as model:
        command += ["--frontier.kind", "hybrid", "--frontier.model", f"by-hand@{model.url}"]
        done = subprocess.run(
            [*command, "--target", "inv.wood_pickaxe"],
            cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=1_500, check=False,
        )  # fmt: skip
        print(done.stdout, done.stderr)
        assert done.returncode == 0
        assert len(model.requests) == len(RECORDED["answers"])
    with Registry.open(home) as registry:
        ends = {
            one.name: (one.state, one.refusals[0].code if one.refusals else "")
            for one in registry.proposals.of("default")
        }
        facts = registry.skills.facts("default")
    assert ends == {
        "chop_trees": ("refused", "duplicate"),
        "place_crafting_table": ("accepted", ""),
        "craft_wood_pickaxe": ("accepted", ""),
    }
    learned = {name for name, fact in facts.items() if fact.learned}
    assert learned == {"collect_wood", "place_crafting_table", "craft_wood_pickaxe"}


@pytest.mark.parametrize("skill", ["place_table", "make_wood_pickaxe", "collect_diamond"])
def test_the_branch_is_really_gone(tmp_path: Path, skill: str) -> None:
    file = tmp_path / "lacking.toml"
    file.write_text(without_tables())
    lacking = load_knowledge(file)
    assert skill not in lacking.skills and "collect_wood" in lacking.skills
