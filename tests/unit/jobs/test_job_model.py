"""Jobs against a model of them in plain Python, over owners that die before and after every commit."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from stellwerk.core.errors import Conflict, Unavailable
from stellwerk.core.principal import Priority
from stellwerk.jobs import admission, ending, finishing, leasing, queues, reading
from stellwerk.jobs.admission import Bounds, Entry
from stellwerk.jobs.finishing import FinishRules
from stellwerk.jobs.job import NewJob, Performed, State
from stellwerk.storage.database import FILE_NAME, open_database
from stellwerk.storage.sealing import Seal

QUEUES = ("one", "two")
BOUNDS = Bounds(max_waiting=6, max_waiting_per_client=4, deadline_seconds=200)
RULES = FinishRules(attempts=3, result_bytes=100, result_seconds=3600)
LEASE_SECONDS = 30
SEAL = Seal(bytes(32))
WIDTHS = {"one": 3, "two": 2}
DIES = st.sampled_from(["lives", "lives", "lives", "before", "after"])
OUTCOMES = {
    "done": Performed(status=200, result=b"answer"),
    "failed": Performed(status=400, result=b"no"),
    "retry": Performed(status=503, retry=True),
    "large": Performed(status=200, result=b"x" * 101),
}


class Killed(Exception):
    pass


class Known:
    """What the model knows of a job."""

    def __init__(self, job_id, new, now):
        self.id, self.new = job_id, new
        self.deadline = now + BOUNDS.deadline_seconds
        self.state, self.attempts, self.owner, self.until = State.QUEUED, 0, None, 0.0
        self.ends = 0

    def to(self, state):
        self.state, self.owner = state, None
        self.ends += state.ended


class JobMachine(RuleBasedStateMachine):
    made_once: Path

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="jobs"))
        shutil.copy(self.made_once, self.folder / FILE_NAME)
        self.database = open_database(self.folder)
        self.connection = self.database.writing.connect()
        # Nothing here survives a power cut anyway, and waiting for the disk is most of the time that this takes.
        self.connection.connection.execute("PRAGMA synchronous=OFF")
        self.now = 1_700_000_000.0
        self.owners = ["owner-a", "owner-b"]
        self.deaths = self.tries = 0
        self.jobs = {}
        self.leases = []
        """Every lease that was ever seen by somebody who lived, also those that are lost."""
        self.keys = {}
        self.paused = set()
        self.counted = {queue: dict.fromkeys(("processed", "failed", "cancelled", "timeouts"), 0) for queue in QUEUES}

    def teardown(self):
        self.connection.close()
        self.database.close()
        shutil.rmtree(self.folder)

    def commit(self, work, dies="lives", owner=None):
        """What `work` returns. Who dies before the commit has done nothing, who dies after it has not heard of it."""
        try:
            with self.connection.begin():
                answer = work(self.connection)
                if dies == "before":
                    raise Killed
        except Killed:
            self.die(owner)
            return None
        if dies == "after":
            self.die(owner)
        return answer

    def die(self, owner):
        """Somebody new comes in its place."""
        if owner is not None:
            self.deaths += 1
            self.owners[self.owners.index(owner)] = f"owner-{self.deaths}"

    def waiting(self, **wanted):
        return [
            job
            for job in self.jobs.values()
            if job.state is State.QUEUED and all(getattr(job.new, name) == value for name, value in wanted.items())
        ]

    def end(self, job, state, *, timed_out=False):
        job.to(state)
        counted = self.counted[job.new.queue]
        name = {State.DONE: "processed", State.CANCELLED: "cancelled"}.get(state, "failed")
        counted[name] += 1
        counted["timeouts"] += timed_out

    @rule(
        queue=st.sampled_from(QUEUES),
        client=st.sampled_from(["x", "y", "z"]),
        priority=st.sampled_from(Priority),
        key=st.none() | st.sampled_from(["k1", "k2", "k3"]),
        body=st.sampled_from([b"1", b"2"]),
        dies=DIES,
    )
    def enqueue(self, queue, client, priority, key, body, dies):
        new = NewJob(
            kind="call", queue=queue, path="/", body=body, key_id=client, priority=priority, idempotency_key=key
        )
        self.tries += 1
        job_id = f"job-{self.tries:04}"
        answers = self.commit(
            lambda c: admission.admit(c, [[Entry(job_id, new)]], BOUNDS, SEAL, self.now), dies, self.owners[0]
        )
        if answers is None:
            return
        (answer,) = answers
        earlier = self.keys.get((client, key))
        if key is not None and earlier is not None:
            same = (earlier.new.queue, earlier.new.body) == (queue, body)
            assert (answer[0].id == earlier.id and answer[0].replayed) if same else isinstance(answer, Conflict)
            return
        if len(self.waiting(queue=queue)) >= 6 or len(self.waiting(key_id=client)) >= 4:
            assert isinstance(answer, Unavailable)
            return
        self.jobs[job_id] = Known(job_id, new, self.now)
        if key is not None:
            self.keys[client, key] = self.jobs[job_id]

    @rule(who=st.integers(0, 1), count=st.integers(1, 3), dies=DIES)
    def lease(self, who, count, dies):
        owner = self.owners[who]
        until = self.now + LEASE_SECONDS
        given = self.commit(
            lambda c: leasing.lease(c, owner, widths=WIDTHS, count=count, free=99, now=self.now, until=until),
            dies,
            owner,
        )
        if given is None:
            return
        startable = [job for job in self.waiting() if job.new.queue not in self.paused and job.deadline > self.now]
        for one in given:
            job = self.jobs[one.job.id]
            assert job in startable
            assert admission.open_body(SEAL, job.id, one.body) == job.new.body
            job.state, job.owner, job.until = State.LEASED, one.lease, until
            job.attempts += 1
            if dies == "lives":
                self.leases.append(one.lease)
        if not given:
            open_queues = {job.new.queue for job in startable}
            assert all(self.running(queue) >= WIDTHS[queue] for queue in open_queues)

    def running(self, queue):
        return sum(job.state is State.LEASED and job.new.queue == queue for job in self.jobs.values())

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), outcome=st.sampled_from(sorted(OUTCOMES)), dies=DIES)
    def finish(self, data, outcome, dies):
        lease = data.draw(st.sampled_from(self.leases))
        job = self.jobs[lease.job_id]
        owner = lease.owner if lease.owner in self.owners else None
        answer = self.commit(
            lambda c: finishing.finish(c, lease, OUTCOMES[outcome], RULES, SEAL, self.now), dies, owner
        )
        if dies == "before":
            return
        if job.owner != lease:
            assert answer is None
            return
        if outcome == "retry" and job.attempts < 3:
            job.to(State.QUEUED)
        else:
            states = {"done": State.DONE, "failed": State.FAILED, "large": State.FAILED, "retry": State.DEAD}
            self.end(job, states[outcome])

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), dies=DIES)
    def cancel(self, data, dies):
        job = self.jobs[data.draw(st.sampled_from(sorted(self.jobs)))]
        ended = self.commit(lambda c: ending.cancel(c, job.id, self.now), dies, self.owners[0])
        if ended is None:
            return
        assert [one.id for one in ended] == ([] if job.state.ended else [job.id])
        if ended:
            self.end(job, State.CANCELLED)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), dies=DIES)
    def revive(self, data, dies):
        job = self.jobs[data.draw(st.sampled_from(sorted(self.jobs)))]
        try:
            answer = self.commit(lambda c: queues.queue_again(c, job.id, BOUNDS, self.now), dies, self.owners[0])
        except Conflict:
            assert job.state is not State.DEAD
            return
        except Unavailable:
            assert len(self.waiting(queue=job.new.queue)) >= 6 or len(self.waiting(key_id=job.new.key_id)) >= 4
            return
        if answer is not None:
            assert job.state is State.DEAD
            job.to(State.QUEUED)
            job.attempts, job.ends, job.deadline = 0, 0, self.now + BOUNDS.deadline_seconds

    @rule(seconds=st.sampled_from([1, 12, 31, 90]))
    def time_passes(self, seconds):
        self.now += seconds

    @rule(who=st.integers(0, 1), dies=DIES)
    def beat(self, who, dies):
        owner = self.owners[who]
        until = self.now + LEASE_SECONDS
        held = self.commit(lambda c: leasing.heartbeat(c, owner, until=until), dies, owner)
        if held is None:
            return
        mine = [job for job in self.jobs.values() if job.state is State.LEASED and job.owner.owner == owner]
        assert held == {(job.owner.number, job.owner.fence) for job in mine}
        for job in mine:
            job.until = until

    @rule(who=st.integers(0, 1), at_once=st.booleans(), dies=DIES)
    def take_back(self, who, at_once, dies):
        owner = self.owners[who]
        back = self.commit(
            lambda c: leasing.take_back_lost(c, self.now, but=owner, attempts=3, at_once=at_once), dies, owner
        )
        if back is None:
            return
        lost = [
            job
            for job in self.jobs.values()
            if job.state is State.LEASED and job.owner.owner != owner and (at_once or job.until <= self.now)
        ]
        assert {job.id for job in lost} == {one.id for one in back}
        for job in lost:
            if job.attempts >= 3:
                self.end(job, State.DEAD)
            else:
                job.to(State.QUEUED)

    @rule(who=st.integers(0, 1), dies=DIES)
    def give_back(self, who, dies):
        owner = self.owners[who]
        returned = self.commit(lambda c: leasing.give_back(c, owner, self.now), dies, owner)
        if returned is None:
            return
        for job_id in returned:
            job = self.jobs[job_id]
            assert job.owner.owner == owner
            job.to(State.QUEUED)
            job.attempts -= 1
        assert not [job for job in self.jobs.values() if job.owner is not None and job.owner.owner == owner]

    @rule(dies=DIES)
    def expire(self, dies):
        ended = self.commit(lambda c: leasing.expire(c, self.now), dies, self.owners[0])
        if ended is None:
            return
        late = [job for job in self.waiting() if job.deadline <= self.now]
        assert {job.id for job in late} == {one.id for one in ended}
        for job in late:
            self.end(job, State.FAILED, timed_out=True)

    @rule(queue=st.sampled_from(QUEUES), paused=st.booleans())
    def pause(self, queue, paused):
        self.commit(lambda c: queues.pause(c, queue, paused=paused))
        (self.paused.add if paused else self.paused.discard)(queue)

    @invariant()
    def the_table_says_what_the_model_knows(self):
        with self.connection.begin():
            stored = self.connection.exec_driver_sql("SELECT id, state, attempts, owner, fence, body FROM jobs").all()
            open_attempts = self.connection.exec_driver_sql(
                "SELECT count(*) FROM job_attempts WHERE ended_at IS NULL"
            ).scalar()
            counts = {one.queue: one for one in reading.count_queues(self.connection)}
        assert {row.id: (row.state, row.attempts) for row in stored} == {
            job.id: (job.state, job.attempts) for job in self.jobs.values()
        }
        for row in stored:
            owner = self.jobs[row.id].owner
            assert row.owner == (None if owner is None else owner.owner)
            assert owner is None or row.fence == owner.fence
            assert (row.body is None) == (row.state in ("done", "failed", "cancelled"))
        assert open_attempts == sum(job.state is State.LEASED for job in self.jobs.values())
        assert all(job.ends == job.state.ended for job in self.jobs.values())
        for queue, one in counts.items():
            known = self.counted[queue]
            assert (one.total_processed, one.total_failed, one.total_timeout, one.total_cancelled) == (
                known["processed"],
                known["failed"],
                known["timeouts"],
                known["cancelled"],
            )
            assert (one.waiting, one.processing) == (len(self.waiting(queue=queue)), self.running(queue))


@pytest.mark.parametrize(
    ("examples", "steps"), [(25, 40), pytest.param(200, 200, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_jobs_survive_owners_that_die_at_every_commit(made_once, examples, steps):
    machine = type("Machine", (JobMachine,), {"made_once": made_once})
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=examples, stateful_step_count=steps, suppress_health_check=checks),
    )
