"""Every error FlowRL raises on purpose.

FlowRLError
├── InputError            input from a person or a file: names the field and the remedy; nothing was written
│   ├── KnowledgeError    a knowledge base (file, skill and field named)
│   ├── ProgramError      a done or reward expression (code and remedy)
│   └── PlanError         no valid plan exists; says why
├── StorageError          an unusable file, checkpoint or registry
│   ├── CorruptError      wrong checksum or content
│   ├── ConflictError     another process owns or changed it
│   └── NoRoomError       nothing can be written: a full disk or quota, or a file system that became read-only
├── TrainingError         training cannot continue (diverged, stalled)
├── ServiceError          a Prefect server, worker or device that does not respond
│   └── ModelError        a language model that does not respond, or responds unusably
└── BudgetError           the rest of the budget for language models does not cover the next call
"""

from __future__ import annotations

__all__ = [
    "BudgetError",
    "ConflictError",
    "CorruptError",
    "FlowRLError",
    "InputError",
    "KnowledgeError",
    "ModelError",
    "NoRoomError",
    "PlanError",
    "ProgramError",
    "ServiceError",
    "StorageError",
    "TrainingError",
]


class FlowRLError(Exception):
    """Base class of all errors that FlowRL raises on purpose."""


class InputError(FlowRLError):
    """Input that cannot be used: `field` names it, `problem` says what is wrong, `remedy` what to do."""

    def __init__(self, field: str, problem: str, remedy: str) -> None:
        super().__init__(f"{field}: {problem}. {remedy}")
        self.field = field
        self.problem = problem
        self.remedy = remedy


class KnowledgeError(InputError):
    """An unusable knowledge base; `field` reads `file: skill: field`."""


class ProgramError(InputError):
    """A rejected done or reward expression; `code` is stable and short."""

    def __init__(self, code: str, field: str, problem: str, remedy: str) -> None:
        super().__init__(field, f"[{code}] {problem}", remedy)
        self.code = code


class PlanError(InputError):
    """No valid plan reaches the target; `problem` says why."""


class StorageError(FlowRLError):
    """A file, checkpoint or registry is unusable."""


class CorruptError(StorageError):
    """Stored content does not match its checksum or cannot be read."""


class ConflictError(StorageError):
    """Another process owns the resource, or changed it in the meantime."""


class NoRoomError(StorageError):
    """Nothing can be written to FLOWRL_HOME: its disk or quota is full, or it became read-only."""


class TrainingError(FlowRLError):
    """Training cannot continue: it diverged or stalled."""


class ServiceError(FlowRLError):
    """A Prefect server, a worker or a device does not respond."""


class ModelError(ServiceError):
    """A language model does not respond, or responds unusably. It never counts as a skill's failure.

    `code` is stable and short; `is_passing` says whether the same call may succeed later.
    """

    def __init__(self, code: str, problem: str, remedy: str, *, is_passing: bool) -> None:
        super().__init__(f"[{code}] {problem}. {remedy}")
        self.code = code
        self.problem = problem
        self.remedy = remedy
        self.is_passing = is_passing


class BudgetError(FlowRLError):
    """The next call to a language model could exceed a campaign's remaining budget, so it was not sent."""
