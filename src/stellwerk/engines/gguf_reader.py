"""Reads the bytes of a GGUF header without believing them.

Every count and length is checked against the size of the file and against a bound before it is used, so that nonsense
is refused in milliseconds.
"""

import os
import stat
import struct
import sys
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_KEYS = 8_192
_MAX_TENSORS = 32_768
_MAX_ARRAY_STRINGS = 2_000_000
"""Over the whole header; the largest published vocabularies with their merges have 0.8 million."""
_MAX_TOKENS = 1 << 19
"""Twice the largest published vocabulary."""
_MAX_HEADER = 128 << 20
_WINDOW = 256 << 10
_MAX_NUMBERS = 1_024

UINT16, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 2, 4, 5, 6, 7, 8, 9
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_SCALAR_SIZES = {kind: struct.calcsize(code) for kind, code in SCALARS.items()}
_UINT32 = struct.Struct("<I")
_UINT64 = struct.Struct("<Q")


class InvalidGguf(Exception):
    """The file is no usable GGUF; the message says why and names no path."""


@contextmanager
def opened_header(path: Path) -> "Iterator[tuple[HeaderReader, os.stat_result]]":
    try:
        # O_NONBLOCK: opening a named pipe would otherwise wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidGguf(f"it cannot be opened ({error.strerror})") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidGguf("it is no regular file")
        yield HeaderReader(descriptor, status.st_size), status
    except OSError as error:
        raise InvalidGguf(f"it cannot be read ({error.strerror})") from None
    finally:
        os.close(descriptor)


class HeaderReader:
    """A window that moves forward over the file; never past its end, never past the bound of a header."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self.size = size
        self._end = min(size, _MAX_HEADER)
        self._window = b""
        self._origin = 0
        self._at = 0
        self._array_strings = 0

    @property
    def position(self) -> int:
        return self._origin + self._at

    @property
    def left(self) -> int:
        return self._end - self.position

    def _hold(self, count: int) -> None:
        """Makes the next `count` bytes stand in the window."""
        if self._at + count <= len(self._window):
            return
        self._origin, self._at = self.position, 0
        if count > self.left:
            raise InvalidGguf("the header does not fit into the file")
        self._window = os.pread(self._descriptor, min(max(count, _WINDOW), self.left), self._origin)
        if len(self._window) < count:
            raise InvalidGguf("the file became shorter while it was read")

    def take(self, count: int) -> bytes:
        self._hold(count)
        self._at += count
        return self._window[self._at - count : self._at]

    def skip(self, count: int) -> None:
        if count > self.left:
            raise InvalidGguf("a length points past the end of the file")
        self._at += count

    def uint32(self) -> int:
        return int(_UINT32.unpack(self.take(4))[0])

    def uint64(self) -> int:
        return int(_UINT64.unpack(self.take(8))[0])

    def text(self, limit: int) -> str:
        length = self.uint64()
        if length > limit:
            raise InvalidGguf("a text is longer than allowed")
        return self.take(length).decode("utf-8", "replace")

    def scalar(self, kind: int) -> Any:
        return struct.unpack(SCALARS[kind], self.take(_SCALAR_SIZES[kind]))[0]

    def items(self, kind: int, count: int, *, kept: bool) -> list[Any] | None:
        """The numbers of an array that is to be kept and is no vocabulary; others are passed over."""
        if kept and kind in _SCALAR_SIZES and count <= _MAX_NUMBERS:
            return [self.scalar(kind) for _ in range(count)]
        if kind in _SCALAR_SIZES:
            self.skip(count * _SCALAR_SIZES[kind])
        elif kind == STRING:
            self._skip_strings(count)
        else:
            raise InvalidGguf("an array holds something unknown")
        return None

    def _skip_strings(self, count: int) -> None:
        self._array_strings += count
        if self._array_strings > _MAX_ARRAY_STRINGS or count * 8 > self.left:
            raise InvalidGguf("an array has more texts than a vocabulary can have")
        unpack = _UINT64.unpack_from
        for _ in range(count):
            # Inlined, because it runs once for each word of a vocabulary.
            if self._at + 8 > len(self._window):
                self._hold(8)
            self._at += 8 + unpack(self._window, self._at)[0]
            if self._at > len(self._window) and self.position > self._end:
                raise InvalidGguf("a text ends past the end of the file")

    def take_integers(self, count: int) -> "array[int]":
        """So many of 32 bits, one for each token."""
        if count > _MAX_TOKENS:
            raise InvalidGguf("it has more tokens than a vocabulary can have")
        numbers = array("i", self.take(4 * count))
        if sys.byteorder == "big":
            numbers.byteswap()
        return numbers

    def check_tokens(self, count: int) -> None:
        """Passes over the words of a vocabulary. llama.cpp aborts when two of them are the same."""
        if count > _MAX_TOKENS or count * 8 > self.left:
            raise InvalidGguf("it has more tokens than a vocabulary can have")
        # Fingerprints take a fraction of the room of the words; their key is another one in every process.
        seen = set()
        empty = 0
        for _ in range(count):
            # As llama.cpp reads it: up to the first zero, and whatever is empty gets a name of its own.
            word = self.take(self.uint64()).partition(b"\0")[0]
            if word:
                seen.add(hash(word))
            else:
                empty += 1
        if len(seen) + empty < count:
            raise InvalidGguf("a token stands twice in its vocabulary")


def read_counts(reader: HeaderReader) -> tuple[int, int]:
    """How many tensors and keys a header announces; the reader stands before the first key then."""
    if reader.size < 24 or reader.take(4) != _MAGIC:
        raise InvalidGguf("it does not begin like a GGUF file")
    if reader.uint32() not in _VERSIONS:
        raise InvalidGguf("its GGUF version is not supported")
    tensors, keys = reader.uint64(), reader.uint64()
    if keys > _MAX_KEYS or tensors > _MAX_TENSORS:
        raise InvalidGguf("it announces more keys or tensors than any model has")
    return tensors, keys
