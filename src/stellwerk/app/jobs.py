"""The jobs of the gateway: who takes them, who performs them, and the APIs that speak of them."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from sqlalchemy import Connection

from stellwerk.api._endpoints import Registry
from stellwerk.api._guard import Routes
from stellwerk.api.admin.administration import Administration
from stellwerk.api.jobs.deferral import Deferral
from stellwerk.api.jobs.endpoints import JobsAPI
from stellwerk.api.jobs.intake import Intake
from stellwerk.api.jobs.ownership import Ownership
from stellwerk.api.jobs.performer import CALL, CallPerformer
from stellwerk.api.jobs.queues import QueuesAPI
from stellwerk.api.jobs.shapes import facts_of_job
from stellwerk.api.jobs.waiting import Patience
from stellwerk.api.openai.batch_performer import BATCH, BatchPerformer
from stellwerk.api.openai.batches import BatchesAPI
from stellwerk.api.openai.file_store import FileStore
from stellwerk.api.openai.files import FilesAPI
from stellwerk.api.openai.responses import ResponsesAPI
from stellwerk.app.line import Line
from stellwerk.app.notices import Notices
from stellwerk.app.people import People
from stellwerk.app.store import Store
from stellwerk.config.settings import Config
from stellwerk.core.errors import NotFound, Unavailable
from stellwerk.jobs.job import Job, Leased, Performed
from stellwerk.jobs.jobs import Jobs
from stellwerk.jobs.settings import JobSettings
from stellwerk.jobs.sink import Sink
from stellwerk.jobs.workers import Perform, Workers
from stellwerk.records import batches, files
from stellwerk.storage.room import Room

_DRAIN_SECONDS = 5.0
_HOUSEKEEPING_SECONDS = 3600.0


class JobParts:
    def __init__(
        self,
        config: Config,
        *,
        people: People,
        store: Store,
        line: Line,
        routes: Routes,
        notices: Notices,
        complete: Callable[[], bool],
        stopping: Callable[[], bool],
    ) -> None:
        """`routes` are those of the main listener: their calls can be put off, and jobs are performed by them.

        `complete` says that every provider has told its models since the start.
        """
        self._notices = notices
        seal, has_room = store.seal, Room(store.database.path.parent, people.clock.monotonic).has_room
        self.jobs = Jobs(
            run=people.run,
            submit=people.submit,
            fetch=people.fetch,
            seal=seal,
            clock=people.clock,
            settings=job_settings(config),
            on_finished=self._tell_finished,
            note_end=self._note_end,
            has_room=has_room,
        )
        self.ownership = Ownership(people.keys.is_shared)
        self.patience = Patience(self.jobs, stopping)
        self.intake = Intake(self.jobs, routes.handlers, line.gateway.plan, people.clock)
        call = CallPerformer(
            routes.handlers,
            people.keys.resolve,
            people.clock,
            result_bytes=self.jobs.settings.result_bytes,
            complete=complete,
        )
        self.call: Perform = call
        """What performs a call as its live route does."""
        self.performers: dict[str, Perform] = {CALL: call}
        """By the kind of job; others add theirs before `works` runs."""
        self.files = FileStore(run=people.run, fetch=people.fetch, seal=seal, clock=people.clock, has_room=has_room)
        batch = BatchPerformer(self.jobs, self.intake, self.files, people.keys.resolve)
        self.performers[BATCH] = batch
        self.resolve = people.keys.resolve
        self._people = people
        files_api = FilesAPI(self.files, self.ownership)
        files_api.register(routes)
        BatchesAPI(self.jobs, self.intake, self.files, files_api, batch, self.ownership).register(routes)
        ResponsesAPI(self.jobs, self.intake, routes.handlers, self.ownership, people.clock, stopping).register(routes)
        self.workers = Workers(self.jobs, self._perform, line.width, clock=people.clock)
        self._widths = line.width
        routes.defer = Deferral(self.jobs, self.patience, self.intake.accepted)

    def register(self, registry: Registry, administration: Administration) -> None:
        JobsAPI(self.jobs, self.ownership, self.patience).register(registry)
        QueuesAPI(self.jobs, administration, self._widths).register(registry)

    async def start(self) -> None:
        """Before anybody is answered: takes back what an earlier process was working on."""
        await self.jobs.recover()

    def works(self) -> list[Coroutine[Any, Any, None]]:
        """What runs as long as the gateway does."""
        return [self.jobs.run(), self._work(), self._keep_house()]

    async def _keep_house(self) -> None:
        """Deletes files and batches that are kept no longer."""
        people = self._people
        while True:
            with contextlib.suppress(Unavailable):
                while await people.run(lambda connection: files.prune(connection, people.clock.now())):
                    pass
                await people.run(lambda connection: batches.prune(connection, people.clock.now()))
            await asyncio.sleep(_HOUSEKEEPING_SECONDS)

    async def _work(self) -> None:
        await self.workers.run()
        # They were stopped: only who ends before that has failed.
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Before `works` are cancelled: lets running jobs finish for a while and gives back the others."""
        await self.workers.stop(_DRAIN_SECONDS)

    def _note_end(self, connection: Connection, job: Job, /) -> None:
        if self._is_told(job):
            self._notices.webhooks.store(connection, "job.finished", facts_of_job(job))

    def _tell_finished(self, job: Job) -> None:
        if self._is_told(job):
            self._notices.webhooks.look()

    def _is_told(self, job: Job) -> bool:
        # Parts of a larger job are nobody's own.
        return job.parent_id is None and self._notices.webhooks.wants("job.finished")

    async def _perform(self, leased: Leased, sink: Sink) -> Performed:
        perform = self.performers.get(leased.job.kind)
        if perform is None:
            raise NotFound(f"This gateway does not do '{leased.job.kind}' any more.", code="unknown_kind")
        return await perform(leased, sink)


def job_settings(config: Config) -> JobSettings:
    jobs = config.jobs
    return JobSettings(
        max_waiting=jobs.max_waiting,
        max_waiting_per_client=jobs.max_waiting_per_client,
        workers=jobs.workers,
        attempts=jobs.attempts,
        attempt_seconds=jobs.attempt_seconds,
        deadline_seconds=jobs.deadline_seconds,
        result_hours=jobs.result_hours,
        result_bytes=jobs.result_bytes,
    )
