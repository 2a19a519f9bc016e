"""The reader of pages: workers that start when they are needed, are replaced when they die and end when idle."""

import asyncio
import contextlib
import importlib.metadata
import importlib.util
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Literal, TypeVar

import msgspec

from stellwerk.core.clock import Clock
from stellwerk.core.errors import BadRequest, TooLarge, Unavailable, UpstreamBroken, UpstreamTimeout
from stellwerk.engines.environment import threads_of
from stellwerk.engines.ocr.documents import Document, check_length, check_page, document_id, kind_of
from stellwerk.engines.ocr.modes import MODES, Mode
from stellwerk.engines.ocr.page import OcrPage, PageImage
from stellwerk.engines.ocr.protocol import (
    Answer,
    Draw,
    Drawn,
    Failed,
    Open,
    Opened,
    Orders,
    Question,
    Read,
    Ready,
    Refused,
    Warm,
    WasRead,
)
from stellwerk.engines.ocr.turns import Turns
from stellwerk.engines.ocr.worker import Worker, WorkerDied
from stellwerk.engines.orphans import PidFiles
from stellwerk.engines.process_table import memory_mib

log = logging.getLogger("stellwerk.engines")

ENGINE = "rapidocr"
_NEEDED = ("rapidocr", "onnxruntime", "PIL", "pypdfium2")
_LEAST_PAUSE = 1.0
_LONGEST_SIDE = 10_000

_A = TypeVar("_A", Opened, Drawn, WasRead, Ready)
_NOTHING = Document(id="", data=b"", kind="pdf", pages=0)


class OcrSettings(msgspec.Struct, frozen=True, kw_only=True):
    dpi: int = 150
    """Resolution in which pages of a PDF are drawn; a very large page gets less, so that it keeps to `max_pixels`."""
    max_pages: int = 200
    max_pixels: int = 60_000_000
    """Of one page."""
    max_bytes: int = 50 << 20
    """Of one document."""
    workers: int = 1
    idle_seconds: float = 600.0
    """Seconds after which an idle worker ends; 0 is never."""
    page_seconds: float = 120.0
    """Seconds for one question; a worker that takes longer is ended."""
    start_seconds: float = 60.0
    """Seconds in which a worker has to load its models."""
    cancel_seconds: float = 5.0
    """Seconds that a worker may go on with a page that nobody wants any more, before it is ended."""
    memory_mib: int = 4096
    """Address space of one worker, on Linux; 0 is unlimited."""
    threads: int = 0
    """Threads of one worker; 0 shares all cores but one among the workers."""
    max_waiting: int = 1000
    """Questions that may wait for a worker."""


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    state: Literal["off", "idle", "busy"]
    pid: int | None
    pages: int
    restarts: int
    memory_mib: float | None


class OcrStatus(msgspec.Struct, frozen=True, kw_only=True):
    engine: str
    version: str | None
    """None when the extra is not installed."""
    workers: tuple[WorkerStatus, ...]
    waiting: int
    read: int
    """Pages since the start of the gateway."""
    failed: int
    crashes: int
    last_error: str | None


class OcrEngine:
    """Opens documents and reads their pages in processes of its own. Does nothing until it is first used."""

    def __init__(
        self,
        settings: OcrSettings,
        clock: Clock,
        environment: Mapping[str, str],
        pids: PidFiles | None = None,
        on_crash: Callable[[str], None] | None = None,
    ) -> None:
        """`pids` needs a folder of its own: its numbers are those of workers, not ports."""
        self._settings = settings
        self._clock = clock
        self._on_crash = on_crash
        orders = Orders(
            parent=0,
            max_pages=settings.max_pages,
            max_pixels=settings.max_pixels,
            dpi=settings.dpi,
            threads=settings.threads or max(1, threads_of(0) // settings.workers),
            memory_mib=settings.memory_mib,
        )
        self._workers = tuple(Worker(number, orders, environment, pids) for number in range(settings.workers))
        self._idle: list[Worker] = []
        self._turns: Turns[Worker] = Turns()
        self._jobs: set[asyncio.Task[tuple[Answer, bytes]]] = set()
        self._watch: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._leaving: set[Worker] = set()
        """Workers whose processes end with the page that they are reading."""
        self._running = False
        self.resting = False
        """Told to rest, and not asked for anything since."""
        self._read = self._failed = self._crashes = 0
        self._last_error: str | None = None

    async def start(self) -> None:
        """Starts no worker yet: the first question does."""
        self._running = True
        self._idle = list(self._workers)
        if self._settings.idle_seconds:
            self._watch = asyncio.create_task(self._watch_idle())

    async def stop(self) -> None:
        """Ends every worker; whoever waits for one is refused."""
        self._running = False
        while (waiter := self._turns.next()) is not None:
            waiter.set_exception(_stopped())
        tasks = [task for task in (self._watch, *self._jobs, *self._ending) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await asyncio.gather(*(worker.stop() for worker in self._workers))
        self._idle = []

    async def wake(self) -> None:
        """Starts a worker and loads its models. Raises UpstreamBroken, UpstreamTimeout and Unavailable."""
        await self._ask(_NOTHING, Warm(), Ready)

    async def rest(self, drain_seconds: float) -> None:
        """Ends the workers' processes, those that read once they have read, or after so many seconds. Whoever asks
        for a page starts them again."""
        self.resting = True
        jobs = set(self._jobs)
        self._leaving.update(worker for worker in self._workers if worker not in self._idle)
        await self._end([worker for worker in self._idle if worker.alive])
        if jobs:
            _, late = await asyncio.wait(jobs, timeout=drain_seconds)
            for job in late:
                job.cancel()
            if late:
                await asyncio.wait(late)
        self._leaving.clear()

    async def open(self, document: bytes, content_type: str | None = None) -> Document:
        """Counts the pages. Raises UnsupportedMedia, TooLarge, BadRequest and Unavailable."""
        check_length(document, self._settings.max_bytes)
        kind = kind_of(document, content_type)
        opened = Document(id=await asyncio.to_thread(document_id, document), data=document, kind=kind, pages=1)
        answer, _ = await self._ask(opened, Open(kind=kind), Opened)
        return msgspec.structs.replace(opened, pages=answer.pages)

    async def read(self, document: Document, page: int, *, mode: Mode = "large", boxes: bool = False) -> OcrPage:
        """Reads one page, counted from 0.

        Raises BadRequest and TooLarge for a bad page, UpstreamTimeout and UpstreamBroken when its worker was lost over
        it, Unavailable.
        """
        check_page(document, page)
        if mode not in MODES:
            raise BadRequest(f"The mode must be one of {', '.join(MODES)}.", param="mode")
        question = Read(kind=document.kind, page=page, mode=mode, boxes=boxes)
        try:
            answer, _ = await self._ask(document, question, WasRead)
        except Exception:
            self._failed += 1
            raise
        self._read += 1
        return answer.page

    async def draw(self, document: Document, page: int, *, longest: int | None = None) -> PageImage:
        """A page as a picture whose longer side has at most `longest` pixels. Raises as `read` does."""
        check_page(document, page)
        if longest is not None and not 1 <= longest <= _LONGEST_SIDE:
            raise BadRequest(f"The longer side must have between 1 and {_LONGEST_SIDE} pixels.", param="longest")
        answer, body = await self._ask(document, Draw(kind=document.kind, page=page, longest=longest), Drawn)
        return PageImage(data=body, content_type=answer.content_type, width=answer.width, height=answer.height)

    def status(self) -> OcrStatus:
        return OcrStatus(
            engine=ENGINE,
            version=installed_version(),
            workers=tuple(self._describe(worker) for worker in self._workers),
            waiting=len(self._turns),
            read=self._read,
            failed=self._failed,
            crashes=self._crashes,
            last_error=self._last_error,
        )

    async def end_idle(self) -> None:
        """Ends the workers that nobody has used for long enough."""
        before = self._clock.monotonic() - self._settings.idle_seconds
        await self._end([worker for worker in self._idle if worker.alive and worker.used_at <= before])

    async def _end(self, workers: Sequence[Worker]) -> None:
        """Those of them that are still idle when it is their turn."""
        for worker in workers:
            if worker in self._idle:
                self._idle.remove(worker)
                try:
                    await worker.stop()
                finally:
                    self._give(worker)

    def _describe(self, worker: Worker) -> WorkerStatus:
        pid = worker.pid
        return WorkerStatus(
            number=worker.number,
            state="off" if pid is None else "idle" if worker in self._idle else "busy",
            pid=pid,
            pages=worker.pages,
            restarts=max(0, worker.starts - 1),
            memory_mib=None if pid is None else memory_mib(pid),
        )

    async def _watch_idle(self) -> None:
        while True:
            await asyncio.sleep(max(_LEAST_PAUSE, self._settings.idle_seconds / 10))
            await self.end_idle()

    async def _ask(self, document: Document, question: Question, wanted: type[_A]) -> tuple[_A, bytes]:
        check_installed()
        worker = await self._take(document.id)
        job = asyncio.create_task(self._serve(worker, document, question))
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        try:
            answer, body = await asyncio.shield(job)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if job.cancelled() and task is not None and not task.cancelling():
                raise (_called_off() if self._running else _stopped()) from None
            self._let_go(job)
            raise
        if isinstance(answer, wanted):
            return answer, body
        raise _refusal(answer)

    async def _take(self, document: str) -> Worker:
        if not self._running:
            raise _stopped()
        if self._idle:
            worker = max(self._idle, key=lambda worker: (worker.document == document, worker.alive, worker.used_at))
            self._idle.remove(worker)
            return worker
        if len(self._turns) >= self._settings.max_waiting:
            raise Unavailable("Too many pages wait to be read.", code="queue_full", retry_after=30)
        waiter = self._turns.join(document)
        try:
            return await waiter
        except asyncio.CancelledError:
            self._turns.leave(document, waiter)
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._give(waiter.result())
            raise

    def _give(self, worker: Worker) -> None:
        worker.used_at = self._clock.monotonic()
        waiter = self._turns.next() if self._running else None
        if waiter is None:
            self._idle.append(worker)
        else:
            waiter.set_result(worker)

    async def _serve(self, worker: Worker, document: Document, question: Question) -> tuple[Answer, bytes]:
        self.resting = False
        try:
            if not worker.alive:
                await worker.start()
            if isinstance(question, Read) and not worker.warm:
                worker.warm = isinstance(
                    await self._in_time(self._settings.start_seconds, partial(worker.ask, Warm())), Ready
                )
            body = b"" if worker.document == document.id else document.data
            worker.document = document.id
            answer, picture = await self._in_time(self._settings.page_seconds, partial(worker.ask, question, body))
        except WorkerDied as death:
            raise self._crashed(death.reason) from None
        except TimeoutError:
            self._last_error = "a page took too long"
            await worker.stop()
            raise UpstreamTimeout("Reading the page took too long and was stopped.", code="ocr_timeout") from None
        except asyncio.CancelledError:
            worker.kill()
            await worker.stop()
            raise
        else:
            worker.pages += isinstance(question, Read)
            worker.warm = worker.warm or isinstance(answer, Ready)
            return answer, picture
        finally:
            await self._give_back(worker)

    async def _give_back(self, worker: Worker) -> None:
        try:
            if worker in self._leaving:
                self._leaving.discard(worker)
                await worker.stop()
        finally:
            self._give(worker)

    async def _in_time(
        self, seconds: float, work: Callable[[], Awaitable[tuple[Answer, bytes]]]
    ) -> tuple[Answer, bytes]:
        async with asyncio.timeout(seconds):
            return await work()

    def _let_go(self, job: "asyncio.Task[tuple[Answer, bytes]]") -> None:
        """Loading models anew costs more than the rest of most pages: the worker gets a moment to come to its end."""
        task = asyncio.create_task(self._end_late(job))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _end_late(self, job: "asyncio.Task[tuple[Answer, bytes]]") -> None:
        await asyncio.wait({job}, timeout=self._settings.cancel_seconds)
        job.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await job

    def _crashed(self, reason: str) -> UpstreamBroken:
        self._crashes += 1
        self._last_error = reason
        log.warning("a reader of pages has ended: %s", reason)
        if self._on_crash is not None:
            self._on_crash(reason)
        return UpstreamBroken("The page could not be read: its reader ended over it.", code="ocr_crashed")


def installed_version() -> str | None:
    """None when not everything is there."""
    if any(importlib.util.find_spec(name) is None for name in _NEEDED):
        return None
    return importlib.metadata.version(ENGINE)


def check_installed() -> None:
    """Raises Unavailable with what to do about it."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise Unavailable(
            f"Reading pages needs {', '.join(missing)}, which is not installed: pip install 'stellwerk[ocr]'",
            code="ocr_not_installed",
        )


def _stopped() -> Unavailable:
    return Unavailable("Pages are not read any more: the gateway is stopping.")


def _called_off() -> Unavailable:
    return Unavailable("An administrator has stopped the reader of pages over this one.", code="ocr_stopped")


def _refusal(answer: Answer) -> Exception:
    match answer:
        case Refused(reason="too_large", message=message):
            return TooLarge(message, code="document_too_large")
        case Refused(message=message):
            return BadRequest(message, code="invalid_document")
        case Failed(reason=reason):
            return UpstreamBroken(f"The page could not be read ({reason}).", code="ocr_failed")
        case _:
            return UpstreamBroken("The reader has answered something else than was asked.", code="ocr_failed")
