"""Answers of a real Ollama: they pass as they are, under the model's name that the client used, and are counted."""

from collections.abc import Sequence
from typing import Any

import msgspec

from stellwerk.core.errors import UpstreamBroken
from stellwerk.core.outcome import Usage
from stellwerk.core.ports import Meter
from stellwerk.providers._openai_events import stream_error
from stellwerk.providers.ollama_usage import read_ollama_usage

_NULL = msgspec.Raw(b"null")
_NOTHING_ASKED = frozenset({b'"load"', b'"unload"'})
"""Reasons for which an answer ends that has used nothing up, and therefore counts nothing."""
_encode = msgspec.json.encode


class _Line(msgspec.Struct):
    done: bool = False
    done_reason: msgspec.Raw = _NULL
    model: msgspec.Raw = _NULL
    error: msgspec.Raw = _NULL
    embeddings: list[msgspec.Raw] | None = None


_decode = msgspec.json.Decoder(_Line).decode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class LineRelay:
    """Turns the upstream's bytes into the client's, whole lines only."""

    __slots__ = ("_longest", "_meter", "_name", "_rest", "_secrets", "_start", "done")

    def __init__(self, *, upstream: str, asked: str, meter: Meter, longest: int, secrets: Sequence[str] = ()) -> None:
        """`upstream` and `asked` are the two names of the model, `longest` the most bytes of a line; no error repeats
        one of `secrets`."""
        self._start = b'{"model":' + _encode(upstream)
        self._name = _encode(asked)
        self._meter = meter
        self._longest = longest
        self._secrets = secrets
        self._rest = b""
        self.done = False
        """The last line has come; nothing counts after it."""

    def feed(self, data: bytes) -> bytes:
        """What the client gets now. Raises UpstreamError for an error inside the stream and a line past its bound."""
        if self.done:
            return b""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > self._longest:
            raise UpstreamBroken("The upstream sent a line that is too large.", may_fall_back=True)
        out = [self._pass(line) for line in lines if line.strip()]
        written = b"".join(out)
        if written:
            self._meter.deliver(len(out), len(written))
        return written

    def _pass(self, line: bytes) -> bytes:
        if self.done:
            return b""
        read = _read(line, self._secrets)
        if read.done:
            self.done = True
            self._count(line, read)
        return self.rename(line) + b"\n"

    def rename(self, line: bytes) -> bytes:
        """The object with the client's name for the model. Only at its top: a tool's argument may be called so too."""
        if line.startswith(self._start):
            return b'{"model":' + self._name + line[len(self._start) :]
        fields = _decode_object(line)
        if "model" not in fields:
            return line
        return _encode({**fields, "model": msgspec.Raw(self._name)})

    def end(self) -> bytes:
        """What is still to be sent after the upstream's last byte. Raises UpstreamBroken when it came too early."""
        rest, self._rest = self._rest, b""
        out = self.feed(rest + b"\n") if rest.strip() else b""
        if not self.done:
            raise UpstreamBroken("The upstream broke off in the middle of its answer.", may_fall_back=True)
        return out

    def whole(self, body: bytes) -> bytes:
        """A whole answer of /api/chat or /api/generate. Raises UpstreamError when it is no such thing."""
        body = body.strip()
        read = _read(body, self._secrets)
        if not read.done:
            raise _unreadable()
        self._count(body, read)
        return self.rename(body)

    def vectors(self, body: bytes) -> bytes:
        """The same for /api/embed."""
        body = body.strip()
        read = _read(body, self._secrets)
        if read.embeddings is None:
            raise _unreadable()
        self._count(body, read)
        return self.rename(body)

    def _count(self, last: bytes, read: _Line) -> None:
        usage = read_ollama_usage(last)
        if usage is None and bytes(read.done_reason) in _NOTHING_ASKED:
            usage = Usage()
        if usage is not None:
            self._meter.count(usage)


def first_vector(body: bytes) -> bytes:
    """The answer of /api/embeddings, from a checked one of /api/embed."""
    vectors = _decode(body).embeddings or []
    return _encode({"embedding": vectors[0] if vectors else []})


class _Row(msgspec.Struct):
    embedding: list[float]
    index: int = 0


class _Data(msgspec.Struct):
    data: list[_Row]


_decode_data = msgspec.json.Decoder(_Data).decode


def openai_vectors(body: bytes) -> list[Any]:
    """The vectors of an embeddings answer in OpenAI's wire, in the order of the inputs. Raises UpstreamBroken."""
    try:
        rows = _decode_data(body).data
    except (ValueError, RecursionError):
        raise _unreadable() from None
    return [row.embedding for row in sorted(rows, key=lambda row: row.index)]


def _read(line: bytes, secrets: Sequence[str]) -> _Line:
    try:
        read = _decode(line)
    except (ValueError, RecursionError):
        raise _unreadable() from None
    if bytes(read.error) != b"null":
        raise stream_error(read.error, secrets)
    return read


def _unreadable() -> UpstreamBroken:
    return UpstreamBroken("The upstream's answer cannot be read.", may_fall_back=True)
