"""Reads what AI Gateway's clients send: a body like OpenAI's, and headers: for whom, how soon and how finely."""

from collections.abc import Mapping
from typing import Final, get_args
from urllib.parse import parse_qsl

import msgspec

from stellwerk.api._bodies import decode_body
from stellwerk.api._guard import Request
from stellwerk.api.jobs.preferences import LONGEST_WAIT, read_preference
from stellwerk.core.errors import BadRequest
from stellwerk.core.principal import Principal, Priority
from stellwerk.engines.ocr.modes import Mode
from stellwerk.http.exchange import Exchange

MODES: Final[tuple[str, ...]] = get_args(Mode)
_MOST_PARAMETERS = 32
_LONGEST_CLIENT = 128
_TRUE, _FALSE = frozenset({"true", "1", "yes", "on"}), frozenset({"false", "0", "no", "off"})
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NAME = msgspec.json.Decoder(str | None)
_RANKS = (Priority.LOW, Priority.NORMAL, Priority.HIGH)


class Body(msgspec.Struct, frozen=True):
    """The fields as they came, and the model that they name, if any."""

    fields: Mapping[str, msgspec.Raw]
    model: str | None

    def with_model(self, model: str) -> bytes:
        return msgspec.json.encode({**self.fields, "model": model})


def read_body(exchange: Exchange) -> Body:
    """Raises BadRequest and UnsupportedMedia."""
    fields = decode_body(exchange.body, exchange.headers.get(b"content-type"), _OBJECT)
    try:
        model = _NAME.decode(fields["model"]) if "model" in fields else None
    except msgspec.DecodeError:
        raise BadRequest("Invalid value for 'model'.", param="model") from None
    return Body(fields, model)


def read_priority(headers: Mapping[bytes, bytes], caller: Principal) -> Priority:
    """What is asked for, and never more than the caller may have. Raises BadRequest for another word."""
    given = headers.get(b"x-priority", b"normal").decode("latin-1").strip().lower()
    if given not in _RANKS:
        raise BadRequest("Invalid X-Priority: low, normal and high are known", param="x-priority")
    return min(Priority(given), caller.priority, key=_RANKS.index)


def read_client(headers: Mapping[bytes, bytes], caller: Principal) -> str:
    """The application; who does not name one is called as his key or login is. Raises BadRequest."""
    client = headers.get(b"x-client-id", b"").decode("latin-1").strip()
    if not client:
        return caller.name[:_LONGEST_CLIENT]
    if len(client) > _LONGEST_CLIENT or not client.isprintable():
        raise BadRequest(f"Invalid X-Client-ID: at most {_LONGEST_CLIENT} printable characters", param="x-client-id")
    return client


def read_resolution(given: str) -> str:
    """Raises BadRequest in the documented words."""
    mode = given.strip().lower()
    if mode not in MODES:
        raise BadRequest(f"Invalid resolution: {given[:100]}", param="resolution")
    return mode


def read_wait(request: Request, query: Mapping[str, str]) -> float | None:
    """Seconds that the client wants to wait for the answer: `?wait=` or `Prefer: wait=`. Raises BadRequest."""
    if "wait" not in query:
        return read_preference(request.exchange.headers.get(b"prefer")).wait
    try:
        seconds = float(query["wait"])
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= LONGEST_WAIT:
        raise BadRequest(f"Invalid value for 'wait': a number from 0 to {LONGEST_WAIT:g}", param="wait")
    return seconds


def read_query(exchange: Exchange) -> dict[str, str]:
    """The parameters; of those that come twice the last. Raises BadRequest."""
    try:
        text = exchange.query.decode("ascii")
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS, errors="strict"))
    except ValueError:
        raise BadRequest("The query cannot be read.", code="invalid_query") from None


def read_switch(query: Mapping[str, str], name: str, *, default: bool) -> bool:
    """Raises BadRequest for what is neither true nor false."""
    given = query.get(name)
    if given is None:
        return default
    word = given.strip().lower()
    if word not in _TRUE | _FALSE:
        raise BadRequest(f"Invalid value for '{name}': true and false are known", param=name)
    return word in _TRUE


def read_limit(query: Mapping[str, str], most: int, default: int = 100) -> int:
    """How many rows; more than there can be are all. Raises BadRequest."""
    given = query.get("limit")
    if given is None:
        return default
    if not given.isascii() or not given.isdigit() or len(given) > 18 or int(given) < 1:
        raise BadRequest("Invalid value for 'limit': a whole number of at least 1", param="limit")
    return min(int(given), most)
