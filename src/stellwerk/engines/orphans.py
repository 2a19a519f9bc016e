"""Engines that a killed gateway left behind: written down while they run, ended at the next start.

On Linux the kernel ends an engine with its gateway. This covers what the kernel does not: other systems, and programs
that start further processes.
"""

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from stellwerk.engines.process_table import (
    ProcessEntry,
    boot_id,
    find_process,
    marked_processes,
    members,
    read_table,
)

log = logging.getLogger("stellwerk.engines")

_MOST_FILES = 256
_MOST_BYTES = 4096
_LOOK_PAUSE = 0.02
_KILL_WAIT = 2.0


class EngineRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A running engine, as `<port>.json` tells of it."""

    pid: int
    started: str
    boot: str
    mark: str


_decode = msgspec.json.Decoder(EngineRecord).decode


class PidFiles:
    """The folder in which the running engines of this gateway are written down. Errors are logged, never raised."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._boot = boot_id()

    def write(self, port: int, pid: int, mark: str) -> None:
        entry = find_process(pid)
        if entry is None:
            return
        record = EngineRecord(pid=pid, started=entry.started, boot=self._boot, mark=mark)
        path = self._path(port)
        fresh = path.with_suffix(".new")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Need not survive a power cut, which ends the engines too.
            fresh.write_bytes(msgspec.json.encode(record))
            fresh.replace(path)
        except OSError as error:
            log.warning("the engine on port %d cannot be written down: %s", port, error.strerror)

    def remove(self, port: int) -> None:
        with contextlib.suppress(OSError):
            self._path(port).unlink(missing_ok=True)

    def _path(self, port: int) -> Path:
        return self._folder / f"{port}.json"


def reap_orphans(folder: Path, grace: float = 3.0) -> tuple[int, ...]:
    """Ends what earlier gateways left running, by force after `grace` seconds, and returns the process ids.

    To be called by the owner of the data folder before it starts engines. Blocks for at most `grace` + 2 seconds.
    """
    files = sorted(folder.glob("*.json"))[:_MOST_FILES] if folder.is_dir() else []
    boot = boot_id()
    records = [record for record in map(_read, files) if record is not None and record.boot == boot]

    def remaining() -> set[int]:
        return _survivors(records) if records else set()

    orphans = remaining()
    if orphans:
        log.warning("engines of an earlier gateway still run and are ended: processes %s", sorted(orphans))
        _signal(orphans, signal.SIGTERM)
        if not _wait(remaining, grace):
            _signal(remaining(), signal.SIGKILL)
            if not _wait(remaining, _KILL_WAIT):
                log.error("processes %s of an earlier gateway cannot be ended", sorted(remaining()))
                return tuple(sorted(orphans - remaining()))
    for file in files:
        with contextlib.suppress(OSError):
            file.unlink()
    return tuple(sorted(orphans))


def end_marked(mark: str) -> None:
    """Kills what an engine started and left behind. Reads the whole process table: not for the event loop."""
    _signal(marked_processes(mark), signal.SIGKILL)


def _read(file: Path) -> EngineRecord | None:
    try:
        with file.open("rb") as opened:
            return _decode(opened.read(_MOST_BYTES))
    except (OSError, msgspec.DecodeError):
        return None


def _survivors(records: Iterable[EngineRecord]) -> set[int]:
    """Only what is certainly ours: a number alone may belong to another program by now."""
    table = read_table()
    found: set[int] = set()
    for record in records:
        if any(_is_same(record, entry) for entry in table):
            found.update(entry.pid for entry in members(record.pid, table))
        found.update(marked_processes(record.mark))
    return found - {os.getpid()}


def _is_same(record: EngineRecord, entry: ProcessEntry) -> bool:
    return entry.pid == record.pid and entry.started == record.started


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _wait(remaining: Callable[[], set[int]], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while remaining():
        if time.monotonic() >= end:
            return False
        time.sleep(_LOOK_PAUSE)
    return True
