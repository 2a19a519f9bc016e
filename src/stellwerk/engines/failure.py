"""Why an engine does not run, in words that may be shown to a client."""

import re
import signal
from collections.abc import Iterable, Sequence

_MAX_REASON = 240
_MARK = "error loading model: "
_LOG_PREFIX = re.compile(r"[\d.]+ [A-Z] [\w:~() ]{1,60}?: ")
_PATH = re.compile(r"'/[^']*'|\"/[^\"]*\"|(?<![\w/])/[\w.+-]+/\S*")
_TELLING = re.compile(r"error|fail|couldn't|cannot|unable|abort|assert|out of memory|terminate called", re.IGNORECASE)


class EngineFailed(Exception):
    """An engine could not be started or did not stay up."""

    def __init__(self, reason: str, *, port_taken: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        """One line without paths and secrets."""
        self.port_taken = port_taken
        """The model is not to blame: its port belongs to another program."""


def exit_reason(status: int, output: Sequence[str], hidden: Iterable[str] = ()) -> str:
    """One line from an exit status (negative: the signal) and the last lines that the engine printed.

    `hidden` are texts, such as the path of the model, that must not be shown.
    """
    said = _telling_line(output)
    if status >= 0:
        return clean(said, hidden) if said else f"it ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return clean(f"it was ended by {name}" + (f": {said}" if said else ""), hidden)


def _telling_line(output: Sequence[str]) -> str:
    """llama.cpp names the cause first and repeats the consequence on every level above."""
    telling = [line for line in output if _TELLING.search(line)]
    best = next((line for line in telling if _MARK in line), telling[0] if telling else "")
    prefix = _LOG_PREFIX.match(best)
    return best[prefix.end() :].removeprefix(_MARK) if prefix else best.partition(_MARK)[2] or best


def clean(text: str, hidden: Iterable[str] = ()) -> str:
    """`text` as one printable line of bounded length, without `hidden` and without anything that looks like a path."""
    for secret in hidden:
        text = text.replace(secret, "the file")
    text = _PATH.sub("the file", text)
    text = "".join(letter if letter.isprintable() else " " for letter in text[:4096])
    return " ".join(text.split())[:_MAX_REASON]
