"""Reading documents: what is sent, and the pages that come back. Pure but for reading a file."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from stellwerk.client.errors import BadAddress
from stellwerk.client.request import without_nothing

Document: TypeAlias = str | Path | bytes
"""A file's path, an https URL, or the document itself."""
Mode = Literal["tiny", "small", "base", "large", "gundam"]
PATH = "/v1/ocr"
MODEL = "rapidocr"
"""The engine that comes with the gateway."""

_MOST_BYTES = 64 << 20
_KINDS: tuple[tuple[bytes, str], ...] = (
    (b"%PDF-", "application/pdf"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
)


class Dimensions(msgspec.Struct, frozen=True):
    width: int = 0
    height: int = 0
    dpi: int | None = None


class Box(msgspec.Struct, frozen=True):
    """One piece of a line and where it stands, in pixels of the page."""

    points: list[tuple[int, int]]
    """Its corners, clockwise from the upper left."""
    text: str
    score: float | None = None


class Page(msgspec.Struct, frozen=True):
    index: int
    """Counted from 0."""
    markdown: str
    text: str | None = None
    boxes: list[Box] | None = None
    """None unless they were asked for."""
    dimensions: Dimensions | None = None
    degraded: bool = False
    """The model repeated itself or broke off; the text may be incomplete."""

    @property
    def plain(self) -> str:
        """The text without markup; what there is with it when the engine writes nothing else."""
        return self.markdown if self.text is None else self.text


class Reading(msgspec.Struct, frozen=True):
    """A document that was read."""

    pages: list[Page]
    model: str = ""

    @property
    def text(self) -> str:
        return "\n\n".join(page.plain for page in self.pages)

    @property
    def markdown(self) -> str:
        return "\n\n".join(page.markdown for page in self.pages)


def ocr_body(
    document: dict[str, str], model: str | None, mode: str | None, pages: Sequence[int] | None, *, boxes: bool
) -> dict[str, Any]:
    body = {
        "model": model or MODEL,
        "document": document,
        "pages": None if pages is None else list(pages),
        "mode": mode,
        "boxes": boxes or None,
    }
    return without_nothing(body)


def describe(document: Document) -> dict[str, str]:
    """The document as the gateway takes it. Reads a file; raises BadAddress when it cannot be read or is none."""
    if isinstance(document, str) and document.startswith(("https://", "http://")):
        return {"type": "document_url", "document_url": document}
    data = document if isinstance(document, bytes) else read_file(Path(document))
    kind = kind_of(data)
    url = f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
    name = "document_url" if kind == "application/pdf" else "image_url"
    return {"type": name, name: url}


def kind_of(data: bytes) -> str:
    """Media type by the first bytes: names of files lie. Raises BadAddress for what no engine reads."""
    for beginning, kind in _KINDS:
        if data.startswith(beginning):
            return kind
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    raise BadAddress("Documents are JPEG, PNG, WebP, BMP, TIFF or PDF.", code="unsupported_document")


def read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it has no name"
        raise BadAddress(f"{path.name or path} cannot be read: {reason}", code="unreadable_document") from None
    if len(data) > _MOST_BYTES:
        raise BadAddress(f"{path.name} has more than {_MOST_BYTES >> 20} MiB.", code="document_too_large")
    return data
