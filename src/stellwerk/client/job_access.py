"""Jobs of a gateway; blocks. `async_job_access` is its twin."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from stellwerk.client import calls
from stellwerk.client.caller import Caller
from stellwerk.client.errors import BrokenOff, StellwerkError
from stellwerk.client.jobs import Job, JobEvent, JobPage, JobResult, Queue, Status, read_job_event
from stellwerk.client.waiting import Waiting
from stellwerk.core.clock import SystemClock

Shape = TypeVar("Shape")
Watch = Callable[[Job], object]
"""Told of a job about once a second."""


class Jobs:
    """`client.jobs`: people see their own jobs, administrators see all."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def list(
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
        return self._caller.do(calls.list_jobs(query))

    def get(self, job: str) -> Job:
        """Raises NotFound."""
        return self._caller.do(calls.show_job(job))

    def wait(self, job: str, seconds: float | None = None, watch: Watch | None = None) -> Job:
        """The job when it has ended, well or not. Outlasts a restart of the gateway.

        Raises StillRunning after `seconds`, NotFound, and Unreachable when the gateway stays away for a minute.
        """
        waiting = Waiting(SystemClock(), seconds, watched=watch is not None)
        while True:
            try:
                found = self._caller.do(calls.show_job(job, waiting.ask_for()))
            except StellwerkError as error:
                pause = waiting.failed(error)
            else:
                if watch is not None:
                    watch(found)
                if found.ended:
                    return found
                pause = waiting.heard(found)
            if pause:
                time.sleep(pause)

    def cancel(self, job: str) -> Job:
        """One that has ended stays as it is. Raises NotFound."""
        return self._caller.do(calls.cancel_job(job))

    def retry(self, job: str) -> Job:
        """Queues a dead job again. Raises NotFound, and Conflict for one that is not dead."""
        return self._caller.do(calls.retry_job(job))

    def result(self, job: str) -> JobResult:
        """The answer of a job that has ended. Raises NotFound, Conflict before the end, and the Refused that the answer
        is when the call was refused."""
        return self._caller.do(calls.job_result(job))

    def events(self, job: str) -> Iterator[JobEvent]:
        """What happens to a job, up to the event `end`. Raises BrokenOff when the gateway leaves before."""
        with contextlib.closing(self._caller.events(calls.job_events(job))) as events:
            for event in events:
                known = read_job_event(event)
                if known is not None:
                    yield known
                    if known.type == "end":
                        return
        raise BrokenOff("The gateway left before the job had ended.")

    def queues(self) -> Sequence[Queue]:
        """The queues of all models; for administrators."""
        return self._caller.do(calls.queues())


class JobHandle:
    """One job that was submitted."""

    def __init__(self, jobs: Jobs, id: str) -> None:  # noqa: A002  # what it is called everywhere else
        self._jobs = jobs
        self.id = id

    def __repr__(self) -> str:
        return f"JobHandle({self.id!r})"

    def get(self) -> Job:
        return self._jobs.get(self.id)

    def wait(self, seconds: float | None = None, watch: Watch | None = None) -> Job:
        """As `Jobs.wait`."""
        return self._jobs.wait(self.id, seconds, watch)

    def result(self, shape: type[Shape], seconds: float | None = None) -> Shape:
        """Waits for the answer and reads it as a `Chat`, `Embeddings` or another type.

        Raises JobFailed when there is none, and what `wait` raises.
        """
        self.wait(seconds).check()
        return self._jobs.result(self.id).read(shape)

    def cancel(self) -> Job:
        return self._jobs.cancel(self.id)

    def retry(self) -> Job:
        return self._jobs.retry(self.id)

    def events(self) -> Iterator[JobEvent]:
        """As `Jobs.events`."""
        return self._jobs.events(self.id)
