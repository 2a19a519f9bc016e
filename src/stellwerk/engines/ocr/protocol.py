"""What gateway and worker say to each other: frames of a JSON head and raw bytes. Nothing is ever unpickled.

A frame is the length of the head and the length of the body, four bytes each, most significant first, then both.
"""

import struct
from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec

from stellwerk.engines.ocr.documents import Kind
from stellwerk.engines.ocr.modes import Mode
from stellwerk.engines.ocr.page import OcrPage

PREFIX = struct.Struct(">II")
MOST_HEAD = 32 << 20
MOST_BODY = 1 << 30


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """The first frame that a worker receives."""

    parent: int
    max_pages: int
    max_pixels: int
    dpi: int
    threads: int
    memory_mib: int
    """Address space that it may take; 0 is unlimited."""


class Warm(msgspec.Struct, frozen=True, kw_only=True, tag="warm"):
    """Load everything that reading needs."""


class _OfDocument(msgspec.Struct, frozen=True, kw_only=True):
    kind: Kind
    """The body is the document; an empty one means the document of the question before."""


class Open(_OfDocument, frozen=True, kw_only=True, tag="open"):
    pass


class Read(_OfDocument, frozen=True, kw_only=True, tag="read"):
    page: int
    mode: Mode
    boxes: bool


class Draw(_OfDocument, frozen=True, kw_only=True, tag="draw"):
    page: int
    longest: int | None


Question: TypeAlias = Warm | Open | Read | Draw


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    pass


class Opened(msgspec.Struct, frozen=True, kw_only=True, tag="opened"):
    pages: int


class Drawn(msgspec.Struct, frozen=True, kw_only=True, tag="drawn"):
    """The picture is the body."""

    content_type: str
    width: int
    height: int


class WasRead(msgspec.Struct, frozen=True, kw_only=True, tag="read"):
    page: OcrPage


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """The document is at fault, or asks for too much."""

    reason: Literal["invalid", "too_large"]
    message: str


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The worker is at fault, and lives on."""

    reason: str


Answer: TypeAlias = Ready | Opened | Drawn | WasRead | Refused | Failed

_encode = msgspec.json.Encoder().encode
decode_orders = msgspec.json.Decoder(Orders).decode
decode_question: Callable[[bytes], Question] = msgspec.json.Decoder(Question).decode
decode_answer: Callable[[bytes], Answer] = msgspec.json.Decoder(Answer).decode


def frame(message: Orders | Question | Answer) -> bytes:
    """The beginning of a frame without a body."""
    return frame_head(message, 0)


def frame_head(message: Orders | Question | Answer, body: int) -> bytes:
    """What goes before a body of so many bytes."""
    head = _encode(message)
    return PREFIX.pack(len(head), body) + head


def lengths(prefix: bytes) -> tuple[int, int]:
    """Of head and body. Raises ValueError when no honest sender would say so."""
    head, body = PREFIX.unpack(prefix)
    if head > MOST_HEAD or body > MOST_BODY:
        raise ValueError("a frame is too long")
    return head, body
