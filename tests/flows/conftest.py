"""What the tests of flows share: the server's registry, and a browser for Prefect's pages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flowrl_core.storage.registry import Registry

sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="module")
def registry(server):
    with Registry.open(server.home) as registry:
        yield registry


@pytest.fixture(scope="session")
def chromium() -> str:
    """Debian's chromium, installed if need be: who may do so is root, so the browser runs without its own sandbox."""
    if not shutil.which("chromium"):
        if not shutil.which("apt-get") or os.geteuid() != 0:
            pytest.skip("no chromium here, and nobody to install it: `apt-get install chromium` as root")
        for command in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
            subprocess.run(["apt-get", "--quiet", *command], check=True, capture_output=True, timeout=280)
    return shutil.which("chromium") or ""
