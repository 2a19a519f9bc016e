"""`Prefer: respond-async`: a call becomes a job, and is answered by it when it is done soon enough."""

from collections.abc import Mapping

import msgspec

from stellwerk.api._guard import Request
from stellwerk.api.jobs.intake import Accept
from stellwerk.api.jobs.preferences import Preference, read_preference
from stellwerk.api.jobs.shapes import show_job
from stellwerk.api.jobs.waiting import Patience
from stellwerk.http.exchange import Headers
from stellwerk.jobs.job import Job
from stellwerk.jobs.jobs import Jobs

_JSON: Headers = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))


class Deferral:
    """Fills `Routes.defer`."""

    def __init__(self, jobs: Jobs, patience: Patience, accepted: Mapping[str, Accept]) -> None:
        self._jobs = jobs
        self._patience = patience
        self._accepted = accepted

    async def __call__(self, request: Request) -> bool:
        exchange = request.exchange
        if exchange.method != "POST":
            return False
        accept = self._accepted.get(exchange.path)
        if accept is None:
            return False
        preference = read_preference(exchange.headers.get(b"prefer"))
        if not preference.respond_async:
            return False
        job = await self._jobs.enqueue(await accept(request))
        if preference.wait and not job.state.ended:
            job = await self._patience.wait(job.id, preference.wait)
        elif job.state.ended:
            # An idempotency key was used again.
            job = await self._jobs.get(job.id, with_result=True)
        answer(request, job, preference)
        return True


def answer(request: Request, job: Job, preference: Preference) -> None:
    """The job's own answer when it has one, else 202 and where to ask for it."""
    headers: Headers = (
        (b"x-request-id", request.id.encode()),
        (b"location", f"/api/requests/{job.id}".encode()),
        (b"x-stellwerk-job", job.id.encode()),
    )
    applied = preference.applied(later=not job.state.ended)
    if applied:
        headers += ((b"preference-applied", applied),)
    if job.state.ended and job.result is not None and job.status is not None:
        kind = (job.result_type or "application/json").encode("latin-1", "replace")
        request.exchange.respond(job.status, (*headers, (b"content-type", kind)), job.result)
        return
    status = 200 if job.state.ended else 202
    request.exchange.respond(status, (*headers, *_JSON), msgspec.json.encode(show_job(job)))
