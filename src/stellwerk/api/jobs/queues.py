"""/admin/api/queues: the jobs of each model, and whether they may begin."""

from collections.abc import Callable
from typing import Any

from stellwerk.api._endpoints import Asked, Endpoint, Registry
from stellwerk.api.admin.administration import Administration
from stellwerk.api.jobs.shapes import QUEUE, QueueName, QueueShape, show_queue
from stellwerk.core.errors import NotFound, Unavailable
from stellwerk.core.principal import ADMINS, OBSERVERS
from stellwerk.jobs.job import QueueCounts
from stellwerk.jobs.jobs import Jobs
from stellwerk.records import audit

_TAG = "Jobs"


class QueuesAPI:
    def __init__(self, jobs: Jobs, administration: Administration, widths: Callable[[str], int | None]) -> None:
        """`widths` says how many jobs of a queue run at a time."""
        self._jobs = jobs
        self._administration = administration
        self._widths = widths

    def register(self, registry: Registry) -> None:
        one: dict[str, Any] = {
            "access": ADMINS,
            "tag": _TAG,
            "path_parameters": {"name": QueueName},
            "answer": QueueShape,
            # A name that none can have.
            "errors": (NotFound, Unavailable),
        }
        registry.add(
            Endpoint(
                method="GET",
                path="/admin/api/queues",
                access=OBSERVERS,
                tag=_TAG,
                summary="List the queues of jobs by model",
                handler=self._list,
                answer=list[QueueShape],
                example=[QUEUE],
                errors=(Unavailable,),
            ),
            Endpoint(
                method="POST",
                path="/admin/api/queues/{name}/pause",
                summary="Let no job of a model begin",
                description="Jobs are still taken, and running ones go on. It outlasts a restart.",
                handler=self._pause,
                example={**QUEUE, "paused": True},
                **one,
            ),
            Endpoint(
                method="POST",
                path="/admin/api/queues/{name}/resume",
                summary="Let jobs of a model begin again",
                handler=self._resume,
                example=QUEUE,
                **one,
            ),
        )

    async def _list(self, _: Asked) -> list[QueueShape]:
        return [self._show(counts) for counts in await self._jobs.queues()]

    async def _pause(self, asked: Asked) -> QueueShape:
        return await self._steer(asked, "pause")

    async def _resume(self, asked: Asked) -> QueueShape:
        return await self._steer(asked, "resume")

    async def _steer(self, asked: Asked, verb: str) -> QueueShape:
        name = asked.parameters["name"]
        await self._administration.change(
            asked,
            lambda connection, actor, now: audit.append(
                connection, actor, f"queue.{verb}", f"queue:{name}", {}, now=now
            ),
        )
        act = {"pause": self._jobs.pause, "resume": self._jobs.resume}[verb]
        return self._show(await act(name))

    def _show(self, counts: QueueCounts) -> QueueShape:
        return show_queue(counts, self._widths(counts.queue), self._jobs.settings.max_waiting)
