"""What clients of every API say about the way of their calls, and what they are told about it."""

from collections.abc import Mapping
from functools import lru_cache

from stellwerk.core.call import Call
from stellwerk.core.errors import BadRequest
from stellwerk.core.plan import Target
from stellwerk.core.principal import Principal, Priority
from stellwerk.http.exchange import Headers, header_text

_PRIORITIES = {priority.value.encode(): priority for priority in Priority}
_RANKS = (Priority.LOW, Priority.NORMAL, Priority.HIGH)
_PRIORITY = "x-stellwerk-priority"
_LONGEST_SESSION = 256


def read_priority(headers: Mapping[bytes, bytes], principal: Principal) -> Priority:
    """What the client asks for, and never more than it may have. Raises BadRequest for another word."""
    given = headers.get(b"x-stellwerk-priority")
    most = principal.priority
    if given is None:
        return Priority.LOW if most is Priority.LOW else Priority.NORMAL
    asked = _PRIORITIES.get(given.strip().lower())
    if asked is None:
        raise BadRequest(f"The header '{_PRIORITY}' takes high, normal or low.", param=_PRIORITY)
    return min(asked, most, key=_RANKS.index)


def read_session(headers: Mapping[bytes, bytes], own: str | None = None, cache_key: str | None = None) -> str | None:
    """What ties the calls of a conversation together, from the most to the least deliberate: a field of ours, a header,
    the key that the vendor's prompt cache goes by."""
    if own:
        return own[:_LONGEST_SESSION]
    header = headers.get(b"x-session-id") or headers.get(b"session_id")
    if header:
        return header[:_LONGEST_SESSION].decode("latin-1")
    return cache_key[:_LONGEST_SESSION] if cache_key else None


def answered_by(call: Call, target: Target) -> Headers:
    """Who answered, and where in the line the call began to wait when it had to."""
    model = _name_of(target.provider, target.model)
    place = call.place
    return (model,) if place is None or place.first is None else (model, *waited(call))


# It is the same for thousands of answers.
@lru_cache(maxsize=1024)
def _name_of(provider: str, model: str) -> tuple[bytes, bytes]:
    return (b"x-stellwerk-model", header_text(f"{provider}/{model}"))


def waited(call: Call) -> Headers:
    place = call.place
    if place is None or place.first is None:
        return ()
    return ((b"x-stellwerk-queue-position", b"%d" % place.first),)
