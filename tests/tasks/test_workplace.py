"""The place where a run is worked on: owned, claimed, and with its log."""

import pytest

from flowrl_core.errors import ConflictError
from flowrl_core.skills.knowledge import load_knowledge, shipped
from flowrl_core.specs.campaign import parse_campaign
from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry
from tasks.skill.preparation import skill_workplace


@pytest.fixture
def attempt(tmp_path, monkeypatch):
    """A home, and the first attempt of a skill in it."""
    home = Home(tmp_path / "home")
    monkeypatch.setenv("FLOWRL_HOME", str(home.root))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.delenv("FLOWRL_REGISTRY_URL", raising=False)
    with Registry.open(home) as registry:
        spec = parse_campaign(env="corridor", targets=["dig_a"])
        registry.campaigns.record(spec, load_knowledge(shipped("corridor")).skills)
        return home, registry.skill_runs.begin("default", registry.skills.get("default", "dig_a").identity)


def test_each_process_that_begins_claims_the_run_and_fences_the_one_before(attempt):
    home, one = attempt
    held = pytest.raises(ConflictError, match="dig_a-1 is held by process")
    with skill_workplace(one.run, one.id, 15.0) as first, held, skill_workplace(one.run, one.id, 15.0):
        pass
    with skill_workplace(one.run, one.id, 15.0) as second, Registry.open(home) as registry:
        assert (first, second, registry.skill_runs.get(one.run).epoch) == (1, 2, 2), "who was refused claimed nothing"
        registry.runs.check_claim(one.run, second)
        with pytest.raises(ConflictError):
            registry.runs.check_claim(one.run, first)


@pytest.mark.parametrize("end", ["cancelled", "rejected", "infrastructure"])
def test_an_attempt_that_is_over_finds_no_work_and_claims_nothing(attempt, end):
    home, one = attempt
    with Registry.open(home) as registry:
        registry.attempts.end(one.id, end)
        with (
            pytest.raises(ConflictError, match=f"attempt 1 of dig_a-1 is over .{end}."),
            skill_workplace(one.run, one.id, 15.0),
        ):
            pass
        assert registry.skill_runs.get(one.run).epoch == 0
