import asyncio
import random
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, func, insert, select

from stellwerk.core.clock import SystemClock
from stellwerk.core.errors import BadRequest, Unavailable
from stellwerk.records.uptime import (
    KEPT_DAYS,
    Look,
    UptimeRecorder,
    UptimeStatus,
    history,
    record,
    summarize,
    tally_days,
    uptime_checks,
)

DAY = 86_400
TODAY = 20_000 * DAY
"""2024-10-04, at midnight."""


@pytest.fixture
def fill(database):
    """Stores checks as (at, status) or (at, status, models, latency)."""

    def run(checks):
        rows = [
            {
                "at": at,
                "status": str(status),
                "active_models": more[0] if more else 1,
                "latency_ms": more[1] if more else 2,
            }
            for at, status, *more in checks
        ]
        if rows:
            database.write(lambda connection: connection.execute(insert(uptime_checks), rows))

    return run


@pytest.fixture
def ask(database):
    return lambda days, now: database.read(lambda connection: history(connection, days, now))


def every(start, end, status=UptimeStatus.UP, step=300):
    return [(at, status) for at in range(int(start), int(end), step)]


def test_before_the_first_check_there_is_no_history(ask):
    found = ask(30, TODAY)
    assert (found.days, found.overall_uptime_percent, found.daily) == (30, 100.0, [])


def test_a_steady_gateway_is_up_all_the_time(fill, ask):
    fill(every(TODAY - 2 * DAY, TODAY + 600))
    found = ask(30, TODAY + 600)
    assert [(day.date, day.status, day.uptime_percent) for day in found.daily] == [
        ("2024-10-04", "up", 100.0),
        ("2024-10-03", "up", 100.0),
        ("2024-10-02", "up", 100.0),
    ]
    assert (found.overall_uptime_percent, found.daily[0].avg_latency_ms, found.daily[0].avg_models) == (100.0, 2.0, 1.0)


def test_a_gap_counts_as_down_and_so_does_a_day_without_checks(fill, ask):
    fill([*every(TODAY - 3 * DAY, TODAY - 2 * DAY), *every(TODAY - DAY, TODAY - DAY // 2)])
    newest, middle, oldest = ask(30, TODAY).daily
    assert (newest.status, newest.uptime_percent) == ("down", 50.0)
    assert (middle.status, middle.uptime_percent, middle.avg_latency_ms, middle.avg_models) == ("down", 0.0, None, None)
    assert (oldest.status, oldest.uptime_percent) == ("up", 100.0)
    assert ask(30, TODAY).overall_uptime_percent == 50.0


def test_the_gap_since_the_last_check_counts_too(fill, ask):
    fill([(TODAY, UptimeStatus.UP)])
    assert ask(1, TODAY + 360).overall_uptime_percent == 100.0
    assert ask(1, TODAY + 600).overall_uptime_percent == 50.0


@pytest.mark.parametrize(("pause", "percent"), [(300, 100.0), (360, 100.0), (361, 83.1), (600, 50.0)])
def test_a_check_may_be_a_minute_late_and_no_more(fill, ask, pause, percent):
    fill([(TODAY, UptimeStatus.UP), (TODAY + pause, UptimeStatus.UP)])
    assert ask(1, TODAY + pause).overall_uptime_percent == percent


def test_days_before_the_first_check_are_left_out_and_its_own_is_covered_in_part(fill, ask):
    fill(every(TODAY - 600, TODAY))
    (day,) = ask(30, TODAY).daily
    assert (day.date, day.status, day.uptime_percent) == ("2024-10-03", "up", 100.0)


def test_the_last_check_of_a_day_speaks_for_the_first_minutes_of_the_next(fill, ask):
    fill([(TODAY - 200, UptimeStatus.DEGRADED), (TODAY + 100, UptimeStatus.UP)])
    (today,) = ask(1, TODAY + 400).daily
    assert (today.status, today.uptime_percent, today.avg_models) == ("degraded", 100.0, 1.0)


@pytest.mark.parametrize(
    ("up", "degraded", "status", "percent"),
    [
        (100, 0, "up", 100.0),
        (99, 0, "up", 99.0),
        (98, 0, "degraded", 98.0),
        (90, 0, "degraded", 90.0),
        (89, 0, "down", 89.0),
        (99, 1, "degraded", 100.0),
        (10, 1, "degraded", 11.0),
        (0, 0, "down", 0.0),
    ],
)
def test_the_status_of_a_day_goes_by_its_share(fill, ask, up, degraded, status, percent):
    kinds = [UptimeStatus.UP] * up + [UptimeStatus.DEGRADED] * degraded
    kinds += [UptimeStatus.DOWN] * (100 - len(kinds))
    fill([(TODAY + 300 * number, kind) for number, kind in enumerate(kinds)])
    found = ask(1, TODAY + 30_000)
    assert (found.daily[0].status, found.daily[0].uptime_percent) == (status, percent)
    assert found.overall_uptime_percent == percent


def test_a_second_of_failure_is_not_rounded_away(fill, ask):
    fill([*every(TODAY, TODAY + DAY - 600), (TODAY + DAY - 600, UptimeStatus.UP), (TODAY + DAY - 239, UptimeStatus.UP)])
    assert ask(1, TODAY + DAY - 1).daily[0].uptime_percent == 99.92


def test_checks_in_the_future_of_a_clock_that_was_wrong_are_not_read(fill, ask):
    fill([(TODAY, UptimeStatus.UP), (TODAY + 9 * DAY, UptimeStatus.UP)])
    assert ask(1, TODAY + 300).overall_uptime_percent == 100.0


@pytest.mark.parametrize("days", [0, -1, 366])
def test_no_other_number_of_days_can_be_asked_for(ask, days):
    with pytest.raises(BadRequest) as caught:
        ask(days, TODAY)
    assert caught.value.param == "days"


def test_a_longer_history_holds_every_shorter_one(database, fill, ask):
    fill([(at, kind) for at, kind in every(TODAY - 50 * DAY, TODAY, step=3600)])
    tallies = database.read(lambda connection: tally_days(connection, 365, TODAY + 5))
    for days in (1, 2, 30, 50, 51, 52, 365):
        assert summarize(tallies, days) == ask(days, TODAY + 5)


statuses = st.sampled_from([UptimeStatus.UP, UptimeStatus.UP, UptimeStatus.DEGRADED, UptimeStatus.DOWN])
pauses = st.sampled_from([0, 1, 299, 300, 301, 359, 360, 361, 420, 900]) | st.integers(0, 5_000)


@given(
    start=st.integers(DAY - 3_000, DAY + 3_000),
    checks=st.lists(st.tuples(pauses, statuses), min_size=1, max_size=25),
    after=pauses,
    days=st.integers(1, 3),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_it_counts_as_a_look_at_every_single_second_would(database, fill, ask, start, checks, after, days):
    database.write(lambda connection: connection.execute(delete(uptime_checks)))
    at, stored = start, []
    for pause, status in checks:
        stored.append((at, status))
        at += pause
    now = at + after
    fill(stored)
    found = ask(days, now)

    seconds = {}
    times = [at for at, _ in stored] + [now]
    for number, (at, status) in enumerate(stored):
        following = times[number + 1]
        for second in range(at, following):
            speaks = following - at <= 360 or second - at < 300
            seconds[second] = status if speaks else UptimeStatus.DOWN
    first_day = now // DAY - days + 1
    wanted = {second: status for second, status in seconds.items() if second // DAY >= first_day}
    assert found.overall_uptime_percent == (cut(wanted) if wanted else 100.0)
    expected = []
    for day in sorted({second // DAY for second in wanted}, reverse=True):
        of_day = {second: status for second, status in wanted.items() if second // DAY == day}
        share = sum(status != UptimeStatus.DOWN for status in of_day.values()) / len(of_day)
        degraded = UptimeStatus.DEGRADED in of_day.values()
        status = "up" if share >= 0.99 and not degraded else "degraded" if share >= 0.9 or degraded else "down"
        expected.append((datetime.fromtimestamp(day * DAY, UTC).strftime("%Y-%m-%d"), status, cut(of_day)))
    assert [(day.date, day.status, day.uptime_percent) for day in found.daily] == expected


def cut(seconds):
    available = sum(status != UptimeStatus.DOWN for status in seconds.values())
    return available * 10_000 // len(seconds) / 100


def test_a_whole_year_can_be_asked_for(fill, ask):
    rng = random.Random(1)
    fill([(TODAY - 365 * DAY + 1200 * n + 5 * rng.random(), UptimeStatus.UP) for n in range(365 * 72)])
    found = ask(365, TODAY + 1)
    assert (len(found.daily), found.daily[-1].date, found.daily[1].uptime_percent) == (365, "2023-10-06", 25.0)


def count(database):
    return database.read(lambda connection: connection.scalar(select(func.count()).select_from(uptime_checks)))


def test_checks_older_than_anybody_can_ask_for_are_dropped(database):
    for at in (TODAY, TODAY + 10, TODAY + KEPT_DAYS * DAY + 5):
        database.write(lambda connection, at=at: record(connection, UptimeStatus.UP, 0, 0.5, at=at))
    assert count(database) == 2


class Stage:
    """Stands in for the gateway that is looked at and for its storage."""

    def __init__(self, database):
        self.database = database
        self.looks = 0
        self.found = Look(degraded=False, active_models=3)
        self.broken = self.full = False
        self.turn = asyncio.Event()

    async def look(self):
        self.looks += 1
        if self.broken:
            raise RuntimeError("the look failed")
        return self.found

    async def run(self, work):
        self.turn.set()
        if self.full:
            raise Unavailable("The gateway cannot reach its storage.")
        self.database.write(work)

    async def turns(self, number):
        for _ in range(number):
            self.turn.clear()
            await asyncio.wait_for(self.turn.wait(), 30)

    def rows(self):
        columns = uptime_checks.c
        query = select(columns.status, columns.active_models, columns.latency_ms, columns.at).order_by(columns.at)
        return self.database.read(lambda connection: [tuple(row) for row in connection.execute(query)])


@pytest.fixture
def stage(database):
    return Stage(database)


@pytest.fixture
async def recording(stage):
    recorder = UptimeRecorder(stage.run, stage.look, SystemClock(), interval=0.01)
    task = asyncio.create_task(recorder.run())
    yield task
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_check_is_stored_at_the_start_and_at_every_interval(stage, recording):
    await stage.turns(3)
    (status, models, latency, at), *more = stage.rows()
    assert (status, models, len(more) >= 1) == ("up", 3, True)
    assert 0 <= latency < 5_000
    assert abs(at - SystemClock.now()) < 60


async def test_a_part_that_fails_is_degraded_and_a_look_that_fails_is_down(stage, recording, caplog):
    stage.found = Look(degraded=True, active_models=0)
    await stage.turns(2)
    stage.broken = True
    await stage.turns(3)
    kinds = [row[0] for row in stage.rows()]
    assert "degraded" in kinds
    assert kinds[-1] == "down"
    assert "could not be looked at" in caplog.text


async def test_a_full_disk_is_reported_once_and_loses_no_check(stage, recording, caplog):
    stage.full = True
    await stage.turns(4)
    assert caplog.text.count("cannot be stored") == 1
    looked = stage.looks
    stage.full = False
    await stage.turns(2)
    assert len(stage.rows()) >= looked
    stage.full = True
    await stage.turns(2)
    assert caplog.text.count("cannot be stored") == 2
