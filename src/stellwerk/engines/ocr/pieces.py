"""Boxes that were found in overlapping pieces of one page, each kept once. Works on arrays of left, top, right, bottom.
Pure."""

from typing import Any

import numpy as np

from stellwerk.engines.ocr.modes import Band

_EDGE = 3
"""Pixels from the edge of a band within which a box is taken for cut."""
_HELD = 0.5
"""Part of a box that others hold already, from which it is the same text again."""


def cut_off(bounds: Any, band: Band, *, first: bool, last: bool) -> Any:
    """Which boxes touch an edge of their band that is not one of the page. `bounds` count from the band's own top."""
    at_top = np.zeros(len(bounds), bool) if first else bounds[:, 1] <= _EDGE
    at_bottom = np.zeros(len(bounds), bool) if last else bounds[:, 3] >= band.bottom - band.top - _EDGE
    return at_top | at_bottom


def once(bounds: Any) -> Any:
    """Which boxes to keep so that no text is there twice: of two that lie on each other the larger."""
    keep = np.zeros(len(bounds), bool)
    area = _areas(bounds)
    for number in np.argsort(-area, kind="stable"):
        held = _common(bounds[number], bounds[keep])
        keep[number] = not bool((held >= _HELD * max(1.0, float(area[number]))).any())
    return keep


def unseen(rough: Any, fine: Any) -> Any:
    """Which boxes of `rough` hold text that `fine` has not, be it in pieces."""
    area = np.maximum(1.0, _areas(rough))
    return np.array(
        [_common(box, fine).sum() < _HELD * size for box, size in zip(rough, area, strict=True)], dtype=bool
    )


def _areas(bounds: Any) -> Any:
    return (bounds[:, 2] - bounds[:, 0]) * (bounds[:, 3] - bounds[:, 1])


def _common(box: Any, others: Any) -> Any:
    width = np.minimum(box[2], others[:, 2]) - np.maximum(box[0], others[:, 0])
    height = np.minimum(box[3], others[:, 3]) - np.maximum(box[1], others[:, 1])
    return np.clip(width, 0, None) * np.clip(height, 0, None)
