"""`stellwerk shell` beside a server in the same terminal, as a process of its own."""

import contextlib
import ctypes
import io
import os
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO, cast

from stellwerk.cli.shell_input import REDRAW

_PR_SET_PDEATHSIG = 1
_END_SECONDS = 2.0
_CLEAR_LINE = b"\r\x1b[K"


class ShellProcess:
    """Reads commands until its input ends; the server goes on without it. Nothing happens before `start`."""

    def __init__(self, data: Path, environ: Mapping[str, str], config: Path | None) -> None:
        self._command = [
            sys.executable,
            "-m",
            "stellwerk.cli.shell_process",
            str(os.getpid()),
            "shell",
            "--beside-server",
            "--data",
            str(data),
        ]
        self._environ = dict(environ) | ({} if config is None else {"STELLWERK_CONFIG": str(config.absolute())})
        self._process: subprocess.Popen[bytes] | None = None
        self._terminal: list[int | list[bytes | int]] | None = None

    def log_stream(self, stream: TextIO) -> TextIO:
        """Where the server logs: on the terminal where commands are typed, above the line at hand."""
        if not (_is_typed_in() and stream.isatty()):
            return stream
        return cast("TextIO", AboveLine(stream, self.redraw))

    def start(self, exited: Callable[[], None]) -> None:
        """`exited` is called, in another thread, when somebody types `exit`."""
        if sys.stdin is None or not _may_read():
            return
        if sys.stdin.isatty():
            self._terminal = termios.tcgetattr(sys.stdin)
        self._process = subprocess.Popen(self._command, env=self._environ)  # noqa: S603  # this program itself
        threading.Thread(target=self._wait, args=(self._process, exited), name="shell", daemon=True).start()

    def redraw(self) -> None:
        """Lets the line at hand appear again."""
        if self._process is not None:
            self._process.send_signal(REDRAW)

    def stop(self) -> None:
        """Ends it, and leaves the terminal as it was."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._terminal is not None:
            # A terminal that is gone needs no order.
            with contextlib.suppress(termios.error, ValueError):
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._terminal)

    @staticmethod
    def _wait(process: "subprocess.Popen[bytes]", exited: Callable[[], None]) -> None:
        if process.wait() == 0:
            exited()


class AboveLine(io.TextIOBase):
    """A terminal on which somebody types: each output takes the place of his line, which is drawn again below."""

    def __init__(self, terminal: TextIO, redraw: Callable[[], None]) -> None:
        self._descriptor = terminal.fileno()
        self._redraw = redraw

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        rest = memoryview(_CLEAR_LINE + text.encode(errors="replace"))
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        self._redraw()
        return len(text)


def _is_typed_in() -> bool:
    streams = (sys.stdin, sys.stdout)
    return all(stream is not None and stream.isatty() for stream in streams)


def _may_read() -> bool:
    """Whether reading the terminal is ours: a background job that tries is stopped, and the server with it."""
    if not sys.stdin.isatty():
        return True
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:
        # Not the one that could stop us.
        return True


def main() -> None:
    """Runs the command line in its arguments, and ends with its parent, whose process id comes first."""
    parent = int(sys.argv.pop(1))
    if sys.platform == "linux":
        # SIGTERM, which leaves the terminal as it was. Elsewhere reading the terminal fails without the parent.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    # The parent may have died before the request was made.
    if os.getppid() == parent:
        from stellwerk.cli.main import main as run  # noqa: PLC0415  # first of all it must not outlive its parent

        run()


if __name__ == "__main__":
    main()
