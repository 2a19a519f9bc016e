"""A running gateway with more jobs than it may hold, with a full disk, and with clients who change their minds."""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.customers import ask
from tests.gateway_process import GatewayProcess, running_gateway, wait_until
from tests.openai_client import new_key
from tests.raw_http import Answer, get, hello, post
from tests.scripted_upstream import ScriptedUpstream, Talk, chat, chunk

QUEUE = "/admin/api/queues/up%2Fup"


@asynccontextmanager
async def serving(
    folder: Path, upstream: ScriptedUpstream, more: dict[str, Any] | None = None, **jobs: Any
) -> AsyncIterator[GatewayProcess]:
    provider = {"base_url": upstream.url, "models": ["up"], "api_key": ""}
    async with running_gateway(folder, {"providers": {"up": provider}, "jobs": jobs, **(more or {})}) as gateway:
        yield gateway


async def queue(gateway: GatewayProcess, key: str | None = None, **headers: str) -> Answer:
    return await post(gateway.port, key or gateway.key, hello(), prefer="respond-async", **headers)


async def steer(gateway: GatewayProcess, verb: str) -> None:
    assert (await ask(gateway.port, "POST", f"{QUEUE}/{verb}", key=gateway.key)).status == 200


async def end_of(gateway: GatewayProcess, job_id: str) -> Any:
    async def look() -> Any:
        found = (await get(gateway.port, gateway.key, f"/api/requests/{job_id}?wait=20")).json
        return found if found["finished_at"] is not None else None

    return await wait_until(look)


async def cancel(gateway: GatewayProcess, job_id: str) -> Any:
    answer = await ask(gateway.port, "DELETE", f"/api/requests/{job_id}", key=gateway.key)
    assert answer.status == 200, answer.body
    return answer.json["status"]


async def counts(gateway: GatewayProcess) -> Any:
    (found,) = (await ask(gateway.port, "GET", "/admin/api/queues", key=gateway.key)).json
    return found


async def test_a_full_queue_refuses_in_the_documented_words_and_keeps_what_it_took(tmp_path, upstream):
    async with serving(tmp_path, upstream, max_waiting=10) as gateway:
        await steer(gateway, "pause")
        answers = await asyncio.gather(*(queue(gateway) for _ in range(30)))
        assert Counter(answer.status for answer in answers) == {202: 10, 503: 20}
        refused = next(answer for answer in answers if answer.status == 503)
        assert refused.error["code"] == "queue_full"
        assert refused.error["message"].startswith("Queue is full, please try again later")
        assert int(refused.headers["retry-after"]) >= 1
        await steer(gateway, "resume")
        taken = [answer.json["id"] for answer in answers if answer.status == 202]
        assert {(await end_of(gateway, job))["status"] for job in taken} == {"completed"}
        assert (await queue(gateway)).status == 202


async def test_one_client_cannot_fill_the_queue_for_the_others(tmp_path, upstream):
    async with serving(tmp_path, upstream, max_waiting_per_client=5) as gateway:
        await steer(gateway, "pause")
        greedy, other = await new_key(gateway), await new_key(gateway)
        answers = await asyncio.gather(*(queue(gateway, greedy, x_client_id=f"c{n}") for n in range(12)))
        assert Counter(answer.status for answer in answers) == {202: 5, 503: 7}
        assert (await queue(gateway, other)).status == 202
        assert (await counts(gateway))["waiting"] == 6


async def test_a_full_disk_takes_no_jobs_and_loses_none(tmp_path, upstream):
    async with serving(tmp_path, upstream) as gateway:
        await steer(gateway, "pause")
        taken = [(await queue(gateway, idempotency_key=f"before {n}")).json["id"] for n in range(5)]
        with gateway.full_disk():
            refused = await asyncio.gather(*(queue(gateway, idempotency_key=f"full {n}") for n in range(5)))
            assert {(answer.status, answer.error["code"]) for answer in refused} == {(503, "storage_unavailable")}
            assert (await ask(gateway.port, "DELETE", f"/api/requests/{taken[0]}", key=gateway.key)).status == 503

        async def takes_jobs() -> bool:
            return (await queue(gateway, idempotency_key="full 0")).status == 202

        await wait_until(takes_jobs)
        # Sent again with its key, one that was refused is queued once, and none of the others is there.
        assert (await counts(gateway))["waiting"] == 6
        await steer(gateway, "resume")
        assert {(await end_of(gateway, job))["status"] for job in taken} == {"completed"}


async def test_a_disk_that_fills_while_jobs_run_costs_no_answer(tmp_path, upstream):
    asked, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def pause(talk: Talk) -> None:
        asked.release()
        await go_on.wait()
        await chat(talk)

    upstream.script = pause
    async with serving(tmp_path, upstream) as gateway:
        taken = [(await queue(gateway)).json["id"] for _ in range(4)]
        async with asyncio.timeout(30):
            for _ in taken:
                await asked.acquire()
        with gateway.full_disk():
            go_on.set()

            async def notices() -> bool:
                return (await get(gateway.port, None, "/health/readiness")).status == 503

            await wait_until(notices)
        ended = [await end_of(gateway, job) for job in taken]
        assert [(job["status"], job["attempts"]) for job in ended] == [("completed", 1)] * 4
    assert len(upstream.requests) == 4


async def test_queued_jobs_of_a_revoked_key_fail_and_those_of_others_do_not(tmp_path, upstream):
    async with serving(tmp_path, upstream) as gateway:
        await steer(gateway, "pause")
        revoked, kept = await new_key(gateway), await new_key(gateway)
        of_revoked = [(await queue(gateway, revoked)).json for _ in range(20)]
        of_kept = [(await queue(gateway, kept)).json for _ in range(5)]
        path = f"/admin/api/apikeys/{of_revoked[0]['key_id']}"
        assert (await ask(gateway.port, "DELETE", path, key=gateway.key)).status == 200
        await steer(gateway, "resume")
        ends = [await end_of(gateway, job["id"]) for job in of_revoked]
        assert {(job["status"], job["http_status"], job["error"]["code"]) for job in ends} == {
            ("failed", 401, "revoked_api_key")
        }
        assert {(await end_of(gateway, job["id"]))["status"] for job in of_kept} == {"completed"}
    assert len(upstream.requests) == 5


async def test_a_storm_of_cancellations_ends_each_job_once(tmp_path, upstream):
    async def pause(talk: Talk) -> None:
        await talk.left.wait()

    upstream.script = pause
    async with serving(tmp_path, upstream, workers=32) as gateway:
        jobs = [answer.json["id"] for answer in await asyncio.gather(*(queue(gateway) for _ in range(200)))]
        # One model gets three quarters of the workers.
        await wait_until(lambda: len(upstream.requests) >= 24)
        for _ in range(2):
            assert set(await asyncio.gather(*(cancel(gateway, job) for job in jobs))) == {"cancelled"}
        found = await counts(gateway)
        assert (found["waiting"], found["processing"], found["total_cancelled"]) == (0, 0, 200)
        assert found["total_processed"] + found["total_failed"] == 0
        upstream.script = chat
        # The workers are free again.
        assert (await end_of(gateway, (await queue(gateway)).json["id"]))["status"] == "completed"


async def test_a_result_beyond_its_bound_is_not_kept(tmp_path, upstream):
    async def talk_on(talk: Talk) -> None:
        await talk.start_stream()
        for _ in range(50):
            await talk.event(chunk("a" * 100))
        await talk.finish_stream()

    upstream.script = talk_on
    async with serving(tmp_path, upstream, result_bytes=2_048) as gateway:
        job = await end_of(gateway, (await queue(gateway)).json["id"])
        assert (job["status"], job["attempts"], job["error"]["code"]) == ("failed", 1, "result_too_large")
        assert len(json.dumps(job["result"])) < 2_048
        assert len(upstream.requests) == 1


async def test_a_webhook_tells_the_end_of_every_job_once(tmp_path, upstream):
    told: list[dict[str, Any]] = []

    async def listen(talk: Talk) -> None:
        told.append(talk.request.json)
        await talk.answer({})

    async def fail_some(talk: Talk) -> None:
        if talk.request.json.get("seed") == 1:
            await talk.answer({"error": {"message": "no", "code": "bad_seed"}}, status=400)
        else:
            await chat(talk)

    upstream.script = fail_some
    receiver = ScriptedUpstream(listen)
    await receiver.start()
    origin = receiver.url.removesuffix("/v1")
    async with serving(tmp_path, upstream, {"egress": {"allowed_origins": [origin]}}) as gateway:
        hook = {"url": f"{origin}/hook", "events": ["job.finished"]}
        assert (await post(gateway.port, gateway.key, hook, "/admin/api/webhooks")).status in (200, 201)
        done = [(await queue(gateway)).json["id"] for _ in range(3)]
        failing = await post(gateway.port, gateway.key, hello(seed=1), prefer="respond-async")
        await end_of(gateway, failing.json["id"])
        await steer(gateway, "pause")
        cancelled = (await queue(gateway)).json["id"]
        await cancel(gateway, cancelled)
        await wait_until(lambda: len(told) >= 5)
    await receiver.stop()
    assert {message["type"] for message in told} == {"job.finished"}
    ends = {message["data"]["id"]: message["data"]["status"] for message in told}
    assert ends == {**dict.fromkeys(done, "completed"), failing.json["id"]: "failed", cancelled: "cancelled"}
    assert len(told) == 5
    assert "messages" not in json.dumps(told)


@pytest.mark.parametrize(("jobs", "least"), [(2_000, 40), pytest.param(10_000, 1_000, marks=pytest.mark.slow)])
async def test_jobs_of_a_hundred_clients_are_acknowledged_fast_while_others_are_performed(
    tmp_path, upstream, record_property, jobs, least
):
    # Without --slow only a guard against a cost for each job that grows with their number: any machine may run it.
    async with serving(tmp_path, upstream) as gateway:
        keys = [await new_key(gateway) for _ in range(5)]
        flood = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.job_flood", str(gateway.port), "up/up", "100", str(jobs)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        async with asyncio.timeout(300):
            said, _ = await flood.communicate("\n".join(keys).encode())
        result = json.loads(said)
        found = await counts(gateway)
    rate = jobs / result["seconds"]
    record_property("acknowledged_a_second", round(rate))
    print(f"{rate:.0f} jobs a second, median {result['median']:.3f} s, p99 {result['p99']:.3f} s; {found}")
    assert result["statuses"] == {"202": jobs}
    assert found["waiting"] + found["processing"] + found["total_processed"] == jobs
    assert rate >= least


@pytest.mark.slow
async def test_a_low_job_starts_within_a_minute_under_endless_high_ones(tmp_path, upstream, record_property):
    begun: list[str] = []

    async def answer(talk: Talk) -> None:
        begun.append(talk.request.json["messages"][0]["content"])
        await asyncio.sleep(0.05)
        await chat(talk)

    def named(name: str) -> dict[str, Any]:
        return hello(messages=[{"role": "user", "content": name}])

    upstream.script = answer
    async with serving(tmp_path, upstream, workers=1) as gateway:
        queued: list[int] = []

        async def keep_busy() -> None:
            while "low" not in begun:
                await wait_until(lambda: len(queued) - len(begun) < 20)
                sent = await post(
                    gateway.port, gateway.key, named("high"), prefer="respond-async", x_stellwerk_priority="high"
                )
                queued.append(sent.status)

        busy = asyncio.ensure_future(keep_busy())
        await wait_until(lambda: len(queued) >= 20)
        began = time.monotonic()
        low = await post(gateway.port, gateway.key, named("low"), prefer="respond-async", x_stellwerk_priority="low")
        assert low.status == 202
        await wait_until(lambda: "low" in begun, 60)
        seconds = time.monotonic() - began
        record_property("low_started_after_seconds", round(seconds, 1))
        print(f"the low job began after {seconds:.1f} s, behind {begun.index('low')} high ones")
        assert begun.index("low") > 20
        await busy
    assert set(queued) == {202}
