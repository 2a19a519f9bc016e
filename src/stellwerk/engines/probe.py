"""Asks an engine whether it answers, over a connection of its own so that a full pool never looks like an illness."""

import asyncio
import contextlib

from stellwerk.core.ports import EngineAddress

_MAX_STATUS_LINE = 256


async def answers(address: EngineAddress, timeout: float) -> bool:  # noqa: ASYNC109 — a bound on the whole exchange
    """Whether the engine says within `timeout` seconds that it is well."""
    return await _status(address, b"/health", None, timeout) == 200


async def is_ours(address: EngineAddress, timeout: float) -> bool:  # noqa: ASYNC109
    """Whether a loaded engine listens there that takes our key and no other; anything else is some other program."""
    return (
        await _status(address, b"/v1/models", address.key, timeout) == 200
        and await _status(address, b"/v1/models", None, timeout) == 401
    )


async def _status(address: EngineAddress, path: bytes, key: str | None, seconds: float) -> int | None:
    """The status of a GET; None when there is no answer in time or none that is HTTP."""
    credentials = b"Authorization: Bearer %s\r\n" % key.encode() if key else b""
    host = f"{address.host}:{address.port}".encode()
    writer = None
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(address.host, address.port, limit=_MAX_STATUS_LINE)
            writer.write(b"GET %s HTTP/1.1\r\nHost: %s\r\n%sConnection: close\r\n\r\n" % (path, host, credentials))
            version, _, rest = (await reader.readline()).partition(b" ")
            return int(rest[:3]) if version.startswith(b"HTTP/1.") and rest[:3].isdigit() else None
    except (TimeoutError, OSError, ValueError):
        return None
    finally:
        if writer is not None:
            # Nothing of the body is wanted; a plain close would wait for what is still to be sent.
            with contextlib.suppress(OSError):
                writer.transport.abort()
