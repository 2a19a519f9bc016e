"""Jobs of a gateway, on the event loop; the twin of `job_access`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

from stellwerk.client import calls
from stellwerk.client.async_caller import AsyncCaller
from stellwerk.client.errors import BrokenOff, StellwerkError
from stellwerk.client.job_access import Watch
from stellwerk.client.jobs import Job, JobEvent, JobPage, JobResult, Queue, Status, read_job_event
from stellwerk.client.waiting import Waiting
from stellwerk.core.clock import SystemClock

Shape = TypeVar("Shape")


class AsyncJobs:
    """`client.jobs`: people see their own jobs, administrators see all."""

    def __init__(self, caller: AsyncCaller) -> None:
        self._caller = caller

    async def list(
        self,
        *,
        status: Status | None = None,
        model: str | None = None,
        batch_id: str | None = None,
        parent_id: str | None = None,
        before: str | None = None,
        limit: int = 100,
    ) -> JobPage:
        """Newest first, at most 1000; `before` is the `last_id` of the page before."""
        query = {
            "status": status,
            "model": model,
            "batch_id": batch_id,
            "parent_id": parent_id,
            "before": before,
            "limit": limit,
        }
        return await self._caller.do(calls.list_jobs(query))

    async def get(self, job: str) -> Job:
        """Raises NotFound."""
        return await self._caller.do(calls.show_job(job))

    async def wait(self, job: str, seconds: float | None = None, watch: Watch | None = None) -> Job:
        """The job when it has ended, well or not. Outlasts a restart of the gateway.

        Raises StillRunning after `seconds`, NotFound, and Unreachable when the gateway stays away for a minute.
        """
        waiting = Waiting(SystemClock(), seconds, watched=watch is not None)
        while True:
            try:
                found = await self._caller.do(calls.show_job(job, waiting.ask_for()))
            except StellwerkError as error:
                pause = waiting.failed(error)
            else:
                if watch is not None:
                    watch(found)
                if found.ended:
                    return found
                pause = waiting.heard(found)
            if pause:
                await asyncio.sleep(pause)

    async def cancel(self, job: str) -> Job:
        """One that has ended stays as it is. Raises NotFound."""
        return await self._caller.do(calls.cancel_job(job))

    async def retry(self, job: str) -> Job:
        """Queues a dead job again. Raises NotFound, and Conflict for one that is not dead."""
        return await self._caller.do(calls.retry_job(job))

    async def result(self, job: str) -> JobResult:
        """The answer of a job that has ended. Raises NotFound, Conflict before the end, and the Refused that the answer
        is when the call was refused."""
        return await self._caller.do(calls.job_result(job))

    async def events(self, job: str) -> AsyncIterator[JobEvent]:
        """What happens to a job, up to the event `end`. Raises BrokenOff when the gateway leaves before."""
        async with contextlib.aclosing(self._caller.events(calls.job_events(job))) as events:
            async for event in events:
                known = read_job_event(event)
                if known is not None:
                    yield known
                    if known.type == "end":
                        return
        raise BrokenOff("The gateway left before the job had ended.")

    async def queues(self) -> Sequence[Queue]:
        """The queues of all models; for administrators."""
        return await self._caller.do(calls.queues())


class AsyncJobHandle:
    """One job that was submitted."""

    def __init__(self, jobs: AsyncJobs, id: str) -> None:  # noqa: A002  # what it is called everywhere else
        self._jobs = jobs
        self.id = id

    def __repr__(self) -> str:
        return f"AsyncJobHandle({self.id!r})"

    async def get(self) -> Job:
        return await self._jobs.get(self.id)

    async def wait(self, seconds: float | None = None, watch: Watch | None = None) -> Job:
        """As `AsyncJobs.wait`."""
        return await self._jobs.wait(self.id, seconds, watch)

    async def result(self, shape: type[Shape], seconds: float | None = None) -> Shape:
        """Waits for the answer and reads it as a `Chat`, `Embeddings` or another type.

        Raises JobFailed when there is none, and what `wait` raises.
        """
        (await self.wait(seconds)).check()
        return (await self._jobs.result(self.id)).read(shape)

    async def cancel(self) -> Job:
        return await self._jobs.cancel(self.id)

    async def retry(self) -> Job:
        return await self._jobs.retry(self.id)

    def events(self) -> AsyncIterator[JobEvent]:
        """As `AsyncJobs.events`."""
        return self._jobs.events(self.id)
