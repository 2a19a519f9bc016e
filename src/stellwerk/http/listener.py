"""What all connections of one listening socket share."""

from collections.abc import Callable
from email.utils import formatdate
from typing import Protocol

from stellwerk.core.clock import Clock
from stellwerk.core.errors import GatewayError
from stellwerk.http.cors import NOBODY, Cors, Origins
from stellwerk.http.exchange import Headers
from stellwerk.http.guard import Guard
from stellwerk.http.router import Router

RenderError = Callable[[GatewayError, str], tuple[int, Headers, bytes]]
"""(error, path) → status, headers and body in the dialect of that path."""


class Watch(Protocol):
    """What the listener is told; every call is cheap and never raises."""

    def refused(self, code: str) -> None:
        """A request was turned away before it became a call."""

    def left(self) -> None:
        """A client went away before its answer was complete."""


class Connection(Protocol):
    def check_deadline(self, now: float) -> None: ...

    def shutdown(self) -> None: ...

    def abort(self) -> None: ...


class Listener:
    """Routes, guard and open connections of one socket; `sweep` is its only timer."""

    def __init__(
        self,
        *,
        router: Router,
        guard: Guard,
        render_error: RenderError,
        watch: Watch,
        clock: Clock,
        origins: Origins = NOBODY,
    ) -> None:
        """`origins` are whose pages may read answers in a browser."""
        self.router = router
        self.cors = Cors(origins, router)
        self.guard = guard
        self.render_error = render_error
        self.watch = watch
        self.clock = clock
        self.connections: set[Connection] = set()
        self.now = clock.monotonic()
        """Monotonic seconds at the last sweep; near enough for deadlines of whole seconds."""
        self.lines = self._write_lines()
        """Of the head of every answer."""
        self.draining = False

    def drain(self) -> None:
        """From now on every connection closes after the answer that it is busy with."""
        self.draining = True
        for connection in list(self.connections):
            connection.shutdown()

    def sweep(self) -> None:
        """Ends what has taken too long. Called about twice a second: one timer for all connections."""
        self.now = now = self.clock.monotonic()
        self.lines = self._write_lines()
        for connection in list(self.connections):
            connection.check_deadline(now)

    def abort(self) -> None:
        """Ends every connection at once."""
        for connection in list(self.connections):
            connection.abort()

    def _write_lines(self) -> bytes:
        # RFC 9110, 6.6.1 asks every server that has a clock for the date.
        date = formatdate(self.clock.now(), usegmt=True).encode("ascii")
        return b"".join(b"%b: %b\r\n" % field for field in ((b"date", date), *self.cors.headers))
