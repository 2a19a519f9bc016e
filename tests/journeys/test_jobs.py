"""Calls that are answered later, at a running gateway: asked for, followed, cancelled, and there after a crash."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from openai import AsyncOpenAI, BadRequestError, NotFoundError

from tests.customers import ask
from tests.gateway_process import GatewayProcess, running_gateway, start_gateway, wait_until
from tests.openai_client import HELLO, client_of, new_key
from tests.raw_http import Answer, hello, post, send, write_request
from tests.scripted_upstream import ScriptedUpstream, Talk, chat, chunk, usage_chunk

pytestmark = pytest.mark.asyncio(loop_scope="module")
CHAT = "/v1/chat/completions"


def config_of(upstream: ScriptedUpstream, **more: Any) -> dict[str, Any]:
    # Upstreams fail on purpose here, and the next test wants them back at once.
    limits = {"upstream": {"breaker_failures": 1000}}
    return {"providers": {"up": {"base_url": upstream.url, "models": ["up", "slow"], "api_key": ""}}, **limits, **more}


class Door:
    """An upstream that says one word, and the other when it is let; model `up` answers at once."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.asked = asyncio.Event()

    async def __call__(self, talk: Talk) -> None:
        if talk.request.path.endswith("/embeddings"):
            data = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
            usage = {"prompt_tokens": 1, "total_tokens": 1}
            await talk.answer({"object": "list", "model": "up", "data": data, "usage": usage})
        elif not talk.request.path.endswith("/chat/completions"):
            choices = [{"index": 0, "text": "Hi", "finish_reason": "stop", "logprobs": None}]
            await talk.answer({"object": "text_completion", "id": "c", "created": 1, "model": "up", "choices": choices})
        elif talk.request.json["model"] == "slow":
            await talk.start_stream()
            await talk.event(chunk("Grüß "))
            self.asked.set()
            await self.open.wait()
            await talk.event(chunk("Gott", finish="stop"))
            await talk.event(usage_chunk())
            await talk.finish_stream()
        else:
            await chat(talk)


@pytest.fixture
def door(upstream) -> Iterator[Door]:
    door = upstream.script = Door()
    yield door
    door.open.set()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    server = ScriptedUpstream()
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory, upstream) -> AsyncIterator[GatewayProcess]:
    async with running_gateway(tmp_path_factory.mktemp("jobs"), config_of(upstream)) as gateway:
        yield gateway


@pytest_asyncio.fixture(loop_scope="module")
async def client(gateway) -> AsyncIterator[AsyncOpenAI]:
    async with client_of(gateway) as client:
        yield client


async def defer(gateway: GatewayProcess, body: Any = None, *, key: str | None = None, path: str = CHAT, **headers: str):
    body = hello() if body is None else body
    return await post(gateway.port, key or gateway.key, body, path, **({"prefer": "respond-async"} | headers))


async def show(gateway: GatewayProcess, job_id: str, more: str = "", key: str | None = None) -> Answer:
    return await ask(gateway.port, "GET", f"/api/requests/{job_id}{more}", key=key or gateway.key)


async def end_of(gateway: GatewayProcess, job_id: str, key: str | None = None) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        found: dict[str, Any] = (await show(gateway, job_id, "?wait=10", key)).json
        return found if found["finished_at"] is not None else None

    found: dict[str, Any] = await wait_until(look, 120)
    return found


# --- asking


async def test_a_call_that_is_put_off_is_answered_by_its_job(gateway, door):
    answer = await defer(gateway)
    job = answer.json
    assert (answer.status, job["object"], job["status"]) == (202, "job", "queued")
    assert answer.headers["location"] == f"/api/requests/{job['id']}"
    assert answer.headers["preference-applied"] == "respond-async"
    done = await end_of(gateway, job["id"])
    assert (done["status"], done["http_status"], done["attempts"]) == ("completed", 200, 1)
    assert done["result"]["choices"][0]["message"]["content"] == "Hello!"
    assert done["result"]["usage"]["total_tokens"] == 7
    result = await show(gateway, job["id"], "/result")
    assert (result.status, result.json) == (200, done["result"])


async def test_the_answer_comes_at_once_when_the_client_waits_long_enough(gateway, door):
    answer = await defer(gateway, prefer="respond-async, wait=40")
    assert (answer.status, answer.json["object"]) == (200, "chat.completion")
    assert answer.headers["preference-applied"] == "wait=40"


async def test_openais_client_reads_both_answers(gateway, door, client):
    completions = client.chat.completions.with_raw_response
    later = await completions.create(model="up/up", messages=HELLO, extra_headers={"Prefer": "respond-async"})
    assert later.http_response.status_code == 202
    now = await completions.create(model="up/up", messages=HELLO, extra_headers={"Prefer": "respond-async, wait=40"})
    assert now.parse().choices[0].message.content == "Hello!"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"model": "up/up", "prompt": "Hello"}),
        ("/v1/embeddings", {"model": "up/up", "input": "Hello"}),
        ("/v1/chat/completions", hello(stream=True)),
    ],
)
async def test_every_call_can_be_put_off(gateway, door, path, body):
    answer = await defer(gateway, body, path=path, prefer="respond-async, wait=40")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (hello("nobody/knows"), 404, "model_not_found"),
        ({"model": "up/up", "messages": "Hello"}, 400, "invalid_type"),
        ({"model": "up/up"}, 400, "missing_required_parameter"),
        (b"{", 400, "json_invalid"),
    ],
)
async def test_nonsense_is_refused_at_once(gateway, door, body, status, code):
    answer = await defer(gateway, body)
    assert (answer.status, answer.error["code"]) == (status, code)


async def test_a_model_that_the_key_may_not_use_is_refused_at_once(gateway, door):
    key = await new_key(gateway, "--models", "up/slow")
    answer = await defer(gateway, key=key)
    assert (answer.status, answer.error["code"]) == (403, "model_access_denied")


async def test_priorities_are_read_and_never_above_what_the_key_may(gateway, door):
    assert (await defer(gateway, x_stellwerk_priority="high")).json["priority"] == "high"
    assert (await defer(gateway, x_priority="low")).json["priority"] == "low"
    assert (await defer(gateway, x_priority="urgent")).status == 400


async def test_a_request_that_is_sent_again_is_the_same_job(gateway, door):
    first, again = [(await defer(gateway, idempotency_key="one")).json for _ in range(2)]
    assert first["id"] == again["id"]
    other = await defer(gateway, hello(temperature=1), idempotency_key="one")
    assert (other.status, other.error["code"]) == (409, "idempotency_key_reused")


# --- following, cancelling


async def test_whoever_follows_a_job_sees_its_words_and_its_end(gateway, door):
    job_id = (await defer(gateway, hello("up/slow"))).json["id"]
    await asyncio.wait_for(door.asked.wait(), 30)
    following = await send(
        gateway.port,
        write_request("GET", f"/api/requests/{job_id}/events", None, {"Authorization": f"Bearer {gateway.key}"}),
    )
    assert await following.read_head() == 200
    seen: list[tuple[str, dict[str, Any]]] = []
    async for piece in following.pieces():
        for event in piece.decode().strip().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in event.split("\n"))
            seen.append((fields["event"], json.loads(fields["data"])))
        if seen[-1][0] == "piece":
            door.open.set()
    following.close()
    assert "".join(data["text"] for name, data in seen if name == "piece") == "Grüß Gott"
    assert seen[-1][0] == "end"
    assert seen[-1][1]["status"] == "completed"
    result = (await show(gateway, job_id, "/result")).json
    assert result["choices"][0]["message"]["content"] == "Grüß Gott"
    assert result["usage"]["total_tokens"] == 7


async def test_a_cancelled_job_ends_and_its_call_is_cut(gateway, door):
    job_id = (await defer(gateway, hello("up/slow"))).json["id"]
    await asyncio.wait_for(door.asked.wait(), 30)
    assert (await show(gateway, job_id, "/result")).error["code"] == "job_not_finished"
    cancelled = await ask(gateway.port, "DELETE", f"/api/requests/{job_id}", key=gateway.key)
    assert (cancelled.status, cancelled.json["status"]) == (200, "cancelled")
    call = await gateway.call(f"job_{job_id}_1")
    assert (call["status"], call["error"]) == (499, "client_closed_request")
    assert (await show(gateway, job_id)).json["status"] == "cancelled"


async def test_a_paused_queue_keeps_its_jobs_and_tells_their_places(gateway, door):
    queue = "/admin/api/queues/up%2Fup"

    async def is_empty() -> bool:
        return not (await ask(gateway.port, "GET", "/api/requests?status=queued", key=gateway.key)).json["data"]

    # What other tests have put off and did not wait for.
    await wait_until(is_empty)
    assert (await ask(gateway.port, "POST", f"{queue}/pause", key=gateway.key)).json["paused"]
    jobs = [(await defer(gateway)).json["id"] for _ in range(3)]
    assert [(await show(gateway, job)).json["position"] for job in jobs] == [1, 2, 3]
    listed = (await ask(gateway.port, "GET", "/api/requests?status=queued", key=gateway.key)).json["data"]
    assert [job["id"] for job in listed] == jobs[::-1]
    queues = (await ask(gateway.port, "GET", "/admin/api/queues", key=gateway.key)).json
    assert [row["waiting"] for row in queues if row["name"] == "up/up"] == [3]
    assert not (await ask(gateway.port, "POST", f"{queue}/resume", key=gateway.key)).json["paused"]
    for job in jobs:
        assert (await end_of(gateway, job))["status"] == "completed"


# --- whose they are, and what they cost


async def test_jobs_of_others_are_not_there(gateway, door):
    owner, other = await new_key(gateway), await new_key(gateway)
    job_id = (await defer(gateway, key=owner)).json["id"]
    assert (await end_of(gateway, job_id, owner))["status"] == "completed"
    for method, more in (("GET", ""), ("GET", "/result"), ("GET", "/events"), ("DELETE", ""), ("POST", "/retry")):
        answer = await ask(gateway.port, method, f"/api/requests/{job_id}{more}", key=other)
        assert (answer.status, answer.error["code"]) == (404, "job_not_found")
    assert (await ask(gateway.port, "GET", "/api/requests", key=other)).json["data"] == []
    assert (await show(gateway, job_id)).status == 200


async def test_a_job_of_a_revoked_key_fails_and_asks_nobody(gateway, door, upstream):
    key = await new_key(gateway)
    queue = "/admin/api/queues/up%2Fup"
    await ask(gateway.port, "POST", f"{queue}/pause", key=gateway.key)
    job = (await defer(gateway, key=key)).json
    assert (await ask(gateway.port, "DELETE", f"/admin/api/apikeys/{job['key_id']}", key=gateway.key)).status == 200
    upstream.requests.clear()
    await ask(gateway.port, "POST", f"{queue}/resume", key=gateway.key)
    ended = await end_of(gateway, job["id"])
    assert (ended["status"], ended["http_status"], ended["error"]["code"]) == ("failed", 401, "revoked_api_key")
    assert (ended["attempts"], upstream.requests) == (1, [])


async def test_who_has_no_money_gets_no_answer_later_either(gateway, door):
    user = (await ask(gateway.port, "POST", "/admin/api/users", {"email": "poor@example.org"}, key=gateway.key)).json
    await ask(gateway.port, "POST", "/admin/api/prices", {"model": "up/up", "input_per_1m": 1}, key=gateway.key)
    made = await ask(gateway.port, "POST", f"/admin/api/users/{user['id']}/apikey", {"name": "k"}, key=gateway.key)
    job = (await defer(gateway, key=made.json["key"])).json
    ended = await end_of(gateway, job["id"])
    assert (ended["status"], ended["http_status"], ended["attempts"]) == ("failed", 402, 1)
    assert ended["result"]["error"]["code"] == "insufficient_credits"


async def test_a_key_with_a_limit_has_its_jobs_done_one_after_the_other(gateway, door):
    key = await new_key(gateway, "--concurrent-requests", "1")
    jobs = [(await defer(gateway, key=key)).json["id"] for _ in range(5)]
    ended = [await end_of(gateway, job) for job in jobs]
    assert [(job["status"], job["attempts"]) for job in ended] == [("completed", 1)] * 5


async def test_what_may_pass_is_tried_again_and_then_given_up(gateway, upstream):
    async def fail(talk: Talk) -> None:
        await talk.answer({"error": {"message": "broken"}}, status=500)

    upstream.script = fail
    job_id = (await defer(gateway)).json["id"]
    dead = await end_of(gateway, job_id)
    assert (dead["status"], dead["attempts"], dead["http_status"]) == ("dead", 3, 502)
    assert [attempt["outcome"] for attempt in dead["attempt_log"]] == ["retried", "retried", "dead"]
    upstream.script = chat
    again = await ask(gateway.port, "POST", f"/api/requests/{job_id}/retry", key=gateway.key)
    assert again.json["status"] == "queued"
    assert (await end_of(gateway, job_id))["status"] == "completed"


# --- files and batches


def lines_of(*bodies: dict[str, Any], url: str = CHAT) -> bytes:
    lines = ({"custom_id": f"n{n}", "method": "POST", "url": url, "body": body} for n, body in enumerate(bodies))
    return b"\n".join(json.dumps(line).encode() for line in lines)


@asynccontextmanager
async def batch_of(client, content: bytes, endpoint: str = CHAT, **more):
    file = await client.files.create(file=("in.jsonl", content), purpose="batch")
    yield await client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **more)


async def ended(client, batch):
    async def look():
        found = await client.batches.retrieve(batch.id)
        return found if found.status in ("completed", "failed", "cancelled", "expired") else None

    return await wait_until(look)


async def test_a_file_comes_back_as_it_was(gateway, client):
    content = bytes(range(256)) * 5_000
    file = await client.files.create(file=("bytes.bin", content), purpose="user_data")
    assert (file.bytes, file.filename, file.purpose, file.status) == (
        len(content),
        "bytes.bin",
        "user_data",
        "processed",
    )
    assert (await client.files.content(file.id)).content == content
    assert file.id in [each.id async for each in client.files.list(purpose="user_data")]
    assert (await client.files.delete(file.id)).deleted
    with pytest.raises(NotFoundError):
        await client.files.retrieve(file.id)


async def test_a_batch_is_answered_line_by_line(gateway, door, client):
    bodies = [hello(), hello("up/up", seed=1), hello("up/up", seed=2)]
    async with batch_of(client, lines_of(*bodies), metadata={"of": "test"}) as batch:
        assert (batch.status, batch.metadata) == ("validating", {"of": "test"})
    done = await ended(client, batch)
    assert done.status == "completed"
    assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (3, 3, 0)
    assert done.error_file_id is None
    rows = [json.loads(line) for line in (await client.files.content(done.output_file_id)).text.splitlines()]
    assert [row["custom_id"] for row in rows] == ["n0", "n1", "n2"]
    for row in rows:
        assert (row["error"], row["response"]["status_code"]) == (None, 200)
        assert row["response"]["body"]["choices"][0]["message"]["content"] == "Hello!"
    assert done.id in [each.id async for each in client.batches.list()]


async def test_lines_that_fail_stand_in_the_error_file(gateway, upstream, client):
    async def refuse_one(talk: Talk) -> None:
        if talk.request.json.get("seed") == 1:
            await talk.answer({"error": {"message": "no seeds", "code": "bad_seed"}}, status=400)
        else:
            await chat(talk)

    upstream.script = refuse_one
    async with batch_of(client, lines_of(hello(), hello(seed=1))) as batch:
        done = await ended(client, batch)
    assert (done.request_counts.completed, done.request_counts.failed) == (1, 1)
    row = json.loads((await client.files.content(done.error_file_id)).text)
    assert (row["custom_id"], row["response"]["status_code"]) == ("n1", 400)
    assert row["response"]["body"]["error"]["message"].startswith("no seeds")


async def test_a_file_with_a_wrong_line_fails_with_its_number(gateway, door, client):
    content = lines_of(hello(), hello("nobody/knows"), {"model": "up/up"}) + b"\n{"
    async with batch_of(client, content) as batch:
        failed = await ended(client, batch)
    assert failed.status == "failed"
    assert [(error.line, error.code) for error in failed.errors.data] == [
        (2, "model_not_found"),
        (3, "missing_required_parameter"),
        (4, "invalid_json_line"),
    ]


async def test_a_cancelled_batch_keeps_what_was_answered(gateway, door, client):
    async with batch_of(client, lines_of(hello(), hello("up/slow"))) as batch:
        await asyncio.wait_for(door.asked.wait(), 30)

        async def one_done():
            return (await client.batches.retrieve(batch.id)).request_counts.completed == 1

        await wait_until(one_done)
        cancelled = await client.batches.cancel(batch.id)
    assert (cancelled.status, cancelled.request_counts.completed) == ("cancelled", 1)
    assert "n0" in (await client.files.content(cancelled.output_file_id)).text
    assert json.loads((await client.files.content(cancelled.error_file_id)).text)["error"]["code"] == "batch_cancelled"


async def test_files_and_batches_of_others_are_not_there(gateway, door):
    owner, other = await new_key(gateway), await new_key(gateway)
    async with (
        client_of(gateway, owner) as client,
        client_of(gateway, other) as stranger,
        batch_of(client, lines_of(hello())) as batch,
    ):
        for looking in (
            stranger.batches.retrieve(batch.id),
            stranger.batches.cancel(batch.id),
            stranger.files.retrieve(batch.input_file_id),
            stranger.files.content(batch.input_file_id),
            stranger.files.delete(batch.input_file_id),
        ):
            with pytest.raises(NotFoundError):
                await looking
        assert [each async for each in stranger.batches.list()] == []


async def test_many_batches_at_once_are_no_more_than_one_after_the_other(gateway, door):
    key = await new_key(gateway)
    queue = "/admin/api/queues/batches"
    await ask(gateway.port, "POST", f"{queue}/pause", key=gateway.key)
    async with client_of(gateway, key) as client:
        file = await client.files.create(file=("in.jsonl", lines_of(hello())), purpose="batch")
        body = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"}
        answers = await asyncio.gather(*(post(gateway.port, key, body, "/v1/batches") for _ in range(30)))
        made = [answer.json["id"] for answer in answers if answer.status == 200]
        assert len(made) == 20
        assert {answer.error["code"] for answer in answers if answer.status != 200} == {"too_many_batches"}
        for batch in made:
            await client.batches.cancel(batch)
    await ask(gateway.port, "POST", f"{queue}/resume", key=gateway.key)


async def test_responses_of_others_are_not_there(gateway, door):
    owner, other = await new_key(gateway), await new_key(gateway)
    made = await post(gateway.port, owner, {"model": "up/up", "input": "Hello", "background": True}, "/v1/responses")
    path = f"/v1/responses/{made.json['id']}"
    for method, more in (("GET", ""), ("DELETE", ""), ("POST", "/cancel")):
        answer = await ask(gateway.port, method, f"{path}{more}", key=other)
        assert (answer.status, answer.error["code"]) == (404, "response_not_found")
    assert (await ask(gateway.port, "GET", path, key=owner)).status == 200


# --- responses


async def test_a_response_is_made_at_once_or_in_the_background(gateway, door, client):
    now = await client.responses.create(model="up/up", input="Hello", instructions="Be short.")
    assert (now.status, now.output_text, now.usage.total_tokens) == ("completed", "Hello", 7)
    later = await client.responses.create(model="up/up", input="Hello", background=True, metadata={"a": "b"})
    assert later.status in ("queued", "in_progress")

    async def done():
        found = await client.responses.retrieve(later.id)
        return found if found.status == "completed" else None

    found = await wait_until(done)
    assert (found.id, found.output_text, found.background, found.metadata) == (later.id, "Hello", True, {"a": "b"})
    await client.responses.delete(later.id)
    with pytest.raises(NotFoundError):
        await client.responses.retrieve(later.id)


async def test_a_response_in_the_background_can_be_cancelled(gateway, door, client):
    await ask(gateway.port, "POST", "/admin/api/queues/up%2Fup/pause", key=gateway.key)
    made = await client.responses.create(model="up/up", input="Hello", background=True)
    assert (await client.responses.cancel(made.id)).status == "cancelled"
    await ask(gateway.port, "POST", "/admin/api/queues/up%2Fup/resume", key=gateway.key)


async def test_what_responses_cannot_do_here_is_said(gateway, door, client):
    for field in ({"previous_response_id": "resp_1"}, {"tools": [{"type": "file_search"}]}):
        with pytest.raises(BadRequestError):
            await client.responses.create(model="up/up", input="Hello", **field)


async def test_a_response_in_the_background_is_streamed_and_goes_on_after_any_event(gateway, door, client):
    stream = await client.responses.create(model="up/up", input="Hello", background=True, stream=True)
    events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:3]] == ["response.created", "response.queued", "response.in_progress"]
    last = events[-1]
    assert (last.type, last.response.output_text, last.response.background) == ("response.completed", "Hello", True)
    for after in (None, 0, 2, 5, len(events) - 1):
        more = {} if after is None else {"starting_after": after}
        again = [event async for event in await client.responses.retrieve(last.response.id, stream=True, **more)]
        assert again == events[0 if after is None else after + 1 :]
    async with client.responses.stream(response_id=last.response.id, starting_after=3) as following:
        assert (await following.get_final_response()).output_text == "Hello"
    for wrong in ("-2", "x"):
        path = f"/v1/responses/{last.response.id}?stream=true&starting_after={wrong}"
        assert (await ask(gateway.port, "GET", path, key=gateway.key)).status == 400


async def test_a_stream_of_a_response_in_the_background_may_be_left_and_cancelled(gateway, door, client):
    await ask(gateway.port, "POST", "/admin/api/queues/up%2Fup/pause", key=gateway.key)
    stream = await client.responses.create(model="up/up", input="Hello", background=True, stream=True)
    first = await anext(aiter(stream))
    await stream.close()
    response_id = first.response.id
    assert (first.response.status, (await client.responses.retrieve(response_id)).status) == ("queued", "queued")
    seen = []
    async for event in await client.responses.retrieve(response_id, stream=True, starting_after=0):
        seen.append((event.type, getattr(event, "response", first.response).status))
        if event.type == "response.queued":
            await client.responses.cancel(response_id)
    assert seen == [
        ("response.queued", "queued"),
        ("response.in_progress", "in_progress"),
        ("response.failed", "cancelled"),
    ]
    await ask(gateway.port, "POST", "/admin/api/queues/up%2Fup/resume", key=gateway.key)


# --- a crash


async def test_no_job_is_lost_when_the_gateway_is_killed(tmp_path, upstream):
    door = upstream.script = Door()
    first = start_gateway(tmp_path, config_of(upstream))
    try:
        await wait_until(first.find_port)
        slow = [(await defer(first, hello("up/slow"))).json["id"] for _ in range(3)]
        await asyncio.wait_for(door.asked.wait(), 30)
        await ask(first.port, "POST", "/admin/api/queues/up%2Fup/pause", key=first.key)
        waiting = [(await defer(first)).json["id"] for _ in range(50)]
        first.signal(signal.SIGKILL)
        await first.wait()
    finally:
        first.process.kill()
    door.open.set()
    async with running_gateway(tmp_path, config_of(upstream)) as second:
        await ask(second.port, "POST", "/admin/api/queues/up%2Fup/resume", key=second.key)
        jobs = [await end_of(second, job) for job in (*slow, *waiting)]
        assert {job["status"] for job in jobs} == {"completed"}
        assert {job["attempts"] for job in jobs[3:]} == {1}
        assert max(job["attempts"] for job in jobs[:3]) == 2
        listed = (await ask(second.port, "GET", "/api/requests?limit=1000", key=second.key)).json["data"]
        assert len(listed) == 53
