"""Which model a documented name means here."""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

CHAT_MODEL, OCR_MODEL = "gemma", "deepseek"
"""The short names of what answers who names no model."""
DOCUMENTED: Final = {CHAT_MODEL: "google/gemma-3-4b-it", OCR_MODEL: "deepseek-ai/DeepSeek-OCR"}
READER = "rapidocr"
"""The reader of pages that runs here, as its queue and the administration call it."""


class ShortName(msgspec.Struct, frozen=True, kw_only=True):
    """A short name, the model that it stands for, and what is known of where that runs."""

    short: str
    name: str
    documented: str | None = None
    """What the documents call the model, which clients go on sending whatever it stands for here."""
    port: int | None = None

    @property
    def spellings(self) -> tuple[str, ...]:
        """What clients write, and under what a model may be found: the likeliest first."""
        full = (self.name,) if self.documented is None else (self.name, self.documented)
        return (*(spelling for name in full for spelling in (name, name.rpartition("/")[2])), self.short)


class Meant(msgspec.Struct, frozen=True, kw_only=True):
    """What a name leads to; `model` is None when that is not there."""

    shown: str
    """As refusals call it."""
    model: str | None


class ModelNames:
    def __init__(
        self,
        shorts: Mapping[str, ShortName],
        is_known: Callable[[str], bool],
        reader: Callable[[], str | None],
    ) -> None:
        """`is_known` asks the catalogue; `reader` is who reads pages by default, None when nobody can."""
        self.shorts = shorts
        self._is_known = is_known
        self._reader = reader

    def chat(self, name: str | None) -> Meant:
        """A model that the catalogue knows, else what a short name stands for."""
        return self._find(name or CHAT_MODEL, None)

    def ocr(self, name: str | None) -> Meant:
        """The same; the default reader answers for the documented model when that is not there."""
        asked = name or OCR_MODEL
        if asked == READER:
            return Meant(shown=asked, model=self._reader_if(asked))
        return self._find(asked, self._reader)

    def any(self, name: str) -> Meant:
        """Whatever an administrator may mean."""
        return self.ocr(name) if self.reads(name) else self.chat(name)

    def reads(self, name: str) -> bool:
        """Whether pages are what a name is about."""
        short = self._short_of(name)
        return name == READER or (short is not None and short.short == OCR_MODEL)

    def _find(self, asked: str, reader: Callable[[], str | None] | None) -> Meant:
        short = self._short_of(asked)
        if short is None or self._is_known(asked):
            return Meant(shown=asked, model=asked if self._is_known(asked) else None)
        found = next((name for name in short.spellings if self._is_known(name)), None)
        if found is None and reader is not None and short.short == OCR_MODEL:
            found = reader()
        return Meant(shown=short.short, model=found)

    def _short_of(self, asked: str) -> ShortName | None:
        return next((each for each in self.shorts.values() if asked in each.spellings), None)

    def _reader_if(self, name: str) -> str | None:
        reader = self._reader()
        return reader if reader == name else None
