"""How finely a page is looked at: the size in which it is read, and where text is looked for on it. Pure."""

from typing import Literal, TypeAlias, get_args

import msgspec

Mode: TypeAlias = Literal["tiny", "small", "base", "large", "gundam"]
Size: TypeAlias = tuple[int, int]
"""Width and height in pixels."""

MODES: tuple[Mode, ...] = get_args(Mode)
LONG_SIDES: dict[str, int] = {"tiny": 512, "small": 640, "base": 1024, "large": 1280}
"""Pixels of the longer side to which a page is reduced. Gundam reduces nothing: it reads the page as it is."""

_FINEST = 3584
"""Longer side up to which gundam looks for text: A4 at 300 dpi. Finer print than that holds cannot be read."""
_OVERVIEW = 1280
_ONE_LOOK = 1600
"""A page no larger than this is looked at in one piece."""
_BAND = 1024
_LEAST_OVERLAP, _MOST_OVERLAP = 96, 256
_AGAIN = 736
_COARSE = 1024
"""Below this, small letters are found better on an enlarged page; what is read stays as small as the mode says."""
_ENLARGED = 1.5


class Band(msgspec.Struct, frozen=True):
    """Rows of the page on which text is looked for; `bottom` is the first row that is no part of it."""

    top: int
    bottom: int


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What is done with a page of a certain size."""

    page: Size
    """Lines are cut out of the page in this size and read."""
    search: Size
    """Lines are looked for on the page in this size,"""
    bands: tuple[Band, ...]
    """in these pieces: bands over the whole width, since tiles would cut every line,"""
    overview: Size | None
    """and on the whole page in this size, for what is larger than a band's overlap; None when one piece is enough."""
    again: Size
    """When nothing was found, it is looked for once more in this size: a lone line on a large blank page is overlooked
    from near."""


def look(mode: Mode, size: Size) -> Look:
    """How a page of `size` is read."""
    again = fit(size, _AGAIN)
    page = size if mode == "gundam" else fit(size, LONG_SIDES[mode])
    search = fit(page, _FINEST)
    if max(search) > _ONE_LOOK:
        return Look(page=page, search=search, bands=_bands(search), overview=fit(size, _OVERVIEW), again=again)
    search = _scaled(search, max(1.0, min(_ENLARGED, _COARSE / max(search))))
    return Look(page=page, search=search, bands=(Band(0, search[1]),), overview=None, again=again)


def fit(size: Size, longest: int) -> Size:
    """`size` reduced so that its longer side is at most `longest`; never enlarged, never without pixels."""
    return _scaled(size, min(1.0, longest / max(size)))


def _scaled(size: Size, scale: float) -> Size:
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _bands(size: Size) -> tuple[Band, ...]:
    """Bands of equal height. They overlap by more than a line that runs a little askew over the whole width is high,
    so that each line is whole in one of them."""
    width, height = size
    if height <= _BAND:
        return (Band(0, height),)
    overlap = max(_LEAST_OVERLAP, min(_MOST_OVERLAP, width // 12))
    count = -(-(height - overlap) // (_BAND - overlap))
    step = (height - overlap) / count
    return tuple(
        Band(round(number * step), min(height, round((number + 1) * step + overlap))) for number in range(count)
    )
