"""The effect of each variable that is set: FlowRL's own, JAX's, those of XLA and CUDA, and Prefect's.

There is one table per family: name -> effect. A name that ends in `*` stands for all names with that prefix.
`tasks.orchestration.server.prefect_settings` decides on Prefect's settings. Values are shown without possible secrets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from flowrl_cli.checks.finding import Diagnosis
from flowrl_cli.server.processes import MARK_VARIABLE
from flowrl_core.compiled.numerics import COMPILER_VARIABLES, LEFT, pinned_by
from flowrl_core.nearest import nearest
from tasks.orchestration.server.prefect_settings import decision, is_prefects

__all__ = ["FAMILIES", "Family", "examine_variables", "shown"]

_SECRET = re.compile(r"KEY|SECRET|PASS|TOKEN|AUTH|CREDENTIAL|HEADERS", re.IGNORECASE)
_LONGEST = 60


@dataclass(frozen=True)
class Family:
    """Variables that one program reads.

    Attributes:
        prefixes: the prefixes of their names; variables that are only in the table also belong to it.
        meanings: name -> its effect here.
        otherwise: the effect of a variable that is not in the table; empty: it must be a mistake.
    """

    prefixes: tuple[str, ...]
    meanings: Mapping[str, str]
    otherwise: str = ""


_FLOWRL = {
    "FLOWRL_HOME": "where all data is stored",
    "FLOWRL_REGISTRY_URL": "the registry's database",
    "FLOWRL_SLOTS": "maximum number of device slots of this machine",
    "FLOWRL_SLOTS_PER_GPU": "shares per GPU",
    "FLOWRL_SLOTS_DIR": "where the slots' lock files are",
    "FLOWRL_MACHINE": "this machine's name among those that share a home",
    "FLOWRL_MODEL_KEY": "key of a language model on your own server",
    "FLOWRL_DEBUG": "tracebacks instead of one line",
    "FLOWRL_CRASH_FILE": "for tests: where a process is killed",
    "FLOWRL_CRASH_AT": "for tests: where a process is killed",
    MARK_VARIABLE: "set by `flowrl up` in what it starts; a command that inherits it counts as started by it",
}

_PART = "part of the fingerprint: programs are compiled once for this value, and loaded from then on"
_COMPILERS = {
    **dict.fromkeys(COMPILER_VARIABLES, _PART),
    "CUDA_VISIBLE_DEVICES": "the GPUs that get slots here",
    "CUDA_DEVICE_ORDER": "how CUDA_VISIBLE_DEVICES counts GPUs; runs get PCI_BUS_ID, the order of nvidia-smi",
    "NVIDIA_VISIBLE_DEVICES": "the GPUs that a container was given",
    "XLA_PYTHON_CLIENT_MEM_FRACTION": "the share of a GPU's memory that a run takes, overriding its slot's",
    "XLA_CLIENT_MEM_FRACTION": "the share of a GPU's memory that a run takes, overriding its slot's",
    "XLA_PYTHON_CLIENT_*": "how XLA allocates a GPU's memory; does not change numbers",
    "TF_CPP_*": "what XLA logs",
}
_JAX = {option.upper(): what for what, options in LEFT.items() for option in options}

FAMILIES = (
    Family(("FLOWRL_",), _FLOWRL),
    Family(("JAX_",), _JAX, "not a JAX option that FlowRL knows"),
    Family(("XLA_",), _COMPILERS, "passed to XLA; FlowRL does not know it"),
)


def examine_variables(environment: Mapping[str, str]) -> Iterator[Diagnosis]:
    """Yield a finding for each variable of these families that is set, with its value and its effect."""
    for name in sorted(environment):
        if not environment[name]:
            continue
        value = shown(name, environment[name])
        if why := pinned_by(name):
            yield Diagnosis(name, "ok", f"{value}: ignored: FlowRL pins {why}")
            continue
        if is_prefects(name):
            yield Diagnosis(name, "ok", f"{value}: {_of_prefect(name)}")
            continue
        family = _family(name)
        if family is None:
            continue
        if what := _meaning(family, name):
            yield Diagnosis(name, "ok", f"{value}: {what}")
            continue
        near = nearest(name, family.meanings, most=1, cutoff=0.8)
        hint = f"; did you mean {near[0]}?" if near else ""
        if family.otherwise:
            yield Diagnosis(name, "ok", f"{value}: {family.otherwise}{hint}")
        else:
            yield Diagnosis(name, "wrong", f"FlowRL knows no such variable{hint}", f"unset {name}")


def shown(name: str, value: str) -> str:
    """Return the value for display: secrets and passwords in URLs removed, long values cut."""
    if _SECRET.search(name):
        return "(not shown)"
    value = re.sub(r"://\S*@", "://***@", value)
    value = re.sub(r"(://[^\s?]*)\?\S*", r"\1?***", value)
    return value if len(value) <= _LONGEST else value[:_LONGEST] + "..."


def _of_prefect(name: str) -> str:
    found = decision(name)
    if found.rule == "ignored":
        return f"ignored: {found.why}"
    if found.rule in ("stated", "given"):
        return f"ignored, {found.value} is used: {found.why}"
    return found.why


def _family(name: str) -> Family | None:
    for family in FAMILIES:
        if name.startswith(family.prefixes) or _meaning(family, name):
            return family
    return None


def _meaning(family: Family, name: str) -> str | None:
    starred = (pattern for pattern in family.meanings if pattern.endswith("*") and name.startswith(pattern[:-1]))
    return family.meanings.get(name) or family.meanings.get(next(starred, ""))
