"""/api/requests: how far a job is and what came of it; people see their own, administrators all."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from stellwerk.api._endpoints import Asked, Endpoint, Registry
from stellwerk.api.jobs.deferral import answer
from stellwerk.api.jobs.events import EventWriter, first_of, write_events
from stellwerk.api.jobs.ownership import Ownership
from stellwerk.api.jobs.preferences import LONGEST_WAIT, Preference, read_preference
from stellwerk.api.jobs.shapes import JOB, STATES, JobId, JobListShape, JobShape, Status, show_job
from stellwerk.api.jobs.waiting import Patience
from stellwerk.core.errors import Conflict, NotFound, Unavailable
from stellwerk.core.principal import CALLERS, READERS, Principal, Role
from stellwerk.http.exchange import Headers
from stellwerk.jobs.job import Job, State
from stellwerk.jobs.jobs import Jobs

_TAG = "Jobs"
_ONE = {"request_id": JobId}
_STREAM: Headers = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
_MOST_POSITIONS = 25
"""Jobs of a list whose place in the line is looked up."""


class WaitQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How long to wait for the end."""

    wait: Annotated[float, Meta(ge=0, le=LONGEST_WAIT, description="Seconds; `Prefer: wait=N` means the same.")] = 0.0


class JobsQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which jobs."""

    status: Status | None = None
    model: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    batch_id: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    parent_id: JobId | None = None
    before: Annotated[JobId, Meta(description="Only what was queued before this job.")] | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class JobsAPI:
    def __init__(self, jobs: Jobs, ownership: Ownership, patience: Patience) -> None:
        self._jobs = jobs
        self._ownership = ownership
        self._patience = patience

    def register(self, registry: Registry) -> None:
        registry.add(*self._of_all(), *self._of_one())

    def _of_all(self) -> tuple[Endpoint, ...]:
        listed = {"object": "list", "data": [JOB], "has_more": False, "last_id": JOB["id"]}
        return (
            Endpoint(
                method="GET",
                path="/api/requests",
                access=READERS,
                tag=_TAG,
                summary="List jobs, newest first",
                description="The own ones; administrators see all.",
                handler=self._list,
                query=JobsQuery,
                answer=JobListShape,
                example=listed,
                errors=(NotFound, Unavailable),
            ),
        )

    def _of_one(self) -> tuple[Endpoint, ...]:
        one: dict[str, Any] = {"tag": _TAG, "path_parameters": _ONE}
        path, errors = "/api/requests/{request_id}", (NotFound, Unavailable)
        return (
            Endpoint(
                method="GET",
                path=path,
                access=READERS,
                summary="Show a job, when it has ended if so asked",
                handler=self._show,
                query=WaitQuery,
                answer=JobShape,
                example=JOB,
                errors=errors,
                **one,
            ),
            Endpoint(
                method="GET",
                path=f"{path}/events",
                access=READERS,
                summary="Follow a job",
                description="Server-sent events: `state`, `position`, `progress`, `piece` (text of the answer as it "
                "comes) and `end`. `Last-Event-ID` goes on where a connection broke.",
                handler=self._follow,
                answer=JobShape,
                example='event: piece\nid: 1:5\ndata: {"text":"Hello","offset":0,"attempt":1}\n\n',
                media="text/event-stream",
                errors=errors,
                **one,
            ),
            Endpoint(
                method="GET",
                path=f"{path}/result",
                access=READERS,
                summary="Show the answer itself, as the call would have been answered",
                description="With the answer's own status and media type. 409 before there is one, 404 when it is not "
                "kept any more.",
                handler=self._show_result,
                answer=Any,
                example={},
                media="*/*",
                errors=(*errors, Conflict),
                **one,
            ),
            Endpoint(
                method="DELETE",
                path=path,
                access=CALLERS,
                summary="Cancel a job",
                description="One that has ended stays as it is.",
                handler=self._cancel,
                answer=JobShape,
                example={**JOB, "status": "cancelled", "position": None, "estimated_start": None},
                errors=errors,
                **one,
            ),
            Endpoint(
                method="POST",
                path=f"{path}/retry",
                access=CALLERS,
                summary="Queue a job again that was given up",
                handler=self._retry,
                answer=JobShape,
                example=JOB,
                errors=(*errors, Conflict),
                **one,
            ),
        )

    # --- what they do

    async def _list(self, asked: Asked) -> JobListShape:
        query, caller = asked.query, asked.caller
        whose: dict[str, Any] = {} if caller.role is Role.ADMIN else self._ownership.filter_of(caller)
        if query.before is not None:
            await self._find(caller, query.before)
        found = await self._jobs.list(
            **whose,
            queue=query.model,
            states=() if query.status is None else (STATES[query.status],),
            batch_id=query.batch_id,
            parent_id=query.parent_id,
            before=query.before,
            limit=query.limit,
        )
        waiting = [job.id for job in found if job.state is State.QUEUED][-_MOST_POSITIONS:]
        standings = {job_id: await self._jobs.standing(job_id) for job_id in waiting}
        return JobListShape(
            object="list",
            data=[show_job(job, standings.get(job.id)) for job in found],
            has_more=len(found) == query.limit,
            last_id=found[-1].id if found else None,
        )

    async def _show(self, asked: Asked) -> JobShape:
        job_id = asked.parameters["request_id"]
        await self._find(asked.caller, job_id)
        preferred = read_preference(asked.request.exchange.headers.get(b"prefer")).wait or 0.0
        job = await self._patience.wait(job_id, max(asked.query.wait, preferred))
        standing = await self._jobs.standing(job_id)
        return show_job(job, standing, list(await self._jobs.attempts(job_id)), with_result=True)

    async def _follow(self, asked: Asked) -> None:
        job_id, exchange = asked.parameters["request_id"], asked.request.exchange
        await self._find(asked.caller, job_id)
        events = await first_of(self._jobs.follow(job_id))
        exchange.start(200, ((b"x-request-id", asked.request.id.encode()), *_STREAM))
        if exchange.method != "HEAD":
            writer = EventWriter(exchange.headers.get(b"last-event-id"))
            await write_events(exchange, events, writer, self._patience.stopping)
        exchange.finish()

    async def _show_result(self, asked: Asked) -> None:
        job_id = asked.parameters["request_id"]
        await self._find(asked.caller, job_id)
        job = await self._jobs.get(job_id, with_result=True)
        if not job.state.ended:
            raise Conflict("The job has not ended yet.", code="job_not_finished", retry_after=1)
        if job.result is None:
            raise NotFound("There is no answer of this job, or it is not kept any more.", code="result_not_found")
        answer(asked.request, job, Preference())

    async def _cancel(self, asked: Asked) -> JobShape:
        job = await self._find(asked.caller, asked.parameters["request_id"])
        return show_job(await self._jobs.cancel(job.id))

    async def _retry(self, asked: Asked) -> JobShape:
        job = await self._find(asked.caller, asked.parameters["request_id"])
        again = await self._jobs.retry(job.id)
        return show_job(again, await self._jobs.standing(job.id))

    async def _find(self, caller: Principal, job_id: str) -> Job:
        """Raises NotFound, in the same words for what is not there and for what is not his."""
        job = await self._jobs.get(job_id)
        if not self._ownership.may_see(caller, job):
            raise NotFound("There is no such job.", code="job_not_found")
        return job
