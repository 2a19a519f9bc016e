import asyncio
from contextlib import asynccontextmanager

import pytest

from stellwerk.core.errors import BadRequest, Unavailable
from stellwerk.jobs.job import Performed, State
from stellwerk.jobs.sink import Sink
from stellwerk.jobs.workers import Workers


@asynccontextmanager
async def working(jobs, perform, clock, widths=None, stop_seconds=2.0):
    workers = Workers(jobs, perform, widths, clock=clock)
    tasks = [asyncio.create_task(workers.run()), asyncio.create_task(jobs.run())]
    try:
        yield workers
    finally:
        await workers.stop(stop_seconds)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def answer(leased, sink):
    return Performed(status=200, result=leased.body.upper())


async def hang(leased, sink):
    await asyncio.Event().wait()


async def test_jobs_are_performed_as_they_come(jobs, new, clock):
    async with working(jobs, answer, clock):
        made = [await jobs.enqueue(new(b"job %d" % n)) for n in range(20)]
        ended = [await jobs.wait(job.id, 30) for job in made]
    assert [job.result for job in ended] == [b"JOB %d" % n for n in range(20)]
    assert (await jobs.counts("model")).total_processed == 20


async def test_no_more_run_at_a_time_than_the_queue_is_wide(make_jobs, new, clock):
    jobs = make_jobs(workers=3)
    most = {"narrow": 0, "wide": 0}
    running = {"narrow": 0, "wide": 0}

    async def perform(leased, sink):
        queue = leased.job.queue
        running[queue] += 1
        most[queue] = max(most[queue], running[queue])
        assert sum(running.values()) <= 3
        await asyncio.sleep(0)
        running[queue] -= 1
        return Performed(status=200)

    made = [await jobs.enqueue(new(queue=queue)) for queue in ("narrow", "wide") for _ in range(10)]
    async with working(jobs, perform, clock, widths=lambda queue: 1 if queue == "narrow" else None):
        assert {(await jobs.wait(job.id, 30)).state for job in made} == {State.DONE}
    assert most["narrow"] == 1


async def test_a_watcher_hears_the_whole_story(jobs, new, clock):
    begin, go_on = asyncio.Event(), asyncio.Event()

    async def perform(leased, sink):
        await begin.wait()
        sink.piece(b"Hello ")
        sink.progress(1, 2, "pages")
        await go_on.wait()
        sink.piece(b"world")
        return Performed(status=200, result=b"Hello world")

    await jobs.pause("model")
    job = await jobs.enqueue(new())
    async with working(jobs, perform, clock):
        story = []
        async for event in jobs.follow(job.id):
            story.append(event)
            if event.type == "position":
                assert event.standing.position == 1
                await jobs.resume("model")
            elif event.type == "state" and event.job.state is State.LEASED:
                begin.set()
            elif event.type == "progress":
                assert (event.progress.done, event.progress.total, event.progress.unit) == (1, 2, "pages")
                go_on.set()
    assert [event.type for event in story] == ["state", "position", "state", "piece", "progress", "piece", "end"]
    assert [(event.offset, event.data) for event in story if event.type == "piece"] == [(0, b"Hello "), (6, b"world")]
    assert story[-1].job.state is State.DONE


async def test_who_comes_late_hears_the_answer_from_its_beginning(jobs, new, clock, until):
    go_on, said = asyncio.Event(), []

    async def perform(leased, sink):
        sink.piece(b"early")
        said.append(1)
        await go_on.wait()
        return Performed(status=200)

    job = await jobs.enqueue(new())
    async with working(jobs, perform, clock):
        await until(lambda: said)
        pieces = b""
        async for event in jobs.follow(job.id):
            pieces += event.data
            go_on.set()
    assert pieces == b"early"


async def test_a_running_job_can_be_cancelled(jobs, new, clock, until):
    cancelled = []

    async def perform(leased, sink):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(leased.job.id)
            raise

    job = await jobs.enqueue(new())
    async with working(jobs, perform, clock) as workers:
        await until(lambda: workers.running)
        assert (await jobs.cancel(job.id)).state is State.CANCELLED
        await until(lambda: not workers.running)
    assert cancelled == [job.id]
    assert (await jobs.get(job.id)).state is State.CANCELLED


async def test_a_job_that_another_process_cancels_is_stopped(jobs, make_jobs, new, clock, until):
    job = await jobs.enqueue(new())
    async with working(jobs, hang, clock) as workers:
        await until(lambda: workers.running)
        await make_jobs().cancel(job.id)
        await until(lambda: not workers.running)
    assert (await jobs.get(job.id)).attempts == 1


async def test_a_failing_job_is_tried_three_times_and_then_dead(jobs, new, clock, until):
    attempts = []

    async def perform(leased, sink):
        attempts.append(leased.attempt)
        raise RuntimeError("broken")

    job = await jobs.enqueue(new())
    async with working(jobs, perform, clock) as workers:
        for number in (1, 2, 3):
            # Only when it is stored the pause begins that the clock leads over.
            await until(lambda number=number: len(attempts) == number and not workers.running)
            assert (await jobs.get(job.id)).attempts == number
            clock.at += 60
        job = await jobs.wait(job.id, 30)
    assert (job.state, job.status, job.error.code, attempts) == (State.DEAD, 500, "internal_error", [1, 2, 3])
    assert "broken" not in job.error.message


async def test_an_error_of_the_client_is_final(jobs, new, clock):
    async def perform(leased, sink):
        raise BadRequest("There is no such field.", code="unknown_field")

    job = await jobs.enqueue(new())
    async with working(jobs, perform, clock):
        job = await jobs.wait(job.id, 30)
    assert (job.state, job.status, job.attempts) == (State.FAILED, 400, 1)
    assert job.error.code == "unknown_field"


async def test_a_model_that_fails_is_left_alone_for_a_while(jobs, new, clock, until):
    attempts = []

    async def perform(leased, sink):
        attempts.append(leased.job.id)
        if len(attempts) == 1:
            raise Unavailable("busy", retry_after=5)
        return Performed(status=200)

    job = await jobs.enqueue(new())
    async with working(jobs, perform, clock) as workers:
        await until(lambda: attempts and not workers.running)
        assert (await jobs.wait(job.id, 0.1)).state is State.QUEUED
        clock.at += 5
        assert (await jobs.wait(job.id, 30)).state is State.DONE


async def test_an_attempt_that_takes_too_long_is_ended(make_jobs, new, clock):
    jobs = make_jobs(attempt_seconds=0.01, attempts=1)
    job = await jobs.enqueue(new())
    async with working(jobs, hang, clock):
        job = await jobs.wait(job.id, 30)
    assert (job.state, job.status, job.error.code) == (State.DEAD, 504, "attempt_timeout")
    assert (await jobs.counts("model")).total_timeout == 1


async def test_stopping_waits_for_what_runs(jobs, new, clock, until):
    go_on = asyncio.Event()

    async def perform(leased, sink):
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        await go_on.wait()
        return Performed(status=200)

    job = await jobs.enqueue(new())
    async with working(jobs, perform, clock, stop_seconds=30.0) as workers:
        await until(lambda: workers.running)
    assert (await jobs.get(job.id)).state is State.DONE


async def test_what_still_runs_at_the_end_is_given_back(jobs, new, clock, until):
    job = await jobs.enqueue(new())
    async with working(jobs, hang, clock, stop_seconds=0.01) as workers:
        await until(lambda: workers.running)
    job = await jobs.get(job.id)
    assert (job.state, job.attempts) == (State.QUEUED, 0)


async def test_an_outcome_is_stored_as_soon_as_the_storage_takes_it(make_jobs, new, clock, writer, until):
    refusals = []

    async def run(work):
        if getattr(work, "func", None).__name__ == "finish" and not refusals:
            refusals.append(1)
            raise Unavailable("full")
        return await writer.run(work)

    jobs = make_jobs(run=run)
    job = await jobs.enqueue(new(b"x"))
    async with working(jobs, answer, clock):
        assert (await jobs.wait(job.id, 30)).result == b"X"
    assert refusals


async def test_a_lease_that_nobody_works_on_is_given_back(jobs, new, clock):
    job = await jobs.enqueue(new())
    await jobs.leases.take({"model": 1}, 1)
    async with working(jobs, answer, clock):
        assert (await jobs.wait(job.id, 30)).state is State.DONE


async def test_a_document_is_split_and_gathered(make_jobs, new, clock):
    jobs = make_jobs(workers=1)

    async def perform(leased, sink):
        if leased.job.parent_id:
            return Performed(status=200, result=leased.body)
        pages = await jobs.children(leased.job.id, with_result=True)
        if not pages:
            await jobs.enqueue_all([new(b"%d" % n, parent_id=leased.job.id) for n in range(5)])
            return Performed.wait_for_children()
        return Performed(status=200, result=b"".join(page.result for page in pages))

    job = await jobs.enqueue(new(b"document"))
    async with working(jobs, perform, clock):
        assert (await jobs.wait(job.id, 30)).result == b"01234"


@pytest.mark.parametrize("size", [1000, 300_000])
async def test_a_slow_watcher_is_told_what_it_has_missed(jobs, new, size):
    job = await jobs.enqueue(new())
    with jobs.notices.watch(job.id) as watch:
        sink = Sink(job, jobs.notices)
        sink.piece(b"a" * size)
        events = list(watch.pieces())
    kept = sum(len(event.data) for event in events)
    assert events[0].offset == size - kept
    assert kept == min(size, 256 * 1024)


async def test_a_job_that_is_put_off_loses_no_attempt_and_leaves_no_trace(make_jobs, new, clock, until):
    jobs = make_jobs(attempts=1)
    asked = []

    async def perform(leased, sink):
        asked.append(leased.attempt)
        return Performed.not_yet(2, "key") if len(asked) < 3 else Performed(status=200)

    job = await jobs.enqueue(new())
    async with working(jobs, perform, clock) as workers:
        for count in (1, 2):
            await until(lambda: len(asked) == count and not workers.running)  # noqa: B023 - it is called in this round
            waiting = await jobs.get(job.id)
            assert (waiting.state, waiting.attempts, waiting.started_at) == (State.QUEUED, 0, None)
            clock.at += 2.1
        ended = await jobs.wait(job.id, 30)
    assert (ended.state, asked) == (State.DONE, [1, 1, 1])
    assert [attempt.outcome for attempt in await jobs.attempts(job.id)] == ["done"]


async def test_who_has_reached_his_limit_keeps_no_worker_from_others(make_jobs, new, clock):
    jobs = make_jobs(workers=4)

    async def perform(leased, sink):
        return Performed.not_yet(30, "key") if leased.job.key_id == "limited" else Performed(status=200)

    limited = [await jobs.enqueue(new(key_id="limited")) for _ in range(50)]
    others = [await jobs.enqueue(new(key_id="other", queue=queue)) for queue in ("model", "second") for _ in range(5)]
    async with working(jobs, perform, clock):
        assert {(await jobs.wait(job.id, 30)).state for job in others} == {State.DONE}
    assert {(await jobs.get(job.id)).state for job in limited} == {State.QUEUED}


async def test_a_model_that_hangs_leaves_workers_to_the_others(make_jobs, new, clock):
    jobs = make_jobs(workers=8)

    async def perform(leased, sink):
        if leased.job.queue.startswith("hanging"):
            await asyncio.Event().wait()
        return Performed(status=200)

    for queue in ("hanging1", "hanging2"):
        for _ in range(20):
            await jobs.enqueue(new(queue=queue))
    async with working(jobs, perform, clock, stop_seconds=0.1):
        job = await jobs.enqueue(new(queue="well"))
        assert (await jobs.wait(job.id, 30)).state is State.DONE


async def test_without_room_on_the_disk_no_job_is_taken_and_none_begun(make_jobs, new, clock):
    room = [True]
    jobs = make_jobs(has_room=lambda: room[0])
    waiting = await jobs.enqueue(new())
    room[0] = False
    with pytest.raises(Unavailable) as caught:
        await jobs.enqueue(new())
    assert (caught.value.code, caught.value.retry_after) == ("storage_full", 60.0)
    async with working(jobs, answer, clock):
        assert (await jobs.wait(waiting.id, 0.1)).state is State.QUEUED
        room[0] = True
        assert (await jobs.wait(waiting.id, 30)).state is State.DONE
