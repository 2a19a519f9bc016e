"""One target in a fresh process: start it, put load on it, read what it cost."""

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from environments import BENCH
from targets import CLIENT_KEY, UPSTREAM_FAST, UPSTREAM_SLOW, Target

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
START_SECONDS = 90
SETTLE_SECONDS = 15
IDLE_CPU_SHARE = 0.05


class TargetFailed(Exception):
    """The target did not start or did not answer; the message says what it said."""


@dataclass(frozen=True)
class Step:
    """One load: `connections` closed loops of requests or streams."""

    name: str
    mode: str
    connections: int
    warm_up: float
    seconds: float
    ramp: float = 0.0

    def shortened(self) -> "Step":
        return Step(self.name, self.mode, self.connections, self.warm_up / 2, self.seconds / 2, self.ramp / 2)


# A stream of the slow model lasts two seconds, so each warm-up ends after the first streams were replaced.
STEPS = [
    Step("requests-1", "requests", 1, warm_up=1.0, seconds=3.0),
    Step("requests-32", "requests", 32, warm_up=1.5, seconds=4.0),
    Step("requests-256", "requests", 256, warm_up=1.5, seconds=4.0),
    Step("streams-200", "streams", 200, warm_up=3.0, seconds=6.0, ramp=2.0),
    Step("streams-1000", "streams", 1000, warm_up=5.0, seconds=7.0, ramp=4.0),
]


@dataclass(frozen=True)
class Ports:
    target: int = 8100
    mock: int = 9000


class ProcessTree:
    """A program with everything that it started: the members of its session and all their descendants."""

    def __init__(self, root: int) -> None:
        self.root = root

    def _members(self) -> dict[int, list[str]]:
        """The fields of /proc/PID/stat behind the program's name, by process id."""
        entries = [path.name for path in Path("/proc").iterdir() if path.name.isdigit()]
        processes = {int(entry): stat for entry in entries if (stat := read_stat(entry))}
        members = {pid: stat for pid, stat in processes.items() if self.root in (pid, int(stat[3]))}
        while grown := {p: s for p, s in processes.items() if p not in members and int(s[1]) in members}:
            members |= grown
        return members

    def cpu_seconds(self) -> float:
        # utime, stime, and both of the children that have ended
        return sum(sum(map(int, stat[11:15])) for stat in self._members().values()) / TICKS_PER_SECOND

    def rss_mb(self) -> float:
        return round(sum(map(read_rss_kb, self._members())) / 1024, 1)

    def stop(self) -> None:
        for sign, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 3.0)):
            for pid in self._members():
                try:
                    os.kill(pid, sign)
                except ProcessLookupError:
                    continue
            if wait_until(lambda: not self._members(), patience):
                return


def read_stat(pid: str) -> list[str] | None:
    try:
        stat = Path("/proc", pid, "stat").read_text()
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] == "Z" else fields


def read_rss_kb(pid: int) -> int:
    # The figure in /proc/PID/stat lags behind; this one is counted when it is asked for.
    try:
        lines = Path("/proc", str(pid), "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Rss:"))


def wait_until(condition: Callable[[], bool], patience: float, pause: float = 0.02) -> bool:
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
    return True


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def machine_seconds() -> dict[str, float]:
    ticks = [int(field) / TICKS_PER_SECOND for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return {"busy": sum(ticks) - ticks[3] - ticks[4], "stolen": ticks[7]}


@contextmanager
def running_mock(program: Path, port: int) -> Iterator[ProcessTree]:
    with subprocess.Popen([program, str(port)], start_new_session=True) as process:
        try:
            if not wait_until(lambda: listens(port), 5.0):
                raise TargetFailed(f"the mock does not listen on port {port}")
            yield ProcessTree(process.pid)
        finally:
            process.terminate()


def clean_environment() -> dict[str, str]:
    # Nothing of the caller's shell may speed up, slow down or configure a target.
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}


class RunningTarget:
    """A started target that has answered its first request."""

    def __init__(self, target: Target, programs: Path, run: Path, ports: Ports) -> None:
        self.target = target
        self.ports = ports
        self.port = ports.target if target.command else ports.mock
        self.process: subprocess.Popen[bytes] | None = None
        self.tree: ProcessTree | None = None
        self._run = run
        self._places = {
            "programs": str(programs),
            "bench": str(BENCH),
            "run": str(run),
            "config": str(run / target.config),
            "port": str(ports.target),
            "mock_port": str(ports.mock),
        }

    def _filled(self, text: str, **more: str) -> str:
        return text.format(**self._places, **more)

    def _write_config(self) -> None:
        if not self.target.config:
            return
        text = (BENCH / "peers" / self.target.config).read_text()
        for mark, value in (("PORT", self.ports.target), ("MOCK_PORT", self.ports.mock), ("RUN", self._run)):
            text = text.replace(f"@{mark}@", str(value))
        (self._run / self.target.config).write_text(text)

    def start(self) -> dict[str, float]:
        """Returns the seconds from the start to the first answer, and the memory of the idle target."""
        if not self.target.command:
            return {}
        if listens(self.port):
            raise TargetFailed(f"port {self.port} is taken, so another program would be measured")
        self._write_config()
        command = [self._filled(word) for word in self.target.command]
        variables = {name: self._filled(value) for name, value in self.target.variables.items()}
        started = time.monotonic()
        with (self._run / "output.log").open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self._run,
                env=clean_environment() | variables,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.tree = ProcessTree(self.process.pid)
        self._await_first_answer(started + START_SECONDS)
        ready = time.monotonic() - started
        time.sleep(1.0)
        return {"ready_seconds": round(ready, 3), "rss_mb": self.tree.rss_mb()}

    def _await_first_answer(self, deadline: float) -> None:
        answer = "no answer"
        while time.monotonic() < deadline and self.process and self.process.poll() is None:
            if self._find_port():
                answer = self._ask()
                if " answer-q" in answer:
                    return
            time.sleep(0.01)
        state = "ended" if self.process and self.process.poll() is not None else "did not get ready"
        raise TargetFailed(f"{state}: {answer[:300]!r}; its output ends: {self._last_output()!r}")

    def _find_port(self) -> bool:
        if self.target.port_file:
            path = Path(self._filled(self.target.port_file))
            self.port = int(path.read_text() or 0) if path.exists() else 0
        return bool(self.port)

    def _ask(self) -> str:
        body = {"model": self.target.fast_model, "messages": [{"role": "user", "content": "Are you ready?"}]}
        headers = {"content-type": "application/json", "authorization": f"Bearer {CLIENT_KEY}"}
        headers |= dict(line.split(": ", 1) for line in self.headers(UPSTREAM_FAST))
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("POST", self.target.path, json.dumps(body), headers)
            return connection.getresponse().read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            return str(error)
        finally:
            connection.close()

    def _last_output(self) -> str:
        return (self._run / "output.log").read_text(errors="replace")[-600:]

    def headers(self, model: str) -> list[str]:
        return [self._filled(line, model=model) for line in self.target.headers]

    def cpu_seconds(self) -> float:
        return self.tree.cpu_seconds() if self.tree else 0.0

    def rss_mb(self) -> float | None:
        return self.tree.rss_mb() if self.tree else None

    def settle(self) -> None:
        """Waits until the work that the last step left behind is done."""

        def is_idle(pause: float = 0.4) -> bool:
            before = self.cpu_seconds()
            time.sleep(pause)
            return self.cpu_seconds() - before < IDLE_CPU_SHARE * pause

        wait_until(is_idle, SETTLE_SECONDS)

    def stop(self) -> None:
        if self.process and self.tree:
            self.tree.stop()
            self.process.wait()


class LoadGenerator:
    """Puts the load of a step on a target and reads the processors' clocks when the window opens and closes."""

    def __init__(self, program: Path, mock: ProcessTree) -> None:
        self._program = program
        self._mock = mock

    def _command(self, step: Step, target: RunningTarget) -> list[str]:
        fast = step.mode == "requests"
        row = target.target
        command = [str(self._program), step.mode, "-p", str(target.port), "-c", str(step.connections)]
        command += ["-w", str(step.warm_up), "-t", str(step.seconds), "-R", str(step.ramp)]
        command += ["-P", row.path, "-m", row.fast_model if fast else row.slow_model, "-k", CLIENT_KEY]
        for line in target.headers(UPSTREAM_FAST if fast else UPSTREAM_SLOW):
            command += ["-H", line]
        return command

    def run(self, step: Step, target: RunningTarget) -> dict[str, Any]:
        with subprocess.Popen(self._command(step, target), stdout=subprocess.PIPE, text=True) as process:
            load = ProcessTree(process.pid)
            clocks: list[dict[str, Any]] = []
            for line in process.stdout or ():
                if line.startswith("{"):
                    return self._result(json.loads(line), *clocks)
                clocks.append(self._read_clocks(target, load))
        raise TargetFailed(f"the load generator ended with status {process.returncode}")

    def _read_clocks(self, target: RunningTarget, load: ProcessTree) -> dict[str, Any]:
        return {
            "at": time.monotonic(),
            "target": target.cpu_seconds(),
            "harness": self._mock.cpu_seconds() + load.cpu_seconds(),
            "rss_mb": target.rss_mb(),
            **machine_seconds(),
        }

    @staticmethod
    def _result(load: dict[str, Any], opened: dict[str, Any], closed: dict[str, Any]) -> dict[str, Any]:
        spent = {clock: closed[clock] - opened[clock] for clock in opened if clock != "rss_mb"}
        finished = load["chunks"] if load["mode"] == "streams" else load["done"]
        others = max(0.0, spent["busy"] - spent["target"] - spent["harness"])
        return load | {
            "cpu_seconds": round(spent["target"], 3),
            "cpu_us": round(spent["target"] * 1e6 / finished, 2) if finished else None,
            "per_second": round(finished / spent["at"], 1),
            "rss_mb": closed["rss_mb"],
            "others_cpu_percent": round(others / spent["at"] * 100, 1),
            "stolen_cpu_percent": round(spent["stolen"] / spent["at"] * 100, 2),
        }
