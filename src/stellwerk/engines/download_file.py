"""Fetches one file: goes on where the partial file ends, tries again, and ends with the right checksum or none."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import msgspec

from stellwerk.core.errors import (
    GatewayError,
    RateLimited,
    Unavailable,
    UpstreamBroken,
    UpstreamError,
    UpstreamRefused,
    UpstreamTimeout,
)
from stellwerk.engines.blocking import in_thread
from stellwerk.engines.download_part import DiskFull, PartFile, trouble
from stellwerk.engines.download_request import Opened, RangeRefused
from stellwerk.http.upstream import Answer

_T = TypeVar("_T")
_HURRY = 0.02
"""Seconds that a write may take before the sender is held up; bounds what gathers in memory."""
_MOST_BREAKS = 1_000
"""Of one file, also when each of them brought a few bytes."""
_MOST_WAIT = 300.0


class TransferSettings(msgspec.Struct, frozen=True, kw_only=True):
    stall_seconds: float = 30.0
    """Silence after which a connection is given up."""
    backoff: tuple[float, ...] = (1, 2, 4, 8, 16, 30)
    """Seconds to wait after the first, second, … failure in a row; one more ends the download."""
    sync_bytes: int = 64 << 20
    """So much may be lost in a power cut."""


class WrongContent(UpstreamBroken):
    """The file came whole, twice, and is not what the hub announced."""


class Source(Protocol):
    async def open(self, offset: int) -> Opened: ...


class FileTransfer:
    """One file on its way. `run` may be cancelled at any moment and called again on the same partial file."""

    def __init__(
        self,
        source: Source,
        part: PartFile,
        *,
        size: int,
        sha256: str | None,
        etag: str | None,
        identify: Callable[[str], Awaitable[None]],
        progress: Callable[[int], None],
        settings: TransferSettings,
    ) -> None:
        """`etag` names the content of the partial file; `identify` makes a new name durable before its first byte."""
        self._source = source
        self._part = part
        self._size = size
        self._sha256 = sha256
        self._etag = etag
        self._identify = identify
        self._progress = progress
        self._settings = settings

    async def run(self) -> None:
        """Returns when the file is complete, on the disk and as announced. Raises GatewayError."""
        try:
            await self._disk(self._part.open)
            await self._read_part()
            for _ in range(2):
                await self._fill()
                await self._disk(self._part.keep)
                if self._sha256 is None or self._part.hexdigest() == self._sha256:
                    return
                # Perhaps the fault is in what an earlier attempt or a power cut left.
                await self._begin_anew()
            raise WrongContent("The file does not have the checksum that the hub announced.")
        finally:
            self._part.close()

    async def _read_part(self) -> None:
        part = self._part
        if part.size > self._size or (part.size and self._etag is None):
            await self._begin_anew()
        while not await self._disk(part.hash_some):
            pass
        self._progress(part.size)

    async def _fill(self) -> None:
        part, backoff = self._part, self._settings.backoff
        failures = 0
        for _ in range(_MOST_BREAKS):
            before = part.size
            if before >= self._size:
                return
            try:
                await self._receive()
            except (UpstreamError, RateLimited, Unavailable, TimeoutError) as error:
                failure = _spoken(error)
            else:
                continue
            if part.size > before:
                failures = 0
            if failures >= len(backoff):
                raise failure
            wait = max(backoff[failures], min(failure.retry_after or 0.0, _MOST_WAIT))
            failures += 1
            await asyncio.sleep(wait)
        raise UpstreamBroken("The hub broke off too often.")

    async def _receive(self) -> None:
        """One answer, to its end or its failure."""
        try:
            async with asyncio.timeout(self._settings.stall_seconds):
                opened = await self._source.open(self._part.size)
        except RangeRefused:
            await self._begin_anew()
            raise
        try:
            if opened.size is not None and opened.size != self._size:
                raise UpstreamBroken("The hub sends a file of another size than it announced.")
            await self._agree(opened)
            await self._pour(opened)
        finally:
            opened.answer.abort()

    async def _agree(self, opened: Opened) -> None:
        """Makes the partial file the beginning of what now comes. Raises UpstreamBroken when it cannot be."""
        changed = opened.etag != (self._etag or "")
        if self._part.size and (changed or opened.start == 0):
            await self._begin_anew()
        if self._etag is None or changed:
            self._etag = opened.etag
            await self._identify(opened.etag)
        if opened.start != self._part.size:
            raise UpstreamBroken("The file has changed at the hub.")

    async def _pour(self, opened: Opened) -> None:
        part, answer = self._part, opened.answer
        while part.size < self._size:
            async with asyncio.timeout(self._settings.stall_seconds):
                data = await answer.next()
            if not data:
                raise UpstreamBroken("The hub broke off in the middle of the file.")
            if len(data) > self._size - part.size:
                raise UpstreamBroken("The hub sends more than it announced.")
            await self._disk(part.write, data, answer=answer)
            self._progress(part.size)

    async def _begin_anew(self) -> None:
        await self._disk(self._part.clear)
        self._progress(0)

    async def _disk(self, work: Callable[..., _T], *arguments: object, answer: Answer | None = None) -> _T:
        """Runs in a thread; `answer` is held up while the disk is slower than the sender."""
        hurry = None
        if answer is not None:
            hurry = asyncio.get_running_loop().call_later(_HURRY, answer.pause_reading)
        try:
            return await in_thread(work, *arguments)
        except OSError as error:
            raise trouble(error) from None
        finally:
            if hurry is not None and answer is not None:
                hurry.cancel()
                answer.resume_reading()


def _spoken(error: Exception) -> GatewayError:
    """The failure as it is told; raised at once when another attempt can bring nothing."""
    if isinstance(error, (UpstreamRefused, DiskFull)):
        raise error
    if isinstance(error, GatewayError):
        return error
    return UpstreamTimeout("The hub stopped sending.")
