"""The whole application as a process of its own: started, asked, watched and ended by tests."""

import asyncio
import inspect
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-m", "stellwerk")
ADMIN_KEY = "canary-admin-key-5f0c1d7be2"
DEADLINE = 60.0
"""Seconds that a test waits for anything before it fails; nothing normally takes three, on a busy machine ten."""

ALONE = {
    "engines": {"enabled": False},
    "ocr": {"enabled": False},
    "discovery": {"environment": False, "ollama": False},
    "drain_seconds": 10,
}
"""A gateway that only knows what a test configures."""


async def wait_until(predicate: Callable[[], Any], seconds: float = DEADLINE, *, longest_pause: float = 0.1) -> Any:
    """Waits for something that nobody announces, and returns what `predicate`, plain or async, has found."""
    end, pause = time.monotonic() + seconds, 0.005
    while True:
        found = predicate()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < end, f"not within {seconds} s"
        await asyncio.sleep(pause)
        pause = min(1.5 * pause, longest_pause)


async def best_within(bound: float, measure: Callable[[], Awaitable[float]], tries: int = 5) -> None:
    """That what `measure` does can take less than `bound` seconds: the machine may be busy with others once."""
    times: list[float] = []
    while len(times) < tries and (not times or min(times) >= bound):
        times.append(await measure())
    assert min(times) < bound, times


async def away_from_midnight(seconds: float = 60.0) -> None:
    """Returns at a moment that is not shortly before the end of a day in UTC: budgets and reports begin anew there."""
    left = 86_400 - time.time() % 86_400
    if left < seconds:
        await asyncio.sleep(left + 1)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` in it, section by section."""
    result = dict(base)
    for name, value in changes.items():
        inner = result.get(name)
        result[name] = merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return result


def environment_for(folder: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a program needs to run, and nothing that this machine's own environment holds."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8", **(more or {})}


@dataclass
class GatewayProcess:
    """A running `stellwerk serve`. Its output goes to files, its data folder is the test's own."""

    process: "subprocess.Popen[bytes]"
    folder: Path
    data: Path
    config: Path
    environment: dict[str, str]
    key: str = ADMIN_KEY
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        return (self.folder / "stdout").read_text()

    @property
    def log(self) -> str:
        return (self.folder / "stderr").read_text()

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    @property
    def children(self) -> list[int]:
        """Every process that it started and that still runs."""
        return [pid for pid, parent in _parents() if parent == self.pid]

    @property
    def resident_bytes(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @property
    def held_up_seconds(self) -> float:
        """How long its first thread could have run and had no core, because this machine was busy with others."""
        return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[1]) / 1e9

    def find_port(self) -> int:
        """The port in the line that says it is ready; 0 before."""
        assert not self.ended, self.log
        first = next((line for line in self.output.splitlines(keepends=True) if " answers on http://" in line), "")
        self.port = int(first.rstrip().rpartition(":")[2]) if first.endswith("\n") else 0
        return self.port

    def write_config(self, changes: Mapping[str, Any]) -> None:
        """Replaces the config file at once, as editors do."""
        fresh = self.config.with_suffix(".new")
        fresh.write_text(json.dumps(merged(ALONE, changes)))
        fresh.replace(self.config)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def wait(self, seconds: float = DEADLINE) -> int:
        """The exit code."""
        return await asyncio.to_thread(self.process.wait, seconds)

    async def stop(self) -> None:
        """Ends it as a service manager does, and is sure that everything is on the disk then."""
        self.signal(signal.SIGTERM)
        assert await self.wait() == 0, self.log

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """No file of the process may grow any more, which is what a full disk does."""
        before = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (1, before[1]))
        try:
            yield
        finally:
            if not self.ended:
                resource.prlimit(self.pid, resource.RLIMIT_FSIZE, before)

    def calls(self) -> list[dict[str, Any]]:
        """The ledger's rows, oldest first."""
        path = f"file:{self.data / 'stellwerk.db'}?mode=ro"
        with closing(sqlite3.connect(path, uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute("SELECT * FROM calls ORDER BY number")]

    async def call(self, request_id: str) -> dict[str, Any]:
        """The ledger's row of one call, once it is stored; more than one is an error."""
        rows = await wait_until(lambda: [row for row in self.calls() if row["id"] == request_id])
        assert len(rows) == 1
        return rows[0]

    async def run(self, *arguments: str, more: Mapping[str, str] | None = None) -> "Finished":
        """Runs another command of Stellwerk on the same data folder."""
        return await run_command(*arguments, environment={**self.environment, **(more or {})})


@dataclass
class Finished:
    code: int
    output: str
    errors: str


async def run_command(*arguments: str, environment: Mapping[str, str], program: Sequence[str] = COMMAND) -> Finished:
    process = await asyncio.create_subprocess_exec(
        *program,
        *arguments,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(DEADLINE):
            output, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return Finished(process.returncode, output.decode(), errors.decode())


def start_gateway(
    folder: Path,
    config: Mapping[str, Any] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    port: int = 0,
    chosen_key: bool = True,
    data: Path | None = None,
    redirection: str = "",
) -> GatewayProcess:
    """Starts it and returns at once. Without `chosen_key` it makes an admin key of its own.

    `redirection` is what a shell would do with its output.
    """
    folder.mkdir(exist_ok=True)
    data = data or folder / "data"
    variables = environment_for(folder, environment)
    variables["STELLWERK_DATA"] = str(data)
    if chosen_key:
        variables["STELLWERK_ADMIN_KEY"] = ADMIN_KEY
    file = folder / "stellwerk.yaml"
    file.write_text(json.dumps(merged(ALONE, config or {})))
    command = [*COMMAND, "serve", "--port", str(port), "--data", str(data), "--config", str(file)]
    if redirection:
        command = ["sh", "-c", f'exec "$@" {redirection}', "sh", *command]
    with (folder / "stdout").open("wb") as output, (folder / "stderr").open("wb") as errors:
        process = subprocess.Popen(
            command,
            env=variables,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            # A process group of its own, as a shell gives it, so that a test can press Ctrl+C for all of it.
            process_group=0,
        )
    return GatewayProcess(process, folder, data, file, variables)


@asynccontextmanager
async def running_gateway(
    folder: Path, config: Mapping[str, Any] | None = None, **options: Any
) -> AsyncIterator[GatewayProcess]:
    """A gateway that answers. It is killed at the end unless the test has ended it."""
    gateway = start_gateway(folder, config, **options)
    try:
        await wait_until(gateway.find_port)
        if "STELLWERK_ADMIN_KEY" not in gateway.environment and (gateway.data / "admin.key").exists():
            gateway.key = (gateway.data / "admin.key").read_text().strip()
        yield gateway
    finally:
        end(gateway.process)


def _parents() -> Iterator[tuple[int, int]]:
    for status in Path("/proc").glob("[0-9]*/stat"):
        # A process may be gone before its file has been read.
        with suppress(OSError):
            # The name stands in brackets and may hold anything, blanks and brackets too.
            state, parent, *_ = status.read_text().rpartition(")")[2].split()
            if state != "Z":
                yield int(status.parent.name), int(parent)


def end(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):
        process.kill()
    process.wait(DEADLINE)
