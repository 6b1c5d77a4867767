"""A browser for the tests that look at Prefect's pages."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Debian's chromium, which is installed if need be."""
    if not shutil.which("chromium"):
        if not shutil.which("apt-get") or os.geteuid() != 0:
            pytest.skip("no chromium here, and nobody to install it: `apt-get install chromium` as root")
        for command in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
            subprocess.run(["apt-get", "--quiet", *command], check=True, capture_output=True, timeout=280)
    return shutil.which("chromium") or ""
