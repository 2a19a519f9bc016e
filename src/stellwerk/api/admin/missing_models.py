"""/admin/api/missing-models: names that clients asked for and that lead to no model."""

from typing import Annotated

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from stellwerk.api._endpoints import Asked, Endpoint, Registry
from stellwerk.api._shapes import Instant, show_instant
from stellwerk.api.admin.administration import Administration
from stellwerk.core.errors import Unavailable
from stellwerk.core.principal import ADMINS, OBSERVERS
from stellwerk.records import audit
from stellwerk.records.audit import Actor
from stellwerk.records.missing_models import MissingModel, forget, list_missing

_TAG = "Models"
_PATH = "/admin/api/missing-models"


class MissingQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How many."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class ForgetQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is forgotten."""

    name: Annotated[str, Meta(min_length=1, max_length=128, description="Only this name.")] | None = None


class MissingModelShape(msgspec.Struct, kw_only=True):
    """One name that one client asked for."""

    name: str
    key_id: str
    user_id: int
    count: int
    first_at: Instant
    last_at: Instant
    nearest: Annotated[str | None, Meta(description="The known name that is closest to it.")]


class ForgottenShape(msgspec.Struct, kw_only=True):
    """How many rows are gone."""

    forgotten: int


class MissingModelsAPI:
    def __init__(self, administration: Administration) -> None:
        self._administration = administration

    def register(self, registry: Registry) -> None:
        registry.add(
            Endpoint(
                method="GET",
                path=_PATH,
                access=OBSERVERS,
                tag=_TAG,
                summary="List the models that were asked for and that there are not, latest first",
                handler=self._list,
                query=MissingQuery,
                answer=list[MissingModelShape],
                example=[_ROW],
                errors=(Unavailable,),
            ),
            Endpoint(
                method="DELETE",
                path=_PATH,
                access=ADMINS,
                tag=_TAG,
                summary="Forget one of these names, or all of them",
                handler=self._forget,
                query=ForgetQuery,
                answer=ForgottenShape,
                example={"forgotten": 3},
                errors=(Unavailable,),
            ),
        )

    async def _list(self, asked: Asked) -> list[MissingModelShape]:
        query: MissingQuery = asked.query
        rows = await self._administration.fetch(lambda connection: list_missing(connection, query.limit))
        return [_show(row) for row in rows]

    async def _forget(self, asked: Asked) -> ForgottenShape:
        query: ForgetQuery = asked.query

        def work(connection: Connection, actor: Actor, now: float) -> int:
            count = forget(connection, query.name)
            if count:
                subject = "missing-models" if query.name is None else f"missing-model:{query.name}"
                audit.append(connection, actor, "missing_models.forget", subject, {"count": count}, now=now)
            return count

        return ForgottenShape(forgotten=await self._administration.change(asked, work))


def _show(row: MissingModel) -> MissingModelShape:
    return MissingModelShape(
        name=row.name,
        key_id=row.key_id,
        user_id=row.user_id,
        count=row.count,
        first_at=show_instant(row.first_at),
        last_at=show_instant(row.last_at),
        nearest=row.nearest,
    )


_ROW = {
    "name": "gpt-5o",
    "key_id": "k7d3m2q5xa",
    "user_id": 7,
    "count": 12,
    "first_at": "2026-11-21T09:30:00.000Z",
    "last_at": "2026-11-21T10:12:31.250Z",
    "nearest": "openai/gpt-5",
}
