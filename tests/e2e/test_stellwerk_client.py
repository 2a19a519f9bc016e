"""This package's own client against a real gateway: calls, jobs, waiting, events, files and batches."""

import asyncio
import json
import signal

import pytest
import pytest_asyncio

from stellwerk.client import (
    AsyncClient,
    Chat,
    Client,
    Conflict,
    Embeddings,
    JobFailed,
    NotFound,
    StillRunning,
    Unauthenticated,
)
from tests.gateway_process import DEADLINE, running_gateway, wait_until
from tests.real_engines import free_ports
from tests.scripted_upstream import chunk

pytestmark = pytest.mark.asyncio(loop_scope="module")

MESSAGES = [{"role": "user", "content": "Hello"}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def asking(gateway) -> AsyncClient:
    return AsyncClient(gateway.url, gateway.key, timeout=DEADLINE)


class Held:
    """An upstream that begins to answer and goes on when the test lets it."""

    def __init__(self):
        self.reached = asyncio.Event()
        self.free = asyncio.Event()

    async def __call__(self, talk):
        await talk.start_stream()
        await talk.event(chunk("Hel"))
        self.reached.set()
        await self.free.wait()
        await talk.event(chunk("lo!"))
        await talk.event(chunk(finish="stop"))
        await talk.finish_stream()


async def embed(talk):
    vectors = [{"object": "embedding", "index": place, "embedding": [0.5, float(place)]} for place in (0, 1)]
    await talk.answer({"object": "list", "model": "text-embedding-up", "data": vectors, "usage": {"prompt_tokens": 2}})


@pytest.fixture
def held(upstream):
    upstream.script = Held()
    yield upstream.script
    upstream.script.free.set()


async def test_a_chat_is_answered(asking, upstream):
    found = await asking.chat("Hello", "up")
    assert (found.text, found.choices[0].finish_reason, found.usage.total_tokens) == ("Hello", "stop", 7)
    pieces = [piece.text async for piece in asking.chat("Hello", "up", stream=True)]
    assert "".join(pieces) == "Hello!"


async def test_the_client_that_blocks_says_the_same(asking, gateway, upstream):
    def ask():
        client = Client(f"{gateway.url}/v1", gateway.key, timeout=DEADLINE)
        pieces = [piece.text for piece in client.chat("Hello", "up", stream=True)]
        handle = client.submit_chat(MESSAGES, "up")
        return client.chat("Hello", "up").text, "".join(pieces), handle.result(Chat, DEADLINE).text

    assert await asyncio.to_thread(ask) == ("Hello", "Hello!", "Hello!")


async def test_models_are_listed(asking, upstream):
    assert {"up/up", "up/text-embedding-up"} <= {model.id for model in await asking.models()}


async def test_a_foreign_key_is_refused(gateway):
    with pytest.raises(Unauthenticated) as caught:
        await AsyncClient(gateway.url, "sk-wrong").models()
    assert caught.value.request_id


async def test_a_call_that_is_put_off_is_answered_as_a_live_one(asking, upstream):
    seen = []
    handle = await asking.submit_chat(MESSAGES, "up", priority="low")
    job = await handle.wait(DEADLINE, seen.append)
    assert (job.status, job.path, job.priority, job.http_status) == ("completed", "/v1/chat/completions", "low", 200)
    assert job.finished_at >= job.started_at >= job.created_at
    assert [attempt.outcome for attempt in job.attempt_log] == ["done"]
    assert seen[-1] == job
    answer = await handle.result(Chat)
    assert (answer.text, answer.choices[0].finish_reason) == ("Hello!", "stop")


async def test_vectors_can_be_put_off(asking, upstream):
    upstream.script = embed
    live = await asking.embed(["a", "b"], "text-embedding-up")
    handle = await asking.submit("/v1/embeddings", {"model": "text-embedding-up", "input": ["a", "b"]})
    assert (await handle.result(Embeddings, DEADLINE)).vectors == live.vectors


async def test_waiting_ends_with_its_time_and_the_job_goes_on(asking, held):
    handle = await asking.submit_chat(MESSAGES, "up")
    await held.reached.wait()
    with pytest.raises(StillRunning) as caught:
        await handle.wait(0.2)
    assert caught.value.job.status == "running"
    with pytest.raises(Conflict):
        await asking.jobs.result(handle.id)
    held.free.set()
    assert (await handle.wait(DEADLINE)).status == "completed"


async def test_a_job_can_be_followed_to_its_end(asking, held):
    handle = await asking.submit_chat(MESSAGES, "up")
    events = []
    async for event in handle.events():
        events.append(event)
        if len(events) == 1:
            held.free.set()
    assert (events[0].type, events[-1].type) == ("state", "end")
    assert events[-1].job.status == "completed"
    said = "".join(event.text for event in events if event.type == "piece")
    assert said == (await handle.result(Chat)).text == "Hello!"


async def test_a_cancelled_job_has_no_answer(asking, held):
    handle = await asking.submit_chat(MESSAGES, "up")
    await held.reached.wait()
    await handle.cancel()
    assert (await handle.wait(DEADLINE)).status == "cancelled"
    with pytest.raises(JobFailed) as caught:
        await handle.result(Chat)
    assert caught.value.job.id == handle.id
    with pytest.raises(Conflict):
        await handle.retry()


async def test_jobs_are_listed_newest_first(asking, upstream):
    handles = [await asking.submit_chat(f"Hello {number}", "up") for number in range(3)]
    for handle in handles:
        await handle.wait(DEADLINE)
    page = await asking.jobs.list(limit=2)
    assert [job.id for job in page.data] == [handles[2].id, handles[1].id]
    assert page.has_more
    assert (await asking.jobs.list(limit=1, before=page.last_id)).data[0].id == handles[0].id
    assert all(job.status == "completed" for job in (await asking.jobs.list(status="completed")).data)
    assert (await asking.jobs.list(status="dead")).data == []
    assert [queue.model for queue in await asking.jobs.queues()]


async def test_one_key_makes_one_job(asking, upstream):
    body = {"model": "up", "messages": MESSAGES}
    first = await asking.submit("/v1/chat/completions", body, idempotency_key="once")
    await first.wait(DEADLINE)
    again = await asking.submit("/v1/chat/completions", body, idempotency_key="once")
    assert again.id == first.id
    with pytest.raises(Conflict):
        await asking.submit("/v1/chat/completions", {**body, "n": 1}, idempotency_key="once")


async def test_a_batch_is_uploaded_answered_and_read(asking, upstream):
    body = {"model": "up", "messages": MESSAGES}
    lines = [{"custom_id": f"n{n}", "method": "POST", "url": "/v1/chat/completions", "body": body} for n in range(3)]
    file = await asking.files.upload(b"\n".join(json.dumps(line).encode() for line in lines), name="three.jsonl")
    assert (file.filename, file.purpose) == ("three.jsonl", "batch")
    assert (await asking.files.get(file.id)).bytes == file.bytes
    batch = await asking.batches.create(file.id, metadata={"why": "test"})

    async def ended():
        found = await asking.batches.get(batch.id)
        return found if found.status == "completed" else None

    found = await wait_until(ended)
    assert (found.request_counts.completed, found.metadata) == (3, {"why": "test"})
    answers = [json.loads(line) for line in (await asking.files.content(found.output_file_id)).splitlines()]
    assert {answer["custom_id"] for answer in answers} == {"n0", "n1", "n2"}
    assert batch.id in {each.id for each in await asking.batches.list()}
    await asking.files.delete(file.id)
    assert file.id not in {each.id for each in await asking.files.list()}


async def test_an_unknown_job_is_not_found(asking, upstream):
    with pytest.raises(NotFound) as caught:
        await asking.jobs.get("550e8400-e29b-41d4-a716-446655440000")
    assert caught.value.code == "job_not_found"


async def test_the_command_shows_and_waits_for_jobs(gateway, asking, upstream):
    handle = await asking.submit_chat(MESSAGES, "up")
    await handle.wait(DEADLINE)
    # Without any key: who may write the data folder may see its jobs.
    keyless = {"STELLWERK_ADMIN_KEY": ""}
    listed = await gateway.run("jobs", "list", "--url", gateway.url, more=keyless)
    assert listed.code == 0, listed.errors
    assert handle.id in listed.output
    shown = await gateway.run("jobs", "show", handle.id, "--url", gateway.url, "--json")
    assert json.loads(shown.output)["status"] == "completed"
    waited = await gateway.run("jobs", "wait", handle.id, "--url", gateway.url)
    assert (waited.code, waited.output.rstrip("\n")) == (0, "Hello!")
    unknown = await gateway.run("jobs", "cancel", "550e8400-e29b-41d4-a716-446655440000", "--url", gateway.url)
    assert (unknown.code, "no such job" in unknown.errors) == (1, True)


async def test_waiting_outlasts_a_gateway_that_is_killed(tmp_path, server, held):
    config = {"providers": {"up": {"base_url": server.url, "models": ["up"], "api_key": ""}}}
    port = free_ports(1)
    async with running_gateway(tmp_path, config, port=port) as first:
        client = AsyncClient(first.url, first.key, timeout=DEADLINE)
        handle = await client.submit_chat(MESSAGES, "up")
        await held.reached.wait()
        seen = asyncio.Queue()
        waiting = asyncio.create_task(handle.wait(DEADLINE, seen.put_nowait))
        await seen.get()
        first.signal(signal.SIGKILL)
        await first.wait()
    held.free.set()
    async with running_gateway(tmp_path, config, port=port):
        job = await waiting
        assert (job.status, len(job.attempt_log)) == ("completed", 2)
        assert (await handle.result(Chat)).text == "Hello!"
