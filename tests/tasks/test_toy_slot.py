"""A family that is no skill's works at the place where every run is worked on: owned, claimed, with a device slot."""

import toy_family

from flowrl_core.storage.layout import Home
from tasks.orchestration.devices.slots import occupancy
from tasks.orchestration.runs.workplace import workplace


def test_a_run_of_another_family_owns_its_directory_and_a_slot_while_it_works(tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWRL_SLOTS_DIR", str(tmp_path / "slots"))
    monkeypatch.setenv("FLOWRL_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FLOWRL_REGISTRY_URL", raising=False)
    home, held = Home.from_environment(), []
    attempt = toy_family.submit(home)

    def look(progress):
        held.append(sum(holder is not None for _, holder in occupancy()))

    with workplace(attempt.run, attempt.id, stall_minutes=15.0, role="actor") as epoch:
        run = toy_family.count(home, attempt.id, epoch, on_update=look)
    assert (run.verdict, run.epoch) == ("counted", 1)
    assert held == [1] * len(toy_family.NUMBERS) and all(holder is None for _, holder in occupancy())
