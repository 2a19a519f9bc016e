"""Lines for `stellwerk shell`: typed with editing, history and completion where the system has them, or piped."""

import contextlib
import os
import signal
import sys
import termios
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TextIO

import typer

from stellwerk.core.errors import GatewayError
from stellwerk.storage.folder import write_private_file

PROMPT = "> "
MOST_CHARACTERS = 8192
"""Of a line; a longer one is read to its end and not obeyed."""
MOST_REMEMBERED = 1000
REDRAW = signal.SIGURG
"""Draws the line at hand again, after somebody else has written on the terminal. Ignored by who does not know it."""

Complete = Callable[[Sequence[str], str], Sequence[str]]
"""From the words before and the beginning of the next one to what it may become. May raise GatewayError."""


class LineTooLong(Exception):
    """Nobody types so much."""


class Lines(Protocol):
    typed: bool
    """By a person at a terminal."""

    def read(self) -> str | None:
        """The next line without its ends; None when there are no more. Raises LineTooLong, KeyboardInterrupt."""

    def remember(self, line: str) -> None:
        """Keeps a line that was obeyed, for the arrow keys and for the next time."""


class History:
    """The lines of earlier times, in a file that only its owner may read."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def load(self) -> list[str]:
        """The newest lines, oldest first; none when the file cannot be read."""
        try:
            lines = self._file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []
        kept = [line for line in lines if line.isprintable()][-MOST_REMEMBERED:]
        if len(lines) > 2 * MOST_REMEMBERED:
            with contextlib.suppress(OSError):
                write_private_file(self._file, "".join(f"{line}\n" for line in kept).encode())
        return kept

    def add(self, line: str) -> None:
        # A disk that is full or read-only is no reason to stop.
        with contextlib.suppress(OSError):
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self._file, flags, 0o600)
            try:
                os.write(descriptor, f"{line}\n".encode(errors="replace"))
            finally:
                os.close(descriptor)


class PipedLines:
    """From a file or another program: no prompt, no history."""

    typed = False

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        if stream is not None:
            _take_any_byte(stream)

    def read(self) -> str | None:
        # There is no stream at all when the program was started with its input closed.
        line = "" if self._stream is None else self._stream.readline(MOST_CHARACTERS)
        if len(line) < MOST_CHARACTERS or line.endswith("\n"):
            return line.strip() if line else None
        while line and not line.endswith("\n"):
            line = self._stream.readline(MOST_CHARACTERS) if self._stream is not None else ""
        raise LineTooLong

    def remember(self, line: str) -> None:
        """Whoever pipes lines has them."""


class TypedLines:
    """From a person at a terminal. Ctrl+C throws the line away, Ctrl+D ends."""

    typed = True

    def __init__(self, history: History, complete: Complete) -> None:
        self._history = history
        self._complete = complete
        self._found: Sequence[str] = ()
        self._last = ""
        self._reading = False
        _take_any_byte(sys.stdin)
        signal.signal(REDRAW, self._redraw)
        try:
            import readline  # noqa: PLC0415  # not every system has it
        except ImportError:
            self._readline = None
            return
        self._readline = readline
        libedit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
        if not libedit:
            # Several lines that are pasted are several commands.
            readline.parse_and_bind("set enable-bracketed-paste off")
        readline.set_completer_delims(" \t")
        readline.set_completer(self._complete_word)
        # Lines may hold keys: what is remembered, the commands decide.
        readline.set_auto_history(False)
        for line in history.load():
            self._add(line)

    def read(self) -> str | None:
        while True:
            try:
                line = self._input()
            except KeyboardInterrupt:
                typer.echo()
            except (EOFError, OSError):
                # An error is a terminal that is gone.
                with contextlib.suppress(OSError):
                    typer.echo()
                return None
            else:
                if len(line) >= MOST_CHARACTERS:
                    raise LineTooLong
                return line

    def _input(self) -> str:
        self._reading = True
        try:
            return input(PROMPT).strip()
        finally:
            self._reading = False

    def _redraw(self, *_: object) -> None:
        if self._reading:
            typed = "" if self._readline is None else self._readline.get_line_buffer()
            # Past the stream, which this may have interrupted.
            os.write(sys.stdout.fileno(), f"\r{PROMPT}{typed}".encode(errors="replace"))

    def remember(self, line: str) -> None:
        if line == self._last:
            return
        self._last = line
        self._add(line)
        self._history.add(line)

    def _add(self, line: str) -> None:
        """Gives a line to the arrow keys."""
        # A line that was typed under another locale may not be writable under this one.
        with contextlib.suppress(UnicodeError):
            if self._readline is not None:
                self._readline.add_history(line)

    def _complete_word(self, beginning: str, number: int) -> str | None:
        """As readline wants it: asked with 0, 1, 2, … until there are no more."""
        if self._readline is None:
            return None
        if number == 0:
            before = self._readline.get_line_buffer()[: self._readline.get_begidx()].split()
            try:
                self._found = self._complete(before, beginning)
            except GatewayError:
                self._found = ()
        return self._found[number] if number < len(self._found) else None


def _take_any_byte(stream: TextIO) -> None:
    """A byte that is no text must not end the shell."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")


def end_on_sigterm(status: int) -> None:
    """From now on SIGTERM ends the program with this status and leaves the terminal as it is now.

    A handler would not do: a signal that comes just before readline waits for a key is seen with the next key.
    """
    before = termios.tcgetattr(sys.stdin)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait() -> None:
        signal.sigwait({signal.SIGTERM})
        with contextlib.suppress(termios.error):
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
        os._exit(status)

    threading.Thread(target=wait, name="sigterm", daemon=True).start()


def open_lines(history: Path, complete: Complete) -> Lines:
    """Typed ones when a person sits there, piped ones otherwise."""
    if sys.stdin is not None and sys.stdin.isatty() and sys.stdout is not None and sys.stdout.isatty():
        return TypedLines(History(history), complete)
    return PipedLines(sys.stdin)
