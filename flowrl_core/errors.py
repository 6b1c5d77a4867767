"""Every error FlowRL raises on purpose.

FlowRLError
├── InputError            what a person or a file gave: names the field and the remedy; nothing was written
│   ├── KnowledgeError    a knowledge base (file, skill and field named)
│   ├── ProgramError      a done or reward expression (code and remedy)
│   └── PlanError         no valid plan exists: "cannot, because"
├── StorageError          a file, checkpoint or registry that is not as it must be
│   ├── CorruptError      checksum or content wrong
│   ├── ConflictError     somebody else owns or changed it
│   └── NoRoomError       nothing more can be written: a full disk, a quota, a file system that became read-only
├── TrainingError         training cannot go on (diverged, stalled)
├── ServiceError          a Prefect server, worker or device that does not answer
│   └── ModelError        a language model that does not answer, or not as it must
└── BudgetError           what was allowed to be spent on language models does not cover the next call
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
    """Root of all errors that FlowRL raises on purpose."""


class InputError(FlowRLError):
    """Input that cannot be used: `field` names it, `problem` says what is wrong, `remedy` what to do."""

    def __init__(self, field: str, problem: str, remedy: str) -> None:
        super().__init__(f"{field}: {problem}. {remedy}")
        self.field = field
        self.problem = problem
        self.remedy = remedy


class KnowledgeError(InputError):
    """A knowledge base that cannot be used; `field` reads `file: skill: field`."""


class ProgramError(InputError):
    """A done or reward expression that was refused; `code` is stable and short."""

    def __init__(self, code: str, field: str, problem: str, remedy: str) -> None:
        super().__init__(field, f"[{code}] {problem}", remedy)
        self.code = code


class PlanError(InputError):
    """No valid plan reaches the target; `problem` says why."""


class StorageError(FlowRLError):
    """A file, checkpoint or registry is not as it must be."""


class CorruptError(StorageError):
    """Stored content does not match its checksum or cannot be read."""


class ConflictError(StorageError):
    """Another process owns the thing, or changed it in between."""


class NoRoomError(StorageError):
    """Nothing more can be written to the home: its disk or quota is full, or it became read-only."""


class TrainingError(FlowRLError):
    """Training cannot go on: it diverged or stalled."""


class ServiceError(FlowRLError):
    """A Prefect server, a worker or a device does not answer."""


class ModelError(ServiceError):
    """A language model does not answer, or not as it must. No skill is to blame for it.

    `code` is stable and short; `is_passing` says whether the same call may succeed later.
    """

    def __init__(self, code: str, problem: str, remedy: str, *, is_passing: bool) -> None:
        super().__init__(f"[{code}] {problem}. {remedy}")
        self.code = code
        self.problem = problem
        self.remedy = remedy
        self.is_passing = is_passing


class BudgetError(FlowRLError):
    """The next call to a language model could cost more than is left of a campaign's budget; it was not sent."""
