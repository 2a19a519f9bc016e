"""Lets jobs into the queue: idempotency, bounds, turn and row in one transaction."""

import hashlib
import hmac
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, func, insert, select

from stellwerk.core.errors import BadRequest, Conflict, GatewayError, NotFound, Unavailable
from stellwerk.jobs.job import Job, NewJob, State
from stellwerk.jobs.reading import throughput
from stellwerk.jobs.schedule import next_tag
from stellwerk.jobs.tables import RANKS, SHOWN, WAITS_ALONE, job_queues, jobs, read_job
from stellwerk.storage.sealing import Seal, SealBroken

MOST_TOGETHER = 10_000
"""Jobs that can be queued in one step."""
_MOST_QUEUES = 10_000
_MOST_LABEL_BYTES = 4096
_SHORTEST_RETRY, _LONGEST_RETRY = 1.0, 60.0

_jobs = jobs.c

# Made once: a busy gateway asks these for every job, and making a statement takes longer than running it.
_LINES = (
    select(_jobs.queue, _jobs.rank, _jobs.client_id, func.count().label("waiting"), func.max(_jobs.tag).label("last"))
    .where(_jobs.state == State.QUEUED, _jobs.holder == bindparam("one"))
    .group_by(_jobs.queue, _jobs.rank, _jobs.client_id)
)
_ALONE = select(func.count()).where(_jobs.queue == bindparam("one"), WAITS_ALONE)
_NUMBER_OF_KEY = select(_jobs.number).where(_jobs.key_id == bindparam("one"), _jobs.idempotency_key == bindparam("key"))


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    max_waiting: int
    """Of one model, without the parts of others: a batch of thousands must not keep everybody else out."""
    max_waiting_per_client: int
    """Of one holder, over all models; 0 is unlimited."""
    deadline_seconds: float

    def allow(self, in_queue: int, of_holder: int) -> bool:
        """Whether there is room for another job beside those that wait."""
        most = self.max_waiting_per_client
        return in_queue < self.max_waiting and (not most or of_holder < most)


class Entry(msgspec.Struct, frozen=True):
    """A job that wants to be queued, and the id that it will have."""

    id: str
    new: NewJob


class Lines:
    """What of one holder is waiting."""

    __slots__ = ("last", "waiting")

    def __init__(self) -> None:
        self.waiting = 0
        self.last: dict[tuple[str, int], dict[str, int]] = {}
        """The highest tag of each client, by queue and rank."""

    def next_tag(self, queue: str, rank: int, client_id: str, first: int) -> int:
        clients = self.last.get((queue, rank), {})
        others = len(clients) - (client_id in clients)
        return next_tag(first=first, last=clients.get(client_id), other_clients=others)


class _Known:
    """An earlier job with the same idempotency key."""

    __slots__ = ("digest", "job")

    def __init__(self, job: Job, digest: bytes | None) -> None:
        self.job = job
        self.digest = digest


def check(new: NewJob) -> None:
    """Raises BadRequest naming what cannot be stored."""
    key = new.idempotency_key
    if key is not None and not (0 < len(key) <= 200 and key.isprintable()):
        raise BadRequest("An idempotency key has 1 to 200 printable characters.", param="idempotency-key")
    if len(new.client_id) > 128 or not new.client_id.isprintable():
        raise BadRequest("A client id has at most 128 printable characters.", param="client_id")
    if sum(len(name) + len(value) for name, value in new.labels.items()) > _MOST_LABEL_BYTES:
        raise BadRequest(f"The labels of a job have at most {_MOST_LABEL_BYTES} characters.", param="labels")


def admit(
    connection: Connection, groups: Sequence[Sequence[Entry]], bounds: Bounds, seal: Seal, now: float
) -> list[list[Job] | GatewayError]:
    """Queues every group that there is room for, each whole or not at all; returns its jobs, or why it was refused."""
    admission = _Admission(connection, bounds, seal, now)
    answers = [admission.take(group) for group in groups]
    admission.store()
    return answers


def digest_of(new: NewJob) -> bytes:
    """Tells whether a request that is sent again is the same one."""
    return hashlib.sha256(b"\0".join((new.kind.encode(), new.queue.encode(), new.path.encode(), new.body))).digest()


def waiting_for(connection: Connection, queue: str) -> int:
    """How many wait, without parts of others."""
    return connection.scalar(_ALONE, {"one": queue}) or 0


def check_room(connection: Connection, bounds: Bounds, *, queue: str, holder: str, now: float) -> None:
    """Raises Unavailable, code `queue_full`."""
    if not bounds.allow(waiting_for(connection, queue), lines_of(connection, holder).waiting):
        raise queue_full(connection, queue, now)


def queue_full(connection: Connection, queue: str, now: float) -> Unavailable:
    rate = throughput(connection, queue, now)
    seconds = _LONGEST_RETRY / 2 if rate is None else 1 / rate
    return Unavailable(
        "Queue is full, please try again later",
        code="queue_full",
        retry_after=min(max(seconds, _SHORTEST_RETRY), _LONGEST_RETRY),
    )


def lines_of(connection: Connection, holder: str) -> Lines:
    lines = Lines()
    for row in connection.execute(_LINES, {"one": holder}):
        lines.waiting += row.waiting
        lines.last.setdefault((row.queue, row.rank), {})[row.client_id] = row.last
    return lines


def first_tag(connection: Connection, queue: str, rank: int) -> int:
    """The tag of the job that is next; 0 when none waits."""
    query = select(func.min(_jobs.tag)).where(_jobs.state == State.QUEUED, _jobs.queue == queue, _jobs.rank == rank)
    return connection.scalar(query) or 0


def tag_now(connection: Connection, *, queue: str, rank: int, holder: str, client_id: str) -> int:
    """The tag of a job that is queued now."""
    return lines_of(connection, holder).next_tag(queue, rank, client_id, first_tag(connection, queue, rank))


class _Admission:
    """What one transaction has learned and stored so far."""

    def __init__(self, connection: Connection, bounds: Bounds, seal: Seal, now: float) -> None:
        self._connection = connection
        self._bounds = bounds
        self._seal = seal
        self._now = now
        self._waiting: dict[str, int] = {}
        self._lines: dict[str, Lines] = {}
        self._first: dict[tuple[str, int], int] = {}
        self._queues: set[str] = set()
        self._parents: dict[str, int] = {}
        self._rows: list[dict[str, Any]] = []
        self._keys: dict[tuple[str, str | None], _Known] = {}

    def store(self) -> None:
        if self._rows:
            self._connection.execute(insert(jobs), self._rows)

    def take(self, group: Sequence[Entry]) -> list[Job] | GatewayError:
        kept = len(self._rows)
        try:
            return [self._take(entry) for entry in group]
        except GatewayError as error:
            for row in self._rows[kept:]:
                self._waiting[row["queue"]] -= row["parent_id"] is None
                self._lines[row["holder"]].waiting -= 1
                self._keys.pop((row["key_id"], row["idempotency_key"]), None)
            del self._rows[kept:]
            return error

    def _take(self, entry: Entry) -> Job:
        new = entry.new
        known = self._find_known(new)
        if known is not None:
            return self._replay(new, known)
        self._count(new)
        row = self._row(entry)
        self._rows.append(row)
        job = _as_job(row, new)
        if new.idempotency_key is not None:
            self._keys[new.key_id, new.idempotency_key] = _Known(job, row["request_digest"])
        return job

    def _find_known(self, new: NewJob) -> _Known | None:
        if new.idempotency_key is None:
            return None
        if (known := self._keys.get((new.key_id, new.idempotency_key))) is not None:
            return known
        same_key = {"one": new.key_id, "key": new.idempotency_key}
        number = self._connection.scalar(_NUMBER_OF_KEY, same_key)
        if number is None:
            return None
        query = select(*SHOWN, _jobs.request_digest).where(_jobs.number == number)
        row = self._connection.execute(query).one()
        return _Known(read_job(row), row.request_digest)

    def _replay(self, new: NewJob, known: _Known) -> Job:
        try:
            same = known.digest is not None and hmac.compare_digest(
                self._seal.open(known.digest, purpose=known.job.id.encode() + b" digest"), digest_of(new)
            )
        except SealBroken:
            same = False
        if not same:
            raise Conflict(
                "This idempotency key was used for another request. Take a new key for a new request.",
                code="idempotency_key_reused",
                param="idempotency-key",
            )
        return msgspec.structs.replace(known.job, replayed=True)

    def _count(self, new: NewJob) -> None:
        """Refuses what there is no room for. Children have the room of their parent: half a document helps nobody."""
        self._open_queue(new.queue)
        if new.queue not in self._waiting:
            self._waiting[new.queue] = waiting_for(self._connection, new.queue)
        lines = self._lines_of(new.holder or new.key_id)
        if new.parent_id is None and not self._bounds.allow(self._waiting[new.queue], lines.waiting):
            raise queue_full(self._connection, new.queue, self._now)
        self._waiting[new.queue] += new.parent_id is None
        lines.waiting += 1

    def _lines_of(self, holder: str) -> Lines:
        lines = self._lines.get(holder)
        if lines is None:
            lines = self._lines[holder] = lines_of(self._connection, holder)
        return lines

    def _open_queue(self, queue: str) -> None:
        if queue in self._queues:
            return
        if self._connection.scalar(select(job_queues.c.queue).where(job_queues.c.queue == queue)) is None:
            if (self._connection.scalar(select(func.count()).select_from(job_queues)) or 0) >= _MOST_QUEUES:
                raise queue_full(self._connection, queue, self._now)
            open_queue(self._connection, queue)
        self._queues.add(queue)

    def _row(self, entry: Entry) -> dict[str, Any]:
        new = entry.new
        name = entry.id.encode()
        digest = None if new.idempotency_key is None else self._seal.seal(digest_of(new), purpose=name + b" digest")
        seconds = self._bounds.deadline_seconds if new.deadline_seconds is None else new.deadline_seconds
        return {
            "id": entry.id,
            "kind": new.kind,
            "queue": new.queue,
            "path": new.path,
            "key_id": new.key_id,
            "user_id": new.user_id,
            "client_id": new.client_id,
            "holder": new.holder or new.key_id,
            "rank": RANKS[new.priority],
            "tag": self._tag(new),
            "labels": new.labels,
            "created_at": self._now,
            "queued_at": self._now,
            "deadline_at": self._now + seconds,
            "state": State.QUEUED,
            "attempts": 0,
            "fence": 0,
            "idempotency_key": new.idempotency_key,
            "parent_number": self._parent(new.parent_id),
            "parent_id": new.parent_id,
            "batch_id": new.batch_id,
            "request_digest": digest,
            "body": seal_body(self._seal, entry.id, new.body),
        }

    def _tag(self, new: NewJob) -> int:
        rank = RANKS[new.priority]
        line = new.queue, rank
        if line not in self._first:
            self._first[line] = first_tag(self._connection, *line)
        lines = self._lines_of(new.holder or new.key_id)
        tag = lines.next_tag(*line, new.client_id, self._first[line])
        lines.last.setdefault(line, {})[new.client_id] = tag
        return tag

    def _parent(self, parent_id: str | None) -> int | None:
        if parent_id is None:
            return None
        if parent_id not in self._parents:
            open_states = _jobs.state.in_((State.QUEUED, State.LEASED))
            number = self._connection.scalar(select(_jobs.number).where(_jobs.id == parent_id, open_states))
            if number is None:
                raise NotFound("There is no such job that still runs.", code="job_not_found")
            self._parents[parent_id] = number
        return self._parents[parent_id]


def open_queue(connection: Connection, queue: str) -> None:
    """Makes the row of a queue that has none."""
    connection.execute(
        insert(job_queues).values(queue=queue, paused=False, turns=0, processed=0, failed=0, timeouts=0, cancelled=0)
    )


def seal_body(seal: Seal, job_id: str, body: bytes) -> bytes:
    return seal.seal(body, purpose=job_id.encode() + b" body")


def open_body(seal: Seal, job_id: str, sealed: bytes) -> bytes:
    """Raises SealBroken."""
    return seal.open(sealed, purpose=job_id.encode() + b" body")


def seal_result(seal: Seal, job_id: str, result: bytes) -> bytes:
    return seal.seal(result, purpose=job_id.encode() + b" result")


def open_result(seal: Seal, job_id: str, sealed: bytes) -> bytes:
    """Raises SealBroken."""
    return seal.open(sealed, purpose=job_id.encode() + b" result")


def _as_job(row: dict[str, Any], new: NewJob) -> Job:
    return Job(
        id=row["id"],
        kind=new.kind,
        queue=new.queue,
        path=new.path,
        key_id=new.key_id,
        user_id=new.user_id,
        client_id=new.client_id,
        priority=new.priority,
        labels=new.labels,
        created_at=row["created_at"],
        queued_at=row["queued_at"],
        deadline_at=row["deadline_at"],
        state=State.QUEUED,
        attempts=0,
        idempotency_key=new.idempotency_key,
        parent_id=new.parent_id,
        batch_id=new.batch_id,
    )
