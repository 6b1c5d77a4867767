import pytest
from registry_steps import SKILLS, begin, learn, make_skill, make_spec, start

from flowrl_core.errors import ConflictError
from flowrl_core.storage.registry import Registry


def test_an_attempt_is_named_by_registry_campaign_skill_and_number(registry: Registry) -> None:
    attempt = begin(registry, "wood")
    assert attempt.key == f"{registry.uuid}/default/wood/1"
    assert registry.attempts.outstanding("default") == [attempt]
    assert registry.attempts.set_flow_run(attempt.id, "abc").flow_run_id == "abc"
    fact = registry.skills.facts("default")["wood"]
    assert fact.executing and fact.attempt == registry.attempts.get(attempt.id)


def test_a_skill_has_one_outstanding_attempt_whichever_campaign_asks(registry: Registry) -> None:
    begin(registry, "wood")
    registry.campaigns.record(make_spec(campaign="other"), SKILLS)
    for campaign in ("default", "other"):
        with pytest.raises(ConflictError, match="attempt 1 of campaign 'default' is outstanding"):
            begin(registry, "wood", campaign)
    assert registry.skills.facts("other")["wood"].executing


def test_infrastructure_trouble_keeps_the_run_open_until_the_retries_are_used_up(registry: Registry) -> None:
    first = begin(registry, "wood")
    registry.attempts.end(first.id, "infrastructure", "worker died")
    fact = registry.skills.facts("default")["wood"]
    assert (fact.failed, fact.executing, fact.retries, fact.reason) == (False, False, 1, "worker died")

    second = begin(registry, "wood")
    assert (second.run, second.number, second.key[-2:]) == (first.run, 2, "/2")
    registry.attempts.end(second.id, "infrastructure", "out of memory")
    fact = registry.skills.facts("default")["wood"]
    assert (fact.failed, fact.cause, fact.retries, fact.reason) == (True, "infrastructure", 2, "out of memory")
    assert registry.skill_runs.get(first.run).verdict is None
    with pytest.raises(ConflictError, match="out of memory"):
        begin(registry, "wood")


def test_starting_the_campaign_again_begins_a_new_count_on_the_same_run(registry: Registry) -> None:
    attempts = [begin(registry, "wood")]
    registry.attempts.end(attempts[0].id, "infrastructure")
    attempts.append(begin(registry, "wood"))
    registry.attempts.end(attempts[1].id, "infrastructure")
    registry.campaigns.record(make_spec(), SKILLS)
    assert registry.skills.facts("default")["wood"].failed
    registry.campaigns.begin_start(make_spec())
    fact = registry.skills.facts("default")["wood"]
    assert (fact.failed, fact.retries) == (False, 0)
    assert begin(registry, "wood").run == attempts[0].run


def test_a_retry_of_the_same_flow_run_counts_too_and_once(registry: Registry) -> None:
    attempt = begin(registry, "wood")
    for _ in range(3):
        registry.attempts.count_retry(attempt.id, "killed", execution=1)
    fact = registry.skills.facts("default")["wood"]
    assert (fact.retries, fact.executing, fact.failed) == (1, True, False)
    assert registry.attempts.count_retry(attempt.id, "killed again").interruptions == 2
    registry.attempts.end(attempt.id, "infrastructure", "killed at last")
    assert registry.skills.facts("default")["wood"].retries == 3


def test_trouble_of_an_attempt_that_lives_on_counts_for_the_start_it_happened_in(registry: Registry) -> None:
    attempt = begin(registry, "wood")
    registry.attempts.count_retry(attempt.id, "killed")
    start(registry, make_spec())
    assert registry.skills.facts("default")["wood"].retries == 0
    registry.attempts.end(attempt.id, "infrastructure", "killed")
    assert registry.skills.facts("default")["wood"].retries == 1


def test_a_cancelled_attempt_is_not_repeated_until_the_campaign_is_started_again(registry: Registry) -> None:
    attempt = begin(registry, "wood")
    registry.attempts.end(attempt.id, "cancelled", "by hand")
    fact = registry.skills.facts("default")["wood"]
    assert (fact.failed, fact.cause, fact.retries) == (True, "cancelled", 0)
    with pytest.raises(ConflictError, match="by hand"):
        begin(registry, "wood")
    start(registry, make_spec())
    assert begin(registry, "wood").run == attempt.run


def test_a_rejected_skill_is_not_tried_until_a_start_names_it(registry: Registry) -> None:
    attempt = begin(registry, "wood")
    registry.attempts.end(attempt.id, "rejected", "not this one")
    for _ in range(2):
        fact = registry.skills.facts("default")["wood"]
        assert (fact.failed, fact.cause, fact.reason) == (True, "rejected", "not this one")
        with pytest.raises(ConflictError, match="wood was rejected; start the campaign again with the skill"):
            begin(registry, "wood")
        start(registry, make_spec())  # which does not name it
    registry.campaigns.record(make_spec(campaign="other"), SKILLS)
    assert not registry.skills.facts("other")["wood"].failed, "another campaign may"
    start(registry, make_spec(retry=["wood"]))
    assert not registry.skills.facts("default")["wood"].failed
    again = begin(registry, "wood")
    assert (again.run, again.number) == (attempt.run, 2)
    registry.attempts.end(again.id, "rejected", "again")
    assert registry.skills.facts("default")["wood"].cause == "rejected", "what was forgiven is the first rejection"


def test_the_first_end_of_an_attempt_stands(registry: Registry) -> None:
    attempt = begin(registry, "wood")
    registry.attempts.end(attempt.id, "cancelled")
    assert registry.attempts.end(attempt.id, "infrastructure").end == "cancelled"
    assert registry.skills.facts("default")["wood"].retries == 0


def test_the_verdict_in_the_registry_wins_over_how_the_attempt_seemed_to_end(registry: Registry) -> None:
    decided = begin(registry, "wood")
    registry.skill_runs.fail(decided.run, "it diverged")
    assert not registry.skills.facts("default")["wood"].executing
    assert registry.attempts.end(decided.id, "infrastructure", "crashed while it archived").end == "verdict"
    undecided = begin(registry, "table")
    assert registry.attempts.end(undecided.id, "verdict").end == "infrastructure"


def test_a_failed_skill_is_tried_again_only_if_named(registry: Registry) -> None:
    first = begin(registry, "wood")
    registry.skill_runs.fail(first.run, "below the threshold")
    registry.attempts.end(first.id, "verdict")
    start(registry, make_spec())
    fact = registry.skills.facts("default")["wood"]
    assert (fact.failed, fact.cause, fact.reason) == (True, "verdict", "below the threshold")
    with pytest.raises(ConflictError, match="retry"):
        begin(registry, "wood")

    start(registry, make_spec(retry=["wood"]))
    assert not registry.skills.facts("default")["wood"].failed
    second = begin(registry, "wood")
    assert second.run != first.run
    assert (registry.skill_runs.get(first.run).ordinal, registry.skill_runs.get(second.run).ordinal) == (1, 2)
    registry.skill_runs.fail(second.run, "again")
    registry.attempts.end(second.id, "verdict")
    assert registry.skills.facts("default")["wood"].failed
    assert begin(registry, "wood", new_run=True).run not in (first.run, second.run)


def test_a_changed_definition_is_another_skill_with_another_run_directory(registry: Registry) -> None:
    first = begin(registry, "wood")
    registry.skill_runs.fail(first.run, "")
    registry.attempts.end(first.id, "verdict")
    changed = SKILLS | {"wood": make_skill("wood", learn_count=4)}
    start(registry, make_spec(), changed)
    assert not registry.skills.facts("default")["wood"].failed
    second = begin(registry, "wood")
    assert second.subject != first.subject
    runs = [registry.skill_runs.get(first.run), registry.skill_runs.get(second.run)]
    assert len({(run.campaign, run.skill, run.ordinal) for run in runs}) == 2


def test_what_another_campaign_failed_at_is_no_failure_here_but_what_it_learned_is_learned(registry: Registry) -> None:
    failed = begin(registry, "table")
    registry.skill_runs.fail(failed.run, "")
    registry.attempts.end(failed.id, "verdict")
    learn(registry, ["wood"], {0: ("c1", 50)})
    registry.campaigns.record(make_spec(campaign="other"), SKILLS)
    facts = registry.skills.facts("other")
    assert facts["wood"].learned and not facts["table"].failed
    with pytest.raises(ConflictError, match="is learned"):
        begin(registry, "wood", "other")
