"""Rows that nobody waits for: appended in a fraction of a microsecond, inserted many at a time."""

from collections import deque
from collections.abc import Callable
from itertools import chain
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy import Connection, Dialect, Table, insert

Item = TypeVar("Item")

Row = tuple[Any, ...]

# Rows a statement, largest first. One statement for many rows is what makes a batch cheap: the driver gives up the
# interpreter lock and fights for it again once a statement, which in a busy process costs more than the insert.
_ROWS_PER_STATEMENT = (64, 8, 1)


class Statement(Protocol):
    """What writes the rows of a stream."""

    def run(self, connection: Connection, rows: list[Row]) -> None:
        """Inside a transaction, in the writer's thread. Raises what the database raises."""


class InsertStatement:
    """INSERT into some columns of a table, compiled once for one, eight and 64 rows."""

    def __init__(self, table: Table, columns: tuple[str, ...], dialect: Dialect) -> None:
        row = dict.fromkeys(columns)
        self._texts = [(n, str(insert(table).values([row] * n).compile(dialect=dialect))) for n in _ROWS_PER_STATEMENT]

    def run(self, connection: Connection, rows: list[Row]) -> None:
        done = 0
        for size, text in self._texts:
            while len(rows) - done >= size:
                connection.exec_driver_sql(text, tuple(chain.from_iterable(rows[done : done + size])))
                done += size


class Stream(Generic[Item]):
    """A bounded queue of items on their way into one table. Made by `Writer.stream`."""

    def __init__(self, *, encode: Callable[[Item], Row], bound: int, wake: Callable[[], None]) -> None:
        self.encode = encode
        """Turns an item into a row; runs in the writer's thread."""
        self.items: deque[Item] = deque()
        self.dropped = 0
        """Items refused because `bound` of them were waiting already."""
        self.rejected = 0
        """Items that the database will never take."""
        self.idle = True
        """Whether the writer's thread sleeps and wants to be woken; set by that thread only."""
        self._bound = bound
        self._wake = wake

    def append(self, item: Item) -> None:
        """Takes an item from any thread; never blocks and never raises."""
        items = self.items
        if len(items) >= self._bound:
            self.dropped += 1
            return
        items.append(item)
        if self.idle:
            self._wake()

    def take(self, most: int) -> list[Item]:
        """The oldest items, for the writer's thread alone."""
        popleft = self.items.popleft
        return [popleft() for _ in range(min(most, len(self.items)))]

    def put_back(self, items: list[Item]) -> None:
        """Returns what `take` gave, in the same order."""
        self.items.extendleft(reversed(items))
