"""What stands below the tables: more about the chosen line, and about the gateway as a whole."""

from rich.cells import cell_len
from rich.text import Text

from stellwerk.tui.language import Words
from stellwerk.tui.snapshot import Crash, Job, Model, Queue, Snapshot
from stellwerk.tui.tables import open_width

DETAIL_LINES = 4
CRASH_LINES = 10


def describe(
    view: str, chosen: Model | Queue | Job | Crash | None, snapshot: Snapshot, words: Words, screen: int = 80
) -> Text:
    """At most `DETAIL_LINES` lines, `CRASH_LINES` for crashes. `screen` is its width in cells: a name that its column
    cuts off stands here."""
    lines: list[Text | str] = []
    if view == "models":
        lines = [*_advice(snapshot, words), *_machine(snapshot, words)]
        if isinstance(chosen, Model) and chosen.error:
            lines.insert(0, Text(f"{chosen.name}: {chosen.error}", style="red"))
        elif isinstance(chosen, Model) and _is_cut(chosen.name, view, screen):
            lines.insert(0, Text(chosen.name))
    elif isinstance(chosen, Queue):
        lines = [_queue(chosen, words), *_machine(snapshot, words)]
    elif isinstance(chosen, Job):
        lines = _job(chosen, words)
        if _is_cut(chosen.model, view, screen):
            lines.insert(0, chosen.model)
    elif isinstance(chosen, Crash):
        lines = _crash(chosen, words)
    most = CRASH_LINES if view == "crashes" else DETAIL_LINES
    cut = [line if isinstance(line, Text) else Text(line) for line in lines[:most]]
    return Text("\n", no_wrap=True, overflow="ellipsis").join(cut)


def _is_cut(name: str, view: str, screen: int) -> bool:
    return cell_len(name) >= open_width(view, screen)


def _advice(snapshot: Snapshot, words: Words) -> list[Text | str]:
    advice = snapshot.advice
    if advice is None:
        return []
    if not advice.model:
        return [" ".join((words("advice.none"), *map(words.reason, advice.reasons[:1])))]
    key = "advice.replacing" if advice.replaces else "advice"
    first = Text(words(key, model=advice.model, replaces=advice.replaces), style="bold")
    return [first, " ".join(map(words.reason, advice.reasons))]


def _machine(snapshot: Snapshot, words: Words) -> list[Text | str]:
    if snapshot.in_flight is None:
        return []
    memory = ""
    if snapshot.memory_used_mib is not None and snapshot.memory_capacity_mib is not None:
        used, capacity = round(snapshot.memory_used_mib), round(snapshot.memory_capacity_mib)
        memory = words("machine.memory", used=used, capacity=capacity)
    return [words("machine", calls=snapshot.in_flight, memory=memory)]


def _queue(queue: Queue, words: Words) -> str:
    return words(
        "queue.more",
        queue=queue.name,
        timeout=queue.timed_out,
        cancelled=queue.cancelled,
        dead=queue.dead,
        room=queue.max_waiting or "∞",
    )


def _job(job: Job, words: Words) -> list[Text | str]:
    lines: list[Text | str] = [words("job.more", id=job.id, kind=job.kind or "–", attempts=job.attempts)]
    if job.total or job.done:
        lines.append(words("job.progress", done=job.done, total=job.total or "?", unit=job.unit))
    if job.error:
        lines.append(Text(job.error, style="red"))
    return lines


def _crash(crash: Crash, words: Words) -> list[Text | str]:
    if not crash.last_lines:
        return [words("crash.no_lines", model=crash.model)]
    head = Text(words("crash.lines", model=crash.model), style="bold")
    return [head, *crash.last_lines[-(CRASH_LINES - 1) :]]
