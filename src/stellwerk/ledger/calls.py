"""The record of every call: one row when it is over, whoever asked and however it ended."""

import msgspec
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Index,
    Integer,
    RowMapping,
    String,
    Table,
    func,
    select,
)

from stellwerk.core.call import Operation
from stellwerk.core.outcome import Outcome, Usage
from stellwerk.storage.database import Database
from stellwerk.storage.stream import Row
from stellwerk.storage.tables import metadata, row_number
from stellwerk.storage.writer import Writer

calls = Table(
    "calls",
    metadata,
    Column("number", row_number, primary_key=True),
    # Not unique: a client may send the same request id twice.
    Column("id", String(128), nullable=False),
    Column("at", Double, nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("user_id", BigInteger, nullable=False),
    Column("operation", String(32), nullable=False),
    Column("model", String(256), nullable=False),
    Column("provider", String(64)),
    Column("target", String(256)),
    Column("stream", Boolean, nullable=False),
    Column("status", Integer, nullable=False),
    Column("error", String(64)),
    Column("attempts", Integer, nullable=False),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("reasoning_tokens", BigInteger),
    Column("audio_milliseconds", BigInteger),
    Column("characters", BigInteger),
    Column("pages", BigInteger),
    Column("estimated", Boolean, nullable=False),
    Column("cost", BigInteger),
    Column("duration", Double, nullable=False),
    Column("first_byte", Double),
    Index(None, "at"),
    Index(None, "key_id", "at"),
    Index(None, "user_id", "at"),
)

_COLUMNS = tuple(column.name for column in calls.columns if column.name != "number")
_LARGEST = 10**12
"""More than any call uses; sums over millions of calls still fit into 64 bits."""
_NO_USAGE = (None,) * 7
_OPERATIONS = {operation: str(operation) for operation in Operation}


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over calls; `cost` in micro units, of the calls whose price is known."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: int = 0


class CallLedger:
    """Writes and reads the table `calls`.

    `record` is the Recorder port: it takes an Outcome, never blocks and never raises.
    """

    def __init__(self, database: Database, writer: Writer) -> None:
        self._database = database
        self.record = writer.stream(calls, _COLUMNS, _row).append

    async def recent(self, limit: int) -> list[Outcome]:
        """The newest calls, newest first."""
        return await self._database.fetch(lambda connection: read_recent(connection, limit))

    async def totals(self, key_id: str | None = None) -> Totals:
        """Over all calls, or over those of one key."""
        return await self._database.fetch(lambda connection: read_totals(connection, key_id))


def read_recent(connection: Connection, limit: int) -> list[Outcome]:
    rows = connection.execute(select(calls).order_by(calls.c.number.desc()).limit(limit)).mappings()
    return [
        Outcome(
            id=row["id"],
            at=row["at"],
            key_id=row["key_id"],
            user_id=row["user_id"],
            operation=Operation(row["operation"]),
            model=row["model"],
            provider=row["provider"],
            target=row["target"],
            stream=row["stream"],
            status=row["status"],
            error=row["error"],
            attempts=row["attempts"],
            usage=_usage(row),
            estimated=row["estimated"],
            cost=row["cost"],
            duration=row["duration"],
            first_byte=row["first_byte"],
        )
        for row in rows
    ]


def read_totals(connection: Connection, key_id: str | None = None) -> Totals:
    query = select(
        func.count(),
        func.coalesce(func.sum(calls.c.input_tokens), 0),
        func.coalesce(func.sum(calls.c.output_tokens), 0),
        func.coalesce(func.sum(calls.c.cost), 0),
    ).select_from(calls)
    if key_id is not None:
        query = query.where(calls.c.key_id == key_id)
    number, input_tokens, output_tokens, cost = connection.execute(query).one()
    return Totals(calls=number, input_tokens=int(input_tokens), output_tokens=int(output_tokens), cost=int(cost))


def _usage(row: RowMapping) -> Usage | None:
    if row["input_tokens"] is None:
        return None
    return Usage(
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        cached_tokens=row["cached_tokens"],
        reasoning_tokens=row["reasoning_tokens"],
        # Calls that were recorded before there was anything but tokens have none of these.
        audio_milliseconds=row["audio_milliseconds"] or 0,
        characters=row["characters"] or 0,
        pages=row["pages"] or 0,
    )


def _row(outcome: Outcome) -> Row:
    usage, cost = outcome.usage, outcome.cost
    counts: Row = _NO_USAGE
    # An upstream may report any number; a count that is absurd must cost us neither the row nor the sums.
    if usage is not None:
        counts = (
            usage.input_tokens,
            usage.output_tokens,
            usage.cached_tokens,
            usage.reasoning_tokens,
            usage.audio_milliseconds,
            usage.characters,
            usage.pages,
        )
        if max(counts) > _LARGEST:
            counts = tuple(min(count, _LARGEST) for count in counts)
    if cost is not None and cost > _LARGEST:
        cost = _LARGEST
    return (
        outcome.id,
        outcome.at,
        outcome.key_id,
        outcome.user_id,
        _OPERATIONS[outcome.operation],
        outcome.model,
        outcome.provider,
        outcome.target,
        outcome.stream,
        outcome.status,
        outcome.error,
        outcome.attempts,
        *counts,
        outcome.estimated,
        cost,
        outcome.duration,
        outcome.first_byte,
    )
