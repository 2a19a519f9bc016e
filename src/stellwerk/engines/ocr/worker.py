"""One worker process as the gateway sees it: started when asked, asked one question at a time, ended by force."""

import asyncio
import contextlib
import os
import secrets
import signal
import sys
from collections import deque
from collections.abc import Mapping

import msgspec

from stellwerk.engines.environment import child_environment
from stellwerk.engines.failure import exit_reason
from stellwerk.engines.ocr.protocol import (
    PREFIX,
    Answer,
    Orders,
    Question,
    decode_answer,
    frame,
    frame_head,
    lengths,
)
from stellwerk.engines.orphans import PidFiles, end_marked
from stellwerk.engines.process_table import MARK

_KEPT_LINES = 50
_MAX_LINE = 500
_DRAIN_SECONDS = 1.0


class WorkerDied(Exception):
    """The process has ended, or talks nonsense. The reason is one line for people."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Worker:
    """A place for a process. Not to be asked by two at the same time."""

    def __init__(self, number: int, orders: Orders, environment: Mapping[str, str], pids: PidFiles | None) -> None:
        self.number = number
        self.document = ""
        """Which document lies open in it."""
        self.warm = False
        """Whether it has loaded what reading needs."""
        self.starts = 0
        self.pages = 0
        self.used_at = 0.0
        self._orders = orders
        self._environment = environment
        self._pids = pids
        self._mark = ""
        self._process: asyncio.subprocess.Process | None = None
        self._printed: deque[str] = deque(maxlen=_KEPT_LINES)
        self._listener: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self.alive else None

    async def start(self) -> None:
        """Raises WorkerDied when the process cannot be run."""
        if self._process is not None:
            await self.stop()
        self._mark = secrets.token_hex(16)
        # -P: a file in the working directory must not be taken for a module.
        command = (sys.executable, "-P", "-m", "stellwerk.engines.ocr.worker_program")
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**child_environment(self._environment), **threads, MARK: self._mark},
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise WorkerDied(f"its program cannot be run ({error.strerror})") from None
        self._process = process
        self.starts += 1
        self._printed.clear()
        if self._pids is not None:
            self._pids.write(self.number, process.pid, self._mark)
        assert process.stdin is not None
        assert process.stderr is not None
        self._listener = asyncio.create_task(self._listen(process.stderr))
        process.stdin.write(frame(msgspec.structs.replace(self._orders, parent=os.getpid())))

    async def ask(self, question: Question, body: bytes = b"") -> tuple[Answer, bytes]:
        """The answer and what comes with it. Raises WorkerDied; cancelled, it leaves a worker that has to be killed."""
        process = self._process
        if process is None:
            raise WorkerDied("it does not run")
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(frame_head(question, len(body)))
            if body:
                process.stdin.write(body)
            await process.stdin.drain()
            head, rest = lengths(await process.stdout.readexactly(PREFIX.size))
            answer = decode_answer(await process.stdout.readexactly(head))
            return answer, await process.stdout.readexactly(rest)
        except (OSError, asyncio.IncompleteReadError):
            raise WorkerDied(await self._why()) from None
        except (ValueError, msgspec.DecodeError):
            self.kill()
            raise WorkerDied("it answers in a way that nobody understands") from None

    async def _why(self) -> str:
        process = self._process
        assert process is not None
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                status = await process.wait()
        except TimeoutError:
            self.kill()
            return "it has closed its pipes"
        if self._listener is not None:
            await asyncio.wait({self._listener}, timeout=_DRAIN_SECONDS)
        return exit_reason(status, tuple(self._printed))

    def kill(self) -> None:
        """At once, with everything that it started. `stop` has to follow, or `start`."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def stop(self) -> None:
        """There is nothing in it that would have to end in peace."""
        process, self._process = self._process, None
        self.document, self.warm = "", False
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
        await asyncio.to_thread(end_marked, self._mark)
        if self._listener is not None:
            await asyncio.wait({self._listener}, timeout=_DRAIN_SECONDS)
            self._listener.cancel()
            self._listener = None
        if self._pids is not None:
            self._pids.remove(self.number)

    async def _listen(self, stream: asyncio.StreamReader) -> None:
        """Takes everything, so that the worker never blocks on a full pipe, and keeps the last lines, cut."""
        rest = b""
        while chunk := await stream.read(16 << 10):
            *lines, rest = (rest + chunk).split(b"\n")
            rest = rest[:_MAX_LINE]
            self._printed.extend(line[:_MAX_LINE].decode("utf-8", "replace") for line in lines if line.strip())
        if rest.strip():
            self._printed.append(rest.decode("utf-8", "replace"))
