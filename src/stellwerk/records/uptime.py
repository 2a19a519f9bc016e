"""Whether the gateway worked, looked at every few minutes.

A check speaks for the time until the next one when that comes in time, and otherwise for one interval: the rest of a
longer pause counts as down. Nothing is known of the time before the first check ever. All days are UTC.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from sqlalchemy import Column, Connection, Double, Index, Integer, String, Table, delete, func, insert, select

from stellwerk.core.clock import Clock
from stellwerk.core.errors import BadRequest, Unavailable
from stellwerk.storage.tables import metadata, row_number

INTERVAL = 300.0
TOLERANCE = 60.0
"""Seconds that a check may be late before its lateness counts as down."""
MOST_DAYS = 365
KEPT_DAYS = 400

_DAY = 86_400
_LOOK_SECONDS = 60.0
_UNSAVED = 288
_UP_SHARE = 0.99
_DEGRADED_SHARE = 0.9
_log = logging.getLogger(__name__)

uptime_checks = Table(
    "uptime_checks",
    metadata,
    Column("id", row_number, primary_key=True),
    Column("at", Double, nullable=False),
    Column("status", String(10), nullable=False),
    Column("active_models", Integer, nullable=False),
    Column("latency_ms", Double, nullable=False),
    Index(None, "at"),
)


class UptimeStatus(StrEnum):
    UP = "up"
    DEGRADED = "degraded"
    """It answers, and a part of it does not work."""
    DOWN = "down"


Percent = Annotated[float, Meta(ge=0, le=100)]


class DayUptime(msgspec.Struct, frozen=True, kw_only=True):
    """One day, as far as it was covered by checks."""

    date: Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    status: UptimeStatus
    uptime_percent: Percent
    avg_latency_ms: Annotated[float, Meta(ge=0)] | None
    """None on a day without any check."""
    avg_models: Annotated[float, Meta(ge=0)] | None


class UptimeHistory(msgspec.Struct, frozen=True, kw_only=True):
    days: Annotated[int, Meta(ge=1, le=MOST_DAYS)]
    """How many days were asked for, the present one included."""
    overall_uptime_percent: Percent
    """Of the time since the first check; degraded counts as available. 100 while nothing has been covered."""
    daily: Annotated[list[DayUptime], Meta(max_length=MOST_DAYS)]
    """The newest day first; days before the first check are left out."""


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What a check has found."""

    degraded: bool
    active_models: int


class Tally(msgspec.Struct, kw_only=True):
    """One day's seconds and sums."""

    day: int
    """Days since 1970-01-01."""
    covered: float = 0.0
    """Seconds of the day since the first check ever and until now."""
    available: float = 0.0
    """Seconds of them in which the gateway worked, if only in part."""
    degraded: float = 0.0
    checks: int = 0
    latency_ms: float = 0.0
    """Sum over the checks, as `active_models` is."""
    active_models: int = 0


def record(connection: Connection, status: UptimeStatus, active_models: int, latency_ms: float, *, at: float) -> None:
    """Stores a check and drops those that are too old to be asked for."""
    row = {"at": at, "status": str(status), "active_models": active_models, "latency_ms": latency_ms}
    connection.execute(insert(uptime_checks).values(row))
    connection.execute(delete(uptime_checks).where(uptime_checks.c.at < at - KEPT_DAYS * _DAY))


def history(connection: Connection, days: int, now: float) -> UptimeHistory:
    """The last `days` days, the present one included. Raises BadRequest."""
    return summarize(tally_days(connection, days, now), days)


def tally_days(connection: Connection, days: int, now: float) -> list[Tally]:
    """The days that are covered at least in part, newest first. Raises BadRequest."""
    if not 1 <= days <= MOST_DAYS:
        raise BadRequest(f"'days' must be a number from 1 to {MOST_DAYS}.", param="days")
    first = connection.scalar(select(func.min(uptime_checks.c.at)))
    if first is None or first >= now:
        return []
    today = int(now // _DAY)
    start = max(first, float((today - days + 1) * _DAY))
    tallies = {
        day: Tally(day=day, covered=min(now, (day + 1) * _DAY) - max(start, day * _DAY))
        for day in range(int(start // _DAY), today + 1)
    }
    columns = uptime_checks.c
    query = select(columns.at, columns.status, columns.active_models, columns.latency_ms)
    # The last check of the day before may speak for the first minutes of this one.
    query = query.where(columns.at > start - INTERVAL - TOLERANCE, columns.at <= now).order_by(columns.at, columns.id)
    _add_checks(tallies, connection.execute(query).all(), start, now)
    return [tally for tally in reversed(tallies.values()) if tally.covered > 0]


def summarize(tallies: Sequence[Tally], days: int) -> UptimeHistory:
    """The history of the newest `days` of at least as many days."""
    wanted = tallies[:days] if not tallies else [tally for tally in tallies if tally.day > tallies[0].day - days]
    covered = sum(tally.covered for tally in wanted)
    available = sum(tally.available for tally in wanted)
    return UptimeHistory(
        days=days,
        overall_uptime_percent=_percent(available, covered) if covered else 100.0,
        daily=[_day(tally) for tally in wanted],
    )


def _add_checks(tallies: dict[int, Tally], rows: Sequence[Any], start: float, now: float) -> None:
    for (at, status, models, latency), following in _with_next([tuple(row) for row in rows], now):
        if at >= start:
            tally = tallies[int(at // _DAY)]
            tally.checks += 1
            tally.latency_ms += latency
            tally.active_models += models
        if status == UptimeStatus.DOWN:
            continue
        until = following if following - at <= INTERVAL + TOLERANCE else at + INTERVAL
        for day, seconds in _split(max(at, start), until):
            tallies[day].available += seconds
            if status == UptimeStatus.DEGRADED:
                tallies[day].degraded += seconds


def _with_next(rows: list[Any], now: float) -> Iterable[tuple[Any, float]]:
    """Each check with the time of the one after it; for the last one that is the present."""
    yield from ((row, following[0]) for row, following in pairwise(rows))
    if rows:
        yield rows[-1], now


def _split(begin: float, end: float) -> Iterator[tuple[int, float]]:
    """The seconds of a stretch by day."""
    while begin < end:
        day = int(begin // _DAY)
        until = min(end, float((day + 1) * _DAY))
        yield day, until - begin
        begin = until


def _day(tally: Tally) -> DayUptime:
    share = tally.available / tally.covered
    if share >= _UP_SHARE and not tally.degraded:
        status = UptimeStatus.UP
    else:
        status = UptimeStatus.DEGRADED if share >= _DEGRADED_SHARE or tally.degraded else UptimeStatus.DOWN
    return DayUptime(
        date=datetime.fromtimestamp(tally.day * _DAY, UTC).date().isoformat(),
        status=status,
        uptime_percent=_percent(tally.available, tally.covered),
        avg_latency_ms=round(tally.latency_ms / tally.checks, 2) if tally.checks else None,
        avg_models=round(tally.active_models / tally.checks, 2) if tally.checks else None,
    )


def _percent(available: float, covered: float) -> float:
    """Cut, not rounded: a second of failure must not look like none. A hair is added for sums of floats."""
    return min(100.0, math.floor(available / covered * 10_000 + 1e-6) / 100)


class UptimeRecorder:
    """Looks at the gateway when `run` begins and then at every interval.

    `run` runs a piece of work on the database, `look` raises when the gateway cannot even be looked at. What cannot be
    stored now is stored with a later check, up to a day of them.
    """

    def __init__(
        self,
        run: Callable[[Callable[[Connection], None]], Awaitable[None]],
        look: Callable[[], Awaitable[Look]],
        clock: Clock,
        *,
        interval: float = INTERVAL,
    ) -> None:
        self._run = run
        self._look = look
        self._clock = clock
        self._interval = interval
        self._unsaved: deque[tuple[UptimeStatus, int, float, float]] = deque(maxlen=_UNSAVED)
        self._failing = False

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            began = self._clock.monotonic()
            self._unsaved.append(await self._check())
            await self._save()
            await asyncio.sleep(max(0.0, began + self._interval - self._clock.monotonic()))

    async def _check(self) -> tuple[UptimeStatus, int, float, float]:
        at, began = self._clock.now(), self._clock.monotonic()
        status, models = UptimeStatus.DOWN, 0
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                found = await self._look()
            status, models = UptimeStatus.DEGRADED if found.degraded else UptimeStatus.UP, found.active_models
        except Exception:  # noqa: BLE001 - whatever it is, it is what the look is there to find
            _log.warning("the gateway could not be looked at", exc_info=True)
        return status, models, (self._clock.monotonic() - began) * 1000, at

    async def _save(self) -> None:
        checks = tuple(self._unsaved)

        def store(connection: Connection) -> None:
            for status, models, latency_ms, at in checks:
                record(connection, status, models, latency_ms, at=at)

        try:
            await self._run(store)
        except Unavailable:
            if not self._failing:
                _log.warning("the uptime history cannot be stored; it is kept and tried again")
            self._failing = True
        else:
            self._failing = False
            self._unsaved.clear()
