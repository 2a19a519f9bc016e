"""What a client hears in its stream while its call waits: comments, which every client of server-sent events skips."""

PATIENCE_SECONDS = 10.0
"""How long a call waits before its stream is opened: a status can still be told before, and proxies wait for longer."""
_AGAIN_SECONDS = 4.0
"""An unchanged place is said again after so long; those who tell it let a little more pass, so that it always is."""


class Waiting:
    """Decides what is said of one call; `since` is the monotonic time at which it began to wait."""

    __slots__ = ("_number", "_patience", "_said", "_since")

    def __init__(self, since: float, patience: float) -> None:
        self._since = since
        self._patience = patience
        self._number = 0
        self._said = since

    def comment(self, number: int, now: float) -> bytes | None:
        """The comment for a place; None while it is too early, or when nothing is new."""
        if now - self._since < self._patience or (number == self._number and now - self._said < _AGAIN_SECONDS):
            return None
        self._number = number
        self._said = now
        return b": waiting, place %d\n\n" % number
