"""Takes requests as jobs: read and checked as live ones are, so that nonsense is refused at once."""

from collections.abc import Awaitable, Callable, Mapping
from typing import NoReturn

import msgspec

from stellwerk.api._guard import Request, RequestHandler
from stellwerk.api._routing import read_priority
from stellwerk.api.jobs.exchange import CollectingExchange
from stellwerk.api.jobs.performer import CALL
from stellwerk.auth.principals import LOGIN_PREFIX
from stellwerk.core.call import Call
from stellwerk.core.clock import Clock
from stellwerk.core.errors import BadRequest, NotFound
from stellwerk.core.plan import Plan
from stellwerk.core.principal import Principal, Priority
from stellwerk.jobs.job import Job, NewJob
from stellwerk.jobs.jobs import Jobs

PATHS = tuple(
    f"{prefix}/{path}" for prefix in ("/v1", "") for path in ("chat/completions", "completions", "embeddings", "rerank")
)
"""The calls that every client may have made later."""
_LONGEST_QUEUE = 256
_LONGEST_CLIENT = 128
_LONGEST_KEY = 200
_ANSWER_BYTES = 1 << 20

Accept = Callable[[Request], Awaitable[NewJob]]
"""Makes a job of a request. Raises GatewayError for one that could not be answered."""


class Checked(msgspec.Struct, frozen=True):
    """A request that can be answered now."""

    call: Call
    queue: str
    """The model that it counts against, as the catalogue calls it."""


class _Seen(Exception):
    def __init__(self, call: Call) -> None:
        super().__init__()
        self.call = call


class Intake:
    def __init__(
        self,
        jobs: Jobs,
        handlers: Mapping[tuple[str, str], RequestHandler],
        plan: Callable[[Call], Plan],
        clock: Clock,
    ) -> None:
        """`handlers` are the live ones; `plan` raises for a call that the caller may not make, or nobody can answer."""
        self._jobs = jobs
        self._handlers = handlers
        self._plan = plan
        self._clock = clock
        self.accepted: dict[str, Accept] = dict.fromkeys(PATHS, self.accept)
        """What can be put off, by path. Other APIs add their own."""

    async def enqueue(self, new: NewJob) -> Job:
        """Raises Unavailable, code `queue_full`, and Conflict, code `idempotency_key_reused`."""
        return await self._jobs.enqueue(new)

    async def accept(self, request: Request) -> NewJob:
        """The job of a call with the body and the headers of a live one."""
        exchange = request.exchange
        return await self.accept_call(request, exchange.path, exchange.body)

    async def accept_call(
        self, request: Request, path: str, body: bytes, labels: Mapping[str, str] | None = None
    ) -> NewJob:
        """The same for a call that another request asks for."""
        headers = headers_of_call(request.exchange.headers)
        checked = await self.check(request.caller, path, body, headers)
        return new_job(request, queue=checked.queue, path=path, body=body, headers=headers, labels=labels)

    async def check(
        self, principal: Principal, path: str, body: bytes, headers: Mapping[bytes, bytes] | None = None
    ) -> Checked:
        """Reads a body as its handler does and plans the call. Raises what a live request would be refused with."""
        handler = self._handlers.get(("POST", path))
        if handler is None:
            raise NotFound(f"There is nothing at POST {path}.", code="unknown_url")
        exchange = CollectingExchange(
            path, body, dict(headers or {}), received=self._clock.monotonic(), most_bytes=_ANSWER_BYTES
        )
        try:
            await handler(Request(exchange, "req_checked", principal, background=True, look=_look))
        except _Seen as seen:
            call = seen.call
        else:
            raise BadRequest("This request cannot be put off.", code="unsupported_operation")
        plan = self._plan(call)
        return Checked(call, (plan.stands_for or plan.name)[:_LONGEST_QUEUE])


def _look(call: Call) -> NoReturn:
    raise _Seen(call)


def headers_of_call(headers: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Those of a request that count for its call; AI Gateway's `x-priority` means the same as ours."""
    kept = {name: headers[name] for name in (b"content-type", b"x-stellwerk-priority") if name in headers}
    if b"x-priority" in headers:
        kept.setdefault(b"x-stellwerk-priority", headers[b"x-priority"])
    return kept


def new_job(
    request: Request,
    *,
    queue: str,
    path: str,
    body: bytes,
    kind: str = CALL,
    headers: Mapping[bytes, bytes] | None = None,
    labels: Mapping[str, str] | None = None,
    priority: Priority | None = None,
) -> NewJob:
    """A job of the request's sender, with the priority, client and idempotency key that its headers name."""
    caller, given = request.caller, request.exchange.headers
    if priority is None:
        priority = read_priority(headers_of_call(given) if headers is None else headers, caller)
    return NewJob(
        kind=kind,
        queue=queue[:_LONGEST_QUEUE],
        path=path,
        body=body,
        key_id=caller.key_id,
        user_id=caller.user_id,
        client_id=_read_name(given, b"x-client-id", _LONGEST_CLIENT) or "",
        holder=holder_of(caller),
        priority=priority,
        idempotency_key=_read_name(given, b"idempotency-key", _LONGEST_KEY),
        labels=dict(labels or {}),
    )


def holder_of(caller: Principal) -> str:
    """Whose waiting jobs count together: a key's, or a person's over all logins."""
    return f"user-{caller.user_id}" if caller.key_id.startswith(LOGIN_PREFIX) else caller.key_id


def _read_name(headers: Mapping[bytes, bytes], name: bytes, longest: int) -> str | None:
    given = headers.get(name)
    if given is None:
        return None
    text = given.decode("latin-1").strip()
    shown = name.decode()
    if not (0 < len(text) <= longest and text.isprintable()):
        raise BadRequest(f"The header '{shown}' takes 1 to {longest} printable characters.", param=shown)
    return text
