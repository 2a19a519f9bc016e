"""Documents before anything in them is believed: which of the known kinds the bytes are, and whether they may be."""

import hashlib
from typing import Literal, TypeAlias

import msgspec

from stellwerk.core.errors import BadRequest, TooLarge, UnsupportedMedia

Kind: TypeAlias = Literal["jpeg", "png", "webp", "bmp", "tiff", "pdf"]

_BEGINNINGS: tuple[tuple[bytes, Kind], ...] = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"BM", "bmp"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"II+\x00", "tiff"),
    (b"MM\x00+", "tiff"),
)
_PDF_WITHIN = 1024
"""Readers of PDF look for its mark this far, since many files have something before it."""
_KNOWN = "JPEG, PNG, WebP, BMP, TIFF or PDF"


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A document that can be opened, and how many pages it has. A plain value: nothing has to be closed."""

    id: str
    data: bytes
    kind: Kind
    pages: int


def document_id(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def kind_of(data: bytes, content_type: str | None = None) -> Kind:
    """The kind by the first bytes; what the sender calls it is only repeated in the message.

    Raises UnsupportedMedia, and BadRequest when there is nothing.
    """
    if not data:
        raise BadRequest("The document is empty.", code="invalid_document")
    for beginning, kind in _BEGINNINGS:
        if data.startswith(beginning):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if b"%PDF-" in data[:_PDF_WITHIN]:
        return "pdf"
    said = "".join(letter for letter in (content_type or "")[:60] if letter.isprintable())
    raise UnsupportedMedia(
        f"The document is not a {_KNOWN} file" + (f", though it is called {said}." if said else "."),
        code="unsupported_document",
    )


def check_length(data: bytes, most: int) -> None:
    """Raises TooLarge."""
    if len(data) > most:
        raise TooLarge(
            f"The document has {len(data)} bytes; {most} are allowed (setting ocr.max_bytes).",
            code="document_too_large",
        )


def check_page(document: Document, page: int) -> None:
    """Raises BadRequest."""
    if not 0 <= page < document.pages:
        raise BadRequest(f"The document has {document.pages} pages; there is no page {page + 1}.", param="page")
