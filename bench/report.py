"""Tables from a result of bench/run: every figure is the median over the rounds."""

import statistics
from collections.abc import Iterable
from typing import Any

from environments import BENCH
from targets import TARGETS

README = BENCH / "README.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
CPU_STEPS = {
    "requests-1": "request, 1 conn.",
    "requests-32": "request, 32",
    "requests-256": "request, 256",
    "streams-200": "chunk, 200 streams",
    "streams-1000": "chunk, 1000",
}
ABSENT = "–"
# 80 µs a request and 15 µs a chunk on a machine where nginx takes 11 and 6.
MOST_NGINX = {"requests": 80 / 11, "streams": 15 / 6}
FAULTS = ("lost", "reordered", "repeated", "crossed", "incomplete", "failed", "unfinished")

Record = dict[str, Any]
Result = dict[str, Any]


class Figures:
    """The records of a result, read target by target."""

    def __init__(self, result: Result) -> None:
        measured = {record["target"] for record in result["records"] if record["steps"]}
        self.targets = [target for target in TARGETS if target.name in measured]
        self._records: list[Record] = result["records"]

    def _values(self, target: str, path: Iterable[str]) -> list[float]:
        values = []
        for record in self._records:
            value: Any = record if record["target"] == target else None
            for key in path:
                value = value.get(key) if isinstance(value, dict) else None
            if value is not None:
                values.append(value)
        return values

    def median(self, target: str, *path: str) -> float | None:
        values = self._values(target, path)
        return statistics.median(values) if values else None

    def total(self, target: str, *path: str) -> int | None:
        values = self._values(target, path)
        return int(sum(values)) if values else None

    def step(self, target: str, step: str, *path: str) -> float | None:
        return self.median(target, "steps", step, *path)

    def cpu(self, target: str, step: str) -> float | None:
        return self.step(target, step, "cpu_us")

    def everything(self, figure: str) -> list[float]:
        return [step[figure] for record in self._records for step in record["steps"].values()]


def number(value: float | None, digits: int | None = None) -> str:
    if value is None:
        return ABSENT
    if digits is None:
        digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}".replace(",", " ")


def table(head: list[str], rows: list[list[str]]) -> str:
    alignment = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, alignment, *rows))


def ratio_table(figures: Figures, base: str) -> str:
    """How many times the CPU of `base` each target takes."""
    rows = []
    for target in figures.targets:
        if not target.command:
            continue
        row = [target.title]
        for step in CPU_STEPS:
            own, other = figures.cpu(target.name, step), figures.cpu(base, step)
            row.append(number(own / other) + " ×" if own is not None and other else ABSENT)
        rows.append(row)
    return table(["target", *CPU_STEPS.values()], rows)


def milliseconds(value: float | None, base: float | None = 0.0) -> str:
    return ABSENT if value is None or base is None else number((value - base) / 1e3)


def cost_table(figures: Figures, versions: dict[str, str]) -> str:
    head = ["target", "version", *(f"µs CPU per {title}" for title in CPU_STEPS.values()), "requests/s, 32"]
    rows = []
    for target in figures.targets:
        cpu = [number(figures.cpu(target.name, step)) if target.command else ABSENT for step in CPU_STEPS]
        per_second = number(figures.step(target.name, "requests-32", "per_second"), 0)
        rows.append([target.title, versions.get(target.name) or ABSENT, *cpu, per_second])
    return table(head, rows)


def delay_table(figures: Figures) -> str:
    head = ["target", "added p50 ms", "added p99 ms", "first chunk p50 ms", "first chunk p99 ms", "ready s"]
    head += ["RSS idle MB", "RSS at 1000 streams MB"]
    rows = []
    for target in figures.targets:

        def added(quantile: str, name: str = target.name) -> str:
            direct = figures.step("direct", "requests-1", "latency_us", quantile)
            return milliseconds(figures.step(name, "requests-1", "latency_us", quantile), direct)

        first = [
            milliseconds(figures.step(target.name, "streams-1000", "first_token_us", quantile))
            for quantile in ("p50", "p99")
        ]
        memory = [
            figures.median(target.name, "start", "rss_mb"),
            figures.step(target.name, "streams-1000", "rss_mb"),
        ]
        row = [target.title, added("p50") if target.command else ABSENT, added("p99") if target.command else ABSENT]
        row += [*first, number(figures.median(target.name, "start", "ready_seconds"))]
        rows.append(row + [number(value, 0) for value in memory])
    return table(head, rows)


def integrity_table(figures: Figures) -> str:
    kinds = ("complete", *FAULTS)
    rows = []
    for target in figures.targets:
        chunks = figures.step(target.name, "streams-1000", "per_second")
        counts = [figures.total(target.name, "steps", "streams-1000", kind) for kind in kinds]
        rows.append([target.title, number(chunks, 0), *(number(count, 0) for count in counts)])
    head = ["target", "chunks/s", "complete streams", "chunks lost", "reordered", "repeated", "of another stream"]
    return table([*head, "incomplete streams", "failed", "not finished in time"], rows)


def judge(result: Result) -> list[str]:
    """Which bars Stellwerk misses: CPU as a multiple of nginx in the same run, and whole streams."""
    figures = Figures(result)
    missed = []
    for step in CPU_STEPS:
        own, base = figures.cpu("stellwerk", step), figures.cpu("nginx", step)
        most = MOST_NGINX[step.partition("-")[0]]
        if own is None or not base:
            missed.append(f"{step}: not measured for both, Stellwerk and nginx")
        elif own > most * base:
            missed.append(f"{step}: {own / base:.2f} × nginx, at most {most:.2f} ×")
    for fault in FAULTS:
        count = figures.total("stellwerk", "steps", "streams-1000", fault)
        if count:
            missed.append(f"streams-1000: {count} {fault}")
    return missed


def surroundings(result: Result, figures: Figures) -> str:
    machine = result["machine"]
    rounds = max(record["round"] for record in result["records"])
    others = figures.everything("others_cpu_percent")
    stolen = figures.everything("stolen_cpu_percent")
    steps = ", with short steps" if result["quick"] else ""
    lines = [
        f"{machine['date']}, {machine['cores']} cores ({machine['processor']}), {machine['memory_gb']} GB, "
        f"{machine['kernel']}, Python {machine['python']}; rounds: {rounds}{steps}.",
        f"Everything else on the machine took {number(statistics.median(others), 0)} % of one core in the median step "
        f"and {number(max(others), 0)} % in the worst; the hypervisor took {number(max(stolen), 1)} % at most.",
    ]
    lines += [f"Not measured: {name}, {reason}." for name, reason in result["skipped"].items()]
    lines += [
        f"Failed in round {record['round']}: {record['target']}, {record['error']}."
        for record in result["records"]
        if "error" in record
    ]
    return "\n".join(lines)


def render(result: Result) -> str:
    figures = Figures(result)
    if not figures.targets:
        return "Nothing was measured."
    sections = [surroundings(result, figures)]
    for base, title in (("nginx", "nginx as a plain proxy"), ("stellwerk", "Stellwerk")):
        if any(target.name == base for target in figures.targets):
            sections.append(f"**CPU, as multiples of {title}**\n\n{ratio_table(figures, base)}")
    sections += [
        f"**CPU**\n\n{cost_table(figures, result['versions'])}",
        "**Latency added at 1 connection, first chunk at 1000 streams, start and memory**\n\n" + delay_table(figures),
        f"**Integrity of the streams, 1000 at a time, all rounds together**\n\n{integrity_table(figures)}",
    ]
    return "\n\n".join(sections)


def publish(text: str) -> None:
    """Puts the tables between the marks in bench/README.md."""
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise SystemExit(f"{README.name} lacks the marks {BEGIN} and {END}")
    README.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
