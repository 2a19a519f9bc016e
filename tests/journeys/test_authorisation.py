"""Every route × every method × everybody who may knock: each cell of the matrix, at one running gateway.

The matrix is derived from `ROWS` alone, which says what each route is meant for, and compared with what the
application registers: a route without a row fails, and so does a row without a route.
"""

import asyncio
import itertools
import json
import re
import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import pytest
import pytest_asyncio

from stellwerk.app.application import Application
from stellwerk.app.listeners import Opened
from stellwerk.app.store import Store
from stellwerk.config.engines import Engines
from stellwerk.config.listeners import SigoRest
from stellwerk.config.settings import Config, Discovery, Listen
from stellwerk.core.principal import Role
from stellwerk.telemetry.logs import LogSettings, start_logs
from tests.authorisation_matrix import (
    INFERENCE,
    OLLAMA_REFUSED,
    ROWS,
    SENDING,
    SIGOREST_LAN_ROWS,
    SIGOREST_MODEL,
    SIGOREST_ROWS,
    SIGOREST_WORDS,
    THINGS_OF_ONE,
    Cell,
    ask,
    cells,
    cells_of_others,
    sweep,
    wrong_cells,
)
from tests.callers import CALLERS, Caller, Cast, known, refused
from tests.gateway_process import ADMIN_KEY, GatewayProcess, running_gateway, wait_until
from tests.kept_connection import KeptConnection
from tests.people import People
from tests.raw_http import Answer, get, hello
from tests.scripted_upstream import ScriptedUpstream, Talk, completion
from tests.sigorest_process import HTTP, HTTPS, port_of, printed_authority, trusting

pytestmark = pytest.mark.asyncio(loop_scope="module")

AT_ONCE = 6
"""Connections over which one sweep goes."""


# --- the gateway


async def answer_everything(talk: Talk) -> None:
    if talk.request.path.endswith("/embeddings"):
        vector = {"object": "embedding", "index": 0, "embedding": [0.5]}
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        await talk.answer({"object": "list", "data": [vector], "model": "up", "usage": usage})
    elif talk.request.path.endswith("/rerank"):
        scores = [{"index": index, "relevance_score": 0.5} for index in range(2)]
        await talk.answer({"model": "up", "results": scores, "usage": {"total_tokens": 1}})
    elif talk.request.path.endswith("/chat/completions"):
        await talk.answer(completion())
    else:
        choice = {"index": 0, "text": "Hello", "logprobs": None, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        answer = {"id": "1", "object": "text_completion", "created": 1, "model": "up", "choices": [choice]}
        await talk.answer(answer | {"usage": usage})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    server = ScriptedUpstream(answer_everything)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("authorisation")


@pytest.fixture(scope="module")
def cast(folder) -> Iterator[Cast]:
    people = People(folder / "data")
    yield Cast(people)
    people.close()


@pytest.fixture(scope="module")
def callers(cast) -> dict[str, Caller]:
    return cast.callers()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(folder, cast, callers, upstream) -> AsyncIterator[GatewayProcess]:
    config = {
        "providers": {"up": {"base_url": upstream.url, "models": ["up"], "api_key": ""}},
        # The matrix is about who may, not about how often.
        "limits": {"tiers": {"payg": {"requests_per_minute": 0}, "sub": {"requests_per_minute": 0}}},
        "signup": {"enabled": True},
        "money": {"wait_seconds": 0},
        "models": {SIGOREST_MODEL: {"targets": ["up/up"]}},
        "compat": ["sigorest"],
        "sigorest": {"http_port": 0, "https_port": 0, "lan_trust": True, "lan_networks": ["127.0.0.0/9"]},
    }
    async with running_gateway(folder, config) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def connections(gateway) -> AsyncIterator[list[KeptConnection]]:
    made = [KeptConnection(gateway.port) for _ in range(AT_ONCE)]
    yield made
    for connection in made:
        connection.close()


@pytest.fixture
def client(connections) -> KeptConnection:
    return connections[0]


async def dump(gateway: GatewayProcess) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, once everything that waits to be written has been."""

    async def written() -> bool:
        return (await get(gateway.port, ADMIN_KEY, "/health/details")).json["ledger"]["backlog"] == 0

    await wait_until(written)
    with closing(sqlite3.connect(f"file:{gateway.data / 'stellwerk.db'}?mode=ro", uri=True)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        # The gateway notes by itself every few minutes that it is well, and seconds later what was asked for in vain.
        tables = [name for name in tables if name not in ("uptime_checks", "storage_probe", "missing_models")]
        return {name: connection.execute(f'SELECT * FROM "{name}"').fetchall() for name in tables}


# --- the table


async def test_the_table_of_routes_has_a_row_for_each_route_and_no_other(tmp_path):
    config = Config(
        listen=Listen(port=0),
        engines=Engines(enabled=False),
        discovery=Discovery(environment=False, ollama=False),
        compat=("sigorest",),
        sigorest=SigoRest(http_port=0, https_port=0, lan_trust=True),
    )
    data, registered = tmp_path / "data", {}
    store = Store(data, keep_admin_key_in=tmp_path / "admin.key", admin_key=None)
    with (tmp_path / "log").open("w") as log:
        logs = start_logs(LogSettings(), log)
        application = Application(config, store=store, data=data, config_file=None, environ={}, logs=logs)

        def look_and_stop(_opened: Opened) -> None:
            for name, router in application._listeners.routers().items():
                registered[name] = {(route.method, route.path): route.access for route in router}
            application._listeners.stop()

        try:
            await application.run(look_and_stop)
        finally:
            logs.stop()
            store.close()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                asyncio.get_running_loop().remove_signal_handler(number)
    # Another listener has to come into this table too.
    tables = {"main": ROWS, HTTP: SIGOREST_ROWS, HTTPS: SIGOREST_LAN_ROWS}
    assert registered == {name: {route: row.access for route, row in rows.items()} for name, rows in tables.items()}


async def test_the_table_opens_nothing_that_changes_something_to_viewers():
    changing = {route: row.access for route, row in ROWS.items() if route[0] != "GET" and row.access}
    own_login = {("POST", "/auth/logout"), ("PUT", "/user/api/password")}
    only_reads = {("POST", "/api/show")}
    assert {route for route, access in changing.items() if Role.VIEWER in access} == own_login | only_reads


# --- the matrix


@pytest.mark.parametrize("name", CALLERS)
async def test_who_may_not_is_refused_and_leaves_no_trace(gateway, upstream, connections, cast, callers, name):
    caller, before = callers[name], await dump(gateway)
    upstream.requests.clear()
    seen = await sweep(connections, caller, (cell for cell in cells(cast) if cell.is_refused_to(caller)))
    assert wrong_cells(caller, seen) == []
    assert len(seen) >= 100
    assert await dump(gateway) == before
    assert upstream.requests == []
    for cell, answer in seen:
        assert b"canary" not in answer.body, cell
    if caller.role is None:
        assert not any(b"example.org" in answer.body for cell, answer in seen)


@pytest.mark.parametrize("name", CALLERS)
async def test_who_may_is_let_in(gateway, upstream, connections, cast, callers, name):
    caller = callers[name]
    upstream.requests.clear()
    seen = await sweep(connections, caller, (cell for cell in cells(cast) if not cell.is_refused_to(caller)))
    assert wrong_cells(caller, seen) == []
    assert bool(seen) == (caller.role is not None)
    paid = sum(cell.row is not None and cell.row.paid for cell, _ in seen)
    assert len(upstream.requests) == (paid if caller.pays else 0)
    if caller.role is Role.USER and name not in ("user", "a JWT of a user"):
        for cell, answer in seen:
            assert b"canary" not in answer.body, cell


# --- listeners that let some in without a key

FOREIGN = "127.200.0.1"
"""An address of this machine that is in none of the trusted networks."""
PREFIX = "sk-sw-"
SIGOREST = {HTTP: SIGOREST_ROWS, HTTPS: SIGOREST_LAN_ROWS}


def as_trusted(caller: Caller) -> Caller:
    """Who somebody is there: with a key of ours who he is anywhere, and without one the local user."""
    shown = (caller.headers.get(name, "").removeprefix("Bearer ") for name in ("Authorization", "X-Api-Key", "Api-Key"))
    if next(filter(None, shown), "").startswith(PREFIX):
        return caller
    return replace(caller, role=Role.USER, refusal=None, pays=True, has_account=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def trusted(gateway) -> AsyncIterator[dict[str, list[KeptConnection]]]:
    secured = {"ssl": trusting(printed_authority(gateway)), "server_hostname": "localhost"}
    made = {}
    for name, options in ((HTTP, {}), (HTTPS, secured)):
        port = await port_of(gateway, name)
        made[name] = [KeptConnection(port, **options) for _ in range(AT_ONCE)]
    yield made
    for connection in itertools.chain(*made.values()):
        connection.close()


async def traces(gateway: GatewayProcess) -> tuple[Any, ...]:
    """What a call there could leave behind: rows, the memory block, sessions."""
    memory = gateway.data / "memory.json"
    sessions = sorted((gateway.data / ".sessions").rglob("*"))
    return await dump(gateway), memory.read_text() if memory.exists() else None, sessions


def is_refused(cell: Cell, caller: Caller) -> bool:
    return cell.is_refused_to(caller) or (cell.row is not None and cell.row.answers == (403,))


@pytest.mark.parametrize("listener", SIGOREST)
@pytest.mark.parametrize("name", CALLERS)
async def test_a_trusted_peer_is_refused_what_the_local_user_may_not(
    gateway, upstream, trusted, cast, callers, listener, name
):
    rows, caller, before = SIGOREST[listener], as_trusted(callers[name]), await traces(gateway)
    upstream.requests.clear()
    everything = (*cells(cast, rows), *cells_of_others(cast, rows))
    seen = await sweep(trusted[listener], caller, (cell for cell in everything if is_refused(cell, caller)))
    assert wrong_cells(caller, seen, SIGOREST_WORDS) == []
    assert len(seen) >= 100
    assert await traces(gateway) == before
    assert upstream.requests == []
    for cell, answer in seen:
        assert b"canary" not in answer.body, cell


@pytest.mark.parametrize("listener", SIGOREST)
@pytest.mark.parametrize("name", CALLERS)
async def test_a_trusted_peer_without_a_key_of_ours_is_let_in_as_the_local_user(
    upstream, trusted, cast, callers, listener, name
):
    rows, caller = SIGOREST[listener], as_trusted(callers[name])
    upstream.requests.clear()
    wanted = (cell for cell in cells(cast, rows) if not is_refused(cell, caller))
    seen = await sweep(trusted[listener], caller, wanted)
    assert wrong_cells(caller, seen, SIGOREST_WORDS) == []
    assert bool(seen) == (caller.role is not None)
    paid = sum(cell.row is not None and cell.row.paid for cell, _ in seen)
    assert len(upstream.requests) == (paid if caller.pays else 0)
    for cell, answer in seen:
        assert b"canary" not in answer.body, cell


async def test_calls_there_are_the_local_users_or_those_of_the_key(gateway, upstream, trusted, cast, callers):
    local = next(
        user["id"] for user in (await get(gateway.port, ADMIN_KEY, "/admin/api/users")).json if user["email"] == "local"
    )
    owners = {"none": local, "admin": cast.admin, "user": cast.first, "a JWT of an administrator": local}
    owners["the admin key of the environment"] = local
    for listener in SIGOREST:
        for name, owner in owners.items():
            answer = await ask(
                trusted[listener][0], callers[name], "POST", "/v1/chat/completions", hello(SIGOREST_MODEL)
            )
            assert (await gateway.call(answer.headers["x-request-id"]))["user_id"] == owner, (listener, name)


@pytest.mark.parametrize("name", ["none", "user", "viewer", "admin", "a bad key", "a JWT of an administrator"])
async def test_a_foreign_peer_is_turned_away_from_every_route(gateway, upstream, cast, callers, name):
    port, before = await port_of(gateway, HTTPS), await traces(gateway)
    context = trusting(printed_authority(gateway))
    upstream.requests.clear()
    clients = [
        KeptConnection(port, ssl=context, server_hostname="localhost", local_addr=(FOREIGN, 0)) for _ in range(AT_ONCE)
    ]
    seen = await sweep(clients, callers[name], cells(cast, SIGOREST_LAN_ROWS))
    for client in clients:
        client.close()
    for cell, answer in seen:
        assert answer.status == 403, cell
        assert answer.headers["content-type"].partition(";")[0] == "text/plain", cell
        assert answer.body == (b"" if cell.method == "HEAD" else b"Forbidden\n"), cell
    assert (await traces(gateway), upstream.requests) == (before, [])


async def test_a_model_that_a_key_may_not_use_is_not_shown_to_it_there(trusted, cast):
    bound = cast.people.user("bound-there@example.org", balance=1, models=frozenset({"up/another"}))
    caller = known(cast.people.key(bound).token, Role.USER)
    client = trusted[HTTP][0]
    for path in ("/v1/models", "/models"):
        assert (await ask(client, caller, "GET", path)).json["data"] == []
    assert (await ask(client, caller, "GET", "/api/models")).json == []
    answer = await ask(client, caller, "POST", "/v1/chat/completions", hello(SIGOREST_MODEL))
    assert (answer.status, answer.error["type"]) == (403, "forbidden")


# --- ids of others

ABSENT_USER, ABSENT_KEY = 987_654_321, "aaaaaaaaaa"


@dataclass(frozen=True)
class Ids:
    user_id: int
    key_id: str
    refresh_token: str
    signup_id: int = 1

    def asks(self) -> Iterator[tuple[str, str, Any]]:
        """Everything that can be asked about them: in paths, in queries, in bodies."""
        for (method, template), row in ROWS.items():
            if "{" in template and row.access and "{rest}" not in template:
                path = template.format(
                    user_id=self.user_id,
                    key_id=self.key_id,
                    signup_id=self.signup_id,
                    webhook_id=self.signup_id,
                    delivery_id=self.key_id,
                    digest=self.key_id,
                    call_id=self.key_id,
                    load_id=self.key_id,
                    download_id=self.key_id,
                    slot=self.signup_id,
                    name=self.key_id,
                    request_id=self.key_id,
                    file_id=self.key_id,
                    batch_id=self.key_id,
                    response_id=self.key_id,
                )
                yield method, path, {} if method in SENDING else None
            elif method == "GET" and Role.USER in row.access and "{" not in template:
                for name, value in (("user_id", self.user_id), ("key_id", self.key_id), ("owner", self.user_id)):
                    yield "GET", f"{template}?{name}={value}", None
        yield "POST", "/user/api/keys", {"name": "mine", "user_id": self.user_id}
        yield "POST", "/auth/logout", {"refresh_token": self.refresh_token}

    def without(self, answer: Answer) -> tuple[int, str]:
        text = answer.body.decode()
        return answer.status, text.replace(self.key_id, "…").replace(self.refresh_token, "…")


@pytest.mark.parametrize("name", ["other user", "user without balance", "sub user", "a user key of nobody"])
async def test_ids_of_others_and_ids_of_nobody_get_the_same_answer(gateway, client, cast, callers, name):
    login, before = cast.first_login, await dump(gateway)
    theirs = Ids(cast.first, cast.first_key.id, login.refresh)
    nobodys = Ids(ABSENT_USER, ABSENT_KEY, cast.people.mint.issue_refresh(ABSENT_USER, "0" * 16, 0, 4e9), 10**9)
    for foreign, absent in zip(theirs.asks(), nobodys.asks(), strict=True):
        first, second = await ask(client, callers[name], *foreign), await ask(client, callers[name], *absent)
        assert theirs.without(first) == nobodys.without(second), foreign
        assert b"canary" not in first.body, foreign
    assert await dump(gateway) == before


async def test_the_id_of_another_users_key_is_404_in_the_same_words_as_no_id(gateway, client, cast, callers):
    before = await dump(gateway)
    for name in ("other user", "admin", "a JWT of an administrator"):
        for key_id in (cast.first_key.id, ABSENT_KEY, "no-id", "%00", cast.first_key.token[:40]):
            answer = await ask(client, callers[name], "DELETE", f"/user/api/keys/{key_id}")
            assert (answer.status, answer.error["message"]) == (404, "There is no such key.")
    assert await dump(gateway) == before


async def leave_things(client: KeptConnection, caller: Caller) -> dict[str, str]:
    """A job, a file, a batch and a response of the caller's, all of which have ended, by the names in their paths."""
    upload = b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--x\r\n'
    upload += b'Content-Disposition: form-data; name="file"; filename="canary.jsonl"\r\n\r\n'
    line = {"custom_id": "canary", "method": "POST", "url": "/v1/embeddings", "body": INFERENCE["embeddings"]}
    upload += json.dumps(line).encode() + b"\r\n--x--\r\n"
    form = replace(caller, headers={**caller.headers, "Content-Type": "multipart/form-data; boundary=x"})
    later = replace(caller, headers={**caller.headers, "Prefer": "respond-async"})

    async def make(by: Caller, path: str, body: Any) -> str:
        answer = await ask(client, by, "POST", path, body)
        assert answer.status in (200, 202), answer.body
        return answer.json["id"]

    file = await make(form, "/v1/files", upload)
    batch = {"input_file_id": file, "endpoint": "/v1/embeddings", "completion_window": "24h"}
    things = {
        "request_id": await make(later, "/v1/embeddings", INFERENCE["embeddings"]),
        "file_id": file,
        "batch_id": await make(caller, "/v1/batches", batch),
        "response_id": await make(caller, "/v1/responses", {"model": "up/up", "input": "canary", "background": True}),
    }

    async def all_ended() -> bool:
        jobs = (await ask(client, caller, "GET", "/api/requests")).json["data"]
        output = (await ask(client, caller, "GET", f"/v1/batches/{things['batch_id']}")).json["output_file_id"]
        return output is not None and all(job["finished_at"] is not None for job in jobs)

    await wait_until(all_ended)
    return things


async def test_jobs_files_batches_and_responses_of_others_are_not_there_for_anybody_but_administrators(
    client, cast, callers
):
    owner = known(cast.people.key(cast.people.user("leaves@example.org", balance=10)).token, Role.USER)
    theirs = await leave_things(client, owner)
    nobodys = {name: re.sub("[0-9a-f]", "0", given) for name, given in theirs.items()}
    nobodys |= {"batch_id": f"batch_{'0' * 24}", "file_id": f"file-{'0' * 24}"}
    for name, caller in callers.items():
        if caller.role in (None, Role.ADMIN):
            continue
        for method, template, access in THINGS_OF_ONE:
            foreign, absent = [await ask(client, caller, method, template.format(**ids)) for ids in (theirs, nobodys)]
            assert foreign.status == (404 if caller.role in access else 403), (name, method, template)
            assert (foreign.status, foreign.error) == (absent.status, absent.error), (name, method, template)
        for query in (
            "requests?before={request_id}",
            "requests?parent_id={request_id}",
            "requests?batch_id={batch_id}",
        ):
            seen = [await ask(client, caller, "GET", f"/api/{query.format(**ids)}") for ids in (theirs, nobodys)]
            assert (seen[0].status, seen[0].json) == (seen[1].status, seen[1].json), (name, query)
        for path in ("files", "batches"):
            after = theirs["file_id" if path == "files" else "batch_id"]
            assert (await ask(client, caller, "GET", f"/v1/{path}?after={after}")).status == 404
            assert theirs["file_id"] not in (await ask(client, caller, "GET", f"/v1/{path}")).body.decode()
        if caller.role is Role.USER:
            batch = {"input_file_id": theirs["file_id"], "endpoint": "/v1/embeddings", "completion_window": "24h"}
            assert (await ask(client, caller, "POST", "/v1/batches", batch)).status == 404
    for seeing in (owner, callers["admin"]):
        for method, template, _ in THINGS_OF_ONE:
            if method == "GET":
                assert (await ask(client, seeing, method, template.format(**theirs))).status == 200, template


async def test_people_revoke_their_own_keys(client, cast, callers):
    spare = cast.people.key(cast.other)
    assert (await ask(client, callers["other user"], "DELETE", f"/user/api/keys/{spare.id}")).status == 200
    assert (await ask(client, known(spare.token, Role.USER), "GET", "/user/api/me")).error["code"] == "revoked_api_key"


async def test_a_model_that_somebody_may_not_use_is_kept_from_him_at_every_alias(upstream, client, cast):
    bound = cast.people.user("bound@example.org", balance=1, models=frozenset({"up/another"}))
    free = cast.people.user("free@example.org", balance=1)
    upstream.requests.clear()
    for key in (cast.people.key(bound), cast.people.key(free, models=frozenset({"up/another"}))):
        caller = known(key.token, Role.USER)
        assert (await ask(client, caller, "GET", "/user/api/models")).json == []
        for prefix in ("/v1", ""):
            assert (await ask(client, caller, "GET", f"{prefix}/models")).json["data"] == []
            seen = [await ask(client, caller, "GET", f"{prefix}/models/{name}") for name in ("up/up", "up/none")]
            assert [(answer.status, answer.body) for answer in seen] == [(404, seen[0].body)] * 2
            for path, body in INFERENCE.items():
                answer = await ask(client, caller, "POST", f"{prefix}/{path}", body)
                assert (answer.status, answer.error["code"]) == (403, "model_access_denied")
    assert upstream.requests == []


async def test_who_has_done_nothing_sees_nothing_of_what_others_did(gateway, client, cast, callers):
    called = await ask(client, callers["user"], "POST", "/v1/chat/completions", hello())
    await gateway.call(called.headers["x-request-id"])
    key = cast.people.key(cast.people.user("new@example.org"))
    caller = known(key.token, Role.USER)

    async def see(path: str) -> Any:
        return (await ask(client, caller, "GET", path)).json

    assert (await see("/user/api/me"))["balance"] == 0
    assert [own["id"] for own in await see("/user/api/keys")] == [key.id]
    assert await see("/user/api/ledger") == []
    assert sum(day["requests"] for day in await see("/user/api/usage")) == 0
    assert (await see("/v1/stats/summary"))["stats"]["total_requests"] == 0


# --- other ways to write a path

PROTECTED = (
    ("GET", "/admin/api/users"),
    ("GET", "/admin/api/audit"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/user/api/me"),
    ("GET", "/v1/models"),
    ("POST", "/admin/api/users"),
    ("PATCH", "/admin/api/config"),
    ("POST", "/v1/chat/completions"),
)


def other_spellings(path: str) -> Iterator[str]:
    inner = path[1:]
    yield from (f"{path}{end}" for end in ("/", "//", "/.", "/..", "%2e", "%2E/", ";x", ";.css", ".json", "~", "?"))
    yield from (f"{path}{end}" for end in ("%00", "%20", "%09", "%0d%0a", "%23", "%3f", "/%2e%2e/me", "/..;/"))
    yield from (f"{start}{path}" for start in ("/", "/.", "/%2e", "/x/..", "/health/..", "/health/%2e%2e", "/health;"))
    yield from (f"{start}{path}" for start in ("/v1/models/..", "/v1/models", "/models/x", "http://127.0.0.1", "/v1"))
    yield from (f"/{inner.replace('/', slash)}" for slash in ("//", "%2F", "%252f", "\\", "/;/", "/./", "/%2e/"))
    yield from (path.upper(), path.title(), inner, f"*{path}", f"%2F{inner}", f"/%{ord(inner[0]):02x}{inner[1:]}")


@pytest.mark.parametrize("name", ["none", "a revoked key", "user", "viewer", "admin"])
async def test_another_spelling_of_a_path_is_the_same_path_or_none(gateway, upstream, client, cast, callers, name):
    caller = callers[name]
    for method, path in PROTECTED:
        body = ROWS[method, path].body if method != "GET" else None
        if caller.role is Role.ADMIN and method != "GET":
            continue
        if caller.role is Role.USER and (method, path) == ("POST", "/v1/chat/completions"):
            continue
        before = await dump(gateway)
        upstream.requests.clear()
        plain = await ask(client, caller, method, path, body)
        for spelling in other_spellings(path):
            answer = await ask(client, caller, method, spelling, body)
            # 405 is everybody's answer where a spelling is another path that is there.
            assert answer.status in (plain.status, 400, 404, 405), spelling
        assert await dump(gateway) == before
        assert upstream.requests == []


OVERRIDING = ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override")
REWRITING = ("X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Uri", "X-Forwarded-Path", "X-Forwarded-Prefix")
NAMING = ("X-Forwarded-User", "X-Remote-User", "Remote-User", "X-User", "X-User-Id", "X-Role", "X-Forwarded-Email")


async def test_no_header_changes_the_method(gateway, client, cast, callers):
    before, path = await dump(gateway), f"/admin/api/users/{cast.target}"
    for header in OVERRIDING:
        for method in ("PATCH", "DELETE", "POST", "PUT"):
            overriding = replace(callers["viewer"], headers={**callers["viewer"].headers, header: method})
            assert (await ask(client, overriding, "GET", f"{path}?_method={method}")).status == 200
        reading = replace(callers["user"], headers={**callers["user"].headers, header: "GET"})
        assert (await ask(client, reading, "POST", "/admin/api/users", {"email": "sly@example.org"})).status == 403
        assert (await ask(client, reading, "POST", "/health")).status == 405
    assert await dump(gateway) == before


async def test_no_header_changes_the_path(client, callers):
    for header in REWRITING:
        rewriting = Caller({header: "/admin/api/users", "X-Forwarded-Host": "localhost"})
        assert (await ask(client, rewriting, "GET", "/health")).json["status"] == "ok"
        allowed = replace(callers["user"], headers={**callers["user"].headers, header: "/health"})
        assert (await ask(client, allowed, "GET", "/admin/api/users")).status == 403


async def test_no_header_but_a_key_says_who_somebody_is(client, callers):
    for header in NAMING:
        for value in ("admin", "1", "boss@example.org"):
            assert (await ask(client, Caller({header: value}), "GET", "/admin/api/users")).status == 401
            named = replace(callers["user"], headers={**callers["user"].headers, header: value})
            assert (await ask(client, named, "GET", "/admin/api/users")).status == 403


# --- fields that nobody may set

HOSTILE = {
    "role": "admin",
    "is_admin": True,
    "admin": True,
    "tier": "admin",
    "balance": 1_000_000,
    "user_id": 1,
    "owner_id": 1,
    "id": "aaaaaaaaaa",
    "revision": 0,
    "active": True,
    "key": "sk-sw-x",
    "key_hash": "00" * 32,
    "digest": "00" * 32,
    "last_four": "aaaa",
    "created_at": 0,
    "revoked_at": None,
    "has_password": True,
    "password_hash": "$argon2id$",
    "login_id": "0" * 16,
    "status": "approved",
    "decided_by": "admin",
    "scope": "admin",
    "permissions": ["*"],
    "command": "id",
    "env": {"A": "b"},
    "path": "/etc/passwd",
    "base_url": "http://127.0.0.1:1",
    "__proto__": {"role": "admin"},
}
WHOLE_BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/user/api/keys"): {"name": "mine"},
    ("PUT", "/user/api/password"): {"old_password": "what it was before", "new_password": "four words nobody guesses"},
    ("POST", "/auth/logout"): {},
    ("POST", "/auth/refresh"): {"refresh_token": "replaced"},
    ("POST", "/api/signup"): {"email": "hostile@example.org"},
}
"""Bodies of which nothing is wrong, so that it is the one field more that is refused."""
OLLAMA_ONLY_READS_OR_REFUSES = {
    ("POST", "/api/show"),
    ("POST", "/api/blobs/{digest}"),
    ("POST", "/api/pull"),
    *(("POST", f"/api/{path}") for path in OLLAMA_REFUSED),
}
FILES_AND_BATCHES = {("POST", "/v1/files"), ("POST", "/v1/batches")}
DOCUMENTS = {("POST", "/v1/ocr"), ("PUT", "/process")}
TAKES_ANYTHING = (
    {("POST", "/auth/token")}
    | {route for route, row in ROWS.items() if row.paid}
    | OLLAMA_ONLY_READS_OR_REFUSES
    | FILES_AND_BATCHES
    | DOCUMENTS
)
"""Clients of OAuth, OpenAI, Mistral and Ollama send fields of their own; what models understand vendors say."""


async def test_every_body_that_users_send_is_tried_with_hostile_fields():
    theirs = {route: row for route, row in ROWS.items() if not row.access or Role.USER in row.access}
    bodies = {route for route, row in theirs.items() if row.body is not None}
    assert bodies == set(WHOLE_BODIES) | TAKES_ANYTHING


@pytest.mark.parametrize("name", ["user", "a JWT of a user", "sub user"])
@pytest.mark.parametrize("route", WHOLE_BODIES, ids=" ".join)
async def test_a_hostile_field_is_refused_and_changes_nothing(gateway, client, cast, callers, name, route):
    body, before = WHOLE_BODIES[route], await dump(gateway)
    if "refresh_token" in body:
        body = {"refresh_token": cast.first_login.refresh}
    for field, value in HOSTILE.items():
        answer = await ask(client, callers[name], *route, {**body, field: value})
        assert (answer.status, answer.error["param"]) == (400, field)
    assert await dump(gateway) == before
    assert (await ask(client, callers[name], "GET", "/user/api/me")).json["role"] == "user"


@pytest.mark.parametrize(
    "name", ["user", "a user key of an administrator", "an admin key of somebody who is a user now", "a JWT of a user"]
)
async def test_nobody_makes_a_key_that_may_more_than_himself(gateway, client, callers, name):
    before = await dump(gateway)
    for role in (Role.ADMIN, Role.VIEWER):
        answer = await ask(client, callers[name], "POST", "/user/api/keys", {"name": "more", "role": role})
        assert (answer.status, answer.error["param"]) == (400, "role")
    assert await dump(gateway) == before


async def test_no_field_of_a_call_says_who_pays_or_where_it_goes(gateway, upstream, client, cast, callers):
    upstream.requests.clear()
    fields = {
        "user_id": cast.first,
        "key_id": cast.first_key.id,
        "api_base": "http://127.0.0.1:1",
        "cost": 0,
    }
    before = await dump(gateway)
    for prefix in ("/v1", ""):
        for path, body in INFERENCE.items():
            answer = await ask(client, callers["other user"], "POST", f"{prefix}/{path}", {**HOSTILE, **fields, **body})
            assert answer.status == 200
            assert (await gateway.call(answer.headers["x-request-id"]))["user_id"] == cast.other
    after = await dump(gateway)
    assert len(upstream.requests) == 2 * len(INFERENCE)
    assert {name for name in after if after[name] != before[name]} <= {
        "calls",
        "ledger_accounts",
        "ledger_transactions",
        "ledger_entries",
        "ledger_holds",
        "sqlite_sequence",
    }
    assert (await ask(client, callers["user"], "GET", "/user/api/keys")).status == 200


# --- a login from its beginning to its end


async def test_fields_of_a_login_give_it_nothing_and_its_end_takes_everything(gateway, connections, client, cast):
    password = "four words nobody guesses"
    user = cast.people.user("logged-in@example.org", password=password)
    wanted = {"user_id": cast.admin, "sub": str(cast.admin), **HOSTILE}
    pair = await ask(
        client, Caller(), "POST", "/auth/token", {**wanted, "username": "logged-in@example.org", "password": password}
    )
    assert pair.status == 200
    caller = known(pair.json["access_token"], Role.USER)
    me = (await ask(client, caller, "GET", "/user/api/me")).json
    assert (me["id"], me["role"], me["tier"], me["balance"]) == (user, "user", "payg", 0)
    assert (await ask(client, caller, "GET", "/admin/api/users")).status == 403
    assert (await ask(client, caller, "POST", "/auth/logout")).status == 200
    stranger = refused(pair.json["access_token"], 401, "invalid_token")
    assert wrong_cells(stranger, await sweep(connections, stranger, cells(cast))) == []
    again = await ask(client, Caller(), "POST", "/auth/refresh", {"refresh_token": pair.json["refresh_token"]})
    assert again.status == 401
