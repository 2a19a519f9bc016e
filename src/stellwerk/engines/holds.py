"""Models that could not be loaded, and until when they are not tried again."""

import msgspec

from stellwerk.engines.model_files import ModelFile

_FIRST, _LONGEST = 1.0, 60.0


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    file: ModelFile
    reason: str
    count: int
    """Failures in a row."""
    until: float


class Holds:
    """A failed load is not repeated for 1, 2, 4 … 60 seconds, a crash loop not for `after_crashes` seconds."""

    def __init__(self, after_crashes: float) -> None:
        self._after_crashes = after_crashes
        self._holds: dict[str, Hold] = {}

    def note(self, file: ModelFile, reason: str, now: float, *, had_served: bool) -> None:
        """`had_served`: the engine was up before it failed. `now` is monotonic seconds."""
        earlier = self._holds.get(file.id)
        count = earlier.count + 1 if earlier is not None and earlier.file.stamp == file.stamp else 1
        wait = self._after_crashes if had_served else min(_LONGEST, _FIRST * 2.0 ** min(count - 1, 16))
        self._holds[file.id] = Hold(file=file, reason=reason, count=count, until=now + wait)

    def on(self, file: ModelFile, now: float) -> Hold | None:
        """The hold that is on `file`; none when the file has changed since."""
        hold = self._holds.get(file.id)
        return hold if hold is not None and hold.file.stamp == file.stamp and now < hold.until else None

    def lift(self, file: ModelFile) -> None:
        self._holds.pop(file.id, None)

    def forget(self, known: frozenset[str]) -> None:
        """Drops what is on models that no longer exist."""
        self._holds = {model: hold for model, hold in self._holds.items() if model in known}
