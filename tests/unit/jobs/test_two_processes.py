"""Real processes on one database that are killed while they work."""

import asyncio
import multiprocessing
import os
import signal

from stellwerk.core.clock import SystemClock
from stellwerk.core.errors import Unavailable
from stellwerk.jobs.job import NewJob, Performed, State
from stellwerk.jobs.jobs import Jobs
from stellwerk.jobs.settings import JobSettings
from stellwerk.jobs.workers import Workers
from stellwerk.storage.database import open_database
from stellwerk.storage.sealing import Seal
from stellwerk.storage.writer import Writer

SETTINGS = JobSettings(workers=8, attempts=100, lease_seconds=0.6, heartbeat_seconds=0.1, look_seconds=0.05)
MANY = 60


def make_jobs(database, writer):
    return Jobs(
        run=writer.run,
        submit=writer.submit,
        fetch=database.fetch,
        seal=Seal(bytes(32)),
        clock=SystemClock(),
        settings=SETTINGS,
    )


async def work(folder, log):
    database = open_database(folder)
    writer = Writer(database.writing)
    jobs = make_jobs(database, writer)

    async def perform(leased, sink):
        await asyncio.sleep(0.02)
        os.write(log, f"{leased.job.id}\n".encode())
        return Performed(status=200, result=leased.body)

    workers = Workers(jobs, perform, clock=SystemClock())
    await asyncio.gather(workers.run(), jobs.run())


def serve(folder, path):
    asyncio.run(work(folder, os.open(path, os.O_WRONLY | os.O_APPEND)))


async def counted(jobs):
    try:
        return await jobs.counts("model")
    except Unavailable:
        return None


async def test_no_job_is_lost_when_workers_are_killed_again_and_again(folder, tmp_path):
    database = open_database(folder)
    writer = Writer(database.writing)
    jobs = make_jobs(database, writer)
    made = await jobs.enqueue_all(
        [NewJob(kind="call", queue="model", path="/", body=b"%d" % n, key_id=f"k{n % 5}") for n in range(MANY)]
    )
    context = multiprocessing.get_context("spawn")
    performed = tmp_path / "performed"
    performed.touch()

    def start():
        process = context.Process(target=serve, args=(folder, performed))
        process.start()
        return process

    workers = [start(), start()]
    try:
        for kills in range(3):
            await grown_to(performed, (kills + 1) * 8)
            os.kill(workers[kills % 2].pid, signal.SIGKILL)
            workers[kills % 2].join()
            workers[kills % 2] = start()
        async with asyncio.timeout(30):
            while (counts := await counted(jobs)) is None or counts.total_processed < MANY:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
    ended = [await jobs.get(job.id, with_result=True) for job in made]
    assert {job.state for job in ended} == {State.DONE}
    assert [job.result for job in ended] == [b"%d" % n for n in range(MANY)]
    counts = await jobs.counts("model")
    assert (counts.total_processed, counts.total_failed, counts.waiting, counts.processing) == (MANY, 0, 0, 0)
    writer.close()
    database.close()


async def grown_to(path, lines):
    async with asyncio.timeout(30):
        while path.read_bytes().count(b"\n") < lines:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.02)
