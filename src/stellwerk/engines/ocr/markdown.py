"""Lines in reading order as text and as Markdown: paragraphs by their distance, headings by their size. Pure."""

import re
import statistics
from collections.abc import Sequence
from itertools import pairwise

from stellwerk.engines.ocr.layout import Line

_FAR = 1.45
"""Times the usual distance of two lines from which a new paragraph begins."""
_LARGE, _LARGEST = 1.3, 1.8
"""Times the usual height of letters for a heading, and for one of the first level."""
_LONGEST_HEADING = 120
_OTHER_SIZE = 1.25
_ITEM = re.compile(r"[•●▪·◦‣]\s*(?=\S)|[*–—-](?:\s*(?=[^\s\d*–—-])|\s+(?=\d))")
"""A dash right before a number is its sign, several are a rule."""
_SPECIAL = re.compile(r"(?=#{1,6}(?:\s|$)|[+*-](?:\s|$)|[>|]|={3}|:?-{3}|[=-]+\s*$|:-|(?:_\s*){3,}$)")
"""What begins a heading, an item, a quotation, a table or a rule; not a telephone number or the sign of one."""
_INLINE = re.compile(
    r"\\(?=[!-/:-@\[-`{-~])|<(?=[A-Za-z/!?])|\](?=[(\[:])|`|\*(?=\S)|(?<=\S)\*|~(?=~)|(?<!\w)_++(?=[^\s_])"
)
"""What begins tags, links, pictures, code and emphasis anywhere in a line; prices, blanks of forms and names with
underscores stay as they are."""


def as_text(runs: Sequence[Sequence[Line]]) -> str:
    """One line each, an empty one between paragraphs."""
    return "\n\n".join("\n".join(line.text for line in block) for block in _paragraphs(runs))


def as_markdown(runs: Sequence[Sequence[Line]]) -> str:
    """Lines stay as they are on the page. Nothing on the page can become markup by itself."""
    usual = _usual_height(runs)
    return "\n\n".join(_block(block, usual) for block in _paragraphs(runs))


def _usual_height(runs: Sequence[Sequence[Line]]) -> float:
    """The height in which most letters are set."""
    lines = sorted(((line.height, len(line.text)) for run in runs for line in run), key=lambda line: line[0])
    half, seen = sum(letters for _, letters in lines) / 2, 0
    for height, letters in lines:
        seen += letters
        if seen >= half:
            return height
    return 0.0


def _paragraphs(runs: Sequence[Sequence[Line]]) -> list[list[Line]]:
    paragraphs: list[list[Line]] = []
    for run in runs:
        steps = [below.bottom - above.bottom for above, below in pairwise(run)]
        usual = statistics.median_low(steps) if steps else 0.0
        paragraphs.append([run[0]])
        for (above, below), step in zip(pairwise(run), steps, strict=True):
            sizes = sorted((above.height, below.height))
            if step > _FAR * usual or sizes[1] > _OTHER_SIZE * sizes[0]:
                paragraphs.append([below])
            else:
                paragraphs[-1].append(below)
    return paragraphs


def _block(lines: list[Line], usual: float) -> str:
    height = statistics.fmean(line.height for line in lines)
    text = " ".join(_escape(line.text) for line in lines)
    if height >= _LARGE * usual and len(text) <= _LONGEST_HEADING:
        return ("# " if height >= _LARGEST * usual else "## ") + text
    return "\n".join(_line(line.text) for line in lines)


def _line(text: str) -> str:
    item = _ITEM.match(text)
    if item:
        return "- " + _escape_line(text[item.end() :])
    return _escape_line(text)


def _escape_line(text: str) -> str:
    return ("\\" if _SPECIAL.match(text) else "") + _escape(text)


def _escape(text: str) -> str:
    return _INLINE.sub(lambda found: "".join("\\" + sign for sign in found[0]), text)
