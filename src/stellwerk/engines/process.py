"""One child process: started, awaited until it serves, listened to, ended."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
from collections import deque
from collections.abc import Mapping

import msgspec

from stellwerk.core.ports import EngineAddress
from stellwerk.engines import probe
from stellwerk.engines.failure import EngineFailed, exit_reason
from stellwerk.engines.orphans import PidFiles, end_marked
from stellwerk.engines.probe import TokenProbe
from stellwerk.engines.process_table import MARK, listens

_KEPT_LINES = 200
_MAX_LINE = 500
_MAX_READ_LINE = 4096
"""Longer than what is kept: what is to be hidden must not be cut in half before it is looked for."""
_CHUNK = 16 << 10
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
_PROBE_TIMEOUT = 5.0
_DRAIN_TIMEOUT = 1.0


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """How to start an engine. Holds its key: never to be logged."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    orders: bytes
    """Written to standard input, which then stays open: its end tells the child that we are gone."""
    announces: bool
    """Whether the child says on standard output, with a JSON line `{"ready": …}`, that it listens."""
    address: EngineAddress
    hidden: tuple[str, ...] = ()
    """Texts that must not be shown in a reason for failure."""
    engine: str = ""
    """Which kind it is, for the record of a crash: `xllamacpp`, `llama-server`, …"""
    health_path: str = "/health"
    """Answers 200 without a key once the engine is loaded."""
    checks_key: bool = True
    """Whether it refuses requests without its key. Of one that does not, health has to be proof enough, and on Linux
    the kernel's word that the port is its own."""
    token_probe: TokenProbe | None = None
    """Real work that shows whether an idle engine still computes; None for one that has nothing so small."""


class EngineProcess:
    """A running child in a session of its own. `output` holds the last lines that it printed."""

    def __init__(
        self, launch: Launch, process: asyncio.subprocess.Process, mark: str = "", pids: PidFiles | None = None
    ) -> None:
        self.address = launch.address
        self.pid = process.pid
        self.launch = launch
        self._mark = mark
        self._pids = pids
        # Paths are for the operator to see.
        self._secrets = tuple(text for text in launch.hidden if text and not os.path.exists(text))  # noqa: PTH110
        self.output: deque[str] = deque(maxlen=_KEPT_LINES)
        self._process = process
        self._announced = asyncio.Event()
        assert process.stdout is not None
        assert process.stderr is not None
        self._readers = [
            asyncio.create_task(self._read(process.stdout, announces=launch.announces)),
            asyncio.create_task(self._read(process.stderr, announces=False)),
        ]

    @classmethod
    async def start(cls, launch: Launch, pids: PidFiles | None = None) -> "EngineProcess":
        """With `pids` it is written down while it runs. Raises EngineFailed when the program cannot be run."""
        mark = secrets.token_hex(16)
        try:
            process = await asyncio.create_subprocess_exec(
                *launch.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**launch.environment, MARK: mark},
                cwd="/",
                # Ctrl-C on our terminal is for us alone: requests are drained before the engines end.
                start_new_session=True,
            )
        except OSError as error:
            raise EngineFailed(f"its program cannot be run ({error.strerror})") from None
        if pids is not None:
            pids.write(launch.address.port, process.pid, mark)
        assert process.stdin is not None
        # Fits into the pipe; a child that is already dead is noticed by its exit.
        process.stdin.write(launch.orders)
        return cls(launch, process, mark, pids)

    async def wait_ready(self) -> None:
        """Returns when the engine serves our key. Raises EngineFailed when it ends first."""
        serving = asyncio.create_task(self._serve())
        ended = asyncio.create_task(self.wait())
        try:
            await asyncio.wait({serving, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                raise EngineFailed(ended.result())
            serving.result()
        finally:
            serving.cancel()
            ended.cancel()

    async def _serve(self) -> None:
        if self.launch.announces:
            await self._announced.wait()
        pause = _FIRST_PAUSE
        while not await self._is_ours():
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _is_ours(self) -> bool:
        launch = self.launch
        if not await probe.is_ours(self.address, _PROBE_TIMEOUT, launch.health_path, checks_key=launch.checks_key):
            return False
        return launch.checks_key or await asyncio.to_thread(listens, self.pid, self._mark, self.address.port)

    async def answers(self, seconds: float) -> bool:
        """Whether it says within that time that it is well."""
        return await probe.answers(self.address, seconds, self.launch.health_path)

    async def computes(self, seconds: float) -> bool:
        """Whether it does real work within that time; true of one that has nothing to prove it with."""
        work = self.launch.token_probe
        return work is None or await probe.computes(self.address, work, seconds)

    @property
    def status(self) -> int | None:
        """How it has ended: its exit status, negative for a signal; None while it runs."""
        return self._process.returncode

    async def wait(self) -> str:
        """Returns when the process has ended: why, in one line."""
        status = await self._process.wait()
        # Something that the child started may still hold its pipes open.
        await asyncio.wait(self._readers, timeout=_DRAIN_TIMEOUT)
        return exit_reason(status, tuple(self.output), self.launch.hidden)

    def is_alive(self) -> bool:
        """Asks the kernel, which knows of a death before the event loop does."""
        if self._process.returncode is not None:
            return False
        if sys.platform != "linux":
            return True
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:
            return False

    async def stop(self, grace: float) -> None:
        """Ends the process and everything that it started; by force after `grace` seconds or when cancelled."""
        try:
            if self.is_alive():
                self._signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await self._process.wait()
        finally:
            self.kill()
        await self._process.wait()
        # Without its leader the group may live on; a thread does this even when we are cancelled meanwhile.
        await asyncio.to_thread(end_marked, self._mark)
        await asyncio.wait(self._readers, timeout=_DRAIN_TIMEOUT)
        for reader in self._readers:
            reader.cancel()
        if self._pids is not None:
            self._pids.remove(self.address.port)

    def kill(self) -> None:
        if self.is_alive():
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    async def _read(self, stream: asyncio.StreamReader, *, announces: bool) -> None:
        """Takes everything, so that the child never blocks on a full pipe, and keeps the last lines, cut."""
        rest = b""
        while chunk := await stream.read(_CHUNK):
            *lines, rest = (rest + chunk).split(b"\n")
            rest = rest[:_MAX_READ_LINE]
            for line in lines:
                self._keep(line, announces=announces)
        if rest:
            self._keep(rest, announces=announces)

    def _keep(self, line: bytes, *, announces: bool) -> None:
        if announces and _is_announcement(line):
            self._announced.set()
        elif line.strip():
            text = line[:_MAX_READ_LINE].decode("utf-8", "replace")
            for secret in self._secrets:
                text = text.replace(secret, "[hidden]")
            self.output.append(text[:_MAX_LINE].rstrip())


def _is_announcement(line: bytes) -> bool:
    try:
        message = json.loads(line[:_MAX_LINE])
    except ValueError:
        return False
    return isinstance(message, dict) and "ready" in message
