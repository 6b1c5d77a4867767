"""The shipped transitions are what the environments do, and a file of other fluents is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flowrl_core.envs.corridor.vocabulary import CORRIDOR
from flowrl_core.envs.craftax_classic.vocabulary import CRAFTAX_CLASSIC
from flowrl_core.errors import InputError, StorageError
from flowrl_core.proposals.recorded_transitions import (
    SEGMENT,
    RecordedTransitions,
    load_transitions,
    read_transitions,
    save_transitions,
    transitions_file,
    vocabulary_digest,
)

ENVS = ("corridor", "craftax-classic")


def test_recording_again_gives_the_shipped_file(tmp_path: Path) -> None:
    from flowrl_core.stages.proposals.recording import record

    save_transitions(record("corridor"), tmp_path / "again.npz")
    again, shipped = read_transitions(tmp_path / "again.npz", CORRIDOR), load_transitions("corridor")
    for name in ("episodes", "lengths", "resets"):
        assert np.array_equal(getattr(again, name), getattr(shipped, name))
    assert again.scripts == shipped.scripts


@pytest.mark.parametrize("env", ENVS)
def test_the_same_transitions_make_the_same_small_file(env: str, tmp_path: Path) -> None:
    recorded = load_transitions(env)
    save_transitions(recorded, tmp_path / "first.npz")
    save_transitions(recorded, tmp_path / "second.npz")
    assert (tmp_path / "first.npz").read_bytes() == (tmp_path / "second.npz").read_bytes()
    assert transitions_file(env).stat().st_size < 200_000
    assert set(recorded.scripts) == {"chance", "still", "to_and_fro", "errand", "late"}


@pytest.mark.parametrize("env", ENVS)
def test_a_transition_begins_where_the_one_before_ended(env: str) -> None:
    recorded = load_transitions(env)
    episode, step, start = recorded.steps.T
    follows = np.flatnonzero(episode[1:] == episode[:-1])
    assert np.array_equal(recorded.prev[follows + 1], recorded.now[follows])
    assert (step - start < SEGMENT).all() and (start % SEGMENT == 0).all()
    assert np.array_equal(recorded.start[step == start], recorded.prev[step == start])


def test_new_worlds_of_the_game_hold_nothing_and_vitals_are_full() -> None:
    recorded = load_transitions("craftax-classic")
    rows = dict(zip([fluent.name for fluent in CRAFTAX_CLASSIC.fluents], recorded.resets.T, strict=True))
    assert all(not rows[name].any() for name in rows if name.startswith(("inv.", "ach.", "near.")))
    assert all((rows[name] == 9).all() for name in ("health", "food", "drink", "energy"))
    assert (rows["dist.tree"] < 8).mean() > 0.5


def test_the_games_transitions_hold_what_comes_late() -> None:
    recorded = load_transitions("craftax-classic")
    index = {fluent.name: i for i, fluent in enumerate(CRAFTAX_CLASSIC.fluents)}
    for item in ("wood", "stone", "coal", "iron", "diamond", "sapling"):
        rose = recorded.now[:, index[f"inv.{item}"]] > recorded.prev[:, index[f"inv.{item}"]]
        assert rose.sum() >= 10, item


def test_the_corridors_rules_hold_in_what_was_recorded() -> None:
    recorded = load_transitions("corridor")
    index = {fluent.name: i for i, fluent in enumerate(CORRIDOR.fluents)}
    change = recorded.now - recorded.prev
    at_bench = recorded.prev[:, index["near.bench"]] == 1
    for item in "bcdefghijklmno":
        made = change[:, index[f"inv.{item}"]] > 0
        assert made.any() and at_bench[made].all()
        assert (change[made][:, index["inv.a"]] == -1).all() and (change[made].sum(axis=1) == 0).all()
    made = change[:, index["inv.p"]] > 0
    needed = [index[f"inv.{item}"] for item in "bcdefghijklm"]
    assert made.any() and at_bench[made].all() and (recorded.prev[made][:, needed] >= 1).all()
    assert (change[made].sum(axis=1) == 1).all()
    dug = change[:, index["inv.a"]] > 0
    assert (recorded.prev[dug, index["dist.mine"]] == 0).all() and (change[dug][:, index["inv.a"]] == 1).all()


def test_a_place_is_known_to_be_near_at_its_distance() -> None:
    assert load_transitions("corridor").beside == {"near.bench": 0}
    assert load_transitions("craftax-classic").beside == {"near.crafting_table": 1, "near.furnace": 1}


def test_a_file_of_other_fluents_is_refused_with_the_command_that_records_it_anew() -> None:
    other = replace(CORRIDOR, fluents=CORRIDOR.fluents[::-1])
    with pytest.raises(
        StorageError, match="fluents that differ.* python -m flowrl_core.stages.proposals.recording corridor"
    ):
        read_transitions(transitions_file("corridor"), other)


def test_the_rules_of_the_game_are_no_part_of_what_a_row_means() -> None:
    silent = replace(CORRIDOR, rules=())
    assert silent == CORRIDOR and hash(silent) == hash(CORRIDOR)
    assert vocabulary_digest(silent) == vocabulary_digest(CORRIDOR)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    torn = tmp_path / "torn.npz"
    whole = transitions_file("corridor").read_bytes()
    for content in (b"", b"PK", whole[: len(whole) // 2]):
        torn.write_bytes(content)
        with pytest.raises(StorageError, match=r"torn.npz .*flowrl_core.stages.proposals.recording corridor"):
            read_transitions(torn, CORRIDOR)
    with pytest.raises(StorageError, match="recording corridor"):
        read_transitions(tmp_path / "absent.npz", CORRIDOR)


def test_nothing_in_a_file_is_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "evil.npz"
    np.savez(path, vocabulary=np.array([{}], object), allow_pickle=True)
    with pytest.raises(StorageError):
        read_transitions(path, CORRIDOR)


def test_an_unknown_environment_is_named() -> None:
    with pytest.raises(InputError, match="corridor"):
        load_transitions("coridor")


def test_recorded_transitions_may_hold_no_moves_and_no_places() -> None:
    shipped = load_transitions("corridor")
    still = RecordedTransitions(CORRIDOR, shipped.episodes[:1, :1], np.array([0]), ("still",), shipped.resets)
    assert still.steps.shape == (0, 3) and still.moves[0].shape[1] == 0
