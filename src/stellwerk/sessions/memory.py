"""The memory block: a text that stands in front of prompts, in a file that people and the API may change."""

import logging
import threading
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from stellwerk.core.clock import Clock
from stellwerk.core.errors import BadRequest
from stellwerk.storage.failures import storage_unavailable
from stellwerk.storage.folder import write_private_file

MOST_CONTENT = 64 * 1024
"""Bytes of UTF-8."""
MOST_VERSIONS = 20

_FILE_NAME = "memory.json"
_VERSIONS = "memory.versions"
_MOST_FILE = 8 * MOST_CONTENT
"""JSON may write a byte of the content as six."""
_LOOK_SECONDS = 1.0
_log = logging.getLogger(__name__)

_Fingerprint = tuple[int, int, int]


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    content: str = ""
    cache: bool = False
    """Whether vendors are asked to keep it in their prompt cache."""


_decode = msgspec.json.Decoder(Memory).decode


class MemoryBlock:
    """`<folder>/memory.json` and, in `memory.versions`, what it was before."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._path = folder / _FILE_NAME
        self._versions = folder / _VERSIONS
        self._clock = clock
        self._writing = threading.Lock()
        self._memory = Memory()
        self._taken: _Fingerprint | None = None
        self._next_look = float("-inf")

    def current(self) -> Memory:
        """What is in force. Looks for a changed file at most once a second; a wrong one is logged and has no effect."""
        now = self._clock.monotonic()
        if now >= self._next_look:
            self._next_look = now + _LOOK_SECONDS
            self._look()
        return self._memory

    def replace(self, content: str, cache: bool) -> Memory:
        """Puts a new block in force and on the disk, for which it waits: call it in a thread.

        Raises BadRequest, param `content`, when it is too large, and Unavailable, code `storage_unavailable`.
        """
        memory = _check(Memory(content=content, cache=cache))
        try:
            with self._writing:
                self._keep_version()
                write_private_file(self._path, msgspec.json.format(msgspec.json.encode(memory), indent=2) + b"\n")
                self._taken = self._fingerprint()
                self._memory = memory
        except OSError as error:
            _log.error("the memory block cannot be written: %s", error)
            raise storage_unavailable() from error
        return memory

    def _look(self) -> None:
        # One `stat` a second, and a read of a small file when it has changed: too short to be worth a thread.
        fingerprint = self._fingerprint()
        if fingerprint == self._taken or not self._writing.acquire(blocking=False):
            return
        try:
            self._take(fingerprint)
        finally:
            self._writing.release()

    def _take(self, fingerprint: _Fingerprint | None) -> None:
        self._taken = fingerprint
        try:
            self._memory = Memory() if fingerprint is None else _read(self._path)
        except (OSError, ValueError) as error:
            _log.warning("the changed %s has no effect: %s", self._path, error)

    def _fingerprint(self) -> _Fingerprint | None:
        """Changes with the file; None when there is none."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _keep_version(self) -> None:
        """Copies the file as it is, whoever wrote it, and drops the oldest copies."""
        try:
            with self._path.open("rb") as file:
                content = file.read(_MOST_FILE + 1)
        except FileNotFoundError:
            return
        self._versions.mkdir(mode=0o700, exist_ok=True)
        kept = sorted(path.name for path in self._versions.glob("memory-*.json"))
        version = self._versions / self._version_name(kept)
        if len(content) > _MOST_FILE:
            self._path.replace(version)
        else:
            write_private_file(version, content)
        for name in kept[: max(0, len(kept) + 1 - MOST_VERSIONS)]:
            (self._versions / name).unlink(missing_ok=True)

    def _version_name(self, kept: list[str]) -> str:
        time = datetime.fromtimestamp(self._clock.now(), UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        number = sum(name.startswith(f"memory-{time}") for name in kept)
        # Of several at one moment the first may be gone: a number that is free there would not be the newest.
        while (name := f"memory-{time}-{number:03}.json") in kept:
            number += 1
        return name


def _read(path: Path) -> Memory:
    """Raises OSError and ValueError."""
    with path.open("rb") as file:
        content = file.read(_MOST_FILE + 1)
    if len(content) > _MOST_FILE:
        raise ValueError("it is too large")
    try:
        return _check(_decode(content))
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from None
    except BadRequest as error:
        raise ValueError(error.message) from None


def _check(memory: Memory) -> Memory:
    try:
        size = len(memory.content.encode())
    except UnicodeEncodeError:
        raise BadRequest("'content' holds half of a surrogate pair.", param="content") from None
    if size > MOST_CONTENT:
        raise BadRequest(f"'content' must not be larger than {MOST_CONTENT} bytes.", param="content")
    return memory
