"""What is read from a page."""

from typing import TypeAlias

import msgspec

from stellwerk.engines.ocr.modes import Mode

Point: TypeAlias = tuple[int, int]


class OcrBox(msgspec.Struct, frozen=True):
    """One piece of a line and where it stands, in pixels of the page."""

    points: tuple[Point, Point, Point, Point]
    """Its corners, clockwise from the upper left as the text is read."""
    text: str
    score: float
    """How sure the engine is, 0 to 1."""


class OcrPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page that was read. Without text everything is empty: a blank page is no error."""

    page: int
    """Counted from 0."""
    text: str
    markdown: str
    boxes: tuple[OcrBox, ...] = ()
    """In reading order; empty unless asked for."""
    width: int
    height: int
    mode: Mode
    seconds: float
    engine: str = "rapidocr"
    degraded: bool = False
    score: float | None = None
    """Mean over all letters; None when there are none."""


class PageImage(msgspec.Struct, frozen=True, kw_only=True):
    """A page as a picture, for a model that sees."""

    data: bytes
    content_type: str
    width: int
    height: int
