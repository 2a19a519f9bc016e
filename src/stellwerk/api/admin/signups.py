"""/admin/api/signups: strangers who want to become users, and the mails that tell them."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from stellwerk.api._endpoints import Asked, Endpoint, Registry
from stellwerk.api._shapes import Moment, Page, show_moment
from stellwerk.api.admin import actions
from stellwerk.api.admin.administration import Administration
from stellwerk.auth.mails import Language, Mail, approval_mail, rejection_mail
from stellwerk.auth.signups import Signup, Status, list_signups
from stellwerk.core.errors import NotFound, Unavailable
from stellwerk.core.principal import ADMINS, OBSERVERS, Tier

_TAG = "Sign-up"
_LANGUAGES: tuple[Language, ...] = ("de", "en")

Decision = Literal["pending", "approved", "rejected"]
SignupId = Annotated[int, Meta(ge=1, le=2**53 - 1, description="Number of a request.", examples=[3])]


class SignupsQuery(Page, kw_only=True, forbid_unknown_fields=True):
    """Which requests; the newest come first."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000
    status: Decision | None = None


class SignupRequestShape(msgspec.Struct, kw_only=True):
    """A request. `email` and `message` are what a stranger typed: show them as text, never as markup."""

    id: int
    email: str
    tier: Tier
    message: str | None
    status: Decision
    created_at: Moment
    decided_at: Moment | None
    decided_by: str | None
    user_id: int | None


class MailShape(msgspec.Struct, kw_only=True):
    """A mail to copy; the gateway sends none."""

    subject: str
    body: str


class ApprovalShape(msgspec.Struct, kw_only=True):
    """The new user and his key, which is shown this one time."""

    status: str
    user_id: int
    email: str
    tier: Tier
    api_key: str
    mail: Annotated[dict[str, MailShape], Meta(description="By language: de and en.")]


class RejectionShape(msgspec.Struct, kw_only=True):
    """A request that was turned down."""

    status: str
    mail: Annotated[dict[str, MailShape], Meta(description="By language: de and en.")]


class SignupsAPI:
    """`base_url` is the gateway's address as users reach it; empty takes the one by which the admin reached it."""

    def __init__(self, administration: Administration, *, base_url: str = "") -> None:
        self._administration = administration
        self._base_url = base_url

    def register(self, registry: Registry) -> None:
        one = {"signup_id": SignupId}
        registry.add(
            Endpoint(
                method="GET",
                path="/admin/api/signups",
                access=OBSERVERS,
                tag=_TAG,
                summary="List requests, newest first",
                handler=self._list,
                query=SignupsQuery,
                answer=list[SignupRequestShape],
                example=[_SIGNUP],
                errors=(Unavailable,),
            ),
            Endpoint(
                method="POST",
                path="/admin/api/signups/{signup_id}/approve",
                access=ADMINS,
                tag=_TAG,
                summary="Make a user and a key out of a request",
                description="400 when the request was decided before or the address is a user's by now.",
                handler=self._approve,
                path_parameters=one,
                answer=ApprovalShape,
                example={
                    "status": "approved",
                    "user_id": 7,
                    "email": "ada@example.org",
                    "tier": "payg",
                    "api_key": "sk-sw-k7d3m2q5xa-<43 characters that are shown this one time>",
                    "mail": {
                        "de": {"subject": "Ihr Zugang zu Stellwerk", "body": "Guten Tag, …"},
                        "en": {"subject": "Your access to Stellwerk", "body": "Hello, …"},
                    },
                },
                errors=(NotFound, Unavailable),
            ),
            Endpoint(
                method="POST",
                path="/admin/api/signups/{signup_id}/reject",
                access=ADMINS,
                tag=_TAG,
                summary="Turn a request down",
                description="400 when the request was decided before.",
                handler=self._reject,
                path_parameters=one,
                answer=RejectionShape,
                example={
                    "status": "rejected",
                    "mail": {
                        "de": {"subject": "Ihre Anfrage nach einem Zugang zu Stellwerk", "body": "Guten Tag, …"},
                        "en": {"subject": "Your request for access to Stellwerk", "body": "Hello, …"},
                    },
                },
                errors=(NotFound, Unavailable),
            ),
        )

    async def _list(self, asked: Asked) -> list[SignupRequestShape]:
        query: SignupsQuery = asked.query
        status = None if query.status is None else Status(query.status)
        records = await self._administration.fetch(
            lambda connection: list_signups(connection, status=status, limit=query.limit, before=query.before)
        )
        return [_show(record) for record in records]

    async def _approve(self, asked: Asked) -> ApprovalShape:
        signup_id, digest = asked.parameters["signup_id"], self._administration.digest
        approval = await self._administration.change(
            asked, lambda connection, actor, now: actions.approve_signup(connection, actor, signup_id, digest, now=now)
        )
        user, base_url = approval.user, self._base_url or _reached_by(asked)
        mails = {
            language: approval_mail(language, base_url=base_url, tier=user.tier, key=approval.token)
            for language in _LANGUAGES
        }
        return ApprovalShape(
            status="approved",
            user_id=user.id,
            email=user.email,
            tier=user.tier,
            api_key=approval.token.reveal(),
            mail={language: _show_mail(mail) for language, mail in mails.items()},
        )

    async def _reject(self, asked: Asked) -> RejectionShape:
        signup_id = asked.parameters["signup_id"]
        await self._administration.change(
            asked, lambda connection, actor, now: actions.reject_signup(connection, actor, signup_id, now=now)
        )
        return RejectionShape(
            status="rejected",
            mail={language: _show_mail(rejection_mail(language)) for language in _LANGUAGES},
        )


def _reached_by(asked: Asked) -> str:
    # The guard has refused every Host that the operator did not name, unless a proxy in front is to do that.
    return f"http://{asked.request.exchange.headers.get(b'host', b'localhost').decode('latin-1')}"


def _show_mail(mail: Mail) -> MailShape:
    return MailShape(subject=mail.subject, body=mail.body)


def _show(record: Signup) -> SignupRequestShape:
    return SignupRequestShape(
        id=record.id,
        email=record.email,
        tier=record.tier,
        message=record.message,
        status=record.status.value,
        created_at=show_moment(record.created_at),
        decided_at=None if record.decided_at is None else show_moment(record.decided_at),
        decided_by=record.decided_by,
        user_id=record.user_id,
    )


_SIGNUP = {
    "id": 3,
    "email": "ada@example.org",
    "tier": "payg",
    "message": "For my thesis.",
    "status": "pending",
    "created_at": "2026-11-21 09:30:00",
    "decided_at": None,
    "decided_by": None,
    "user_id": None,
}
