"""Tables fit their terminal: fewer columns and shorter names, never a broken word; a pipe gets all of them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

from flowrl_cli.views.tables import number, percent, print_table, say

FLOWRL = str(Path(sys.executable).with_name("flowrl"))
COLUMNS = ("skill", "state", "expert", "frames", "success", "why")
REASON = "the best of 4 looks had a lower bound of 0.051"
ROWS = [
    ("collect_wood_in_the_far_forest_at_night", "learned", 0, 12_345, "95.0 %", None),
    ("make_wood_pickaxe", "blocked_by_failed", None, None, "-", None),
    (
        "mine_鑽石_with_an_iron_pickaxe",
        "failed",
        12,
        1_234_567,
        "12.5 %",
        "the best of 4 looks had a lower bound of 0.051",
    ),
]


def printed(capsys, width, monkeypatch, **options):
    monkeypatch.delenv("COLUMNS", raising=False)
    if width:
        monkeypatch.setenv("COLUMNS", str(width))
    print_table(COLUMNS, ROWS, title="What became of them all", prose=["why"], whole=["state"], **options)
    return capsys.readouterr().out


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120])
def test_a_table_fits_its_terminal_and_breaks_no_word(capsys, monkeypatch, width):
    wide = printed(capsys, None, monkeypatch).split()
    narrow = printed(capsys, width, monkeypatch)
    assert max(cell_len(line.rstrip()) for line in narrow.splitlines()) <= width
    for word in narrow.replace(":", "").split():
        is_cut = word.endswith("…")
        assert any(one.startswith(word[:-1]) for one in wide) if is_cut else word in wide or set(word) == {"─"}, word
    assert "blocked_by_failed" in narrow, "half a state says nothing"
    assert "collect_wo" in narrow


def test_a_reason_that_finds_no_column_stands_below_with_the_whole_name(capsys, monkeypatch):
    out = " ".join(printed(capsys, 40, monkeypatch).split())
    assert "mine_鑽石_with_an_iron_pickaxe: " + REASON in out


@pytest.mark.parametrize("width", [5, 20])
def test_where_one_column_has_room_each_row_is_a_line_and_nothing_is_left_out(capsys, monkeypatch, width):
    out = printed(capsys, width, monkeypatch)
    assert max(cell_len(line.rstrip()) for line in out.splitlines()) <= width
    said = "".join(out.split())
    for name, state, *_, why in ROWS:
        assert f"{name}:state{state}" in said and "".join((why or "").split()) in said


def test_what_a_terminal_would_obey_is_shown_instead(capsys):
    """It may come from a language model's proposal."""
    print_table(("name", "why"), [("a\x1b[31mred\tb", "one\x07\u202etwo\x9b2J")])
    say("\x1b]0;title\x07")
    out = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(out)
    assert r"a\x1b[31mred b" in out and r"one\x07\u202etwo\x9b2J" in out and r"\x1b]0;title\x07" in out


def test_the_least_important_columns_are_left_out_first(capsys, monkeypatch):
    header = printed(capsys, 44, monkeypatch, first=("skill", "state", "frames")).splitlines()[1].split()
    assert header[:2] == ["skill", "state"] and "frames" in header and "expert" not in header


def test_a_pipe_gets_each_row_in_one_line_whatever_its_length(capsys, monkeypatch):
    lines = printed(capsys, None, monkeypatch).splitlines()
    assert len(lines) == 3 + len(ROWS)
    for line, row in zip(lines[3:], ROWS, strict=True):
        assert line.split()[0] == row[0] and (row[-1] or "-") in line


def test_what_is_no_number_is_a_dash():
    assert number(float("nan")) == number(float("inf")) == percent(float("nan")) == "-"


TERMINAL = """
import fcntl, os, pty, struct, sys, termios
pid, end = pty.fork()
if pid == 0:
    fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 40, 0, 0))
    os.execv(sys.argv[1], [sys.argv[1], "devices"])
said = b""
while True:
    try:
        read = os.read(end, 4096)
    except OSError:
        break
    if not read:
        break
    said += read
sys.stdout.buffer.write(said)
"""


def test_a_terminal_says_how_wide_it_is(home):
    done = subprocess.run([sys.executable, "-c", TERMINAL, FLOWRL], capture_output=True, text=True, check=True)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in done.stdout.splitlines()]
    assert any(line.startswith("slot ") for line in lines), done
    assert max(map(cell_len, lines)) <= 40
