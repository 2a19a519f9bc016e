"""Sends one message to its receiver, once."""

import asyncio
import logging
from collections.abc import Awaitable, Mapping, Sequence
from typing import Protocol

import msgspec

from stellwerk import __version__
from stellwerk.core.clock import Clock
from stellwerk.core.errors import GatewayError
from stellwerk.core.secrets import Secret
from stellwerk.webhooks.schedule import Result, explain_status, read_retry_after
from stellwerk.webhooks.signing import sign

_MOST_ANSWER_BYTES = 64 * 1024
"""Of an answer that nobody reads: it is never stored and never shown."""
_GRACE_SECONDS = 5.0
_HEADERS = (("content-type", "application/json"), ("user-agent", f"Stellwerk/{__version__}"))

_log = logging.getLogger(__name__)


class Answer(Protocol):
    """`EgressAnswer`: names of headers are in lower case."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...


class Send(Protocol):
    """`Egress.send`: the only way out, which looks at every address before it connects."""

    def __call__(
        self,
        method: str,
        url: str,
        headers: Sequence[tuple[str, str]],
        body: bytes = b"",
        *,
        seconds: float,
        most_bytes: int = ...,
        redirects: int = ...,
    ) -> Awaitable[Answer]: ...


class Receiver(msgspec.Struct, frozen=True, kw_only=True):
    """Where messages of a subscription go, and what signs them."""

    url: str
    secrets: tuple[Secret, ...]


async def attempt(
    send: Send, receiver: Receiver, message_id: str, body: bytes, *, clock: Clock, seconds: float
) -> Result:
    """Posts a body. Whatever happens is told in the result; it names neither the receiver nor what it said."""
    at, began = clock.now(), clock.monotonic()
    status, error, retry_after = None, None, None
    try:
        headers = (*_HEADERS, *sign(receiver.secrets, message_id, at, body))
        # The guard keeps the time too; nobody waits longer than the lease even if it should not.
        async with asyncio.timeout(seconds + _GRACE_SECONDS):
            answer = await send(
                "POST", receiver.url, headers, body, seconds=seconds, most_bytes=_MOST_ANSWER_BYTES, redirects=0
            )
        status, error = answer.status, explain_status(answer.status)
        retry_after = read_retry_after(answer.headers.get("retry-after"), at)
    except GatewayError as failure:
        # Written for clients: it names no address, and nothing of what the receiver said.
        error = failure.message
    except TimeoutError:
        error = "The receiver did not answer in time."
    except OSError:
        error = "The receiver cannot be reached."
    except Exception:  # noqa: BLE001 - something unforeseen about one receiver must not stop all others
        _log.exception("a delivery to a webhook failed in an unforeseen way")
        error = "The delivery failed inside the gateway."
    milliseconds = round(max(0.0, clock.monotonic() - began) * 1000)
    return Result(at=at, status=status, milliseconds=milliseconds, error=error, retry_after=retry_after)
