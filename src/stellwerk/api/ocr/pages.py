"""A page as it was read, whoever has read it."""

from typing import Any

import msgspec

from stellwerk.engines.ocr.modes import Mode
from stellwerk.engines.ocr.page import OcrPage, Point


class Box(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where something stands, in pixels of the page."""

    points: tuple[Point, Point, Point, Point]
    """Its corners, clockwise from the upper left."""
    text: str
    score: float | None = None
    """How sure the engine is, 0 to 1; models do not say it."""
    label: str | None = None
    """What it is, where a model says it: title, table, image and so on."""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A picture on the page, in pixels."""

    id: str
    left: int
    top: int
    right: int
    bottom: int


class ReadPage(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    """Counted from 0."""
    text: str
    markdown: str
    width: int
    height: int
    mode: Mode
    seconds: float
    boxes: tuple[Box, ...] | None = None
    """None unless they were asked for."""
    figures: tuple[Figure, ...] = ()
    degraded: bool = False
    """The model repeated itself or broke off; the text may be incomplete."""
    score: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """Pages of one document in the order in which they were asked for."""

    pages: tuple[ReadPage, ...]
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """What the client is told of its limits, and who has read."""


def of_engine(page: OcrPage, *, boxes: bool) -> ReadPage:
    found = tuple(Box(points=box.points, text=box.text, score=box.score) for box in page.boxes)
    return ReadPage(
        index=page.page,
        text=page.text,
        markdown=page.markdown,
        width=page.width,
        height=page.height,
        mode=page.mode,
        seconds=page.seconds,
        boxes=found if boxes else None,
        degraded=page.degraded,
        score=page.score,
    )


def show_page(page: ReadPage, dpi: int) -> dict[str, Any]:
    """As Mistral's API shows a page, with what that does not have."""
    shown: dict[str, Any] = {
        "index": page.index,
        "markdown": page.markdown,
        "images": [
            {
                "id": figure.id,
                "top_left_x": figure.left,
                "top_left_y": figure.top,
                "bottom_right_x": figure.right,
                "bottom_right_y": figure.bottom,
                # Nothing that comes from a document is decoded in this process, so nothing is cut out of it either.
                "image_base64": None,
            }
            for figure in page.figures
        ],
        "dimensions": {"dpi": dpi, "height": page.height, "width": page.width},
        "text": page.text,
        "mode": page.mode,
        "degraded": page.degraded,
        "score": page.score,
        "seconds": round(page.seconds, 3),
    }
    if page.boxes is not None:
        shown["boxes"] = msgspec.to_builtins(page.boxes)
    return shown
