"""/admin/api/calls: what is being answered at this moment."""

from typing import Annotated

import msgspec
from msgspec import Meta

from stellwerk.api._endpoints import Asked, Endpoint, Registry
from stellwerk.api.admin.administration import Administration
from stellwerk.core.errors import NotFound, Unavailable
from stellwerk.core.principal import ADMINS, OBSERVERS
from stellwerk.pipeline.gateway import Gateway
from stellwerk.records import audit

_TAG = "Calls"
_MOST = 1000
CallId = Annotated[str, Meta(min_length=1, max_length=128)]


class RunningCallShape(msgspec.Struct, kw_only=True):
    """One call that has not ended yet."""

    id: str
    operation: str
    model: Annotated[str, Meta(description="As the client named it.")]
    key_id: str
    user_id: int
    provider: Annotated[str | None, Meta(description="Null as long as it waits for money or its turn.")]
    upstream_model: str | None
    stream: bool
    job: Annotated[bool, Meta(description="It is made for a job.")]
    seconds: Annotated[float, Meta(description="Since it arrived.")]
    first_byte_seconds: Annotated[float | None, Meta(description="To the first byte of its answer; null before.")]


class EndedShape(msgspec.Struct, kw_only=True):
    """How many calls were ended."""

    ended: int


class RunningCallsAPI:
    def __init__(self, administration: Administration, gateway: Gateway) -> None:
        self._administration = administration
        self._gateway = gateway

    def register(self, registry: Registry) -> None:
        registry.add(
            Endpoint(
                method="GET",
                path="/admin/api/calls",
                access=OBSERVERS,
                tag=_TAG,
                summary="List the calls that are being answered, at most a thousand",
                handler=self._list,
                answer=list[RunningCallShape],
                example=[_CALL],
            ),
            Endpoint(
                method="DELETE",
                path="/admin/api/calls/{call_id}",
                access=ADMINS,
                tag=_TAG,
                summary="End a call that is being answered",
                description="Its client's connection is broken off, and its upstream is told to stop.",
                handler=self._end,
                path_parameters={"call_id": CallId},
                answer=EndedShape,
                example={"ended": 1},
                errors=(NotFound, Unavailable),
            ),
        )

    async def _list(self, _: Asked) -> list[RunningCallShape]:
        return [
            RunningCallShape(
                id=call.id,
                operation=call.operation,
                model=call.model,
                key_id=call.key_id,
                user_id=call.user_id,
                provider=call.provider,
                upstream_model=call.target,
                stream=call.stream,
                job=call.background,
                seconds=round(call.seconds, 3),
                first_byte_seconds=None if call.first_byte is None else round(call.first_byte, 3),
            )
            for call in self._gateway.running()[:_MOST]
        ]

    async def _end(self, asked: Asked) -> EndedShape:
        call_id = asked.parameters["call_id"]
        if not any(call.id == call_id for call in self._gateway.running()):
            raise NotFound("There is no such running call; it may have ended.", code="call_not_found", param="call_id")
        await self._administration.change(
            asked,
            lambda connection, actor, now: audit.append(connection, actor, "call.end", f"call:{call_id}", {}, now=now),
        )
        return EndedShape(ended=self._gateway.end(call_id))


_CALL = {
    "id": "req_7fed35c0ffee00000000002a",
    "operation": "chat",
    "model": "openai/gpt-5-mini",
    "key_id": "k7d3m2q5xa",
    "user_id": 7,
    "provider": "openai",
    "upstream_model": "gpt-5-mini",
    "stream": True,
    "job": False,
    "seconds": 3.204,
    "first_byte_seconds": 0.412,
}
