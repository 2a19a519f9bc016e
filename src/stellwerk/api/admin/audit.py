"""/admin/api/audit: who changed what, when and from where."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from stellwerk.api._endpoints import Asked, Endpoint, Registry
from stellwerk.api._shapes import Instant, Page, show_instant
from stellwerk.api.admin.administration import Administration
from stellwerk.core.errors import Unavailable
from stellwerk.core.principal import OBSERVERS
from stellwerk.records.audit import AuditRecord, read, verify

_TAG = "Audit"


class AuditQuery(Page, kw_only=True, forbid_unknown_fields=True):
    """Which records; the newest come first."""

    subject: Annotated[
        str, Meta(max_length=300, description="Only of this, such as `user:7`, `key:…`, `settings`.")
    ] = ""


class AuditShape(msgspec.Struct, kw_only=True):
    """One change."""

    id: int
    at: Instant
    actor: str
    key_id: str
    peer: str
    action: str
    subject: str
    details: dict[str, Any]


class AuditCheckShape(msgspec.Struct, kw_only=True):
    """Whether the chain of records is whole."""

    ok: bool
    broken_at: Annotated[int | None, Meta(description="Id of the first record that does not follow from the others.")]


class AuditAPI:
    def __init__(self, administration: Administration) -> None:
        self._administration = administration

    def register(self, registry: Registry) -> None:
        registry.add(
            Endpoint(
                method="GET",
                path="/admin/api/audit",
                access=OBSERVERS,
                tag=_TAG,
                summary="List administrative changes, newest first",
                handler=self._list,
                query=AuditQuery,
                answer=list[AuditShape],
                example=[_RECORD],
                errors=(Unavailable,),
            ),
            Endpoint(
                method="GET",
                path="/admin/api/audit/check",
                access=OBSERVERS,
                tag=_TAG,
                summary="Check that no record was altered or taken out",
                handler=self._check,
                answer=AuditCheckShape,
                example={"ok": True, "broken_at": None},
                errors=(Unavailable,),
            ),
        )

    async def _list(self, asked: Asked) -> list[AuditShape]:
        query: AuditQuery = asked.query

        def look(connection: Connection) -> list[AuditRecord]:
            return read(connection, limit=query.limit, before=query.before, subject=query.subject or None)

        return [_show(record) for record in await self._administration.fetch(look)]

    async def _check(self, _asked: Asked) -> AuditCheckShape:
        broken_at = await self._administration.fetch(verify)
        return AuditCheckShape(ok=broken_at is None, broken_at=broken_at)


def _show(record: AuditRecord) -> AuditShape:
    return AuditShape(
        id=record.id,
        at=show_instant(record.at),
        actor=record.actor,
        key_id=record.key_id,
        peer=record.peer,
        action=record.action,
        subject=record.subject,
        details=record.details,
    )


_RECORD = {
    "id": 41,
    "at": "2026-11-21T09:30:00.000Z",
    "actor": "admin",
    "key_id": "k7d3m2q5xa",
    "peer": "127.0.0.1",
    "action": "user.change",
    "subject": "user:7",
    "details": {"tier": {"before": "payg", "after": "sub"}},
}
