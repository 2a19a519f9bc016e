"""What a real Ollama does itself, passed on to it: which one is meant, and its lines on the way back."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec

from stellwerk.api._guard import Request
from stellwerk.api.ollama.errors import error_line
from stellwerk.core.errors import GatewayError, NotFound, UpstreamBroken, UpstreamError
from stellwerk.core.plan import Model
from stellwerk.core.ports import UpstreamAnswer
from stellwerk.http.exchange import Headers

JSON: Headers = ((b"content-type", b"application/json; charset=utf-8"),)
LINES: Headers = (
    (b"content-type", b"application/x-ndjson"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
_SHORTEST_SECRET = 8
_LONGEST_ERROR = 500
_SUCCESS = "success"


class Remote(Protocol):
    """An Ollama of the operator's."""

    async def manage(self, method: str, path: str, body: bytes) -> UpstreamAnswer:
        """Asks for a change of its models. Raises GatewayError unless it agrees."""


class Found(msgspec.Struct, frozen=True):
    """Which Ollama, and the model's name there."""

    provider: str
    name: str
    sure: bool
    """It has been named, or has the model; otherwise it is only the first."""


class _Line(msgspec.Struct):
    status: str | None = None
    error: str | None = None


_decode = msgspec.json.Decoder(_Line).decode


def find_remote(remotes: Mapping[str, Remote], known: Model | None, name: str) -> Found | None:
    """None where no Ollama has to do with it."""
    if known is not None:
        return Found(known.provider, known.name, sure=True) if known.provider in remotes else None
    prefix, separator, rest = name.partition("/")
    for provider in remotes:
        if separator and rest and prefix.casefold() == provider.casefold():
            return Found(provider, rest, sure=True)
    first = next(iter(remotes), None)
    return None if first is None else Found(first, name, sure=False)


async def ask(remote: Remote, method: str, path: str, fields: Mapping[str, Any]) -> None:
    """Asks for something that is done at once. Raises GatewayError."""
    answer = await remote.manage(method, path, msgspec.json.encode(fields))
    try:
        await answer.read()
    finally:
        answer.abort()


async def pass_lines(
    remote: Remote,
    request: Request,
    path: str,
    fields: Mapping[str, Any],
    *,
    stream: bool,
    done: Callable[[], Awaitable[None]],
) -> None:
    """Passes on what the Ollama tells of its progress; without `stream` only the last line. `done` is awaited
    before the client hears of the success.

    Raises GatewayError as long as the client has seen nothing.
    """
    exchange = request.exchange
    answer = await remote.manage("POST", path, msgspec.json.encode({**fields, "stream": True}))
    last = b""
    try:
        exchange.feed_from(answer)
        async for line in _lines(answer):
            last = line
            if _decode(line).status == _SUCCESS:
                await done()
            if not stream:
                continue
            if not exchange.started:
                exchange.start(200, ((b"x-request-id", request.id.encode()), *LINES))
            exchange.write(line + b"\n")
        if not last:
            raise UpstreamError("The upstream ended without an answer.")
    except GatewayError as error:
        if not exchange.started:
            raise
        exchange.write(error_line(error))
    finally:
        exchange.feed_from(None)
        answer.abort()
    if stream:
        exchange.finish()
    else:
        exchange.respond(200, ((b"x-request-id", request.id.encode()), *JSON), last)


async def _lines(answer: UpstreamAnswer) -> AsyncIterator[bytes]:
    """Whole lines. Raises GatewayError for one that says an error, and one past its bound."""
    rest = b""
    ended = False
    while not ended:
        data = await answer.next()
        ended = not data
        *lines, rest = (rest + (data or b"\n")).split(b"\n")
        if len(rest) > answer.event_bytes:
            raise UpstreamBroken("The upstream sent a line that is too large.")
        for line in lines:
            if line.strip():
                yield _checked(line, answer)


def _checked(line: bytes, answer: UpstreamAnswer) -> bytes:
    for secret in answer.secrets:
        if len(secret) >= _SHORTEST_SECRET:
            line = line.replace(secret.encode("latin-1"), b"***")
    try:
        error = _decode(line).error
    except (ValueError, RecursionError):
        raise UpstreamBroken("The upstream sent a line that cannot be read.") from None
    if error is not None:
        missing = "does not exist" in error or "not found" in error
        raise (NotFound if missing else UpstreamError)(error[:_LONGEST_ERROR])
    return line


def respond_json(request: Request, body: object) -> None:
    request.exchange.respond(200, ((b"x-request-id", request.id.encode()), *JSON), msgspec.json.encode(body))
