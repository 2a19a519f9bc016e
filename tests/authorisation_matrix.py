"""The authorisation matrix: for each route who may use it, and what follows from that for every method and caller.

`ROWS` says what each route is meant for and is written by hand; everything else here is derived from it.
"""

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from stellwerk.core.principal import ADMINS, OBSERVERS, OPEN, READERS, Access
from stellwerk.core.principal import CALLERS as PAYERS
from tests.callers import Caller, Cast
from tests.kept_connection import KeptConnection
from tests.raw_http import Answer, hello

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
SENDING = ("POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True)
class Row:
    """One route: who may use it, with which body, and what they are answered.

    A body does what the route is for, so that a refusal which comes too late shows. Bodies of routes that are open to
    everybody, or that would end the login of whoever asks, are left wanting instead.
    """

    access: Access
    body: Any = None
    answers: tuple[int, ...] = (200,)
    paid: bool = False
    """402 for who has no money."""
    personal: bool = False
    """403 for keys that were made for nobody."""


INFERENCE = {
    "chat/completions": hello(),
    "completions": {"model": "up/up", "prompt": "Hello"},
    "embeddings": {"model": "up/up", "input": "Hello"},
    "rerank": {"model": "up/up", "query": "Hello", "documents": ["Hi", "Bye"]},
}
OLLAMA_INFERENCE = {
    "chat": {**hello(), "stream": False},
    "generate": {"model": "up/up", "prompt": "Hello", "stream": False},
    "embed": {"model": "up/up", "input": "Hello"},
    "embeddings": {"model": "up/up", "prompt": "Hello"},
}
OLLAMA_REFUSED = ("push", "create")
SEEN_BY_EVERYBODY = (
    "/health",
    "/health/liveness",
    "/health/liveliness",
    "/health/readiness",
    "/livez",
    "/healthz",
    "/readyz",
    "/api/uptime",
    "/api/models",
)
SEEN_BY_ALL_WITH_A_KEY = (
    "/v1/stats/summary",
    "/user/api/keys",
    "/user/api/me",
    "/user/api/usage",
    "/user/api/ratelimit",
    "/user/api/models",
    "/user/api/ledger",
)
SEEN_BY_OBSERVERS = (
    "/health/details",
    "/metrics",
    "/admin/api/users",
    "/admin/api/users/{user_id}",
    "/admin/api/users/{user_id}/keys",
    "/admin/api/users/{user_id}/ledger",
    "/admin/api/keys",
    "/admin/api/ledger/check",
    "/admin/api/prices",
    "/admin/api/signups",
    "/admin/api/audit",
    "/admin/api/audit/check",
    "/admin/api/auto-switch",
    "/admin/api/calls",
    "/admin/api/missing-models",
    "/admin/api/slots",
    "/admin/api/system",
    "/admin/api/models/local",
    "/admin/api/models/downloads",
    "/admin/api/config",
    "/admin/api/usage",
)
LOCAL_THINGS = (
    "/admin/api/slots/loads/{load_id}",
    "/admin/api/models/{name}",
    "/admin/api/models/downloads/{download_id}",
    "/admin/api/models/downloads/{download_id}/events",
)
LOCAL_CHANGES: dict[str, Any] = {
    "slots/load": {"model_path": "tiny.gguf"},
    "slots/{slot}/unload": None,
    "models/download": {"repo_id": "someone/tiny-GGUF", "filename": "tiny.gguf"},
    "models/delete": {"model_path": "tiny.gguf"},
    "models/pin": {"model": "tiny"},
    **{f"models/downloads/{{download_id}}/{verb}": None for verb in ("pause", "resume", "cancel")},
}
THINGS_OF_ONE: tuple[tuple[str, str, Access], ...] = (
    ("GET", "/api/requests/{request_id}", READERS),
    ("DELETE", "/api/requests/{request_id}", PAYERS),
    ("GET", "/api/requests/{request_id}/events", READERS),
    ("GET", "/api/requests/{request_id}/result", READERS),
    ("POST", "/api/requests/{request_id}/retry", PAYERS),
    ("GET", "/v1/files/{file_id}", READERS),
    ("DELETE", "/v1/files/{file_id}", PAYERS),
    ("GET", "/v1/files/{file_id}/content", READERS),
    ("GET", "/v1/files/{file_id}/url", READERS),
    ("GET", "/v1/batches/{batch_id}", READERS),
    ("POST", "/v1/batches/{batch_id}/cancel", PAYERS),
    ("GET", "/v1/responses/{response_id}", READERS),
    ("DELETE", "/v1/responses/{response_id}", PAYERS),
    ("POST", "/v1/responses/{response_id}/cancel", PAYERS),
)
"""What people see only of their own; nobody has any here."""
ROWS: dict[tuple[str, str], Row] = {
    **{
        ("POST", f"{prefix}/{path}"): Row(PAYERS, body, paid=True)
        for prefix in ("/v1", "")
        for path, body in INFERENCE.items()
    },
    ("POST", "/v2/rerank"): Row(PAYERS, INFERENCE["rerank"], paid=True),
    ("POST", "/v1/responses"): Row(PAYERS, {"model": "up/up", "input": "Hello"}, paid=True),
    **{(method, path): Row(access, None, (404,)) for method, path, access in THINGS_OF_ONE},
    ("GET", "/api/requests"): Row(READERS),
    ("GET", "/v1/files"): Row(READERS),
    # A form is wanted; without one nothing is stored.
    ("POST", "/v1/files"): Row(PAYERS, {"purpose": "batch"}, (415,)),
    ("POST", "/v1/ocr"): Row(PAYERS, {"model": "up/up", "document": {"type": "file", "file_id": "file-{n}"}}, (404,)),
    # The gateway of the matrix does not read pages itself.
    ("PUT", "/process"): Row(PAYERS, {}, (404,)),
    ("GET", "/v1/batches"): Row(READERS),
    ("POST", "/v1/batches"): Row(
        PAYERS,
        {"input_file_id": "file-{n}", "endpoint": "/v1/embeddings", "completion_window": "24h"},
        (404,),
    ),
    ("GET", "/admin/api/queues"): Row(OBSERVERS),
    **{("POST", f"/admin/api/queues/{{name}}/{verb}"): Row(ADMINS) for verb in ("pause", "resume")},
    **{("GET", f"{prefix}/{path}"): Row(READERS) for prefix in ("/v1", "") for path in ("models", "models/{rest}")},
    **{("GET", path): Row(OPEN) for path in SEEN_BY_EVERYBODY},
    **{("GET", path): Row(READERS) for path in SEEN_BY_ALL_WITH_A_KEY},
    **{("GET", path): Row(OBSERVERS) for path in SEEN_BY_OBSERVERS},
    ("GET", "/"): Row(OPEN),
    **{("GET", f"/api/{path}"): Row(READERS) for path in ("version", "tags", "ps")},
    ("POST", "/api/show"): Row(READERS, {"model": "up/up"}),
    **{("POST", f"/api/{path}"): Row(PAYERS, body, paid=True) for path, body in OLLAMA_INFERENCE.items()},
    **{("POST", f"/api/{path}"): Row(PAYERS, {"model": "up/up"}, (400,)) for path in OLLAMA_REFUSED},
    # What is here already may be pulled by whoever may use it; only an admin changes what is here.
    ("POST", "/api/pull"): Row(PAYERS, {"model": "up/up"}),
    ("POST", "/api/copy"): Row(ADMINS, {"source": "up/up", "destination": "copied"}, (400,)),
    ("DELETE", "/api/delete"): Row(ADMINS, {"model": "up/up"}, (400,)),
    ("POST", "/api/blobs/{digest}"): Row(PAYERS, {}, (400,)),
    ("HEAD", "/api/blobs/{digest}"): Row(PAYERS, None, (404,)),
    ("GET", "/openapi.json"): Row(ADMINS),
    ("POST", "/auth/token"): Row(OPEN, {}, (400,)),
    ("POST", "/auth/refresh"): Row(OPEN, {}, (400,)),
    ("POST", "/api/signup"): Row(OPEN, {}, (400,)),
    ("POST", "/auth/logout"): Row(READERS, {"refresh_token": ""}, (400,)),
    ("PUT", "/user/api/password"): Row(
        READERS, {"old_password": "what it was before", "new_password": "four words nobody guesses"}, (409,)
    ),
    ("POST", "/user/api/keys"): Row(PAYERS, {"name": "made-{n}"}, personal=True),
    ("DELETE", "/user/api/keys/{key_id}"): Row(PAYERS, None, (404,)),
    ("POST", "/admin/api/users"): Row(ADMINS, {"email": "made-{n}@example.org"}),
    ("PATCH", "/admin/api/users/{user_id}"): Row(ADMINS, {"name": "Changed {n}"}),
    ("PUT", "/admin/api/users/{user_id}/password"): Row(ADMINS, {"password": None}),
    ("POST", "/admin/api/users/{user_id}/apikey"): Row(ADMINS, {"name": "made-{n}"}),
    ("POST", "/admin/api/users/{user_id}/balance"): Row(ADMINS, {"amount": 1}),
    ("PATCH", "/admin/api/apikeys/{key_id}"): Row(ADMINS, {"name": "changed-{n}"}),
    ("DELETE", "/admin/api/apikeys/{key_id}"): Row(ADMINS),
    ("POST", "/admin/api/prices"): Row(ADMINS, {"model": "another-{n}", "input_per_1m": 1}),
    ("POST", "/admin/api/signups/{signup_id}/approve"): Row(ADMINS, None, (200, 400)),
    ("POST", "/admin/api/signups/{signup_id}/reject"): Row(ADMINS, None, (200, 400)),
    ("PATCH", "/admin/api/config"): Row(ADMINS, {"signup": {"enabled": True}}),
    ("DELETE", "/admin/api/missing-models"): Row(ADMINS),
    ("DELETE", "/admin/api/calls/{call_id}"): Row(ADMINS, None, (404,)),
    **{("GET", path): Row(OBSERVERS, None, (404,)) for path in LOCAL_THINGS},
    ("GET", "/admin/api/crashes"): Row(ADMINS),
    ("GET", "/admin/api/models/search"): Row(ADMINS, None, (400,)),
    # The gateway of the matrix runs no models of its own.
    **{("POST", f"/admin/api/{path}"): Row(ADMINS, body, (409,)) for path, body in LOCAL_CHANGES.items()},
    ("GET", "/admin/api/webhooks"): Row(ADMINS),
    # An event that never happens here, so that nobody is called.
    ("POST", "/admin/api/webhooks"): Row(ADMINS, {"url": "https://1.1.1.1/{n}", "events": ["engine.crashed"]}),
    ("GET", "/admin/api/webhooks/{webhook_id}"): Row(ADMINS, None, (404,)),
    ("PATCH", "/admin/api/webhooks/{webhook_id}"): Row(ADMINS, {"active": True}, (404,)),
    ("DELETE", "/admin/api/webhooks/{webhook_id}"): Row(ADMINS, None, (404,)),
    ("POST", "/admin/api/webhooks/{webhook_id}/secret"): Row(ADMINS, None, (404,)),
    ("POST", "/admin/api/webhooks/{webhook_id}/test"): Row(ADMINS, None, (404,)),
    ("GET", "/admin/api/webhooks/{webhook_id}/deliveries"): Row(ADMINS, None, (404,)),
    ("POST", "/admin/api/webhooks/deliveries/{delivery_id}/retry"): Row(ADMINS, None, (404,)),
}
"""Who may use what. A route that is missing here, or that is open to others than these, fails."""
SIGOREST_MODEL = "plain"
"""An alias of the config: only what the operator has named is offered there."""
SIGOREST_ROWS: dict[tuple[str, str], Row] = {
    **{
        ("POST", path): Row(PAYERS, hello(SIGOREST_MODEL), paid=True)
        for path in ("/v1/chat/completions", "/chat/completions")
    },
    **{
        ("GET", path): Row(READERS)
        for path in (
            "/v1/models",
            "/models",
            "/api/models",
            "/api/health",
            "/api/memory",
            "/api/version",
            "/api/usage",
            "/api/shortcodes",
            "/ping",
        )
    },
    ("PUT", "/api/memory"): Row(PAYERS, {"content": "Changed {n}", "cache": True}),
}
"""The listener for sigoREST's clients on this machine."""
SIGOREST_LAN_ROWS = {
    **SIGOREST_ROWS,
    ("PUT", "/api/memory"): Row(PAYERS, {"content": "Changed {n}", "cache": True}, (403,)),
}
"""The one for trusted networks, which do not change everybody's prompts unless the operator says so."""
SIGOREST_WORDS = {
    401: "auth_failed",
    402: "insufficient_credits",
    403: "forbidden",
    404: "not_found",
    405: "invalid_request",
}
"""The codes of refusals there, by status."""
NOWHERE = ("/nowhere", "/admin", "/admin/api", "/user/api", "/v1", "/auth", "/admin/api/users/{user_id}/nothing")
"""Paths that nobody registered: the same 404 for everybody."""


async def ask(client: KeptConnection, caller: Caller, method: str, target: str, body: Any = None) -> Answer:
    if caller.query:
        target = f"{target}{'&' if '?' in target else '?'}{caller.query}"
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    return await client.ask(method, target, data, caller.headers)


# --- what a sweep asks, and what it must see


@dataclass(frozen=True)
class Cell:
    method: str
    template: str
    path: str
    body: bytes | None
    row: Row | None
    nowhere: bool
    """Nobody registered the path, for any method."""

    def expect(self, caller: Caller) -> tuple[tuple[int, ...], str | None]:
        """The statuses that are right, and the code of a refusal."""
        if self.row is None:
            return ((404,), "unknown_url") if self.nowhere else ((405,), "method_not_allowed")
        if not self.row.access:
            # A route that takes no such parameters says so, also to who means them as a key.
            return (*self.row.answers, 400) if caller.query else self.row.answers, None
        if caller.refusal is not None:
            return (caller.refusal[0],), caller.refusal[1]
        if caller.role not in self.row.access:
            return (403,), "permission_denied"
        if self.row.paid and not caller.pays:
            return (402,), "insufficient_credits"
        if self.row.personal and not caller.has_account:
            return (403,), "shared_account"
        return (*self.row.answers, 400) if caller.query else self.row.answers, None

    def is_refused_to(self, caller: Caller) -> bool:
        """Also where nothing is, and where the request is wanting: whatever must leave no trace."""
        return (
            self.row is None or not self.row.access or caller.refusal is not None or caller.role not in self.row.access
        )


numbers = count(1)


def cells(cast: Cast, rows: Mapping[tuple[str, str], Row] = ROWS) -> Iterator[Cell]:
    """Every path by every method."""
    paths = {path for _, path in rows}
    for template in dict.fromkeys([*(path for _, path in rows), *NOWHERE]):
        for method in METHODS:
            yield _cell(cast, rows, method, template, nowhere=template not in paths)


def cells_of_others(cast: Cast, rows: Mapping[tuple[str, str], Row]) -> Iterator[Cell]:
    """The routes of the main listener that are not among `rows`: where they are not, nothing of them must be."""
    paths = {path for _, path in rows}
    for method, template in ROWS:
        if template not in paths:
            yield _cell(cast, {}, method, template, nowhere=True)


def _cell(cast: Cast, rows: Mapping[tuple[str, str], Row], method: str, template: str, *, nowhere: bool) -> Cell:
    row = rows.get((method, template)) or (rows.get(("GET", template)) if method == "HEAD" else None)
    number = next(numbers)
    values = {
        "user_id": cast.target,
        "key_id": cast.target_key.id,
        "signup_id": cast.signups[number % len(cast.signups)],
        "rest": "up/up",
        "webhook_id": 9_999,
        "delivery_id": f"msg_{'0' * 32}",
        "digest": f"sha256:{'0' * 64}",
        "slot": 4_801,
        "call_id": "req_0",
        "load_id": f"load_{'0' * 16}",
        "download_id": "0" * 16,
        "name": "nothing",
        "request_id": "550e8400-e29b-41d4-a716-446655440000",
        "file_id": "file-nothing",
        "batch_id": "batch_nothing",
        "response_id": f"resp_{'0' * 32}",
    }
    body = None
    if method in SENDING and not (row is not None and row.body is None):
        body = json.dumps({} if row is None else row.body).replace("{n}", str(number)).encode()
    return Cell(method, template, template.format(**values), body, row, nowhere)


async def sweep(connections: list[KeptConnection], caller: Caller, wanted: Iterable[Cell]) -> list[tuple[Cell, Answer]]:
    """Asks all of them, some at once; in the order in which the answers came."""
    seen: list[tuple[Cell, Answer]] = []
    rest = iter(wanted)

    async def work(client: KeptConnection) -> None:
        for cell in rest:
            answer = await ask(client, caller, cell.method, cell.path, cell.body)
            seen.append((cell, answer))

    async with asyncio.TaskGroup() as group:
        for client in connections:
            group.create_task(work(client))
    return seen


def wrong_cells(caller: Caller, seen: list[tuple[Cell, Answer]], words: Mapping[int, str] | None = None) -> list[str]:
    """What was not answered as it must be; `words` are the codes of a listener with a dialect of its own."""
    wrong = []
    for cell, answer in seen:
        statuses, code = cell.expect(caller)
        if words is not None and code is not None:
            code = words[statuses[0]]
        found = None if cell.method == "HEAD" or answer.status < 400 else answer.error
        # Ollama's clients are told in words only.
        found = code if isinstance(found, str) else found and found["code"]
        if answer.status not in statuses or (code is not None and cell.method != "HEAD" and found != code):
            wrong.append(f"{cell.method} {cell.path}: {answer.status} {found}, not {statuses} {code}")
    return wrong
