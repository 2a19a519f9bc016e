"""What happens in a running gateway reaches those who subscribed: signed, after a crash too, and nowhere forbidden."""

import asyncio
import json
import os
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.egress_urls import FORBIDDEN_NAMES, FORBIDDEN_URLS
from tests.gateway_process import GatewayProcess, away_from_midnight, running_gateway, wait_until
from tests.openai_client import new_key
from tests.raw_http import get, hello, post, send, write_request
from tests.real_engines import free_ports
from tests.scripted_upstream import Received, ScriptedUpstream, Talk, chat
from tests.sigorest_process import listeners_of
from tests.tiny_gguf import write_tiny_chat_model

PRICE = {"model": "up/up", "input_per_1k": 0.001, "output_per_1k": 0.001}


class Receiver(ScriptedUpstream):
    """Answers 204, or whatever `status` says, and keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__(self.take)
        self.status = 204
        self.messages: list[Received] = []

    async def take(self, talk: Talk) -> None:
        if 200 <= self.status < 300:
            self.messages.append(talk.request)
        await talk.send(f"HTTP/1.1 {self.status} Said\r\ncontent-length: 0\r\n\r\n".encode())

    @property
    def origin(self) -> str:
        return self.url.removesuffix("/v1")

    def of(self, event: str) -> list[dict[str, Any]]:
        """The data of the messages about `event`."""
        bodies = [message.json for message in self.messages]
        return [body["data"] for body in bodies if body.get("type") == event]


@asynccontextmanager
async def running(server: ScriptedUpstream) -> AsyncIterator[ScriptedUpstream]:
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with running(Receiver()) as server:
        yield server


def config(receiver: Receiver, upstream: ScriptedUpstream, **more: Any) -> dict[str, Any]:
    return {
        "egress": {"allowed_origins": [receiver.origin]},
        "providers": {"up": {"base_url": upstream.url, "models": ["up"], "api_key": ""}},
        **more,
    }


async def subscribe(gateway: GatewayProcess, url: str, *events: str, **more: Any) -> dict[str, Any]:
    body = {"url": url, "events": events, **more}
    answer = await post(gateway.port, gateway.key, body, "/admin/api/webhooks")
    assert answer.status in (200, 201), answer.body
    return answer.json


def messages_in_outbox(gateway: GatewayProcess) -> int:
    with closing(sqlite3.connect(f"file:{gateway.data / 'stellwerk.db'}?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT count(*) FROM webhook_messages").fetchone()[0]


async def test_a_finished_request_is_told_with_a_signature_that_verifies(tmp_path, upstream, receiver):
    upstream.script = chat
    async with running_gateway(tmp_path, config(receiver, upstream)) as gateway:
        made = await subscribe(gateway, f"{receiver.origin}/hook", "request.finished")
        answer = await post(gateway.port, gateway.key, hello())
        await wait_until(lambda: receiver.messages)
    (message,) = receiver.messages
    said = Webhook(made["secret"]).verify(message.body, message.headers)
    assert (message.path, said["type"]) == ("/hook", "request.finished")
    facts = said["data"]
    assert facts["id"] == answer.headers["x-request-id"]
    assert (facts["model"], facts["provider"], facts["status"], facts["error"]) == ("up/up", "up", 200, None)
    assert (facts["input_tokens"], facts["output_tokens"], facts["estimated"]) == (5, 2, False)


async def test_what_a_dead_receiver_missed_reaches_it_after_a_kill_of_the_gateway(tmp_path, upstream, receiver):
    receiver.status = 503
    async with running_gateway(tmp_path, config(receiver, upstream)) as gateway:
        await subscribe(gateway, f"{receiver.origin}/hook", "request.finished")
        sent = [(await post(gateway.port, gateway.key, hello())).headers["x-request-id"] for _ in range(5)]
        await wait_until(lambda: receiver.requests)
        # On the disk: `publish` promises that for the writer's next commit.
        await wait_until(lambda: messages_in_outbox(gateway) == 5)
        gateway.signal(signal.SIGKILL)
        await gateway.wait()
    assert receiver.messages == []
    receiver.status = 204
    async with running_gateway(tmp_path, config(receiver, upstream)):
        await wait_until(lambda: len(receiver.of("request.finished")) >= 5, 200)
    assert {facts["id"] for facts in receiver.of("request.finished")} == set(sent)
    ids = [message.headers["webhook-id"] for message in receiver.messages]
    assert len(set(ids)) == 5


async def test_it_is_told_once_that_most_of_a_budget_is_spent(tmp_path, upstream, receiver):
    await away_from_midnight()
    async with running_gateway(tmp_path, config(receiver, upstream)) as gateway:
        price = await post(gateway.port, gateway.key, PRICE, "/admin/api/prices")
        assert price.status < 300, price.body
        await subscribe(gateway, f"{receiver.origin}/hook", "budget.reached")
        user = {"email": "tight@example.org", "tier": "sub", "budget": 0.00006, "budget_window": "day"}
        made = await post(gateway.port, gateway.key, user, "/admin/api/users")
        key = (await post(gateway.port, gateway.key, {}, f"/admin/api/users/{made.json['id']}/apikey")).json["key"]
        # Each call costs 0.000007, so the seventh is beyond 80 percent.
        for _ in range(7):
            await post(gateway.port, key, hello(max_tokens=1))
        await wait_until(lambda: receiver.of("budget.reached"))
    (facts,) = receiver.of("budget.reached")
    assert (facts["percent"], facts["window"], facts["user_id"]) == (80, "day", made.json["id"])
    assert 0.8 * facts["amount"] <= facts["spent"] <= facts["amount"]


async def test_a_key_that_its_upstream_does_not_know_is_told(tmp_path, receiver):
    async def pick(talk: Talk) -> None:
        if talk.request.headers.get("authorization") == "Bearer bad-upstream-key":
            await talk.answer({"error": {"message": "Unknown key", "code": "invalid_api_key"}}, status=401)
        else:
            await chat(talk)

    async with running(ScriptedUpstream(pick)) as upstream:
        keys = {"api_key": "bad-upstream-key", "api_keys": ["good-upstream-key"]}
        settings = config(receiver, upstream)
        settings["providers"] = {"up": {"base_url": upstream.url, "models": ["up"], **keys}}
        async with running_gateway(tmp_path, settings) as gateway:
            await subscribe(gateway, f"{receiver.origin}/hook", "key.parked")
            assert (await post(gateway.port, gateway.key, hello())).status == 200
            await wait_until(lambda: receiver.messages)
    assert receiver.of("key.parked") == [{"provider": "up", "key_index": 0, "keys": 2}]
    assert b"upstream-key" not in receiver.messages[0].body


async def test_a_crashed_engine_is_told(tmp_path, upstream, receiver):
    models = tmp_path / "models"
    models.mkdir()
    write_tiny_chat_model(models / "tiny.gguf")
    engines = {"enabled": True, "demo": False, "models_folder": str(models), "first_port": free_ports(1), "slots": 1}
    async with running_gateway(tmp_path, config(receiver, upstream, engines=engines)) as gateway:
        await subscribe(gateway, f"{receiver.origin}/hook", "engine.crashed")
        assert (await post(gateway.port, gateway.key, hello("tiny", max_tokens=1))).status == 200
        details = (await get(gateway.port, gateway.key, "/health/details")).json
        (pid,) = [slot["pid"] for slot in details["slots"] if slot.get("pid")]
        os.kill(pid, signal.SIGKILL)
        await wait_until(lambda: receiver.messages)
    (facts,) = receiver.of("engine.crashed")
    assert facts["model"] == "tiny"
    assert facts["signal"] in (9, "SIGKILL")


async def test_a_request_to_go_ollama_api_is_told_as_its_document_says(tmp_path, upstream, receiver):
    settings = config(receiver, upstream, compat=["go-ollama-api"], go_ollama={"ports": [0]})
    async with running_gateway(tmp_path, settings) as gateway:
        await subscribe(gateway, f"{receiver.origin}/hook", "generate.requested")
        found = await listeners_of(gateway)
        port = next(int(name.rpartition(" ")[2]) for name in found if name != "main")
        key = await new_key(gateway)
        asked = {"apikey": key, "model": "up/up", "prompt": "user-prompt", "images": []}
        body = json.dumps(asked).encode()
        assert (await (await send(port, write_request("POST", "/generate", body, {}))).read()).status == 200
        refused = json.dumps({**asked, "apikey": "wrong" * 8}).encode()
        assert (await (await send(port, write_request("POST", "/generate", refused, {}))).read()).status == 403
        await wait_until(lambda: receiver.messages)
    (message,) = receiver.messages
    said = message.json
    assert list(said) == ["apikey", "prompt", "model", "stream", "images", "raw", "timestamp"]
    assert (said["prompt"], said["model"], said["stream"], said["images"], said["raw"]) == (
        "user-prompt",
        "up/up",
        False,
        [],
        False,
    )
    assert said["timestamp"].endswith("Z")
    assert key not in message.body.decode()
    assert key.startswith(said["apikey"].rstrip("…"))


async def test_a_receiver_that_is_gone_is_not_asked_again(tmp_path, upstream, receiver):
    receiver.status = 410
    async with running_gateway(tmp_path, config(receiver, upstream)) as gateway:
        made = await subscribe(gateway, f"{receiver.origin}/hook", "request.finished")

        async def switched_off() -> bool:
            shown = (await get(gateway.port, gateway.key, f"/admin/api/webhooks/{made['id']}")).json
            return not shown["active"] and "410" in shown["disabled_reason"]

        await post(gateway.port, gateway.key, hello())
        await wait_until(switched_off)
        await post(gateway.port, gateway.key, hello())
    assert len(receiver.requests) == 1


async def test_a_webhook_to_a_forbidden_address_is_refused_and_nothing_is_connected(tmp_path, upstream):
    canaries: list[str] = []

    async def accept(_reader, writer) -> None:
        canaries.append("connected")
        writer.close()

    canary = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = canary.sockets[0].getsockname()[1]
    async with running_gateway(tmp_path, {}) as gateway:
        for url in FORBIDDEN_URLS:
            if any(name in url for name in FORBIDDEN_NAMES):
                # Names are looked up at each delivery, where the machine's own resolver is asked.
                continue
            body = {"url": url.replace("{port}", str(port)), "events": ["request.finished"]}
            answer = await post(gateway.port, gateway.key, body, "/admin/api/webhooks")
            assert answer.status == 400, url
    canary.close()
    assert canaries == []
