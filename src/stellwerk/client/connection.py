"""One request and its answer over a socket of its own; blocks. `async_connection` is its twin."""

import contextlib
import socket
import ssl
from collections.abc import Generator, Iterator

import msgspec

from stellwerk.client.address import Address
from stellwerk.client.answer import AnswerReader
from stellwerk.client.errors import BadAddress, BrokenOff, TimedOut, Unreachable

PIECE = 65536


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long a client waits, in seconds."""

    connect_seconds: float = 5.0
    silence_seconds: float = 600.0
    """Without a single byte; a model may have to be loaded before the first one."""


class Answering:
    """An answer on its way."""

    def __init__(self, connection: socket.socket, reader: AnswerReader, seconds: float) -> None:
        self._connection = connection
        self._seconds = seconds
        self.reader = reader

    def wait_for_head(self) -> None:
        """Until status and headers are known."""
        while not self.reader.began:
            self._receive()

    def pieces(self) -> Iterator[bytes]:
        """The body as it comes, until its end."""
        while True:
            if data := self.reader.take():
                yield data
            if self.reader.complete:
                return
            self._receive()

    def read(self) -> bytes:
        return b"".join(self.pieces())

    def _receive(self) -> None:
        try:
            data = self._connection.recv(PIECE)
        except TimeoutError:
            raise silent(self._seconds) from None
        except OSError:
            raise BrokenOff("The connection broke before the answer was complete.") from None
        if data:
            self.reader.feed(data)
        else:
            self.reader.end()


@contextlib.contextmanager
def asked(
    address: Address,
    tls: ssl.SSLContext | None,
    request: bytes,
    patience: Patience,
    *,
    waits: float = 0.0,
    most_bytes: int | None,
) -> Generator[Answering, None, None]:
    """Sends the request; the connection is closed at the end, also in the middle of an answer."""
    seconds = patience.silence_seconds + waits
    with contextlib.closing(_connect(address, tls, patience)) as connection:
        connection.settimeout(seconds)
        # Who refuses a large body may close before it is whole; why stands in the answer.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
            try:
                connection.sendall(request)
            except TimeoutError:
                raise silent(seconds) from None
        answering = Answering(connection, AnswerReader(most_bytes), seconds)
        answering.wait_for_head()
        yield answering


def _connect(address: Address, tls: ssl.SSLContext | None, patience: Patience) -> socket.socket:
    try:
        connection = socket.create_connection((address.host, address.port), timeout=patience.connect_seconds)
    except (OSError, UnicodeError) as error:
        raise unreachable(address, error) from None
    if tls is None:
        return connection
    try:
        return tls.wrap_socket(connection, server_hostname=address.host)
    except (OSError, ValueError) as error:
        connection.close()
        raise unreachable(address, error) from None


def unreachable(address: Address, error: Exception) -> Unreachable | BadAddress:
    if isinstance(error, ssl.SSLCertVerificationError):
        # Asking again would not help: whoever listens there has not shown that he is the gateway.
        return BadAddress(f"The certificate of {address.authority} is not trusted.", code="untrusted_certificate")
    return Unreachable(f"No gateway answers at {address.authority}.")


def silent(seconds: float) -> TimedOut:
    return TimedOut(f"Nothing came for {seconds:g} s.")
