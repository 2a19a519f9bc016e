"""A program on a terminal of its own, typed at and read by tests."""

import errno
import fcntl
import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyte

from tests.gateway_process import COMMAND, DEADLINE, end

PROMPT = "\n> "
LINES, COLUMNS = 24, 80


class TerminalProcess:
    """`stellwerk …` whose input, output and errors are one terminal; everything that it prints is kept in `shown`."""

    def __init__(self, master: int, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.shown = ""
        self._master = master
        self._seen = 0
        self._screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.ByteStream(self._screen)

    @property
    def screen(self) -> str:
        """What somebody who sits in front of it sees now."""
        return "\n".join(self._screen.display)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_for(self, text: str) -> str:
        """Reads until `text` is shown behind everything that was waited for before, and returns what is between."""
        end_at = time.monotonic() + DEADLINE
        while (place := self.shown.find(text, self._seen)) < 0:
            assert self._read(end_at), f"{text!r} is not in {self.shown[self._seen :]!r}"
        before, self._seen = self.shown[self._seen : place], place + len(text)
        return before

    def wait_to_see(self, text: str, *, gone: bool = False) -> None:
        """Reads until `text` stands on the screen, or no longer does; which of its cells are printed anew is open."""
        end_at = time.monotonic() + DEADLINE
        while (text in self.screen) is gone:
            assert self._read(end_at), f"waiting for {text!r}, {gone = }, on the screen:\n{self.screen}"

    def obey(self, line: str) -> str:
        """Types a line at the prompt that was waited for, and returns what is shown up to the next one."""
        self.type(f"{line}\r")
        return self.wait_for(PROMPT)

    def wait_for_end(self) -> int:
        """Reads until the program has ended and returns its exit code."""
        end_at = time.monotonic() + DEADLINE
        while self.process.poll() is None:
            assert time.monotonic() < end_at, self.shown
            self._read(time.monotonic() + 0.05)
        while self._read(time.monotonic()):
            pass
        return self.process.returncode

    def is_echoing(self) -> bool:
        """As a terminal does when nobody edits a line on it."""
        flags = termios.tcgetattr(self._master)[3]
        return bool(flags & termios.ECHO and flags & termios.ICANON)

    def _read(self, until: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            # The last who had the terminal open is gone.
            return False
        self.shown += data.decode(errors="replace")
        self._stream.feed(data)
        return bool(data)


@contextmanager
def on_a_terminal(*arguments: str, environment: Mapping[str, str], folder: Path) -> Iterator[TerminalProcess]:
    """Runs `stellwerk` with these arguments; it is killed at the end unless it has ended."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (LINES, COLUMNS))
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        env={"TERM": "dumb", **environment},
        cwd=folder,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        # The terminal of a session: Ctrl+C reaches everybody in it.
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
    )
    os.close(slave)
    try:
        yield TerminalProcess(master, process)
    finally:
        end(process)
        os.close(master)
