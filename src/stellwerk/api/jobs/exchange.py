"""An exchange whose other end is a job: the answer is collected in place of being sent."""

from collections.abc import Callable, Mapping

from stellwerk.http.exchange import Flow, Headers


class CollectingExchange:
    """The meaning of each member is that of `Exchange`; writing never blocks and nobody reads too slowly."""

    def __init__(
        self,
        path: str,
        body: bytes,
        headers: Mapping[bytes, bytes],
        *,
        received: float,
        most_bytes: int,
        hear: Callable[[bytes], bool] | None = None,
        overflow: Callable[[], None] | None = None,
    ) -> None:
        """`hear` gets the pieces of a streamed answer in place of `collected` and says whether there is room for more.
        `overflow` is called once when the answer gets larger than it may: whoever writes it had better stop."""
        self.method = "POST"
        self.path = path
        self.query = b""
        self.headers = headers
        self.body = body
        self.peer = ""
        self.received = received
        self.started = False
        self.closed = False
        self.finished = False
        self.broken = False
        """The handler gave its answer up after it had begun."""
        self.too_large = False
        self.status = 0
        self.sent_headers: dict[bytes, bytes] = {}
        self._most_bytes = most_bytes
        self._hear = hear
        self._overflow = overflow
        self._pieces: list[bytes] = []
        self._size = 0

    @property
    def collected(self) -> bytes:
        return b"".join(self._pieces)

    @property
    def content_type(self) -> str:
        return self.sent_headers.get(b"content-type", b"application/json").decode("latin-1")

    @property
    def streams(self) -> bool:
        return self.content_type.startswith("text/event-stream")

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        self.start(status, headers)
        self._keep(body)
        self.finish()

    def start(self, status: int, headers: Headers) -> None:
        if not self.closed:
            self.started = True
            self.status, self.sent_headers = status, dict(headers)

    def write(self, data: bytes) -> None:
        if self.closed or not data:
            return
        if self._hear is None or not self.streams:
            self._keep(data)
        elif not self._hear(data):
            self._give_up()

    def _keep(self, data: bytes) -> None:
        if self.closed:
            return
        self._size += len(data)
        if self._size > self._most_bytes:
            self._give_up()
        else:
            self._pieces.append(data)

    def _give_up(self) -> None:
        self.too_large = self.closed = True
        self._pieces.clear()
        if self._overflow is not None:
            self._overflow()

    def finish(self) -> None:
        self.finished = True

    def break_off(self) -> None:
        self.broken = self.closed = True

    def feed_from(self, source: Flow | None) -> None:
        """Nobody is slow here, so nothing is ever held back."""
