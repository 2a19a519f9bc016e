"""What was used, summed up from the table `calls`. Times are Unix seconds, days are those of UTC."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias

import msgspec
from sqlalchemy import ColumnElement, Connection, Integer, cast, func, literal, select
from sqlalchemy.sql.selectable import Select

from stellwerk.ledger.calls import calls
from stellwerk.ledger.holds import ESTIMATED, holds

MAX_RECENT = 200_000
_MICRO = 1_000_000
_SECONDS_OF_DAY = 86_400

Group: TypeAlias = Literal["day", "user", "key", "model"]

_day = cast(calls.c.at / _SECONDS_OF_DAY, Integer)
_GROUPS: Mapping[Group, ColumnElement[Any]] = {
    "day": _day,
    "user": calls.c.user_id,
    "key": calls.c.key_id,
    "model": calls.c.model,
}
_input = func.coalesce(func.sum(calls.c.input_tokens), 0)
_output = func.coalesce(func.sum(calls.c.output_tokens), 0)
_cost = func.coalesce(func.sum(calls.c.cost), 0)


class DailyUsage(msgspec.Struct, frozen=True, kw_only=True):
    date: str
    """`YYYY-MM-DD`."""
    tokens_in: int
    tokens_out: int
    cost: float
    """In currency units."""
    requests: int
    avg_latency: float
    """Milliseconds."""


class UsageRow(msgspec.Struct, frozen=True, kw_only=True):
    value: str
    """The day as `YYYY-MM-DD`, the user's id, the key's id or the model as clients name it."""
    calls: int
    failed: int
    """Of them those with an error, also in the middle of a stream, and those whose client left."""
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cost: int
    """Micro units, of the calls whose price is known."""
    average_duration: float
    """Seconds."""


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    total_requests: int
    total_tokens: int
    avg_latency_ms: float
    total_cost: float
    """In currency units."""


class RecentCall(msgspec.Struct, frozen=True, kw_only=True):
    """What limits must know of a call of an earlier process."""

    key_id: str
    user_id: int
    model: str
    at: float
    tokens: int


def daily_usage(connection: Connection, user_id: int, days: int, now: float) -> list[DailyUsage]:
    """One user's last `days` days with today, newest first; a day without calls is left out."""
    since = (int(now // _SECONDS_OF_DAY) - days + 1) * _SECONDS_OF_DAY
    query = (
        select(_day, _input, _output, _cost, func.count(), func.avg(calls.c.duration))
        .where(calls.c.user_id == user_id, calls.c.at >= since)
        .group_by(_day)
        .order_by(_day.desc())
    )
    return [
        DailyUsage(
            date=_date(day),
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            cost=cost / _MICRO,
            requests=requests,
            avg_latency=_milliseconds(seconds),
        )
        for day, tokens_in, tokens_out, cost, requests, seconds in connection.execute(query)
    ]


def usage_by(
    connection: Connection,
    group: Group,
    since: float,
    until: float,
    *,
    user_id: int | None = None,
    key_id: str | None = None,
    model: str | None = None,
    limit: int = 1000,
) -> list[UsageRow]:
    """Sums over the calls from `since` to before `until`: days newest first, all else by cost and calls."""
    order = [_day.desc()] if group == "day" else [_cost.desc(), func.count().desc(), _GROUPS[group]]
    query = usage_query(group, since, until, user_id=user_id, key_id=key_id, model=model).order_by(*order).limit(limit)
    return [
        UsageRow(
            value=_date(value) if group == "day" else str(value),
            calls=number,
            failed=failed,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cached_tokens=cached_tokens,
            cost=cost,
            average_duration=seconds,
        )
        for value, number, failed, input_tokens, output_tokens, cached_tokens, cost, seconds in connection.execute(
            query
        )
    ]


def usage_of_users(connection: Connection) -> dict[int, int]:
    """All tokens of every user who has made a call. Reads every call there is."""
    query = select(calls.c.user_id, _input + _output).group_by(calls.c.user_id)
    return {row[0]: row[1] for row in connection.execute(query)}


def usage_of_user(connection: Connection, user_id: int) -> int | None:
    """All tokens of one user; None when he has made no call."""
    query = select(func.count(), _input + _output).where(calls.c.user_id == user_id)
    number, tokens = connection.execute(query).one()
    return tokens if number else None


def stats_24h(connection: Connection, now: float, user_id: int | None = None) -> Stats:
    """Of all calls of the last 24 hours, or of those of one user."""
    query = select(func.count(), _input + _output, _cost, func.avg(calls.c.duration)).where(
        calls.c.at >= now - _SECONDS_OF_DAY
    )
    if user_id is not None:
        query = query.where(calls.c.user_id == user_id)
    number, tokens, cost, seconds = connection.execute(query).one()
    return Stats(
        total_requests=number,
        total_tokens=tokens,
        avg_latency_ms=_milliseconds(seconds or 0.0),
        total_cost=cost / _MICRO,
    )


def last_used(connection: Connection, key_ids: Iterable[str]) -> dict[str, float]:
    """When each key's last call came; a key that was never used is left out."""
    used: dict[str, float] = {}
    for key_id in key_ids:
        # One look at the end of the key's part of the index; grouping would read all of it.
        at = connection.execute(select(func.max(calls.c.at)).where(calls.c.key_id == key_id)).scalar_one()
        if at is not None:
            used[key_id] = at
    return used


def recent_calls(connection: Connection, since: float) -> list[RecentCall]:
    """The calls since then that were let through, newest first, MAX_RECENT at most.

    Also those that were paid for and ran when their process was killed, of which only the hold is left: otherwise a
    kill would give back what they took. Their model is not known any more.
    """
    cut = (
        select(holds.c.key_id, holds.c.user_id, literal(""), holds.c.at, literal(0))
        .where(holds.c.at >= since, holds.c.state == ESTIMATED)
        .order_by(holds.c.at.desc())
        .limit(MAX_RECENT)
    )
    tokens = func.coalesce(calls.c.input_tokens, 0) + func.coalesce(calls.c.output_tokens, 0)
    ended = (
        select(calls.c.key_id, calls.c.user_id, calls.c.model, calls.c.at, tokens)
        .where(calls.c.at >= since, calls.c.attempts > 0)
        .order_by(calls.c.at.desc())
        .limit(MAX_RECENT)
    )
    found = [
        RecentCall(key_id=key_id, user_id=user_id, model=model, at=at, tokens=used)
        for query in (cut, ended)
        for key_id, user_id, model, at, used in connection.execute(query)
    ]
    return sorted(found, key=lambda call: call.at, reverse=True)[:MAX_RECENT]


def usage_query(
    group: Group, since: float, until: float, *, user_id: int | None, key_id: str | None, model: str | None
) -> Select[Any]:
    """The columns of UsageRow in their order."""
    query = (
        select(
            _GROUPS[group],
            func.count(),
            func.count(calls.c.error),
            _input,
            _output,
            func.coalesce(func.sum(calls.c.cached_tokens), 0),
            _cost,
            func.avg(calls.c.duration),
        )
        .where(calls.c.at >= since, calls.c.at < until)
        .group_by(_GROUPS[group])
    )
    if user_id is not None:
        query = query.where(calls.c.user_id == user_id)
    if key_id is not None:
        query = query.where(calls.c.key_id == key_id)
    if model is not None:
        query = query.where(calls.c.model == model)
    return query


def _date(day: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)).date().isoformat()


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)


def requests_by_target(connection: Connection, since: float, provider: str) -> dict[str, int]:
    """How many requests went to each of a provider's models, by its name there; those that failed count too."""
    query = (
        select(calls.c.target, func.count())
        .where(calls.c.at >= since, calls.c.provider == provider, calls.c.target.is_not(None))
        .group_by(calls.c.target)
    )
    return {row[0]: row[1] for row in connection.execute(query)}
