"""Makes calls of a gateway and tries again where that is of use, on the event loop; the twin of `caller`."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import TypeVar

from stellwerk.client.async_connection import AsyncAnswering, asked
from stellwerk.client.calls import Call
from stellwerk.client.errors import StellwerkError
from stellwerk.client.events import Event, EventReader
from stellwerk.client.request import Request, write_request
from stellwerk.client.retries import pause_before_retry
from stellwerk.client.setting import Setting

T = TypeVar("T")
_MOST_ERROR_BYTES = 1 << 20


class AsyncCaller:
    """Keeps nothing between two calls, so that tasks may share it."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    async def do(self, call: Call[T]) -> T:
        """Raises StellwerkError."""
        attempt = 1
        while True:
            try:
                async with self._asked(call.request, self.setting.most_bytes) as answering:
                    return call.read(answering.reader, await answering.read())
            except StellwerkError as error:
                pause = pause_before_retry(error, attempt, self.setting.retries)
                if pause is None:
                    raise
            await asyncio.sleep(pause)
            attempt += 1

    async def events(self, request: Request) -> AsyncGenerator[Event, None]:
        """The server-sent events until the stream ends. Who stops early closes the connection."""
        attempt = 1
        while True:
            async with contextlib.AsyncExitStack() as stack:
                try:
                    answering = await stack.enter_async_context(self._asked(request, None))
                    if not 200 <= answering.reader.status < 300:
                        answering.reader.check(await _beginning(answering))
                except StellwerkError as error:
                    pause = pause_before_retry(error, attempt, self.setting.retries)
                    if pause is None:
                        raise
                else:
                    reader = EventReader()
                    async for piece in answering.pieces():
                        for event in reader.feed(piece):
                            yield event
                    return
            await asyncio.sleep(pause)
            attempt += 1

    def _asked(
        self, request: Request, most_bytes: int | None
    ) -> contextlib.AbstractAsyncContextManager[AsyncAnswering]:
        setting = self.setting
        data = write_request(request, setting.address, setting.find_key())
        return asked(setting.address, setting.tls, data, setting.patience, waits=request.waits, most_bytes=most_bytes)


async def _beginning(answering: AsyncAnswering) -> bytes:
    """Of a refusal, which says in its first bytes why."""
    body = b""
    async for piece in answering.pieces():
        body += piece
        if len(body) > _MOST_ERROR_BYTES:
            break
    return body
