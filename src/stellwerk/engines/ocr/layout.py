"""In which order the pieces of a page are read: columns, lines, pieces of a line. Pure."""

import math
import statistics
from collections.abc import Sequence

import msgspec

from stellwerk.engines.ocr.page import OcrBox

_LEVEL = math.radians(15)
_LEAST_LINES = 3
"""On each side of a gap that is taken for one between columns."""
_LEAST_SHARE, _WIDEST_GAP = 0.2, 0.3
"""Of the width: what a column has at least, and a gap between columns at most."""
_FILLED = 0.45
"""Part of a column that its lines fill on average. Tables have gaps too, but are read row by row."""
_MOST_ACROSS = 0.3
"""Part of the lines that may run over the gap, such as headlines."""
_MOST_COLUMNS_DEEP = 3
_SAME_LINE = 0.5


class Piece(msgspec.Struct, frozen=True):
    """A box put upright, as if the page were not askew."""

    left: float
    top: float
    right: float
    bottom: float
    box: OcrBox

    @property
    def height(self) -> float:
        return self.bottom - self.top


class Line(msgspec.Struct, frozen=True):
    """Pieces on one line, left to right."""

    pieces: tuple[Piece, ...]

    @property
    def text(self) -> str:
        return " ".join(piece.box.text.strip() for piece in self.pieces)

    @property
    def top(self) -> float:
        return min(piece.top for piece in self.pieces)

    @property
    def bottom(self) -> float:
        return max(piece.bottom for piece in self.pieces)

    @property
    def height(self) -> float:
        """How high its letters stand; pieces count by their letters."""
        letters = sum(len(piece.box.text) for piece in self.pieces)
        return sum(piece.height * len(piece.box.text) for piece in self.pieces) / max(1, letters)


def reading_order(boxes: Sequence[OcrBox]) -> list[list[Line]]:
    """Runs of lines that stand below each other: whole width, left column, right column, whole width, …"""
    if not boxes:
        return []
    return [lines for region in _regions(_upright(boxes), _MOST_COLUMNS_DEEP) if (lines := _lines(region))]


def _upright(boxes: Sequence[OcrBox]) -> list[Piece]:
    angle = _skew(boxes)
    cos, sin = math.cos(-angle), math.sin(-angle)
    return [_turned(box, cos, sin) for box in boxes]


def _skew(boxes: Sequence[OcrBox]) -> float:
    """By how much the lines run askew, in radians: the middle of the wide boxes."""
    angles: list[float] = []
    for box in boxes:
        (x0, y0), (x1, y1), (x2, y2), (x3, y3) = box.points
        along = (x1 + x2 - x0 - x3) / 2, (y1 + y2 - y0 - y3) / 2
        across = math.hypot(x3 - x0, y3 - y0)
        if math.hypot(*along) > 3 * across:
            angles.append(math.atan2(along[1], along[0]))
    level = [angle for angle in angles if abs(angle) < _LEVEL]
    return statistics.median(level) if level else 0.0


def _turned(box: OcrBox, cos: float, sin: float) -> Piece:
    points = [(x * cos - y * sin, x * sin + y * cos) for x, y in box.points]
    # The means of two corners each: a box that is still a little askew does not grow.
    ys = sorted(y for _, y in points)
    xs = sorted(x for x, _ in points)
    return Piece((xs[0] + xs[1]) / 2, (ys[0] + ys[1]) / 2, (xs[2] + xs[3]) / 2, (ys[2] + ys[3]) / 2, box)


def _regions(pieces: list[Piece], deep: int) -> list[list[Piece]]:
    """The pieces in groups, each to be read line by line, in the order in which they are read."""
    gap = _column_gap(pieces) if deep else None
    if gap is None:
        return [pieces]
    regions: list[list[Piece]] = []
    left: list[Piece] = []
    right: list[Piece] = []
    across: list[Piece] = []

    def flush() -> None:
        for side in (left, right):
            if side:
                regions.extend(_regions(list(side), deep - 1))
                side.clear()

    # What runs over both columns ends them: both are read before it.
    for piece in sorted(pieces, key=lambda piece: (piece.top + piece.bottom) / 2):
        if piece.left < gap < piece.right:
            flush()
            across.append(piece)
            continue
        if across:
            regions.append(across)
            across = []
        (left if piece.right <= gap else right).append(piece)
    flush()
    if across:
        regions.append(across)
    return regions


def _column_gap(pieces: list[Piece]) -> float | None:
    """Where one column ends and the next begins; None on a page with one."""
    if len(pieces) < 2 * _LEAST_LINES:
        return None
    start, end = min(piece.left for piece in pieces), max(piece.right for piece in pieces)
    candidates = sorted({piece.left for piece in pieces})
    best: tuple[int, float] | None = None
    for candidate in candidates:
        gap = candidate - 1
        across = sum(piece.left < gap < piece.right for piece in pieces)
        if (best is None or across < best[0]) and _divides(pieces, gap, start, end):
            best = across, gap
    return None if best is None else best[1]


def _divides(pieces: list[Piece], gap: float, start: float, end: float) -> bool:
    width = end - start
    left = [piece for piece in pieces if piece.right <= gap]
    right = [piece for piece in pieces if piece.left >= gap]
    if len(left) < _LEAST_LINES or len(right) < _LEAST_LINES:
        return False
    if len(pieces) - len(left) - len(right) > _MOST_ACROSS * len(pieces):
        return False
    left_end, right_start = max(piece.right for piece in left), min(piece.left for piece in right)
    columns = left_end - start, end - right_start
    if min(columns) < _LEAST_SHARE * width or right_start - left_end > _WIDEST_GAP * width:
        return False
    together = min(max(p.bottom for p in left), max(p.bottom for p in right)) - max(
        min(p.top for p in left), min(p.top for p in right)
    )
    if together < 2 * statistics.median(piece.height for piece in pieces):
        return False
    return all(
        statistics.fmean(piece.right - piece.left for piece in side) >= _FILLED * column
        for side, column in zip((left, right), columns, strict=True)
    )


def _lines(pieces: list[Piece]) -> list[Line]:
    lines: list[list[Piece]] = []
    for piece in sorted(pieces, key=lambda piece: (piece.top + piece.bottom) / 2):
        if lines and _same_line(lines[-1], piece):
            lines[-1].append(piece)
        else:
            lines.append([piece])
    return [Line(tuple(sorted(line, key=lambda piece: piece.left))) for line in lines]


def _same_line(line: list[Piece], piece: Piece) -> bool:
    top = statistics.fmean(other.top for other in line)
    bottom = statistics.fmean(other.bottom for other in line)
    common = min(bottom, piece.bottom) - max(top, piece.top)
    return common > _SAME_LINE * min(bottom - top, piece.height)
