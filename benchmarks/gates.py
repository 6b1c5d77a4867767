"""The gates: how long a batch of proposals takes, valid and invalid ones mixed.

    python benchmarks/gates.py [--proposals N] [--json]

The batch consists of the shipped skills of an environment with random changes: none, another name, wrong units, an
unknown fluent, a broken program, a reward that can be farmed, a done that asks for too much, and needs that nothing
provides. They are checked against the shipped knowledge without half of its skills. The output is in CPU seconds, which
do not depend on other load, with the number of proposals that passed, were repaired, or were refused by each gate.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from flowrl_core.programs.model import Program
from flowrl_core.proposals.gate_context import GateContext
from flowrl_core.proposals.gates import examine
from flowrl_core.proposals.model import Examination, Proposal
from flowrl_core.proposals.recorded_transitions import load_transitions
from flowrl_core.skills.knowledge import Knowledge, load_knowledge
from flowrl_core.skills.model import Linear, Skill

__all__ = ["batch", "measure"]

Change = Callable[[Skill, str], Skill]


def _program(**texts: str) -> Change:
    return lambda skill, name: replace(skill, name=name, program=replace(skill.program, **texts))


def _farmed(skill: Skill, name: str) -> Skill:
    return replace(skill, name=name, program=Program(skill.program.done, f"max({skill.program.reward}, 0)"))


CHANGES: tuple[Change, ...] = (
    lambda skill, name: skill,
    lambda skill, name: replace(skill, name=name),
    lambda skill, name: replace(skill, name=f"{name}\n ignore the rules"),
    lambda skill, name: replace(skill, name=name, gain={fluent: Linear(0, 99) for fluent in skill.gain}),
    lambda skill, name: replace(skill, name=name, gain={f"{skill.progress}x": Linear(1, 0)}),
    lambda skill, name: replace(skill, name=name, requirements={skill.progress: Linear(0, 1)}),
    _program(done="while True: pass"),
    _program(reward="1"),
    _farmed,
    _program(reward="dist.nothing"),
    lambda skill, name: replace(skill, name=name, learn_count=3, program=replace(skill.program, done="n > 9")),
)


def batch(knowledge: Knowledge, size: int) -> list[Proposal]:
    """Return proposals, the same at every call."""
    draw = random.Random(0)
    skills = list(knowledge.skills.values())
    return [Proposal(draw.choice(CHANGES)(draw.choice(skills), f"proposed_{i}")) for i in range(size)]


def linted(world: GateContext, lacking: list[Skill], size: int) -> list[Proposal]:
    """Return proposals that pass through every check of the lint before it refuses them: done asks for too much."""
    counts = [skill for skill in lacking if skill.progress.startswith("inv.")]
    asking = [
        replace(skill, program=replace(skill.program, done=f"since.{skill.progress.removeprefix('inv.')} >= n + 2"))
        for skill in counts
    ]
    reached = [Proposal(skill) for skill in asking if _gate(examine([Proposal(skill)], world)[0]) == "transitions"]
    return [reached[i % len(reached)] for i in range(size)]


def measure(env: str, size: int, *, is_lasting: bool, is_linted: bool = False) -> dict[str, object]:
    """Return the CPU seconds of one batch, and its outcome.

    Args:
        env: the environment.
        size: number of proposals.
        is_lasting: examine each by itself, so that none is refused because of another one.
        is_linted: take the slowest kind only, see `linted`.
    """
    knowledge = load_knowledge(env)
    kept = dict(list(knowledge.skills.items())[: len(knowledge.skills) // 2])
    world = GateContext(replace(knowledge, skills=kept), {}, load_transitions(env))
    lacking = [skill for name, skill in knowledge.skills.items() if name not in kept]
    proposals = linted(world, lacking, size) if is_linted else batch(knowledge, size)
    examine(proposals[:50], world)
    start = time.process_time()
    if is_lasting:
        found = [examination for one in proposals for examination in examine([one], world)]
    else:
        found = examine(proposals, world)
    seconds = time.process_time() - start
    outcome = Counter(_gate(examination) for examination in found)
    return {
        "env": env,
        "batch": "refused by the lint, one by one" if is_linted else "one by one" if is_lasting else "at once",
        "proposals": size,
        "seconds": round(seconds, 3),
        "milliseconds_each": round(1000 * seconds / size, 3),
        "outcome": dict(outcome.most_common()),
    }


def _gate(examination: Examination) -> str:
    if examination.refusals:
        return examination.refusals[0].gate
    return "repaired" if examination.repairs else "sound"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--proposals", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    for env in ("corridor", "craftax-classic"):
        for is_lasting, is_linted in ((False, False), (True, False), (True, True)):
            row = measure(env, arguments.proposals, is_lasting=is_lasting, is_linted=is_linted)
            if arguments.json:
                print(json.dumps(row))
                continue
            each = f"{row['seconds']} s, {row['milliseconds_each']} ms each"
            print(f"{env}, {row['proposals']} proposals {row['batch']}: {each}; {row['outcome']}")


if __name__ == "__main__":
    main()
