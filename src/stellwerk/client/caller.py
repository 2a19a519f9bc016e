"""Makes calls of a gateway and tries again where that is of use; blocks. `async_caller` is its twin."""

import contextlib
import time
from collections.abc import Generator
from typing import TypeVar

from stellwerk.client.calls import Call
from stellwerk.client.connection import Answering, asked
from stellwerk.client.errors import StellwerkError
from stellwerk.client.events import Event, EventReader
from stellwerk.client.request import Request, write_request
from stellwerk.client.retries import pause_before_retry
from stellwerk.client.setting import Setting

T = TypeVar("T")
_MOST_ERROR_BYTES = 1 << 20


class Caller:
    """Keeps nothing between two calls, so that threads may share it."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def do(self, call: Call[T]) -> T:
        """Raises StellwerkError."""
        attempt = 1
        while True:
            try:
                with self._asked(call.request, self.setting.most_bytes) as answering:
                    return call.read(answering.reader, answering.read())
            except StellwerkError as error:
                pause = pause_before_retry(error, attempt, self.setting.retries)
                if pause is None:
                    raise
            time.sleep(pause)
            attempt += 1

    def events(self, request: Request) -> Generator[Event, None, None]:
        """The server-sent events until the stream ends. Who stops early closes the connection."""
        attempt = 1
        while True:
            with contextlib.ExitStack() as stack:
                try:
                    answering = stack.enter_context(self._asked(request, None))
                    if not 200 <= answering.reader.status < 300:
                        answering.reader.check(_beginning(answering))
                except StellwerkError as error:
                    pause = pause_before_retry(error, attempt, self.setting.retries)
                    if pause is None:
                        raise
                else:
                    reader = EventReader()
                    for piece in answering.pieces():
                        yield from reader.feed(piece)
                    return
            time.sleep(pause)
            attempt += 1

    def _asked(self, request: Request, most_bytes: int | None) -> contextlib.AbstractContextManager[Answering]:
        setting = self.setting
        data = write_request(request, setting.address, setting.find_key())
        return asked(setting.address, setting.tls, data, setting.patience, waits=request.waits, most_bytes=most_bytes)


def _beginning(answering: Answering) -> bytes:
    """Of a refusal, which says in its first bytes why."""
    body = b""
    for piece in answering.pieces():
        body += piece
        if len(body) > _MOST_ERROR_BYTES:
            break
    return body
