"""Keeps one engine running: loads it, probes it, restarts it, gives it up."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from stellwerk.core.clock import Clock
from stellwerk.core.ports import EngineAddress
from stellwerk.engines.crashes import MOST_LINES, MOST_REQUESTS, Crash, split_status
from stellwerk.engines.failure import EngineFailed, clean
from stellwerk.engines.liveness import Liveness, LivenessSettings
from stellwerk.engines.orphans import PidFiles
from stellwerk.engines.process import EngineProcess, Launch
from stellwerk.engines.process_table import memory_mib
from stellwerk.engines.restarts import Restarts, RestartSettings

log = logging.getLogger("stellwerk.engines")

_NO_WORK = "it answers, but computes nothing"
_LOADING_LOOK = 0.5
"""Seconds between two looks at the memory while a model is loaded: it may be the last thing that is known of it."""


class SupervisorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """All times in seconds. One that answers nothing is found after at most 2 · (interval + timeout), one that answers
    and does not compute by `liveness`."""

    load_timeout: float = 600.0
    probe_interval: float = 5.0
    probe_timeout: float = 4.0
    missed_probes: int = 2
    pause_after_miss: float = 1.0
    grace: float = 5.0
    memory_interval: float = 15.0
    """Between two looks at the memory of an engine."""
    restarts: RestartSettings = RestartSettings()
    liveness: LivenessSettings = LivenessSettings()


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
        on_crash: Callable[[Crash], None] = lambda _crash: None,
        running: Callable[[], Sequence[str]] = tuple,
        idle: Callable[[], bool] = lambda: False,
        pids: PidFiles | None = None,
    ) -> None:
        """`on_failure` is told once, when the engine is given up, and whether it had ever served; `on_crash` every
        time that a process ends or has to be ended.

        `running` names the requests that the engine works on. `idle` says that nobody holds a lease: those who still
        wait for one do not count, or an engine under suspicion would never be asked for a token. With `pids` the
        process is written down while it runs.
        """
        self.name = name
        self.state = EngineState.LOADING
        self.restarts = 0
        self.failure: EngineFailed | None = None
        """The last thing that went wrong, also when it was repaired."""
        self.memory_mib: float | None = None
        """At the last look, the first of which comes before `ready` returns; None while nothing runs."""
        self._had_served = False
        self._on_crash = on_crash
        self._running = running
        self._pids = pids
        self._liveness = Liveness(settings.liveness, clock, idle)
        self._looked = float("-inf")
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
                    self._liveness.note_use()
                    return self._process.address
                self._become(EngineState.RESTARTING)
            await self._changed.wait()

    def doubt(self) -> None:
        """Somebody got no answer: `ready` waits until the engine has been probed or replaced.

        A process that was killed a moment ago is still alive for the kernel, but no longer answers.
        """
        if self.state is EngineState.READY:
            self._doubted.set()

    def suspect(self) -> None:
        """Somebody waited in vain for the engine to compute: it has to prove that it does, as soon as it is idle.

        Who calls this has to call `note_answer` too: an engine in use that answers nobody is replaced.
        """
        self._liveness.suspect()

    def note_answer(self) -> None:
        """Somebody got a token or a vector: the best proof that the engine computes."""
        self._liveness.note_answer()

    async def measure_memory(self) -> float | None:
        """Looks now: MiB that the engine and all that it started hold, mapped files included; None without one."""
        process = self._process
        seen = None if process is None else await asyncio.to_thread(memory_mib, process.pid)
        self._looked = self._clock.monotonic()
        if seen is not None:
            # Of one that has just died, the last look is what a crash is told with.
            self.memory_mib = seen
        return seen

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
        began = self._clock.monotonic()
        self.memory_mib = None
        try:
            self._process = process = await self._spawn()
        except EngineFailed as failure:
            return failure
        served = False
        measuring = asyncio.create_task(self._measure_while_it_loads())
        try:
            async with asyncio.timeout(self._settings.load_timeout):
                await process.wait_ready()
            measuring.cancel()
            served = True
            await self._open(process, began)
            end = EngineFailed(await self._watch(process))
        except TimeoutError:
            end = EngineFailed(f"it was not ready after {self._settings.load_timeout:g} s")
        except EngineFailed as failure:
            end = failure
        finally:
            measuring.cancel()
            # Before we end it ourselves, which would be taken for its own end.
            status, requests = process.status, tuple(self._running())
            await process.stop(self._settings.grace)
        self._report(self._describe(process, end, status, requests, began, served=served))
        self.memory_mib = None
        return end

    async def _measure_while_it_loads(self) -> None:
        while True:
            await asyncio.sleep(_LOADING_LOOK)
            await self.measure_memory()

    async def _open(self, process: EngineProcess, began: float) -> None:
        await self.measure_memory()
        self._had_served = True
        self._liveness.note_answer()
        self._become(EngineState.READY)
        seconds = self._clock.monotonic() - began
        log.info("engine %s serves on port %d after %.2f s", self.name, process.address.port, seconds)

    async def _spawn(self) -> EngineProcess:
        launch = await self._launch()
        spawning = asyncio.ensure_future(EngineProcess.start(launch, self._pids))
        try:
            return await asyncio.shield(spawning)
        except asyncio.CancelledError:
            # Cancelled halfway, the child would be running without anybody knowing it.
            with contextlib.suppress(EngineFailed):
                await (await spawning).stop(0.0)
            raise

    def _describe(
        self,
        process: EngineProcess,
        failure: EngineFailed,
        status: int | None,
        requests: tuple[str, ...],
        began: float,
        *,
        served: bool,
    ) -> Crash:
        exit_code, signal = split_status(status)
        hidden = process.launch.hidden
        return Crash(
            at=self._clock.now(),
            model=self.name,
            engine=process.launch.engine,
            reason=failure.reason,
            exit_code=exit_code,
            signal=signal,
            memory_mib=self.memory_mib,
            uptime=self._clock.monotonic() - began,
            had_served=served,
            last_lines=tuple(clean(line, hidden) for line in list(process.output)[-MOST_LINES:]),
            request_ids=requests[:MOST_REQUESTS],
        )

    def _report(self, crash: Crash) -> None:
        try:
            self._on_crash(crash)
        except Exception:  # an engine is started again whether or not its crash can be told
            log.exception("the crash of engine %s could not be told", self.name)

    async def _watch(self, process: EngineProcess) -> str:
        """Returns when the process has ended or no longer answers: why."""
        settings = self._settings
        ended = asyncio.create_task(process.wait())
        doubted = asyncio.create_task(self._doubted.wait())
        missed: list[str] = []
        try:
            while len(missed) < settings.missed_probes:
                pause = settings.pause_after_miss if missed else settings.probe_interval
                wake = {ended} if missed else {ended, doubted}
                await asyncio.wait(wake, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                if ended.done():
                    return ended.result()
                if (fault := await self._find_fault(process)) is not None:
                    missed.append(fault)
                    continue
                missed.clear()
                if doubted.done():
                    doubted = self._dispel()
                if self._clock.monotonic() - self._looked >= settings.memory_interval:
                    await self.measure_memory()
        finally:
            ended.cancel()
            doubted.cancel()
            self._become(EngineState.RESTARTING)
            self._doubted.clear()
        process.kill()
        return missed[-1]

    async def _find_fault(self, process: EngineProcess) -> str | None:
        """Looks once: what is wrong with the engine, None when all is well."""
        if not await process.answers(self._settings.probe_timeout):
            return "it stopped answering"
        if self._liveness.is_overdue:
            return _NO_WORK
        if self._liveness.is_due:
            if await process.computes(self._settings.liveness.timeout):
                self._liveness.note_answer()
            else:
                self._liveness.note_miss()
                # In use by now, it may only have been late; it is asked again when it is idle.
                return _NO_WORK if self._liveness.is_idle else None
        return None

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
