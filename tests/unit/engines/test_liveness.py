from stellwerk.engines.liveness import Liveness, LivenessSettings

SETTINGS = LivenessSettings(interval=60.0, patience=120.0)


class Engine:
    def __init__(self, clock):
        self.clock = clock
        self.idle = True
        self.liveness = Liveness(SETTINGS, clock, lambda: self.idle)


def test_an_idle_engine_is_asked_once_a_minute(clock):
    engine = Engine(clock)
    asked = []
    for second in range(200):
        if engine.liveness.is_due:
            asked.append(second)
            engine.liveness.note_answer()
        clock.at += 1
    assert asked == [60, 120, 180]


def test_an_engine_in_use_is_not_asked(clock):
    engine = Engine(clock)
    clock.at += 1000
    engine.idle = False
    assert not engine.liveness.is_due
    engine.idle = True
    assert not engine.liveness.is_due
    clock.at += 60
    assert engine.liveness.is_due


def test_a_use_that_ended_between_two_looks_counts(clock):
    engine = Engine(clock)
    clock.at += 59
    engine.liveness.note_use()
    clock.at += 59
    assert not engine.liveness.is_due
    clock.at += 1
    assert engine.liveness.is_due


def test_an_engine_under_suspicion_is_asked_as_soon_as_it_is_idle(clock):
    engine = Engine(clock)
    engine.idle = False
    engine.liveness.suspect()
    assert not engine.liveness.is_due
    engine.idle = True
    assert engine.liveness.is_due
    engine.liveness.note_answer()
    assert not engine.liveness.is_due


def test_an_engine_that_missed_a_probe_is_asked_again_as_soon_as_it_is_idle(clock):
    engine = Engine(clock)
    engine.liveness.note_miss()
    assert engine.liveness.is_due
    engine.idle = False
    clock.at += 1000
    # Nobody has said that it does not work.
    assert not engine.liveness.is_overdue
    engine.liveness.note_answer()
    engine.idle = True
    assert not engine.liveness.is_due


def test_an_engine_in_use_that_gives_nothing_to_anybody_is_overdue(clock):
    engine = Engine(clock)
    engine.idle = False
    engine.liveness.suspect()
    clock.at += 119
    engine.liveness.suspect()
    assert not engine.liveness.is_overdue
    clock.at += 1
    assert engine.liveness.is_overdue
    engine.liveness.note_answer()
    assert not engine.liveness.is_overdue


def test_without_a_suspicion_an_engine_may_take_its_time(clock):
    engine = Engine(clock)
    engine.idle = False
    clock.at += 100_000
    assert not engine.liveness.is_overdue
