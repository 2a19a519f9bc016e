"""How API modules reach the database: they hand over what is to be done in a transaction."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from sqlalchemy import Connection

Result = TypeVar("Result")


class RunInTransaction(Protocol):
    def __call__(self, work: Callable[[Connection], Result], /) -> Awaitable[Result]:
        """Returns what `work` returned, for writing after the commit. Raises Unavailable and what `work` raises."""
