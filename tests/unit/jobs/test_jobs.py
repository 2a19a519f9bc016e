import asyncio
import time

import pytest
from sqlalchemy import event

from stellwerk.core.errors import BadRequest, Conflict, NotFound, Unavailable
from stellwerk.core.principal import Priority
from stellwerk.jobs.job import Performed, State
from stellwerk.jobs.jobs import Jobs

OPEN = {"model": 1000}


async def take(jobs, count=1, widths=OPEN):
    return await jobs.leases.take(widths, count)


async def test_a_queued_job_is_on_the_disk_and_sealed(jobs, new, database):
    job = await jobs.enqueue(new(b"a secret prompt", labels={"custom_id": "7"}))
    assert job.state is State.QUEUED
    assert await jobs.get(job.id) == job
    assert (
        b"a secret prompt"
        not in database.path.read_bytes() + database.path.with_name(f"{database.path.name}-wal").read_bytes()
    )


async def test_what_is_leased_is_what_was_queued(jobs, new, clock):
    job = await jobs.enqueue(new(b"body" * 50_000, priority=Priority.HIGH))
    clock.at += 3
    (leased,) = await take(jobs)
    assert leased.body == b"body" * 50_000
    assert (leased.attempt, leased.job.state, leased.job.started_at) == (1, State.LEASED, clock.at)
    assert leased.job.id == job.id
    assert await take(jobs) == []


async def test_a_finished_job_keeps_its_result_and_not_its_body(jobs, new, clock, ended, database):
    job = await jobs.enqueue(new())
    (leased,) = await take(jobs)
    done = await jobs.leases.finish(leased.lease, Performed(status=200, result=b"answer"))
    assert (done.state, done.status, done.finished_at) == (State.DONE, 200, clock.at)
    assert (await jobs.get(job.id, with_result=True)).result == b"answer"
    assert [one.id for one in ended] == [job.id]
    assert database.read(lambda c: c.exec_driver_sql("SELECT body FROM jobs").scalar()) is None


async def test_a_result_that_is_too_large_is_not_kept_but_its_status_is(make_jobs, new):
    jobs = make_jobs(result_bytes=10)
    job = await jobs.enqueue(new())
    (leased,) = await take(jobs)
    await jobs.leases.finish(leased.lease, Performed(status=200, result=b"x" * 11))
    job = await jobs.get(job.id, with_result=True)
    assert (job.state, job.status, job.error.code, job.result) == (State.FAILED, 200, "result_too_large", None)


async def test_results_and_then_jobs_are_forgotten(jobs, new, clock):
    job = await jobs.enqueue(new())
    (leased,) = await take(jobs)
    await jobs.leases.finish(leased.lease, Performed(status=200, result=b"answer"))
    clock.at += 24 * 3600 + 1
    await jobs._upkeep.look()
    kept = await jobs.get(job.id, with_result=True)
    assert (kept.state, kept.result, kept.result_kept) == (State.DONE, None, False)
    clock.at += 15 * 24 * 3600
    await jobs._upkeep.look()
    with pytest.raises(NotFound) as error:
        await jobs.get(job.id)
    assert error.value.code == "job_not_found"


# --- idempotency


async def test_the_same_request_with_the_same_key_is_the_same_job(jobs, new):
    first = await jobs.enqueue(new(b"1", idempotency_key="once"))
    again = await jobs.enqueue(new(b"1", idempotency_key="once"))
    assert (again.id, again.replayed, first.replayed) == (first.id, True, False)
    together = await jobs.enqueue_all([new(b"2", idempotency_key="two"), new(b"2", idempotency_key="two")])
    assert together[0].id == together[1].id
    assert (await jobs.counts("model")).waiting == 2


async def test_another_request_with_the_same_key_is_refused(jobs, new):
    await jobs.enqueue(new(b"1", idempotency_key="once"))
    with pytest.raises(Conflict) as error:
        await jobs.enqueue(new(b"2", idempotency_key="once"))
    assert error.value.code == "idempotency_key_reused"
    other = await jobs.enqueue(new(b"2", key_id="other", idempotency_key="once"))
    assert not other.replayed


@pytest.mark.parametrize("wrong", [{"idempotency_key": ""}, {"idempotency_key": "x" * 201}, {"client_id": "c" * 129}])
async def test_what_cannot_be_stored_is_refused(jobs, new, wrong):
    with pytest.raises(BadRequest):
        await jobs.enqueue(new(**wrong))


# --- bounds


async def test_a_full_queue_is_refused_with_the_documented_words(make_jobs, new):
    jobs = make_jobs(max_waiting=3)
    answers = await asyncio.gather(*(jobs.enqueue(new(key_id=f"key-{n}")) for n in range(5)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, Unavailable)]
    assert len(refused) == 2
    assert (refused[0].code, refused[0].message) == ("queue_full", "Queue is full, please try again later")
    assert refused[0].retry_after >= 1
    assert (await jobs.enqueue(new(queue="other"))).state is State.QUEUED
    await take(jobs)
    assert (await jobs.enqueue(new())).state is State.QUEUED


async def test_one_client_cannot_fill_a_queue(make_jobs, new):
    jobs = make_jobs(max_waiting_per_client=2)
    for queue in ("model", "other"):
        await jobs.enqueue(new(queue=queue))
    with pytest.raises(Unavailable):
        await jobs.enqueue(new(queue="third", client_id="somebody"))
    await jobs.enqueue(new(key_id="another"))
    await jobs.enqueue_all([new(key_id="a", holder="same"), new(key_id="b", holder="same")])
    with pytest.raises(Unavailable):
        await jobs.enqueue(new(key_id="c", holder="same"))


async def test_a_group_is_queued_whole_or_not_at_all(make_jobs, new):
    jobs = make_jobs(max_waiting=3)
    group, single = await asyncio.gather(
        jobs.enqueue_all([new(idempotency_key=str(n)) for n in range(4)]),
        jobs.enqueue(new(idempotency_key="0")),
        return_exceptions=True,
    )
    assert isinstance(group, Unavailable)
    assert not single.replayed
    assert (await jobs.counts("model")).waiting == 1


# --- order


async def test_priorities_and_clients_are_served_in_turn(jobs, new):
    for n in range(3):
        await jobs.enqueue(new(b"a%d" % n, key_id="a"))
    await jobs.enqueue(new(b"b0", key_id="b"))
    await jobs.enqueue(new(b"low", key_id="c", priority=Priority.LOW))
    await jobs.enqueue(new(b"high", key_id="a", priority=Priority.HIGH))
    order = [leased.body for leased in await take(jobs, 6)]
    assert order[0] == b"high"
    assert set(order[1:3]) == {b"a0", b"b0"}
    assert order[3:] == [b"a1", b"a2", b"low"]


async def test_a_position_says_how_many_come_before(jobs, new, clock):
    waiting = [await jobs.enqueue(new(key_id="a")) for _ in range(3)]
    low = await jobs.enqueue(new(key_id="b", priority=Priority.LOW))
    assert [(await jobs.standing(job.id)).position for job in [*waiting, low]] == [1, 2, 3, 4]
    for leased in await take(jobs, 2):
        clock.at += 10
        await jobs.leases.finish(leased.lease, Performed(status=200))
    assert await jobs.standing(waiting[0].id) is None
    standing = await jobs.standing(low.id)
    assert standing.position == 2
    assert clock.at < standing.estimated_start < clock.at + 60


async def test_leasing_is_quick_with_ten_thousand_waiting_jobs_of_as_many_clients(make_jobs, new):
    jobs = make_jobs(max_waiting_per_client=0, max_waiting=20_000)
    for start in range(10):
        await jobs.enqueue_all([new(key_id=f"key-{start}-{n}", priority=list(Priority)[n % 3]) for n in range(1000)])
    seconds = []
    for _ in range(20):
        began = time.perf_counter()
        assert len(await take(jobs)) == 1
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.2


async def test_a_thousand_jobs_of_a_hundred_clients_at_once_are_acknowledged(make_jobs, new):
    """The bar only finds out a cost for each job that grows with their number: alone it is some thousands a second."""
    jobs = make_jobs()

    async def client(number):
        for n in range(10):
            await jobs.enqueue(new(b"x" * 500, key_id=f"key-{number}", idempotency_key=str(n)))

    began = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(100)))
    assert time.perf_counter() - began < 30
    assert (await jobs.counts("model")).waiting == 1000


# --- deadlines, cancelling, pausing


async def test_a_job_that_comes_too_late_never_starts(jobs, new, clock, ended):
    job = await jobs.enqueue(new(deadline_seconds=5))
    clock.at += 5
    assert await take(jobs) == []
    await jobs._upkeep.look()
    job = await jobs.get(job.id)
    assert (job.state, job.status, job.error.code) == (State.FAILED, 504, "deadline_exceeded")
    counts = await jobs.counts("model")
    assert (counts.total_failed, counts.total_timeout) == (1, 1)
    assert [one.id for one in ended] == [job.id]


async def test_a_waiting_job_can_be_cancelled(jobs, new, ended):
    job = await jobs.enqueue(new())
    assert (await jobs.cancel(job.id)).state is State.CANCELLED
    assert await take(jobs) == []
    assert (await jobs.cancel(job.id)).state is State.CANCELLED
    assert len(ended) == 1


async def test_the_end_of_a_job_is_told_once(jobs, new, ended):
    job = await jobs.enqueue(new())
    (leased,) = await take(jobs)
    await jobs.cancel(job.id)
    assert await jobs.leases.finish(leased.lease, Performed(status=200, result=b"late")) is None
    assert (await jobs.get(job.id)).state is State.CANCELLED
    assert [one.state for one in ended] == [State.CANCELLED]
    (attempt,) = await jobs.attempts(job.id)
    assert attempt.outcome == "cancelled"


async def test_an_ended_job_cannot_be_cancelled(jobs, new):
    job = await jobs.enqueue(new())
    (leased,) = await take(jobs)
    await jobs.leases.finish(leased.lease, Performed(status=200))
    assert (await jobs.cancel(job.id)).state is State.DONE
    with pytest.raises(NotFound):
        await jobs.cancel("none")


async def test_a_batch_is_cancelled_as_a_whole(jobs, new):
    await jobs.enqueue_all([new(batch_id="b") for _ in range(5)])
    (leased,) = await take(jobs)
    await jobs.leases.finish(leased.lease, Performed(status=200))
    assert await jobs.cancel_batch("b") == 4
    assert await jobs.batch_counts("b") == {State.DONE: 1, State.CANCELLED: 4}


async def test_a_paused_queue_stays_paused_after_a_restart(make_jobs, new):
    jobs = make_jobs()
    await jobs.pause("model")
    await jobs.enqueue(new())
    again = make_jobs()
    assert await again.leases.waiting() == []
    assert await take(again) == []
    assert (await again.counts("model")).paused
    assert not (await again.resume("model")).paused
    assert len(await take(again)) == 1


# --- attempts


async def test_after_the_last_attempt_a_job_is_dead_and_can_be_revived(jobs, new, ended):
    job = await jobs.enqueue(new(b"body"))
    for attempt in (1, 2, 3):
        (leased,) = await take(jobs)
        assert leased.attempt == attempt
        await jobs.leases.finish(leased.lease, Performed(status=503, result=b"sorry", retry=True))
    dead = await jobs.get(job.id, with_result=True)
    assert (dead.state, dead.status, dead.result) == (State.DEAD, 503, b"sorry")
    assert (await jobs.counts("model")).dead == 1
    assert [one.outcome for one in await jobs.attempts(job.id)] == ["retried", "retried", "dead"]
    revived = await jobs.retry(job.id)
    assert (revived.state, revived.attempts, revived.status) == (State.QUEUED, 0, None)
    (leased,) = await take(jobs)
    assert leased.body == b"body"
    with pytest.raises(Conflict) as error:
        await jobs.retry(job.id)
    assert error.value.code == "job_not_dead"


async def test_crashes_count_as_attempts(make_jobs, new, ended):
    first = make_jobs()
    job = await first.enqueue(new())
    for _ in range(3):
        dying = make_jobs()
        assert len(await take(dying)) == 1
        assert await make_jobs().recover() == 1
    job = await first.get(job.id)
    assert (job.state, job.error.code) == (State.DEAD, "crashed")
    assert [one.outcome for one in await first.attempts(job.id)] == ["lost", "lost", "dead"]
    assert len(ended) == 1


async def test_a_lease_is_lost_by_missed_heartbeats_and_never_by_age(make_jobs, new, clock):
    worker, other = make_jobs(), make_jobs()
    await worker.enqueue(new())
    (leased,) = await take(worker)
    for _ in range(20):
        clock.at += 20
        assert await worker.leases.heartbeat() == {(leased.lease.number, leased.lease.fence)}
        await other._upkeep.look()
        assert await take(other) == []
    clock.at += 30
    await other._upkeep.look()
    (taken,) = await take(other)
    assert taken.lease.fence > leased.lease.fence
    assert await worker.leases.heartbeat() == set()
    assert await worker.leases.finish(leased.lease, Performed(status=200, result=b"zombie")) is None
    await other.leases.finish(taken.lease, Performed(status=200, result=b"alive"))
    assert (await other.get(leased.job.id, with_result=True)).result == b"alive"


async def test_what_is_given_back_loses_no_attempt(jobs, new):
    job = await jobs.enqueue(new())
    await take(jobs)
    assert await jobs.leases.give_back() == 1
    job = await jobs.get(job.id)
    assert (job.state, job.attempts) == (State.QUEUED, 0)
    assert [one.outcome for one in await jobs.attempts(job.id)] == ["returned"]


# --- parents and children


async def split(jobs, new, pages=3):
    parent = await jobs.enqueue(new(b"document"))
    (leased,) = await take(jobs)
    pages = await jobs.enqueue_all([new(b"page %d" % n, parent_id=parent.id) for n in range(pages)])
    assert (await jobs.leases.finish(leased.lease, Performed.wait_for_children())).state is State.LEASED
    return parent, pages


async def test_a_parent_is_performed_again_when_its_children_have_ended(jobs, new):
    parent, pages = await split(jobs, new)
    for done in range(1, 4):
        (leased,) = await take(jobs)
        assert leased.body.startswith(b"page")
        await jobs.leases.finish(leased.lease, Performed(status=200, result=leased.body))
        progress = (await jobs.get(parent.id)).progress
        assert (progress.done, progress.total) == (done, 3)
    (leased,) = await take(jobs)
    assert (leased.job.id, leased.body, leased.attempt) == (parent.id, b"document", 1)
    found = await jobs.children(parent.id, with_result=True)
    assert [child.id for child in found] == [page.id for page in pages]
    assert [child.result for child in found] == [b"page 0", b"page 1", b"page 2"]
    await jobs.leases.finish(leased.lease, Performed(status=200, result=b"all"))
    assert (await jobs.get(parent.id)).state is State.DONE


async def test_a_waiting_parent_takes_no_worker_and_is_never_lost(jobs, make_jobs, new, clock):
    parent, _ = await split(jobs, new)
    assert (await jobs.counts("model")).processing == 0
    clock.at += 1000
    await jobs._upkeep.look()
    await make_jobs().recover()
    assert (await jobs.get(parent.id)).state is State.LEASED


async def test_cancelling_a_parent_cancels_its_children(jobs, new, ended):
    parent, _ = await split(jobs, new)
    (leased,) = await take(jobs)
    await jobs.leases.finish(leased.lease, Performed(status=200))
    await jobs.cancel(parent.id)
    assert [child.state for child in await jobs.children(parent.id)] == [State.DONE, *[State.CANCELLED] * 2]
    assert len(ended) == 4


async def test_thousands_of_children_are_cancelled_in_a_few_steps(jobs, make_jobs, new, database, ended):
    parent, children = await split(jobs, new, pages=300)
    (running,) = await jobs.leases.take({"model": 1}, 1)
    for child in children[:2]:
        await jobs.cancel(child.id)
    ended.clear()
    statements = []
    event.listen(database.writing, "before_cursor_execute", lambda *told: statements.append(told[2]))
    assert (await jobs.cancel(parent.id)).state is State.CANCELLED
    assert len(statements) < 20
    assert [job.id for job in ended] == [parent.id, *(child.id for child in children[2:])]
    found = await jobs.children(parent.id)
    assert {child.state for child in found} == {State.CANCELLED}
    assert {(child.status, child.error.code) for child in found} == {(499, "cancelled")}
    assert [attempt.outcome for attempt in await jobs.attempts(running.job.id)] == ["cancelled"]
    assert await jobs.leases.finish(running.lease, Performed(status=200)) is None
    assert (await jobs.counts("model")).total_cancelled == 301
    with pytest.raises(NotFound):
        await jobs.body(children[-1].id)


async def test_children_have_the_room_of_their_parent(make_jobs, new):
    jobs = make_jobs(max_waiting=1)
    _, pages = await split(jobs, new)
    assert len(pages) == 3
    with pytest.raises(NotFound):
        await jobs.enqueue(new(parent_id="none"))


async def test_the_parts_of_one_clients_batch_keep_nobody_else_out(make_jobs, new):
    jobs = make_jobs(max_waiting=2)
    await split(jobs, new)
    assert ((await jobs.counts("model")).waiting, await jobs.waiting("model")) == (3, 0)
    others = [await jobs.enqueue(new(key_id=f"other-{number}")) for number in range(2)]
    assert all(job.state is State.QUEUED for job in others)
    assert await jobs.waiting("model") == 2
    with pytest.raises(Unavailable):
        await jobs.enqueue(new(key_id="one too many"))


async def test_a_parent_without_children_is_performed_again_at_once(jobs, new):
    await split(jobs, new, pages=0)
    assert len(await take(jobs)) == 1


# --- lists and watching


async def test_lists_show_the_newest_first(jobs, new):
    made = [await jobs.enqueue(new(key_id=f"key-{n % 2}", user_id=n % 2)) for n in range(6)]
    assert [job.id for job in await jobs.list()] == [job.id for job in reversed(made)]
    assert [job.id for job in await jobs.list(user_id=1, before=made[5].id, limit=1)] == [made[3].id]
    await jobs.cancel(made[0].id)
    assert [job.id for job in await jobs.list(key_id="key-0", states=[State.CANCELLED])] == [made[0].id]


async def test_waiting_ends_with_the_job_or_with_the_patience(jobs, new):
    job = await jobs.enqueue(new())
    assert (await jobs.wait(job.id, 0.01)).state is State.QUEUED
    waiting = asyncio.create_task(jobs.wait(job.id, 5))
    (leased,) = await take(jobs)
    await jobs.leases.finish(leased.lease, Performed(status=200, result=b"answer"))
    assert (await waiting).result == b"answer"


async def test_what_another_process_does_is_seen(jobs, make_jobs, new):
    job = await jobs.enqueue(new())
    looking = asyncio.create_task(jobs.run())
    waiting = asyncio.create_task(jobs.wait(job.id, 5))
    await make_jobs().cancel(job.id)
    assert (await waiting).state is State.CANCELLED
    looking.cancel()


async def test_a_job_that_does_not_exist_cannot_be_followed(jobs):
    with pytest.raises(NotFound):
        await anext(jobs.follow("none"))


async def test_a_full_disk_acknowledges_nothing(jobs, new, database):
    await jobs.enqueue(new())
    holder = database.writing.connect()
    with holder.begin(), pytest.raises(Unavailable):
        await jobs.enqueue(new())
    holder.close()
    async with asyncio.timeout(30):
        while True:
            try:
                await jobs.enqueue(new())
                break
            except Unavailable:
                await asyncio.sleep(0.01)
    assert (await jobs.counts("model")).waiting == 2


# --- what is kept with an end


async def test_an_end_is_stored_with_what_is_noted_of_it_or_not_at_all(database, writer, seal, clock, new):
    noted = []

    def note(connection, job):
        noted.append((job.id, job.state))
        if job.key_id == "unlucky":
            raise Conflict("No.")

    jobs = Jobs(run=writer.run, submit=writer.submit, fetch=database.fetch, seal=seal, clock=clock, note_end=note)
    done, cancelled, unlucky = [await jobs.enqueue(new(key_id=key)) for key in ("a", "b", "unlucky")]
    (leased,) = await jobs.leases.take({"model": 1}, 1)
    assert leased.job.id == done.id
    await jobs.leases.finish(leased.lease, Performed(status=200))
    await jobs.cancel(cancelled.id)
    assert noted == [(done.id, State.DONE), (cancelled.id, State.CANCELLED)]
    with pytest.raises(Conflict):
        await jobs.cancel(unlucky.id)
    assert (await jobs.get(unlucky.id)).state is State.QUEUED


async def test_results_of_parts_are_kept_until_the_whole_has_ended(make_jobs, new, clock):
    jobs = make_jobs(result_hours=1.0, prune_seconds=0.0)
    parent, _ = await split(jobs, new)
    (leased,) = await jobs.leases.take({"model": 1}, 1)
    await jobs.leases.finish(leased.lease, Performed(status=200, result=b"page"))
    clock.at += 7200
    await jobs._upkeep.look()
    assert (await jobs.get(leased.job.id, with_result=True)).result == b"page"
    await jobs.cancel(parent.id)
    await jobs._upkeep.look()
    assert (await jobs.get(leased.job.id, with_result=True)).result is None
