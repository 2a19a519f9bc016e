"""Waiting for a job as long as a client wants to, and no longer than the gateway runs."""

import asyncio
from collections.abc import Callable

from stellwerk.jobs.job import Job
from stellwerk.jobs.jobs import Jobs

_LOOK_SECONDS = 0.5


class Patience:
    def __init__(self, jobs: Jobs, stopping: Callable[[], bool]) -> None:
        """`stopping` says whether the gateway wants its last answers to go out."""
        self._jobs = jobs
        self.stopping = stopping

    async def wait(self, job_id: str, seconds: float) -> Job:
        """The job with its result at its end, or as it is when the time is over. Raises NotFound and Unavailable."""
        if seconds > 0 and not self.stopping():
            waiting = asyncio.ensure_future(self._jobs.wait(job_id, seconds))
            try:
                while not waiting.done() and not self.stopping():
                    await asyncio.wait({waiting}, timeout=_LOOK_SECONDS)
                if waiting.done():
                    return waiting.result()
            finally:
                waiting.cancel()
        return await self._jobs.get(job_id, with_result=True)
