"""Keeps one engine running: loads it, probes it, restarts it, gives it up."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any

import msgspec

from stellwerk.core.clock import Clock
from stellwerk.core.ports import EngineAddress
from stellwerk.engines import probe
from stellwerk.engines.failure import EngineFailed
from stellwerk.engines.process import EngineProcess, Launch
from stellwerk.engines.restarts import Restarts, RestartSettings

log = logging.getLogger("stellwerk.engines")


class SupervisorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """All times in seconds. An engine that hangs is found after at most 2 · (interval + timeout)."""

    load_timeout: float = 600.0
    probe_interval: float = 5.0
    probe_timeout: float = 4.0
    missed_probes: int = 2
    pause_after_miss: float = 1.0
    grace: float = 5.0
    restarts: RestartSettings = RestartSettings()


class EngineState(StrEnum):
    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"
    FAILED = "failed"
    STOPPED = "stopped"


class Supervisor:
    """One engine from its first start until it is stopped or given up.

    `launch` is asked anew for every start: each has a key of its own. A start that fails before the engine has ever
    served is final, since nothing would be different a second later; a later crash is repaired.
    """

    def __init__(
        self,
        name: str,
        *,
        launch: Callable[[], Awaitable[Launch]],
        on_failure: Callable[[EngineFailed, bool], None],
        settings: SupervisorSettings,
        clock: Clock,
    ) -> None:
        """`on_failure` is told once, when the engine is given up, and whether it had ever served."""
        self.name = name
        self.state = EngineState.LOADING
        self.restarts = 0
        self.failure: EngineFailed | None = None
        """The last thing that went wrong, also when it was repaired."""
        self._had_served = False
        self._launch = launch
        self._on_failure = on_failure
        self._settings = settings
        self._clock = clock
        self._policy = Restarts(settings.restarts)
        self._process: EngineProcess | None = None
        self._changed = asyncio.Event()
        self._doubted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        process = self._process
        return process.pid if process is not None and process.is_alive() else None

    @property
    def output(self) -> tuple[str, ...]:
        """The last lines that the current or last process printed. May hold paths: for operators only."""
        return tuple(self._process.output) if self._process is not None else ()

    def start(self, after: asyncio.Task[None] | None = None) -> None:
        """Begins in the background, once `after` is done. Call once."""
        self._task = asyncio.create_task(self._run(after), name=f"engine {self.name}")

    async def ready(self) -> EngineAddress:
        """Waits through loading and restarts. Raises EngineFailed when the engine is given up or stopped."""
        while True:
            if self.state is EngineState.FAILED and self.failure is not None:
                raise self.failure
            if self.state is EngineState.STOPPED:
                raise EngineFailed("it is being stopped")
            if self.state is EngineState.READY and self._process is not None and not self._doubted.is_set():
                if self._process.is_alive():
                    return self._process.address
                self._become(EngineState.RESTARTING)
            await self._changed.wait()

    def doubt(self) -> None:
        """Somebody got no answer: `ready` waits until the engine has been probed or replaced.

        A process that was killed a moment ago is still alive for the kernel, but no longer answers.
        """
        if self.state is EngineState.READY:
            self._doubted.set()

    async def stop(self) -> None:
        """Ends the process within the grace; no process is left when this returns or is cancelled."""
        if self.state is not EngineState.FAILED:
            self._become(EngineState.STOPPED)
        if self._task is None:
            return
        self._task.cancel()
        try:
            await asyncio.wait({self._task})
        except asyncio.CancelledError:
            if self._process is not None:
                self._process.kill()
            raise

    async def _run(self, after: asyncio.Task[None] | None) -> None:
        try:
            if after is not None:
                await asyncio.wait({after})
            while True:
                failure = await self._run_once()
                delay = self._judge(failure)
                if delay is None:
                    return
                await asyncio.sleep(delay)
                self.restarts += 1
        except Exception:  # a supervisor that ends silently would leave every request waiting
            log.exception("the supervisor of engine %s failed", self.name)
            self._fail(EngineFailed("its supervisor failed"))

    async def _run_once(self) -> EngineFailed:
        """From one start to its end: why it ended."""
        try:
            self._process = process = await self._spawn()
        except EngineFailed as failure:
            return failure
        try:
            began = self._clock.monotonic()
            async with asyncio.timeout(self._settings.load_timeout):
                await process.wait_ready()
            self._had_served = True
            self._become(EngineState.READY)
            log.info("engine %s serves on port %d after %.2f s", self.name, process.address.port,
                     self._clock.monotonic() - began)  # fmt: skip
            return EngineFailed(await self._watch(process))
        except TimeoutError:
            return EngineFailed(f"it was not ready after {self._settings.load_timeout:g} s")
        except EngineFailed as failure:
            return failure
        finally:
            await process.stop(self._settings.grace)

    async def _spawn(self) -> EngineProcess:
        launch = await self._launch()
        spawning = asyncio.ensure_future(EngineProcess.start(launch))
        try:
            return await asyncio.shield(spawning)
        except asyncio.CancelledError:
            # Cancelled halfway, the child would be running without anybody knowing it.
            with contextlib.suppress(EngineFailed):
                await (await spawning).stop(0.0)
            raise

    async def _watch(self, process: EngineProcess) -> str:
        """Returns when the process has ended or no longer answers: why."""
        settings = self._settings
        ended = asyncio.create_task(process.wait())
        doubted = asyncio.create_task(self._doubted.wait())
        missed = 0
        try:
            while missed < settings.missed_probes:
                pause = settings.pause_after_miss if missed else settings.probe_interval
                wake = {ended} if missed else {ended, doubted}
                await asyncio.wait(wake, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                if ended.done():
                    return ended.result()
                if await probe.answers(process.address, settings.probe_timeout):
                    missed = 0
                    if doubted.done():
                        doubted = self._dispel()
                else:
                    missed += 1
        finally:
            ended.cancel()
            doubted.cancel()
            self._become(EngineState.RESTARTING)
            self._doubted.clear()
        process.kill()
        return "it stopped answering"

    def _dispel(self) -> asyncio.Task[Any]:
        self._doubted.clear()
        self._become(EngineState.READY)
        return asyncio.create_task(self._doubted.wait())

    def _judge(self, failure: EngineFailed) -> float | None:
        """Seconds until the next start; None when there is none."""
        self.failure = failure
        delay = None
        # Only another slot helps when the port is gone.
        if self._had_served and not failure.port_taken:
            delay = self._policy.after_crash(self._clock.monotonic())
        if delay is None:
            self._fail(failure)
        else:
            log.warning("engine %s: %s; it is started again in %g s", self.name, failure.reason, delay)
            self._become(EngineState.RESTARTING)
        return delay

    def _fail(self, failure: EngineFailed) -> None:
        log.error("engine %s is given up: %s", self.name, failure.reason)
        self.failure = failure
        self._on_failure(failure, self._had_served)
        self._become(EngineState.FAILED)

    def _become(self, state: EngineState) -> None:
        if self.state is EngineState.STOPPED:
            return
        self.state = state
        self._changed.set()
        self._changed = asyncio.Event()
