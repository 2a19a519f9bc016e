"""Which waiting job comes next: pure decisions over what the database offers.

Within one model and priority, jobs are served by their tags. A tag is given when a job is queued: one step after the
client's last waiting job, or that of the job that is next when nothing of the client's is waiting. So
clients take turns however much one of them has queued. Clients of one holder share the holder's turns, because their
steps are as long as there are clients.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

AGING_SECONDS = 20.0
"""After so many seconds a waiting job counts as one step more urgent."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    rank: int
    """0 is the highest priority."""
    tag: int
    queued_at: float


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs of one model: those that may be next, and what has been given away already."""

    queue: str
    running: int
    width: int
    """The most that may run at a time."""
    turns: int
    """Turns that were given since the beginning."""
    candidates: Sequence[Candidate]


def next_tag(*, first: int, last: int | None, other_clients: int) -> int:
    """The tag of a new job. `first` is the lowest waiting tag, `last` the client's highest; 0 and None without any.

    `other_clients` counts those of the same holder that have something waiting.
    """
    return first + other_clients if last is None else last + other_clients + 1


def may_grow(running: int, free: int) -> bool:
    """Whether a queue may take another of the `free` workers: while it has fewer than three times as many.

    So one model that hangs leaves a quarter of them to the others, and a second one most of the rest.
    """
    return running < 3 * free


def urgency(candidate: Candidate, now: float) -> int:
    """0 is the most urgent."""
    return max(0, candidate.rank - int(max(0.0, now - candidate.queued_at) / AGING_SECONDS))


def choose(candidates: Iterable[Candidate], *, now: float, turn: int) -> Candidate:
    """Who has turn number `turn` among at least one candidate.

    Among the most urgent, every second turn belongs to those that have only aged to be so. So neither an endless
    stream of urgent jobs keeps the others waiting for ever, nor does a mountain of old ones the urgent.
    """
    urgencies = [(urgency(candidate, now), candidate) for candidate in candidates]
    highest = min(level for level, _ in urgencies)
    level = [candidate for own, candidate in urgencies if own == highest]
    aged = [candidate for candidate in level if candidate.rank > highest]
    fresh = [candidate for candidate in level if candidate.rank == highest]
    return min((aged if aged and (turn % 2 or not fresh) else fresh), key=_tag)


def assign(lines: Iterable[Line], *, count: int, free: int, now: float) -> list[tuple[str, Candidate]]:
    """Gives away up to `count` turns of `free` workers, each with the name of its queue.

    The model with the fewest running jobs goes first, so that slow ones do not take every worker.
    """
    given: list[tuple[str, Candidate]] = []
    running: dict[str, int] = {}
    turns: dict[str, int] = {}
    left: dict[str, dict[int, Candidate]] = {}
    widths: dict[str, int] = {}
    for line in lines:
        running[line.queue], turns[line.queue], widths[line.queue] = line.running, line.turns, line.width
        left[line.queue] = {candidate.number: candidate for candidate in line.candidates}
    while len(given) < count:
        open_queues = [
            queue
            for queue, waiting in left.items()
            if waiting and running[queue] < widths[queue] and may_grow(running[queue], free - len(given))
        ]
        if not open_queues:
            break
        queue = min(open_queues, key=lambda name: (running[name], _oldest(left[name])))
        chosen = choose(left[queue].values(), now=now, turn=turns[queue])
        del left[queue][chosen.number]
        running[queue] += 1
        turns[queue] += 1
        given.append((queue, chosen))
    return given


def _tag(candidate: Candidate) -> tuple[int, float, int]:
    return candidate.tag, candidate.queued_at, candidate.number


def _oldest(candidates: Mapping[int, Candidate]) -> float:
    return min(candidate.queued_at for candidate in candidates.values())
