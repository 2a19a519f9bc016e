import pytest

from stellwerk.client.errors import NotFound, StillRunning, Unavailable, Unreachable
from stellwerk.client.jobs import Job
from stellwerk.client.waiting import Waiting

JOB = Job(id="j", status="running")


def test_a_patient_wait_asks_for_long_times(clock):
    waiting = Waiting(clock, None, watched=False)
    assert waiting.ask_for() == 50.0
    clock.at += 50
    assert waiting.heard(JOB) == 0.0


def test_a_watched_wait_looks_every_second(clock):
    assert Waiting(clock, None, watched=True).ask_for() == 1.0


def test_the_last_question_ends_with_the_time(clock):
    waiting = Waiting(clock, 60.0, watched=False)
    assert waiting.ask_for() == 50.0
    clock.at += 50
    assert waiting.heard(JOB) == 0.0
    assert waiting.ask_for() == 10.0
    clock.at += 10
    with pytest.raises(StillRunning, match="after 60 s"):
        waiting.heard(JOB)


def test_a_gateway_that_answers_too_early_is_not_hurried(clock):
    waiting = Waiting(clock, None, watched=False)
    waiting.ask_for()
    assert waiting.heard(JOB) == 0.25


def test_outages_are_waited_out_longer_and_longer(clock):
    waiting = Waiting(clock, None, watched=False)
    pauses = [waiting.failed(Unreachable("")) for _ in range(15)]
    assert pauses[:6] == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0]
    assert 50 < sum(pauses) < 70
    with pytest.raises(Unreachable):
        waiting.failed(Unreachable(""))


def test_an_answer_ends_an_outage(clock):
    waiting = Waiting(clock, None, watched=False)
    for _ in range(40):
        assert waiting.failed(Unavailable("", status=502)) == 0.25
        waiting.ask_for()
        clock.at += 50
        waiting.heard(JOB)


def test_what_will_not_pass_is_not_waited_out(clock):
    with pytest.raises(NotFound):
        Waiting(clock, None, watched=False).failed(NotFound("", status=404))


def test_nobody_is_waited_for_beyond_the_time(clock):
    with pytest.raises(Unreachable):
        Waiting(clock, 0.1, watched=False).failed(Unreachable(""))
