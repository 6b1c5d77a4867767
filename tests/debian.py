"""Debian packages that tests need, installed by who may."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

__all__ = ["can_install", "install"]

_SECONDS = 280
_KEEP = ("-o", "Dpkg::Options::=--force-confold")


def can_install() -> bool:
    """Whether there is apt-get, and this process is root."""
    return shutil.which("apt-get") is not None and os.geteuid() == 0


def install(package: str) -> None:
    """Install a package with what it needs; test processes that want to install something at once take turns.

    Raises:
        subprocess.SubprocessError: apt-get failed; its last words are told.
    """
    with (Path(tempfile.gettempdir()) / "flowrl-tests-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _apt("update", "-qq")
        _apt("install", "-y", "-qq", "--no-install-recommends", *_KEEP, package)


def _apt(*arguments: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(["apt-get", *arguments], env=environment, capture_output=True, text=True, timeout=_SECONDS)
    if done.returncode:
        raise subprocess.SubprocessError(f"apt-get {arguments[0]}: {done.stderr.strip()[-500:]}")
