"""Calls that another program answered before this gateway took over, of which less is known than of its own."""

import msgspec
from sqlalchemy import Connection, insert, select

from stellwerk.core.call import Operation
from stellwerk.ledger.calls import calls
from stellwerk.ledger.upstream_usage import add_usage

_SECONDS_OF_HOUR = 3600


class PastCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call; `id` tells it from the others of its key at its moment, in every file in which it may stand."""

    id: str
    at: float
    """Unix seconds."""
    key_id: str
    user_id: int
    model: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None


def add_past_call(connection: Connection, call: PastCall) -> bool:
    """Stores a call. False when it is stored already."""
    known = select(calls.c.number).where(calls.c.key_id == call.key_id, calls.c.at == call.at, calls.c.id == call.id)
    if connection.scalar(known) is not None:
        return False
    row = msgspec.structs.asdict(call) | {
        "operation": str(Operation.CHAT),
        "stream": False,
        "status": 200,
        "attempts": 1,
        "estimated": False,
        "duration": 0.0,
    }
    if call.input_tokens is not None:
        row |= {"cached_tokens": 0, "reasoning_tokens": 0}
    connection.execute(insert(calls).values(row))
    return True


def add_past_upstream_call(connection: Connection, call: PastCall, provider: str, key_index: int) -> bool:
    """The same for a call that is known to have gone to a provider with one of its keys: it is booked on that too."""
    if not add_past_call(connection, call):
        return False
    hour = int(call.at) // _SECONDS_OF_HOUR * _SECONDS_OF_HOUR
    counts = (1, call.input_tokens or 0, call.output_tokens or 0)
    add_usage(connection, [(hour, provider, key_index, call.model, *counts)])
    return True
