"""From the gateway's JSON to the console's facts, for what both ways of asking have in common."""

from collections.abc import Iterable, Mapping
from typing import Any

from stellwerk.tui.reading import clean, first, lines, moment, number, rows, whole
from stellwerk.tui.snapshot import LIVE, Advice, Crash, Job, Queue

_STATES: Mapping[str, str] = {
    "ready": "running", "starting": "loading", "restarting": "crashed", "failed": "crashed", "error": "crashed",
    "stopping": "draining", "empty": "stopped", "off": "stopped",
}  # fmt: skip
_JOB_STATES: Mapping[str, str] = {
    "processing": "running", "leased": "running", "pending": "queued", "waiting": "queued", "completed": "done",
    "succeeded": "done", "canceled": "cancelled",
}  # fmt: skip


def state_of(value: Any) -> str:
    """The console's word for the state of a model."""
    found = clean(value, 20).lower()
    return _STATES.get(found, found or "stopped")


def calls_of(told: Any, now: float) -> tuple[Job, ...]:
    """The calls that run now, but for those that are made for stored requests, which are shown themselves."""
    return tuple(
        Job(
            id=clean(row.get("id"), 128),
            model=clean(row.get("model")),
            client=clean(row.get("key_id")),
            state="queued" if row.get("provider") is None else "running",
            kind=LIVE,
            created=None if (seconds := number(row.get("seconds"))) is None else now - seconds,
        )
        for row in rows(told)
        if row.get("job") is not True and clean(row.get("id"))
    )


def queue_of(row: Mapping[str, Any], name: str = "") -> Queue:
    return Queue(
        name=clean(first(row, "model", "queue", "name")) or name,
        processing=whole(first(row, "processing", "running")),
        waiting=whole(row.get("waiting")),
        max_concurrent=whole(row.get("max_concurrent")),
        max_waiting=whole(row.get("max_waiting")),
        processed=whole(first(row, "total_processed", "processed")),
        failed=whole(first(row, "total_failed", "failed")),
        timed_out=whole(row.get("total_timeout")),
        cancelled=whole(row.get("total_cancelled")),
        dead=whole(row.get("dead")),
        paused=row.get("paused") is True,
    )


def queues_with_gates(told: Any, gates: Any) -> tuple[Queue, ...]:
    """The queues of stored requests, each with the live calls of the model of its name, which wait in another line.

    A stored request that runs is one of the model's calls too, so it is not counted twice.
    """
    queues = {queue.name: queue for row in rows(told) if (queue := queue_of(row)).name}
    for row in rows(gates):
        gate = queue_of(row)
        if not gate.name:
            continue
        stored = queues.get(gate.name, Queue(name=gate.name))
        queues[gate.name] = Queue(
            name=gate.name,
            processing=max(gate.processing, stored.processing),
            waiting=gate.waiting + stored.waiting,
            max_concurrent=gate.max_concurrent or stored.max_concurrent,
            max_waiting=stored.max_waiting or gate.max_waiting,
            processed=stored.processed,
            failed=stored.failed,
            timed_out=stored.timed_out,
            cancelled=stored.cancelled,
            dead=stored.dead,
            paused=stored.paused,
        )
    return tuple(sorted(queues.values(), key=lambda queue: queue.name.casefold()))


def jobs_of(told: Any) -> tuple[Job, ...] | None:
    return None if told is None else tuple(_job(row) for row in rows(told) if first(row, "id", "request_id"))


def _job(row: Mapping[str, Any]) -> Job:
    state = clean(first(row, "state", "status"), 20).lower()
    progress = row.get("progress")
    progress = progress if isinstance(progress, Mapping) else {}
    error = row.get("error")
    position = first(row, "position", "queue_position")
    return Job(
        id=clean(first(row, "id", "request_id"), 64),
        model=clean(first(row, "model", "queue")),
        client=clean(first(row, "client_id", "client", "key_id")),
        state=_JOB_STATES.get(state, state),
        kind=clean(first(row, "kind", "type"), 20),
        position=None if number(position) is None else whole(position),
        created=moment(first(row, "created_at", "created", "queued_at")),
        attempts=whole(row.get("attempts")),
        error=clean(error.get("message") if isinstance(error, Mapping) else error),
        done=whole(progress.get("done")),
        total=whole(progress.get("total")),
        unit=clean(progress.get("unit"), 20),
    )


def crashes_of(told: Any) -> tuple[Crash, ...] | None:
    return None if told is None else tuple(_crash(row) for row in rows(told))


def _crash(row: Mapping[str, Any]) -> Crash:
    return Crash(
        model=clean(first(row, "model", "model_name")),
        reason=clean(first(row, "reason", "error")),
        at=moment(first(row, "at", "timestamp")),
        last_lines=lines(first(row, "last_lines", "stack_trace")),
    )


def advice_of(told: Any) -> Advice | None:
    if not isinstance(told, Mapping):
        return None
    return Advice(
        model=clean(told.get("model")), replaces=clean(told.get("replaces")), reasons=lines(told.get("reasons"), 10)
    )


def names_of(told: Any) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """The rows of an object whose keys are names."""
    if isinstance(told, Mapping):
        for name, row in list(told.items())[:200]:
            if isinstance(row, Mapping):
                yield str(name), row
