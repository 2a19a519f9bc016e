"""The lines of the four views, worked out of a snapshot."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
from rich.text import Text

from stellwerk.tui.language import Words
from stellwerk.tui.snapshot import Crash, Job, Model, Queue, Snapshot
from stellwerk.tui.throughput import Throughput
from stellwerk.tui.wording import bar, bar_colour, clock_time, count, duration, memory

VIEWS: Final = ("models", "queues", "requests", "crashes")
COLUMNS: Final[Mapping[str, tuple[tuple[str, int], ...]]] = {
    "models": (
        ("column.model", 0), ("column.state", 13), ("column.port", 6), ("column.uptime", 8), ("column.resolution", 10),
        ("column.health", 7), ("column.memory", 9),
    ),
    "queues": (
        ("column.queue", 0), ("column.processing", 9), ("column.waiting", 8), ("column.utilization", 16),
        ("column.processed", 8), ("column.failed", 8), ("column.pace", 5),
    ),
    "requests": (
        ("column.id", 9), ("column.model", 0), ("column.client", 18), ("column.state", 13), ("column.position", 8),
        ("column.age", 8),
    ),
    "crashes": (("column.at", 16), ("column.model", 24), ("column.reason", 0)),
}  # fmt: skip
"""Texts of the heads and widths in cells of a screen; 0 takes what is left."""
LEAST_WIDTH = 12
_SIGNS: Final[Mapping[str, tuple[str, str]]] = {
    "running": ("●", "green"), "loading": ("◐", "yellow"), "draining": ("◑", "yellow"), "crashed": ("✗", "red"),
    "stopped": ("○", ""), "unusable": ("✗", "red"), "queued": ("○", ""), "done": ("✓", "green"), "failed": ("✗", "red"),
    "cancelled": ("–", ""), "dead": ("✗", "red"),
}  # fmt: skip


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line. `key` stays the same from look to look, `fact` is what the line is about."""

    key: str
    cells: tuple[Text, ...]
    fact: Model | Queue | Job | Crash


def widths(view: str, screen: int) -> list[int]:
    """The widths of a view's columns on a screen of that many cells, the last of which a scroll bar may take."""
    rest = open_width(view, screen)
    return [width or rest for _, width in COLUMNS[view]]


def open_width(view: str, screen: int) -> int:
    """The width of the column that takes what the others leave."""
    return max(LEAST_WIDTH, screen - 1 - sum(width for _, width in COLUMNS[view]))


def rows_of(view: str, snapshot: Snapshot, throughput: Throughput, words: Words, wanted: str = "") -> list[Row]:
    """The lines of a view that contain `wanted`, in capitals or not, in one of their facts."""
    makers: Mapping[str, Callable[[], list[Row]]] = {
        "models": lambda: [_model(model, words) for model in snapshot.models],
        "queues": lambda: [_queue(queue, throughput, words) for queue in snapshot.queues or ()],
        "requests": lambda: [_job(job, snapshot.at, words) for job in _by_urgency(snapshot.jobs or ())],
        "crashes": lambda: _crashes(snapshot.crashes or ()),
    }
    rows, seen, text = [], set(), wanted.casefold()
    for row in makers[view]():
        if row.key not in seen and text in "\n".join(_said(row)).casefold():
            seen.add(row.key)
            rows.append(row)
    return rows


def is_told(view: str, snapshot: Snapshot) -> bool:
    """Whether the gateway tells what this view shows."""
    return {
        "models": True,
        "queues": snapshot.queues is not None,
        "requests": snapshot.jobs is not None,
        "crashes": snapshot.crashes is not None,
    }[view]


def _said(row: Row) -> Sequence[str]:
    fact = row.fact
    return [*(cell.plain for cell in row.cells), fact.id if isinstance(fact, Job) else ""]


def _state(state: str, words: Words) -> Text:
    sign, colour = _SIGNS.get(state, ("?", ""))
    return Text(f"{sign} {words.state(state)}", style=colour, no_wrap=True)


def _plain(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def _model(model: Model, words: Words) -> Row:
    health = {True: Text("✓", style="green"), False: Text("✗", style="red"), None: Text("–")}[model.healthy]
    return Row(
        key=f"{model.name}\n{model.port}",
        cells=(
            _plain(model.name),
            _state(model.state, words),
            _plain("–" if model.port is None else str(model.port)),
            _plain(duration(model.uptime)),
            _plain(model.resolution or "–"),
            health,
            _plain(memory(model.memory_mib)),
        ),
        fact=model,
    )


def _queue(queue: Queue, throughput: Throughput, words: Words) -> Row:
    name = _plain(queue.name)
    if queue.paused:
        name = Text.assemble((f"‖ {words('paused')} ", "yellow"), queue.name, no_wrap=True, overflow="ellipsis")
    part = queue.utilization
    used = Text.assemble((bar(part), bar_colour(part)), f" {part:4.0%}")
    pace = throughput.per_minute(queue.name)
    return Row(
        key=queue.name,
        cells=(
            name,
            _plain(f"{queue.processing}/{queue.max_concurrent or '∞'}"),
            _plain(count(queue.waiting)),
            used if queue.max_concurrent else _plain("–"),
            _plain(count(queue.processed)),
            Text(count(queue.failed), style="red" if queue.failed else ""),
            _plain("–" if pace is None else f"{pace:.0f}"),
        ),
        fact=queue,
    )


def _by_urgency(jobs: Sequence[Job]) -> list[Job]:
    """Those that run, then those that wait by their place, then those that have ended, the newest first."""
    ranks = {"running": 0, "queued": 1}
    return sorted(jobs, key=lambda job: (ranks.get(job.state, 2), job.position or 0, -(job.created or 0)))


def _job(job: Job, now: float, words: Words) -> Row:
    return Row(
        key=job.id,
        cells=(
            _plain(job.id[:8]),
            _plain(job.model),
            _plain(job.client or "–"),
            _state(job.state, words),
            _plain("–" if job.position is None else str(job.position)),
            _plain("–" if job.created is None else duration(now - job.created)),
        ),
        fact=job,
    )


def _crashes(crashes: Sequence[Crash]) -> list[Row]:
    # Two of one model within a second are told apart by how many there were before, counted from the oldest.
    seen: dict[str, int] = {}
    rows = []
    for crash in reversed(crashes):
        same = f"{crash.at}\n{crash.model}"
        seen[same] = seen.get(same, 0) + 1
        cells = (_plain(clock_time(crash.at)), _plain(crash.model or "–"), _plain(crash.reason or "–"))
        rows.append(Row(key=f"{same}\n{seen[same]}", cells=cells, fact=crash))
    return rows[::-1]
