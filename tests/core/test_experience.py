"""The shipped experience: that it is what the environments do, and that a file of other fluents is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flowrl_core.errors import InputError, StorageError
from flowrl_core.proposals.recorded_transitions import (
    SEGMENT,
    Experience,
    experience_file,
    load_experience,
    read_experience,
    save_experience,
    vocabulary_digest,
)
from flowrl_core.vocabulary.environments import CORRIDOR, CRAFTAX_CLASSIC, vocabulary

ENVS = ("corridor", "craftax-classic")


def test_recording_again_gives_the_shipped_file(tmp_path: Path) -> None:
    from flowrl_core.stages.proposals.recording import record

    save_experience(record("corridor"), tmp_path / "again.npz")
    again, shipped = read_experience(tmp_path / "again.npz", CORRIDOR), load_experience("corridor")
    for name in ("episodes", "lengths", "resets"):
        assert np.array_equal(getattr(again, name), getattr(shipped, name))
    assert again.scripts == shipped.scripts


@pytest.mark.parametrize("env", ENVS)
def test_the_same_experience_makes_the_same_small_file(env: str, tmp_path: Path) -> None:
    experience = load_experience(env)
    save_experience(experience, tmp_path / "first.npz")
    save_experience(experience, tmp_path / "second.npz")
    assert (tmp_path / "first.npz").read_bytes() == (tmp_path / "second.npz").read_bytes()
    assert experience_file(env).stat().st_size < 200_000


@pytest.mark.parametrize("env", ENVS)
def test_every_value_is_in_the_range_of_its_fluent(env: str) -> None:
    experience = load_experience(env)
    low = [fluent.low for fluent in vocabulary(env).fluents]
    high = [fluent.high for fluent in vocabulary(env).fluents]
    for rows in (experience.prev, experience.now, experience.start, experience.resets):
        assert ((rows >= low) & (rows <= high)).all()
    assert set(experience.scripts) == {"chance", "still", "to_and_fro", "errand", "late"}


@pytest.mark.parametrize("env", ENVS)
def test_a_transition_begins_where_the_one_before_ended(env: str) -> None:
    experience = load_experience(env)
    episode, step, start = experience.steps.T
    follows = np.flatnonzero(episode[1:] == episode[:-1])
    assert np.array_equal(experience.prev[follows + 1], experience.now[follows])
    assert (step - start < SEGMENT).all() and (start % SEGMENT == 0).all()
    assert np.array_equal(experience.start[step == start], experience.prev[step == start])


def test_new_worlds_of_the_game_hold_nothing_and_vitals_are_full() -> None:
    experience = load_experience("craftax-classic")
    rows = dict(zip([fluent.name for fluent in CRAFTAX_CLASSIC.fluents], experience.resets.T, strict=True))
    assert all(not rows[name].any() for name in rows if name.startswith(("inv.", "ach.", "near.")))
    assert all((rows[name] == 9).all() for name in ("health", "food", "drink", "energy"))
    assert (rows["dist.tree"] < 8).mean() > 0.5


def test_the_games_experience_holds_what_comes_late() -> None:
    experience = load_experience("craftax-classic")
    index = {fluent.name: i for i, fluent in enumerate(CRAFTAX_CLASSIC.fluents)}
    for item in ("wood", "stone", "coal", "iron", "diamond", "sapling"):
        rose = experience.now[:, index[f"inv.{item}"]] > experience.prev[:, index[f"inv.{item}"]]
        assert rose.sum() >= 10, item


def test_the_corridors_rules_hold_in_what_was_recorded() -> None:
    experience = load_experience("corridor")
    index = {fluent.name: i for i, fluent in enumerate(CORRIDOR.fluents)}
    change = experience.now - experience.prev
    at_bench = experience.prev[:, index["near.bench"]] == 1
    for item in "bcdefghijklmno":
        made = change[:, index[f"inv.{item}"]] > 0
        assert made.any() and at_bench[made].all()
        assert (change[made][:, index["inv.a"]] == -1).all() and (change[made].sum(axis=1) == 0).all()
    made = change[:, index["inv.p"]] > 0
    needed = [index[f"inv.{item}"] for item in "bcdefghijklm"]
    assert made.any() and at_bench[made].all() and (experience.prev[made][:, needed] >= 1).all()
    assert (change[made].sum(axis=1) == 1).all()
    dug = change[:, index["inv.a"]] > 0
    assert (experience.prev[dug, index["dist.mine"]] == 0).all() and (change[dug][:, index["inv.a"]] == 1).all()


def test_a_place_is_known_to_be_near_at_its_distance() -> None:
    assert load_experience("corridor").beside == {"near.bench": 0}
    assert load_experience("craftax-classic").beside == {"near.crafting_table": 1, "near.furnace": 1}


def test_a_file_of_other_fluents_is_refused_with_the_command_that_records_it_anew() -> None:
    other = replace(CORRIDOR, fluents=CORRIDOR.fluents[::-1])
    with pytest.raises(StorageError, match="other fluents.* python -m flowrl_core.stages.proposals.recording corridor"):
        read_experience(experience_file("corridor"), other)


def test_the_rules_of_the_game_are_no_part_of_what_a_row_means() -> None:
    silent = replace(CORRIDOR, rules=())
    assert silent == CORRIDOR and hash(silent) == hash(CORRIDOR)
    assert vocabulary_digest(silent) == vocabulary_digest(CORRIDOR)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    torn = tmp_path / "torn.npz"
    whole = experience_file("corridor").read_bytes()
    for content in (b"", b"PK", whole[: len(whole) // 2]):
        torn.write_bytes(content)
        with pytest.raises(StorageError, match=r"torn.npz .*flowrl_core.stages.proposals.recording corridor"):
            read_experience(torn, CORRIDOR)
    with pytest.raises(StorageError, match="recording corridor"):
        read_experience(tmp_path / "absent.npz", CORRIDOR)


def test_nothing_in_a_file_is_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "evil.npz"
    np.savez(path, vocabulary=np.array([{}], object), allow_pickle=True)
    with pytest.raises(StorageError):
        read_experience(path, CORRIDOR)


def test_an_unknown_environment_is_named() -> None:
    with pytest.raises(InputError, match="corridor"):
        load_experience("coridor")


def test_an_experience_may_hold_no_moves_and_no_places() -> None:
    shipped = load_experience("corridor")
    still = Experience(CORRIDOR, shipped.episodes[:1, :1], np.array([0]), ("still",), shipped.resets)
    assert still.steps.shape == (0, 3) and still.moves[0].shape[1] == 0
