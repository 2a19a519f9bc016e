"""Models that clients asked for and that there are not: what an operator may want to load, or to name."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec
from sqlalchemy import BigInteger, Column, Connection, Double, String, Table, delete, func, insert, select, update

from stellwerk.core.clock import Clock
from stellwerk.core.errors import Unavailable
from stellwerk.storage.tables import metadata

_LONGEST_NAME = 128
_LONGEST_CLIENT = 128
_MOST_WAITING = 1_000
"""Names with their clients between two writes; further ones are counted with the next write's."""
_MOST_ROWS = 10_000
_MOST_COMPARED = 50

missing_models = Table(
    "missing_models",
    metadata,
    Column("name", String(_LONGEST_NAME), primary_key=True),
    Column("key_id", String(64), primary_key=True),
    Column("user_id", BigInteger, nullable=False),
    Column("client_id", String(_LONGEST_CLIENT), nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("first_at", Double, nullable=False),
    Column("last_at", Double, nullable=False),
    Column("nearest", String(256)),
)


class MissingModel(msgspec.Struct, frozen=True, kw_only=True):
    """One name that one client asked for; times are Unix seconds."""

    name: str
    key_id: str
    user_id: int
    count: int
    first_at: float
    last_at: float
    nearest: str | None
    """The known name that is closest to it."""
    client_id: str = ""
    """The application that asked last, where it says who it is."""


class Run(Protocol):
    """`Writer.run`."""

    def __call__(self, work: Callable[[Connection], Any], /) -> Awaitable[Any]: ...


class MissingModels:
    """Gathers what was asked for and writes it down every few seconds. One event loop only."""

    def __init__(
        self,
        run: Run,
        clock: Clock,
        nearest: Callable[[str], str | None],
        *,
        write_seconds: float = 2.0,
        most_rows: int = _MOST_ROWS,
    ) -> None:
        """`nearest` finds the known name that is closest to one; it is asked in a thread. Beyond `most_rows` the oldest
        rows are forgotten."""
        self._run = run
        self._clock = clock
        self._nearest = nearest
        self._write_seconds = write_seconds
        self._most_rows = most_rows
        self._waiting: OrderedDict[tuple[str, str], MissingModel] = OrderedDict()

    def note(self, name: str, *, key_id: str, user_id: int, client_id: str = "") -> None:
        """Somebody asked for a model that there is not. Never waits."""
        key = (name[:_LONGEST_NAME], key_id)
        now = self._clock.now()
        known = self._waiting.get(key)
        if known is not None:
            self._waiting[key] = msgspec.structs.replace(
                known, count=known.count + 1, last_at=now, client_id=client_id[:_LONGEST_CLIENT]
            )
        elif len(self._waiting) < _MOST_WAITING:
            self._waiting[key] = MissingModel(
                name=key[0],
                key_id=key_id,
                user_id=user_id,
                client_id=client_id[:_LONGEST_CLIENT],
                count=1,
                first_at=now,
                last_at=now,
                nearest=None,
            )

    async def run(self) -> None:
        """Writes down what there is, until cancelled."""
        while True:
            await asyncio.sleep(self._write_seconds)
            await self.write()

    async def write(self) -> None:
        """What cannot be stored now is stored with the next write."""
        if not self._waiting:
            return
        rows, self._waiting = list(self._waiting.values()), OrderedDict()
        named = await asyncio.to_thread(self._with_nearest, rows)
        try:
            await self._run(lambda connection: add(connection, named, self._most_rows))
        except Unavailable:
            self._waiting = OrderedDict(((row.name, row.key_id), row) for row in rows) | self._waiting

    def _with_nearest(self, rows: list[MissingModel]) -> list[MissingModel]:
        """Comparing names takes milliseconds, so only the first of many are compared."""
        found = {name: self._nearest(name) for name in list(dict.fromkeys(row.name for row in rows))[:_MOST_COMPARED]}
        return [msgspec.structs.replace(row, nearest=found.get(row.name)) for row in rows]


def add(connection: Connection, rows: list[MissingModel], most_rows: int = _MOST_ROWS) -> None:
    """Adds to what is known; beyond `most_rows` the oldest are forgotten."""
    for row in rows:
        changed = connection.execute(
            update(missing_models)
            .where(missing_models.c.name == row.name, missing_models.c.key_id == row.key_id)
            .values(
                count=missing_models.c.count + row.count,
                last_at=row.last_at,
                nearest=row.nearest,
                client_id=row.client_id,
            )
        )
        if not changed.rowcount:
            connection.execute(insert(missing_models).values(msgspec.structs.asdict(row)))
    excess = (connection.scalar(select(func.count()).select_from(missing_models)) or 0) - most_rows
    if excess > 0:
        oldest = select(missing_models.c.last_at).order_by(missing_models.c.last_at).offset(excess - 1).limit(1)
        limit = connection.scalar(oldest)
        connection.execute(delete(missing_models).where(missing_models.c.last_at <= limit))


def list_missing(connection: Connection, limit: int = 100) -> list[MissingModel]:
    """What was asked for last comes first."""
    query = select(missing_models).order_by(missing_models.c.last_at.desc(), missing_models.c.name).limit(limit)
    return [MissingModel(**row) for row in connection.execute(query).mappings()]


def forget(connection: Connection, name: str | None = None) -> int:
    """Forgets one name, or all of them; returns how many rows."""
    statement = delete(missing_models)
    if name is not None:
        statement = statement.where(missing_models.c.name == name)
    return connection.execute(statement).rowcount
