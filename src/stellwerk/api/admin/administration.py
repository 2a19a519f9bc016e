"""What every administrative endpoint stands on: reading, and changing in one transaction with its audit record."""

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from stellwerk.api._endpoints import Asked
from stellwerk.api._transactions import Result, RunInTransaction
from stellwerk.auth.tokens import Digest
from stellwerk.auth.users import find_user
from stellwerk.core.clock import Clock
from stellwerk.core.errors import Unavailable
from stellwerk.records.audit import Actor


@dataclass(frozen=True, kw_only=True)
class Administration:
    run: RunInTransaction
    """Writes."""
    fetch: RunInTransaction
    """Reads."""
    clock: Clock
    digest: Digest
    currency: str
    """The ledger's."""
    changed: Callable[[], Awaitable[None]]
    """Makes this process take over what was just changed, instead of at its next look."""

    async def change(self, asked: Asked, work: Callable[[Connection, Actor, float], Result]) -> Result:
        """Runs `work` with the caller as its actor and the time in Unix seconds."""
        now = self.clock.now()
        result = await self.run(lambda connection: work(connection, _actor(connection, asked), now))
        # It is stored already: an error here would make the client do it twice.
        with contextlib.suppress(Unavailable):
            await self.changed()
        return result


def _actor(connection: Connection, asked: Asked) -> Actor:
    caller = asked.caller
    user = find_user(connection, caller.user_id)
    return Actor(name=caller.name if user is None else user.email, key_id=caller.key_id, peer=asked.peer)
