import pytest

from stellwerk.core.principal import Priority
from stellwerk.jobs.job import Job, JobError, Performed, State
from stellwerk.jobs.rests import MOST_KEYS, Rests

FAILED = Performed(status=502, error=JobError(code="upstream_error", message="No."), retry=True)
GOOD = Performed(status=200)


def job(queue="model", key_id="key"):
    return Job(
        id="j",
        kind="call",
        queue=queue,
        path="/v1/x",
        key_id=key_id,
        user_id=1,
        client_id="",
        priority=Priority.NORMAL,
        labels={},
        created_at=0.0,
        queued_at=0.0,
        deadline_at=9.0,
        state=State.LEASED,
        attempts=1,
    )


@pytest.fixture
def rests(clock):
    return Rests(clock)


def test_a_failing_model_rests_longer_each_time(rests, clock):
    for seconds in (1, 2, 4, 8, 16, 30, 30):
        rests.note(job(), FAILED)
        clock.at += seconds - 0.1
        assert rests.rests("model")
        assert not rests.rests("other")
        clock.at += 0.2
        assert not rests.rests("model")
    rests.note(job(), GOOD)
    rests.note(job(), FAILED)
    clock.at += 1.1
    assert not rests.rests("model")


def test_a_key_whose_turn_it_is_not_rests_in_that_queue_alone(rests, clock):
    rests.note(job(), Performed.not_yet(20, "key"))
    assert rests.keys() == {"model": {"key"}}
    assert not rests.rests("model")
    clock.at += 20.1
    assert rests.keys() == {}


def test_a_model_that_takes_nothing_now_rests_without_having_failed(rests, clock):
    rests.note(job(), Performed.not_yet(25, "queue"))
    rests.note(job(), Performed.not_yet(5, "queue"))
    clock.at += 24
    assert rests.rests("model")
    clock.at += 2
    assert not rests.rests("model")
    rests.note(job(), FAILED)
    clock.at += 1.1
    assert not rests.rests("model")


def test_no_rest_is_longer_than_half_a_minute(rests, clock):
    rests.note(job(), Performed.not_yet(3600, "key"))
    rests.note(job(), Performed.not_yet(3600, "queue"))
    clock.at += 30.1
    assert (rests.keys(), rests.rests("model")) == ({}, False)


def test_only_so_many_keys_are_remembered(rests):
    for number in range(MOST_KEYS + 10):
        rests.note(job(key_id=f"key{number}"), Performed.not_yet(1 + number / 1000, "key"))
    assert len(rests.keys()["model"]) == MOST_KEYS
    assert "key0" not in rests.keys()["model"]
