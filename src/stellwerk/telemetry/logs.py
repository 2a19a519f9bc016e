"""Logs that never hold up the gateway: lines wait in a bounded queue and a thread of their own writes them.

When the reader of the log is slow or gone, lines are dropped and counted, and requests go on.
"""

import io
import logging
import os
import select
import threading
import time
import traceback
from collections import deque
from typing import Literal, TextIO

import msgspec

from stellwerk.core.outcome import Outcome
from stellwerk.core.secrets import Secret
from stellwerk.telemetry.log_format import (
    MAX_LINE,
    HumanFormat,
    JsonFormat,
    LogFormat,
    LogRecord,
    clean,
    clean_name,
    encodable,
    has_failed,
)
from stellwerk.telemetry.redaction import Redactor

MAX_WAITING = 10_000
"""Lines in the queue."""

Level = Literal["debug", "info", "warning", "error"]

_BATCH = 256
_POLL = 0.05
_POLLS_BEFORE_IDLE = 20
_IDLE_CHECK = 5.0
_LAST_FRAMES = 10
_MAX_PIECES = 24
_MAX_PIECE = 2_048
_LEVEL_NAMES = {10: "debug", 20: "info", 30: "warning", 40: "error", 50: "error"}


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    format: Literal["auto", "human", "json"] = "auto"
    """`auto` writes for people on a terminal and JSON anywhere else."""
    level: Level = "info"
    calls: bool = True
    """Whether finished calls make a line: as `info`, and as `warning` when they failed at our side."""


class LogWriter:
    """Owns the queue of lines and the thread that writes them. Made by `start_logs`."""

    def __init__(self, settings: LogSettings, stream: TextIO) -> None:
        self._queue: deque[LogRecord | Outcome] = deque()
        self._redactor = Redactor()
        self._stream = stream
        self._terminal = stream.isatty()
        self._format: LogFormat
        self._calls: Literal["all", "failed", "none"]
        # Three counters, because each has one writer: handlers hold a lock, calls come from the event loop's thread.
        self._dropped_records = 0
        self._dropped_calls = 0
        self._unwritten = 0
        self._reported = 0
        self._wake = threading.Event()
        self._idle = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="stellwerk-logs", daemon=True)
        self._handler = _QueueHandler(self)
        stream.flush()
        self._handler.install()
        self.apply(settings)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines that were lost because the queue was full or the stream could not be written."""
        return self._dropped_records + self._dropped_calls + self._unwritten

    @property
    def waiting(self) -> int:
        """Lines in the queue."""
        return len(self._queue)

    def add_secret(self, secret: Secret) -> None:
        """Masks a secret in every record from now on. Raises ValueError when there are too many or it is too long."""
        self._redactor.add_secret(secret)

    def redact(self, text: str) -> str:
        """The text as the log would show it: without anything that looks like a secret, and not longer than a line."""
        return self._redactor.redact(text, MAX_LINE // 2)

    def apply(self, settings: LogSettings) -> None:
        """Takes over new settings while running."""
        human = settings.format == "human" or (settings.format == "auto" and self._terminal)
        if human:
            colour = self._terminal and not os.environ.get("NO_COLOR")
            self._format = HumanFormat(self._redactor, colour=colour)
        else:
            self._format = JsonFormat(self._redactor)
        if not settings.calls or settings.level == "error":
            self._calls = "none"
        else:
            self._calls = "failed" if settings.level == "warning" else "all"
        self._handler.set_levels(settings.level)

    def log_call(self, outcome: Outcome) -> None:
        """Queues the line of a finished call; only from the event loop's thread. Never blocks, never raises."""
        if self._calls != "all" and (self._calls == "none" or not has_failed(outcome)):
            return
        if len(self._queue) >= MAX_WAITING:
            self._dropped_calls += 1
            return
        self._queue.append(outcome)
        if self._idle:
            self._wake.set()

    def add_record(self, record: LogRecord) -> None:
        """Queues a record; only under the lock of the logging handler."""
        if len(self._queue) >= MAX_WAITING:
            self._dropped_records += 1
            return
        self._queue.append(record)
        if self._idle:
            self._wake.set()

    def stop(self, timeout: float = 2.0) -> None:
        """Takes logging back to what it was and writes what is queued, for at most `timeout` seconds."""
        self._handler.remove()
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout)

    def make_record(self, record: logging.LogRecord) -> LogRecord:
        """What is kept of a record: nothing in it refers to objects of the caller, and no secret is left."""
        fields = record.__dict__.get("fields")
        return LogRecord(
            at=record.created,
            level=_LEVEL_NAMES.get(min(record.levelno // 10 * 10, 50), "debug"),
            logger=clean_name(record.name, self._redactor),
            message=encodable(self._redactor.redact(record.getMessage(), MAX_LINE // 2)),
            fields=clean(fields, self._redactor) if isinstance(fields, dict) else {},
            error=self._traceback(record),
        )

    def _traceback(self, record: logging.LogRecord) -> str | None:
        if not record.exc_info or record.exc_info[0] is None:
            return None
        pieces = traceback.format_exception(*record.exc_info, limit=-_LAST_FRAMES)
        return encodable("".join(self._redactor.redact(piece, _MAX_PIECE) for piece in pieces[-_MAX_PIECES:]))

    def _run(self) -> None:
        quiet = 0
        while True:
            stopping = self._stopping
            if self._write_queued():
                quiet = 0
            elif stopping:
                return
            elif quiet < _POLLS_BEFORE_IDLE:
                # Polling spares the event loop the cost of waking this thread for each line.
                quiet += 1
                if self._wake.wait(_POLL):
                    self._wake.clear()
            else:
                self._wait_for_lines()
                quiet = 0

    def _wait_for_lines(self) -> None:
        self._wake.clear()
        self._idle = True
        # A line or a stop that came before `_idle` was seen has not set the event.
        if not self._queue and not self._stopping:
            self._wake.wait(_IDLE_CHECK)
        self._idle = False
        self._wake.clear()

    def _write_queued(self) -> bool:
        """Writes a batch; False when there was none."""
        lines: list[bytes] = []
        while self._queue and len(lines) < _BATCH:
            lines += self._lines(self._queue.popleft())
        if not lines:
            return False
        if self.dropped > self._reported:
            lines.append(self._dropped_line())
        try:
            _write(self._stream, b"".join(lines))
        except (OSError, ValueError):  # ValueError: the stream was closed
            self._unwritten += len(lines)
        return True

    def _lines(self, item: LogRecord | Outcome) -> list[bytes]:
        try:
            return [self._format.call_line(item) if isinstance(item, Outcome) else self._format.line(item)]
        except Exception:  # noqa: BLE001 - the thread that writes must outlive a record that nobody foresaw
            self._unwritten += 1
            return []

    def _dropped_line(self) -> bytes:
        dropped = self.dropped
        lost = dropped - self._reported
        self._reported = dropped
        message = "log lines were dropped because the log could not be written in time"
        return self._format.line(
            LogRecord(
                at=time.time(), level="warning", logger="stellwerk.telemetry", message=message, fields={"lines": lost}
            )
        )


class _QueueHandler(logging.Handler):
    """Stands at the root of stdlib logging and hands every record to the writer."""

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer
        self._replaced: list[logging.Handler] = []
        self._levels: dict[str, int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._writer.make_record(record)
        except Exception as error:  # noqa: BLE001 - an argument's own __str__ may raise anything; a log line never breaks its caller
            line = LogRecord(
                at=record.created,
                level="warning",
                logger="stellwerk.telemetry",
                message="a record could not be formatted",
                fields={"origin": record.name[:100], "error": type(error).__name__},
            )
        self._writer.add_record(line)

    def install(self) -> None:
        root = logging.getLogger()
        self._replaced = root.handlers[:]
        self._levels = {name: logging.getLogger(name).level for name in ("", "stellwerk", "uvicorn", "uvicorn.access")}
        root.handlers[:] = [self]
        for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
            logging.getLogger(name).handlers.clear()
            logging.getLogger(name).propagate = True
        logging.captureWarnings(capture=True)

    def set_levels(self, level: Level) -> None:
        # Only our own code is asked for details: others' debug lines show what they are given, prompts and keys too.
        ours = getattr(logging, level.upper())
        logging.getLogger().setLevel(max(ours, logging.WARNING))
        logging.getLogger("stellwerk").setLevel(ours)
        # What it says below a warning, the application says itself.
        logging.getLogger("uvicorn").setLevel(max(ours, logging.WARNING))
        # Every call has its own line, and uvicorn's would show the query.
        logging.getLogger("uvicorn.access").setLevel(logging.CRITICAL)

    def remove(self) -> None:
        logging.getLogger().handlers[:] = self._replaced
        logging.captureWarnings(capture=False)
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)


def start_logs(settings: LogSettings, stream: TextIO) -> LogWriter:
    """Sends stdlib logging, uvicorn's loggers included, to `stream` and starts the thread that writes it."""
    return LogWriter(settings, stream)


def _write(stream: TextIO, data: bytes) -> None:
    """Writes past the stream's own buffer, whose lock a blocked write would hold when the interpreter ends."""
    try:
        descriptor = stream.fileno()
    except io.UnsupportedOperation:
        stream.write(data.decode())
        stream.flush()
        return
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            waiter = select.poll()
            waiter.register(descriptor, select.POLLOUT)
            waiter.poll(1_000)
