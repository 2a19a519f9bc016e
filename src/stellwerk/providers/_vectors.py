"""Shorter embeddings, where the engine passes over the wish for them: cut, and of length one again."""

import math
from collections.abc import Callable, Mapping

import msgspec

from stellwerk.core.errors import BadRequest, UpstreamBroken, UpstreamError
from stellwerk.core.ports import UpstreamAnswer


class _Row(msgspec.Struct, omit_defaults=True):
    embedding: list[float]
    index: int | None = None
    object: str | None = None


class _Data(msgspec.Struct):
    data: list[_Row]


_decode = msgspec.json.Decoder(_Data).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_MOST_DIGITS = 7
_FLOAT = msgspec.Raw(b'"float"')


def wanted_dimensions(fields: Mapping[str, msgspec.Raw]) -> int | None:
    """Raises BadRequest when the field is no positive number."""
    raw = bytes(fields.get("dimensions", b"null"))
    if raw == b"null":
        return None
    if not raw.isdigit() or len(raw) > _MOST_DIGITS or int(raw) < 1:
        raise BadRequest("'dimensions' must be a whole number above zero.", param="dimensions")
    return int(raw)


def without_dimensions(fields: Mapping[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    """The request for whole vectors, as numbers."""
    return {name: value for name, value in fields.items() if name != "dimensions"} | {"encoding_format": _FLOAT}


def shorten(body: bytes, dimensions: int) -> bytes:
    """An embeddings answer in OpenAI's wire with the first `dimensions` numbers of each vector.

    Raises BadRequest when its vectors have fewer, UpstreamBroken when it cannot be read.
    """
    try:
        fields, rows = _decode_fields(body), _decode(body).data
    except (ValueError, RecursionError):
        raise UpstreamBroken("The upstream's answer cannot be read.", may_fall_back=True) from None
    for row in rows:
        if len(row.embedding) < dimensions:
            raise BadRequest(
                f"The vectors of this model have {len(row.embedding)} dimensions; ask for so many or fewer.",
                param="dimensions",
            )
        if len(row.embedding) > dimensions:
            cut = row.embedding[:dimensions]
            length = math.hypot(*cut)
            row.embedding = [number / length for number in cut] if length else cut
    fields["data"] = msgspec.Raw(_encode(rows))
    return _encode(fields)


class ReadAnswer:
    """An answer whose body has been read and changed; fills the port `UpstreamAnswer`."""

    def __init__(self, answer: UpstreamAnswer, body: bytes) -> None:
        self.status = answer.status
        self.event_bytes = answer.event_bytes
        self.secrets = answer.secrets
        self.key = answer.key
        self.header = answer.header
        self._rest = body

    async def read(self) -> bytes:
        return await self.next()

    async def next(self) -> bytes:
        rest, self._rest = self._rest, b""
        return rest

    async def pour(self, sink: Callable[[bytes], None]) -> None:
        if self._rest:
            sink(await self.next())

    def fail(self, error: UpstreamError) -> None:
        """Nothing is on the way any more."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def abort(self) -> None: ...


async def read_shortened(answer: UpstreamAnswer, dimensions: int) -> UpstreamAnswer:
    """Raises as `UpstreamAnswer.read` and `shorten` do."""
    return ReadAnswer(answer, shorten(await answer.read(), dimensions))
