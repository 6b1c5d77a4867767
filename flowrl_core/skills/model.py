"""Skills and plans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

from flowrl_core.digest import digest
from flowrl_core.programs.model import Program

__all__ = ["MAX_GUARDS", "MAX_STEPS", "Guard", "Linear", "Plan", "Skill", "Step"]

MAX_STEPS = 24
"""Maximum steps of a trainable plan (S): learners are compiled for this number, and shorter plans are padded."""

MAX_GUARDS = 4
"""Maximum guards of a plan (G)."""


@dataclass(frozen=True)
class Guard:
    """A frozen declaration that a skill may guard plans: it takes over in any step while its condition holds.

    Attributes:
        takes_over: condition program; while it holds, the guard acts.
        gives_back: condition program; a guard that acts stops when it holds and `takes_over` does not.
        reward: reward program; what the guard earns besides the step's reward while it acts. It fades as shaping does.
            Empty: nothing.
    """

    takes_over: str
    gives_back: str
    reward: str = ""


@dataclass(frozen=True)
class Linear:
    """A frozen amount `per_n * n + fixed`, where n is the target count of a plan step."""

    per_n: int = 0
    fixed: int = 0

    def at(self, n: int) -> int:
        """Return the amount for the target count `n`."""
        return self.per_n * n + self.fixed


def _frozen(effects: Mapping[str, Linear]) -> Mapping[str, Linear]:
    return MappingProxyType(dict(effects))


@dataclass(frozen=True)
class Skill:
    """A frozen skill definition: what it requires, consumes and gains, and its done condition and reward.

    `target` and `actions` are declared prior knowledge: the kind of block whose nearest instance in view becomes input
    features, and an allow-list of actions (empty: all). `learn_count` is the count n at which the skill's own run ends.
    An ephemeral skill gains places (`near.*`) that are lost as soon as another step moves away. `guard` declares that
    it may guard other skills' plans; `guards` names the skills that guard its own plan, by priority. `begins_as` names
    a skill whose expert is a better beginning for this one's than a random one.
    """

    name: str
    description: str
    program: Program
    gain: Mapping[str, Linear] = field(default_factory=dict)
    requirements: Mapping[str, Linear] = field(default_factory=dict)
    consumption: Mapping[str, Linear] = field(default_factory=dict)
    ephemeral: bool = False
    target: str | None = None
    actions: tuple[str, ...] = ()
    learn_count: int = 1
    guard: Guard | None = None
    guards: tuple[str, ...] = ()
    begins_as: str | None = None

    def __post_init__(self) -> None:
        for name in ("gain", "requirements", "consumption"):
            object.__setattr__(self, name, _frozen(getattr(self, name)))

    @property
    def progress(self) -> str:
        """The fluent whose gain counts as progress: the first one in the definition."""
        return next(iter(self.gain))

    @property
    def helpers(self) -> tuple[str, ...]:
        """The skills that help to learn this one, but are no prerequisites: its guards, and what it begins as."""
        return (*self.guards, *([self.begins_as] if self.begins_as is not None else []))

    def as_dict(self) -> dict[str, Any]:
        """Return the definition as JSON-ready data; `from_dict` is the inverse."""

        def effects(m: Mapping[str, Linear]) -> dict[str, list[int]]:
            return {k: [v.per_n, v.fixed] for k, v in m.items()}

        declared: dict[str, Any] = {"guard": asdict(self.guard)} if self.guard is not None else {}
        declared |= {"guards": list(self.guards)} if self.guards else {}
        declared |= {"begins_as": self.begins_as} if self.begins_as is not None else {}
        return {
            "name": self.name,
            "description": self.description,
            "done": self.program.done,
            "reward": self.program.reward,
            "gain": effects(self.gain),
            "requirements": effects(self.requirements),
            "consumption": effects(self.consumption),
            "ephemeral": self.ephemeral,
            "target": self.target,
            "actions": list(self.actions),
            "learn_count": self.learn_count,
            **declared,  # nothing else: the identity of definitions without them stays what it was before they existed
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Skill:
        """Return the skill from the output of `as_dict`."""

        def effects(m: Mapping[str, list[int]]) -> dict[str, Linear]:
            return {k: Linear(*v) for k, v in m.items()}

        return cls(
            name=data["name"],
            description=data["description"],
            program=Program(data["done"], data["reward"]),
            gain=effects(data["gain"]),
            requirements=effects(data["requirements"]),
            consumption=effects(data["consumption"]),
            ephemeral=data["ephemeral"],
            target=data["target"],
            actions=tuple(data["actions"]),
            learn_count=data["learn_count"],
            guard=Guard(**data["guard"]) if "guard" in data else None,
            guards=tuple(data.get("guards", ())),
            begins_as=data.get("begins_as"),
        )

    def identity(self, env: str) -> str:
        """Return the hash of environment and definition, without the description, which does not affect learning."""
        definition = self.as_dict()
        del definition["description"]
        return digest({"env": env, **definition, "progress": self.progress})


@dataclass(frozen=True)
class Step:
    """A frozen step of a plan: a skill and its target count n."""

    skill: str
    n: int


@dataclass(frozen=True)
class Plan:
    """A frozen record of the ordered steps that end with the target skill.

    `guards` are the skills that take over in any of its steps while their condition holds, by priority.
    """

    target: str
    steps: tuple[Step, ...]
    guards: tuple[str, ...] = ()

    @property
    def skills(self) -> tuple[str, ...]:
        """The names of the plan's skills, each once: in order of first use, then guards that are not used by a step."""
        return tuple(dict.fromkeys([*(step.skill for step in self.steps), *self.guards]))

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as JSON-ready data; `from_dict` is the inverse."""
        guards = {"guards": list(self.guards)} if self.guards else {}
        return {"target": self.target, "steps": [{"skill": s.skill, "n": s.n} for s in self.steps], **guards}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        """Return the plan from the output of `as_dict`."""
        steps = tuple(Step(s["skill"], s["n"]) for s in data["steps"])
        return cls(data["target"], steps, tuple(data.get("guards", ())))

    @property
    def hash(self) -> str:
        """The digest of target, steps and guards."""
        return digest(self.as_dict())
