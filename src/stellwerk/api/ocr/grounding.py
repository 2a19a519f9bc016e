"""Places in the text that DeepSeek-OCR writes: `<|ref|>label<|/ref|><|det|>[[x1, y1, x2, y2]]<|/det|>`, then what
stands there. Pure."""

import re

import msgspec

from stellwerk.api.ocr.pages import Box, Figure

_GRID = 999
"""The model counts from 0 to this over the width and over the height of a page."""
_MOST_BOXES = 20_000
_TAG = re.compile(r"<\|ref\|>(?P<label>.{0,500}?)<\|/ref\|>\s*<\|det\|>(?P<places>[\[\]\d,.\s]{0,20000})<\|/det\|>\s?")
_REST = re.compile(r"<\|/?(?:ref|det|grounding)\|>|<\|(?:begin|end)▁of▁sentence\|>|<image>")
_BOX = re.compile(r"\[\s*(\d{1,4})\s*,\s*(\d{1,4})\s*,\s*(\d{1,4})\s*,\s*(\d{1,4})\s*\]")
_LABELS = frozenset(
    {
        "title",
        "sub_title",
        "text",
        "image",
        "image_caption",
        "table",
        "table_caption",
        "table_footnote",
        "equation",
        "figure",
        "figure_caption",
        "figure_title",
        "header",
        "footer",
        "page_number",
        "page_footnote",
        "list",
        "code",
        "reference",
    }
)
"""Kinds of what stands at a place; another label is the text itself."""
_SYMBOLS = (("\\coloneqq", ":="), ("\\eqqcolon", "=:"))


class Grounded(msgspec.Struct, frozen=True):
    """A text without tags, and what they said."""

    text: str
    boxes: tuple[Box, ...] = ()
    figures: tuple[Figure, ...] = ()


def read_grounding(text: str, width: int, height: int) -> Grounded:
    """Boxes refer to a page of this size. Tags that are cut or damaged go without leaving a box."""
    tags = list(_TAG.finditer(text))
    pieces: list[str] = []
    boxes: list[Box] = []
    figures: list[Figure] = []
    kept = 0
    for number, tag in enumerate(tags):
        pieces.append(text[kept : tag.start()])
        kept = tag.end()
        follows = text[kept : tags[number + 1].start() if number + 1 < len(tags) else len(text)]
        label = tag["label"].strip()
        said = _clean(follows).strip() if label in _LABELS else label
        corners = [_scale(found.groups(), width, height) for found in _BOX.finditer(tag["places"])]
        for left, top, right, bottom in corners[: _MOST_BOXES - len(boxes)]:
            points = ((left, top), (right, top), (right, bottom), (left, bottom))
            boxes.append(Box(points=points, text=said, score=None, label=label if label in _LABELS else None))
            if label == "image":
                figure = Figure(id=f"img-{len(figures)}.jpeg", left=left, top=top, right=right, bottom=bottom)
                figures.append(figure)
                pieces.append(f"![{figure.id}]({figure.id})\n")
        if label not in _LABELS:
            # Located text is written as the label and nowhere else.
            pieces.append(f"{label}\n" if not follows.strip() else "")
    pieces.append(text[kept:])
    return Grounded(_clean("".join(pieces)).strip(), tuple(boxes), tuple(figures))


def _scale(corners: tuple[str, ...], width: int, height: int) -> tuple[int, int, int, int]:
    left, top, right, bottom = (min(int(corner), _GRID) for corner in corners)
    return (
        round(left * width / _GRID),
        round(top * height / _GRID),
        round(right * width / _GRID),
        round(bottom * height / _GRID),
    )


def _clean(text: str) -> str:
    for symbol, plain in _SYMBOLS:
        text = text.replace(symbol, plain)
    return _REST.sub("", text)
