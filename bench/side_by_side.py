"""The command line of bench/run: sets up, checks, measures and reports."""

import argparse
import json
import os
import platform
import resource
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import report
from environments import BENCH, ENVIRONMENTS, Prepared, SetupFailed, compile_program
from measurement import (
    STEPS,
    LoadGenerator,
    Ports,
    RunningTarget,
    Step,
    TargetFailed,
    listens,
    running_mock,
)
from targets import TARGETS, UPSTREAM_FAST, Target

RESULTS = BENCH / "results"
OPEN_FILES = 16384
INTEGRITY = ("failed", "crossed", "lost", "reordered", "repeated", "incomplete", "unfinished")

EXAMPLES = """\
examples:
  bench/run --check                                  build mock and load generator, check one with the other
  bench/run --setup                                  install every peer, measure nothing
  bench/run --targets direct,nginx,stellwerk --quick a first look, under two minutes
  bench/run --publish                                the whole run, its tables written into bench/README.md
"""


# ---- options ---------------------------------------------------------------------------------------------------------


def chosen_from(known: list[str]) -> Callable[[str], list[str]]:
    def choose(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        if unknown := sorted(set(names) - set(known)):
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
        return names

    return choose


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/run", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    targets, steps = [target.name for target in TARGETS], [step.name for step in STEPS]
    parser.add_argument("--targets", type=chosen_from(targets), default=targets, help=f"of {','.join(targets)}")
    parser.add_argument("--steps", type=chosen_from(steps), default=steps, help=f"of {','.join(steps)}")
    parser.add_argument("--rounds", type=int, help="rounds over all targets (default 3, with --quick 1)")
    parser.add_argument("--quick", action="store_true", help="half the time for each step, one round")
    parser.add_argument("--check", action="store_true", help="check the load generator against the mock, and end")
    parser.add_argument("--setup", action="store_true", help="set up the environments, and end")
    parser.add_argument("--report", type=Path, metavar="FILE", help="render an earlier result, and end")
    parser.add_argument("--judge", action="store_true", help="fail when Stellwerk misses its bars beside nginx")
    parser.add_argument("--publish", action="store_true", help="write the tables into bench/README.md")
    parser.add_argument("--output", type=Path, metavar="FILE", help="result file (default bench/results/<time>.json)")
    parser.add_argument("--port", type=int, default=Ports.target, help="port of the targets (default %(default)s)")
    parser.add_argument("--mock-port", type=int, default=Ports.mock, help="port of the mock (default %(default)s)")
    return parser.parse_args()


# ---- check -----------------------------------------------------------------------------------------------------------

# A stream of twenty chunks with a fault in it, and the count that must notice.
FAULTS = {1: "lost", 2: "reordered", 3: "incomplete", 4: "crossed", 5: "repeated"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check() -> int:
    """The mock answers the load generator without an error, and every fault of the mock is noticed."""
    mock_program, load_program = compile_program("mock"), compile_program("loadgen")
    port, failures = free_port(), []

    def measure(mode: str, connections: int, model: str, seconds: float) -> dict[str, Any]:
        target = RunningTarget(
            Target("check", "", (), fast_model=model, slow_model=model), ENVIRONMENTS, ENVIRONMENTS, Ports(mock=port)
        )
        return load.run(Step("check", mode, connections, warm_up=0.3, seconds=seconds, ramp=0.2), target)

    with running_mock(mock_program, port) as mock:
        load = LoadGenerator(load_program, mock)
        for mode, connections, model in (("requests", 32, UPSTREAM_FAST), ("streams", 500, "up-n100-d10-s200")):
            result = measure(mode, connections, model, 2.0)
            print(f"{mode:9} {result['per_second']:9.0f}/s  " + ", ".join(f"{result[k]} {k}" for k in INTEGRITY))
            failures += [f"{mode}: {result[kind]} {kind}" for kind in INTEGRITY if result[kind]]
            if not result["done"]:
                failures.append(f"{mode}: nothing was done")
        for fault, kind in FAULTS.items():
            result = measure("streams", 8, f"up-n20-d2-s200-f{fault}", 0.2)
            print(f"fault {fault}: {result[kind]} {kind}")
            if not result[kind]:
                failures.append(f"fault {fault} was not noticed as {kind}")
    print("check failed: " + "; ".join(failures) if failures else "check passed")
    return 1 if failures else 0


# ---- measure ---------------------------------------------------------------------------------------------------------


def describe_machine() -> dict[str, Any]:
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cores": os.cpu_count(),
        "processor": models[0].partition(":")[2].strip() if models else platform.machine(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


def set_up(targets: list[Target]) -> tuple[dict[str, Prepared], dict[str, str]]:
    """Returns what every target runs in, and for the others why they cannot run."""
    prepared, skipped = {}, {}
    for target in targets:
        started = time.monotonic()
        try:
            prepared[target.name] = target.environment.prepare(ENVIRONMENTS / target.name)
        except SetupFailed as error:
            skipped[target.name] = f"not set up: {error}"
            print(f"{target.name}: SKIPPED, {error}", flush=True)
        else:
            print(f"{target.name}: ready to start after {time.monotonic() - started:.0f} s", flush=True)
    return prepared, skipped


def show(round_number: int, target: str, step: str, result: dict[str, Any]) -> None:
    kind = "chunk" if result["mode"] == "streams" else "request"
    wrong = ", ".join(f"{result[name]} {name}" for name in INTEGRITY if result[name])
    print(
        f"round {round_number}  {target:14} {step:13} {result['per_second']:9.0f} {kind}s/s"
        f"  {result['cpu_us'] or 0:8.1f} µs CPU/{kind}  p50 {result['latency_us']['p50'] / 1e3:8.2f} ms"
        f"  others {result['others_cpu_percent']:4.0f} %"
        + (f"  WRONG: {wrong} {result['last_error']}".rstrip() if wrong else ""),
        flush=True,
    )


@contextmanager
def fresh_folder(target: str) -> Iterator[Path]:
    # Not in /tmp, which may lie in memory: a ledger has to pay for its disk here.
    folder = Path(tempfile.mkdtemp(prefix=f"run-{target}-", dir=ENVIRONMENTS))
    try:
        yield folder
    finally:
        kept = ENVIRONMENTS / f"{target}.log"
        if (folder / "output.log").exists():
            shutil.copyfile(folder / "output.log", kept)
        shutil.rmtree(folder, ignore_errors=True)


def measure_target(
    target: Target, programs: Path, steps: list[Step], ports: Ports, round_number: int
) -> dict[str, Any]:
    """One round of one target: a fresh mock, a fresh process, every step."""
    record: dict[str, Any] = {"target": target.name, "round": round_number, "steps": {}}
    with (
        fresh_folder(target.name) as folder,
        running_mock(ENVIRONMENTS / "mock", ports.mock) as mock,
    ):
        running = RunningTarget(target, programs, folder, ports)
        try:
            record["start"] = running.start()
            for step in steps:
                running.settle()
                record["steps"][step.name] = LoadGenerator(ENVIRONMENTS / "loadgen", mock).run(step, running)
                show(round_number, target.name, step.name, record["steps"][step.name])
        except TargetFailed as error:
            record["error"] = str(error)
            print(f"round {round_number}  {target.name:14} FAILED: {error}", flush=True)
        finally:
            running.stop()
    return record


def measure(options: argparse.Namespace) -> tuple[dict[str, Any], Path]:
    ports = Ports(options.port, options.mock_port)
    for port in (ports.target, ports.mock):
        if listens(port):
            raise SystemExit(f"bench/run: port {port} is taken; free it, or choose others with --port and --mock-port")
    targets = [target for target in TARGETS if target.name in options.targets]
    steps = [step.shortened() if options.quick else step for step in STEPS if step.name in options.steps]
    prepared, skipped = set_up(targets)
    targets = [target for target in targets if target.name in prepared]
    result: dict[str, Any] = {
        "machine": describe_machine(),
        "quick": options.quick,
        "versions": {name: environment.version for name, environment in prepared.items()},
        "skipped": skipped,
        "records": [],
    }
    output = options.output or RESULTS / time.strftime("%Y%m%d-%H%M%S.json")
    output.parent.mkdir(parents=True, exist_ok=True)
    for round_number in range(1, (options.rounds or (1 if options.quick else 3)) + 1):
        for target in targets:
            record = measure_target(target, prepared[target.name].programs, steps, ports, round_number)
            result["records"].append(record)
            output.write_text(json.dumps(result, indent=1))
    return result, output


def allow_many_connections() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def run(options: argparse.Namespace) -> int:
    allow_many_connections()
    compile_program("mock")
    compile_program("loadgen")
    if options.check:
        return check()
    if options.setup:
        _, skipped = set_up([target for target in TARGETS if target.name in options.targets])
        return 1 if skipped else 0
    if options.report:
        result, output = json.loads(options.report.read_text()), options.report
    else:
        result, output = measure(options)
    text = report.render(result)
    print(f"\n{text}\nresult: {output}")
    if options.publish:
        report.publish(text)
    missed = report.judge(result) if options.judge else []
    for bar in missed:
        print(f"missed: {bar}")
    failed = missed or result["skipped"] or [record for record in result["records"] if "error" in record]
    return 1 if failed else 0


def main() -> int:
    try:
        return run(read_options())
    except (SetupFailed, TargetFailed) as error:
        raise SystemExit(f"bench/run: {error}") from error
