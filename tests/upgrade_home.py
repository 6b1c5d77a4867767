"""The home of a user of the version before, as fixtures/make_upgrade_home.py made it, and what is known of it."""

from __future__ import annotations

import json
import tarfile
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import jax

_FIXTURES = Path(__file__).with_name("fixtures")

KNOWN: dict[str, Any] = json.loads((_FIXTURES / "upgrade_home.json").read_text())
"""What the old version had, and would have made of it."""


def unpack(directory: Path) -> Path:
    """The home, below this directory."""
    with tarfile.open(_FIXTURES / "upgrade_home.tar.xz") as archive:
        archive.extractall(directory, filter="data")
    home = directory / "home"
    # Two that are unpacked on one machine must not take each other's processes for their own.
    record = json.loads((home / "embedded.json").read_text()) | {"mark": uuid4().hex}
    (home / "embedded.json").write_text(json.dumps(record))
    return home


def is_bit_equal() -> bool:
    """Whether numbers must be those of the old version to the last bit: on its processor, with its JAX."""
    lines = {line.strip() for line in Path("/proc/cpuinfo").read_text().splitlines()}
    kept = sorted(line for line in lines if line.startswith(("model name", "flags")))
    found = {"processor": sha256("\n".join(kept).encode()).hexdigest(), "jax": jax.__version__}
    return found == KNOWN["machine"]
