"""What each key of a provider was used for, hour by hour: counted as calls end, on the key that was answered."""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Column, Connection, Integer, String, Table, func, select, text

from stellwerk.core.outcome import Outcome, Usage
from stellwerk.storage.stream import Row
from stellwerk.storage.tables import metadata
from stellwerk.storage.writer import Writer

upstream_usage = Table(
    "upstream_usage",
    metadata,
    # Unix seconds at which the hour begins.
    Column("hour", BigInteger, primary_key=True, autoincrement=False),
    Column("provider", String(64), primary_key=True),
    Column("key_index", Integer, primary_key=True, autoincrement=False),
    Column("model", String(256), primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
)

_HOUR = 3600
_LARGEST = 10**12
"""More than any call uses; sums over millions of calls still fit into 64 bits."""
_NOTHING = Usage()
_KEYS, _COUNTS = ("hour", "provider", "key_index", "model"), ("requests", "prompt_tokens", "completion_tokens")
_ADD = text(
    f"INSERT INTO upstream_usage ({', '.join((*_KEYS, *_COUNTS))}) "  # noqa: S608  # our own names
    f"VALUES ({', '.join(f':{name}' for name in (*_KEYS, *_COUNTS))}) ON CONFLICT ({', '.join(_KEYS)}) DO UPDATE SET "
    + ", ".join(f"{name} = upstream_usage.{name} + excluded.{name}" for name in _COUNTS)
)


class HourOfUse(msgspec.Struct, frozen=True, kw_only=True):
    """One key and model in one hour."""

    hour: int
    """Unix seconds at which it begins."""
    key_index: int
    """The key's place in the provider's list."""
    model: str
    """As the provider calls it."""
    requests: int
    prompt_tokens: int
    completion_tokens: int


class UseInAll(msgspec.Struct, frozen=True, kw_only=True):
    requests: int
    prompt_tokens: int
    completion_tokens: int


class UpstreamUsage:
    """`record` is the Recorder port: it takes an Outcome, never blocks and never raises.

    Counted is what an upstream answered to one of its keys, whatever became of the answer afterwards.
    """

    def __init__(self, writer: Writer) -> None:
        self._append: Callable[[Outcome], None] = writer.stream_into(_Addition(), _row).append

    def record(self, outcome: Outcome) -> None:
        if outcome.upstream_key is not None:
            self._append(outcome)


class _Addition:
    """Adds rows up, so that one commit writes each sum once."""

    def run(self, connection: Connection, rows: list[Row]) -> None:
        add_usage(connection, rows)


def add_usage(connection: Connection, rows: Iterable[Row]) -> None:
    """Adds rows of hour, provider, key, model, requests, prompt tokens and completion tokens to what stands there."""
    sums: dict[Row, list[int]] = {}
    for row in rows:
        added = sums.setdefault(row[: len(_KEYS)], [0] * len(_COUNTS))
        for place, count in enumerate(row[len(_KEYS) :]):
            added[place] += count
    names = (*_KEYS, *_COUNTS)
    if sums:
        connection.execute(_ADD, [dict(zip(names, (*key, *counts), strict=True)) for key, counts in sums.items()])


def _row(outcome: Outcome) -> Row:
    usage = outcome.usage or _NOTHING
    return (
        int(outcome.at) // _HOUR * _HOUR,
        outcome.provider,
        outcome.upstream_key,
        outcome.target,
        1,
        min(usage.input_tokens, _LARGEST),
        min(usage.output_tokens, _LARGEST),
    )


def hours_of_use(connection: Connection, provider: str, *, limit: int) -> list[HourOfUse]:
    """The newest hours first; in each of them by key and model."""
    columns = upstream_usage.c
    query = (
        select(*(column for column in columns if column.name != "provider"))
        .where(columns.provider == provider)
        .order_by(columns.hour.desc(), columns.key_index, columns.model)
        .limit(limit)
    )
    return [HourOfUse(**row) for row in connection.execute(query).mappings()]


def use_in_all(connection: Connection, provider: str) -> UseInAll:
    columns = upstream_usage.c
    sums: list[Any] = [func.coalesce(func.sum(columns[name]), 0) for name in _COUNTS]
    found = connection.execute(select(*sums).where(columns.provider == provider)).one()
    return UseInAll(**{name: int(value) for name, value in zip(_COUNTS, found, strict=True)})


def use_by_key(connection: Connection, since: int) -> dict[tuple[str, int], UseInAll]:
    """Of each provider's keys, in the hours that begin at `since` (Unix seconds) or later."""
    columns = upstream_usage.c
    sums: list[Any] = [func.sum(columns[name]) for name in _COUNTS]
    query = (
        select(columns.provider, columns.key_index, *sums)
        .where(columns.hour >= since)
        .group_by(columns.provider, columns.key_index)
    )
    return {
        (provider, index): UseInAll(**{name: int(value) for name, value in zip(_COUNTS, found, strict=True)})
        for provider, index, *found in connection.execute(query)
    }
