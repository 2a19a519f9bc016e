"""uvicorn's own protocol, as it stands behind ours for the requests that the ASGI application answers."""

from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class PassedRequests(HttpToolsProtocol):
    """A connection behind our guard: it sees whole heads only and reports when it has answered."""

    answered: Callable[[], None]
    cycle: Any
    """None before the first request."""

    def on_message_begin(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            # Heads are passed one at a time: this one was hidden behind a chunked body and has not met the guard.
            self.transport.abort()
        super().on_message_begin()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unset_keepalive_if_required()
        self.answered()
