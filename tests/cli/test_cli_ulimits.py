"""What the shell limits is made as wide as it may be; what is too narrow is refused before anything is written."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

FLOWRL = str(Path(sys.executable).with_name("flowrl"))


def shell(line):
    """The command in a shell that has set something before."""
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(("option", "value"), [("-n", 64), ("-u", 100), ("-f", 100)])
def test_too_low_a_limit_is_refused_before_anything_is_written(home, refused, option, value):
    done = shell(f"ulimit {option} {value}; {FLOWRL} campaign --target make_b --env corridor")
    refused(done, f"ulimit {option}: {value} ", f"`ulimit {option} ")
    assert not home.exists()


def test_doctor_names_each_limit_that_is_too_low(home):
    done = shell(f"ulimit -n 64 -f 100; {FLOWRL} doctor")
    assert done.returncode == 1 and "ulimit -n: `ulimit -n 256`" in done.stdout and "ulimit -f: `ulimit" in done.stdout


WIDENED = """
import os, resource
from flowrl_cli.process.surroundings import settle
settle()
open("made", "w").close()
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], oct(os.stat("made").st_mode & 0o777))
"""


def test_a_limit_that_may_be_raised_is_raised_and_what_is_made_is_the_owners(home):
    done = shell(f"umask 0777; ulimit -S -n 64; {sys.executable} -c {shlex.quote(WIDENED)}")
    assert done.stdout.split() == ["1024", "0o600"], done.stderr
