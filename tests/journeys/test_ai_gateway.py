"""Clients of AI Gateway: each documented line to the letter, what becomes of their requests, and who may do what."""

import asyncio
import io
import json
import re
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image

from stellwerk.app.ai_gateway import AIGatewayListener
from stellwerk.config.settings import Config
from stellwerk.core.principal import ADMINS, OPEN, READERS
from stellwerk.core.principal import CALLERS as PAYERS
from tests.authorisation_matrix import Row, cells, cells_of_others, sweep
from tests.callers import CALLERS, Caller, Cast
from tests.gateway_process import GatewayProcess, run_command, running_gateway, wait_until
from tests.kept_connection import KeptConnection
from tests.openai_client import new_key
from tests.people import People, Role, Tier
from tests.raw_http import Answer, get, hello, post, send, write_request
from tests.real_engines import free_ports
from tests.scripted_upstream import ScriptedUpstream, Talk, chat
from tests.sigorest_process import lead_curl, listeners_of, run_line

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKEN_LINE = r"""curl -X POST "http://localhost:8080/auth/token" \
  -d "username=admin&password=admin" """
HEALTH_LINE = "curl http://localhost:8080/health"
CHAT_LINE = r"""curl -X POST "http://localhost:8080/api/chat" \
  -H "Authorization: Bearer YOUR_TOKEN" \
  -H "X-Client-ID: my_app" \
  -H "X-Priority: normal" \
  -H "Content-Type: application/json" \
  -d '{
    "model": "gemma-3-4b-it",
    "messages": [
      {"role": "user", "content": "What is 2+2?"}
    ],
    "max_tokens": 100,
    "temperature": 0.7
  }'"""
OCR_LINE = r"""# First, encode your image
IMAGE_BASE64=$(base64 -w 0 your_image.jpg)

curl -X POST "http://localhost:8080/api/ocr" \
  -H "Authorization: Bearer YOUR_TOKEN" \
  -H "X-Client-ID: my_app" \
  -H "X-Resolution: large" \
  -H "Content-Type: application/json" \
  -d "{
    \"model\": \"deepseek-ai/DeepSeek-OCR\",
    \"messages\": [{
      \"role\": \"user\",
      \"content\": [
        {\"type\": \"image_url\", \"image_url\": {\"url\": \"data:image/jpeg;base64,$IMAGE_BASE64\"}},
        {\"type\": \"text\", \"text\": \"Free OCR.\"}
      ]
    }],
    \"max_tokens\": 2048
  }" """
MODELS_LINE = r"""curl "http://localhost:8080/admin/models" \
  -H "Authorization: Bearer YOUR_TOKEN" """
START_LINE = r"""# Start Gemma
curl -X POST "http://localhost:8080/admin/models/gemma/start" \
  -H "Authorization: Bearer YOUR_TOKEN" """
SWITCH_LINES = r"""# Switch to Gundam mode (highest accuracy)
curl -X POST "http://localhost:8080/admin/ocr/resolution?resolution=gundam&graceful=true" \
  -H "Authorization: Bearer YOUR_TOKEN"

# Switch to Large mode
curl -X POST "http://localhost:8080/admin/ocr/resolution?resolution=large" \
  -H "Authorization: Bearer YOUR_TOKEN" """
QUEUE_LINE = r"""curl "http://localhost:8080/admin/queue/gemma" \
  -H "Authorization: Bearer YOUR_TOKEN" """
CRASHES_LINE = r"""curl "http://localhost:8080/admin/crashes?limit=50" \
  -H "Authorization: Bearer YOUR_TOKEN" """
MISSING_LINE = r"""curl "http://localhost:8080/admin/missing-models?limit=50" \
  -H "Authorization: Bearer YOUR_TOKEN" """
OCR_SCRIPT = r"""#!/bin/bash

# Get token
TOKEN=$(curl -s -X POST "http://localhost:8080/auth/token" \
  -d "username=admin&password=admin" | \
  python3 -c "import sys, json; print(json.load(sys.stdin)['access_token'])")

# Encode image
IMAGE_BASE64=$(base64 -w 0 document.jpg)

# Process OCR
curl -X POST "http://localhost:8080/api/ocr" \
  -H "Authorization: Bearer $TOKEN" \
  -H "X-Client-ID: my_ocr_app" \
  -H "X-Resolution: gundam" \
  -H "Content-Type: application/json" \
  -d "{
    \"model\": \"deepseek-ai/DeepSeek-OCR\",
    \"messages\": [{
      \"role\": \"user\",
      \"content\": [
        {\"type\": \"image_url\", \"image_url\": {\"url\": \"data:image/jpeg;base64,$IMAGE_BASE64\"}},
        {\"type\": \"text\", \"text\": \"<|grounding|>Convert the document to markdown.\"}
      ]
    }],
    \"max_tokens\": 4096
  }"
"""
CHAT_SCRIPT = r"""#!/bin/bash

# Get token
TOKEN=$(curl -s -X POST "http://localhost:8080/auth/token" \
  -d "username=admin&password=admin" | \
  python3 -c "import sys, json; print(json.load(sys.stdin)['access_token'])")

# Chat
curl -X POST "http://localhost:8080/api/chat" \
  -H "Authorization: Bearer $TOKEN" \
  -H "X-Client-ID: my_chat_app" \
  -H "Content-Type: application/json" \
  -d '{
    "model": "gemma-3-4b-it",
    "messages": [
      {"role": "system", "content": "You are a helpful assistant."},
      {"role": "user", "content": "Explain quantum computing in simple terms."}
    ],
    "max_tokens": 500,
    "temperature": 0.7
  }'
"""
MONITOR_SCRIPT = r"""#!/bin/bash

TOKEN="YOUR_TOKEN"

while true; do
  clear
  echo "=== Queue Status ==="
  curl -s "http://localhost:8080/admin/queue/gemma" \
    -H "Authorization: Bearer $TOKEN" | python3 -m json.tool
  
  echo ""
  echo "=== DeepSeek Queue ==="
  curl -s "http://localhost:8080/admin/queue/deepseek" \
    -H "Authorization: Bearer $TOKEN" | python3 -m json.tool
  
  sleep 5
done
"""  # noqa: W293  # as people have copied it
SDK = r"""import httpx
import base64

class AIGatewayClient:
    def __init__(self, base_url: str, username: str, password: str):
        self.base_url = base_url
        self.token = self._get_token(username, password)
        self.headers = {
            "Authorization": f"Bearer {self.token}",
            "X-Client-ID": "python_sdk"
        }
    
    def _get_token(self, username: str, password: str) -> str:
        response = httpx.post(
            f"{self.base_url}/auth/token",
            data={"username": username, "password": password}
        )
        return response.json()["access_token"]
    
    def chat(self, messages: list, priority: str = "normal") -> dict:
        headers = {**self.headers, "X-Priority": priority}
        response = httpx.post(
            f"{self.base_url}/api/chat",
            headers=headers,
            json={
                "model": "gemma-3-4b-it",
                "messages": messages,
                "max_tokens": 500
            }
        )
        return response.json()
    
    def ocr(self, image_path: str, resolution: str = "large") -> dict:
        # Read and encode image
        with open(image_path, "rb") as f:
            image_data = base64.b64encode(f.read()).decode()
        
        headers = {**self.headers, "X-Resolution": resolution}
        response = httpx.post(
            f"{self.base_url}/api/ocr",
            headers=headers,
            json={
                "model": "deepseek-ai/DeepSeek-OCR",
                "messages": [{
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{image_data}"}},
                        {"type": "text", "text": "Free OCR."}
                    ]
                }],
                "max_tokens": 2048
            }
        )
        return response.json()

# Usage
client = AIGatewayClient("http://localhost:8080", "admin", "admin")

# Chat
result = client.chat([
    {"role": "user", "content": "Hello!"}
])
"""  # noqa: W293  # as people have copied it
SDK_OCR = r"""
# OCR
result = client.ocr("document.jpg", resolution="gundam")
"""
"""What people have in their scripts: to be run to the letter, the clients against another port."""

ROWS: dict[tuple[str, str], Row] = {
    ("GET", "/health"): Row(OPEN),
    ("POST", "/auth/token"): Row(OPEN, {}, (401,)),
    ("POST", "/auth/refresh"): Row(OPEN, {}, (400,)),
    ("POST", "/auth/logout"): Row(READERS, {"refresh_token": ""}, (400,)),
    ("POST", "/api/chat"): Row(PAYERS, hello("gemma")),
    ("POST", "/api/ocr"): Row(PAYERS, hello("deepseek")),
    ("GET", "/api/requests"): Row(READERS),
    ("GET", "/api/requests/{request_id}"): Row(READERS, None, (404,)),
    ("DELETE", "/api/requests/{request_id}"): Row(PAYERS, None, (404,)),
    ("GET", "/api/requests/{request_id}/events"): Row(READERS, None, (404,)),
    ("GET", "/api/requests/{request_id}/result"): Row(READERS, None, (404,)),
    ("POST", "/api/requests/{request_id}/retry"): Row(PAYERS, None, (404,)),
    ("GET", "/admin/models"): Row(ADMINS),
    ("POST", "/admin/models/{name}/start"): Row(ADMINS, None, (500,)),
    ("POST", "/admin/models/{name}/stop"): Row(ADMINS, None, (500,)),
    ("POST", "/admin/ocr/resolution"): Row(ADMINS, None, (400,)),
    ("GET", "/admin/queue/{name}"): Row(ADMINS, None, (404,)),
    ("POST", "/admin/queue/{name}/pause"): Row(ADMINS, None, (404,)),
    ("POST", "/admin/queue/{name}/resume"): Row(ADMINS, None, (404,)),
    ("GET", "/admin/crashes"): Row(ADMINS),
    ("GET", "/admin/missing-models"): Row(ADMINS),
}
"""Who may use what. A route that is missing here fails."""
SHARED_ROWS = {("POST", "/generate"): Row(PAYERS, {"model": "up/up", "prompt": "Hi"}, (400,))}
ACKNOWLEDGED = ["request_id", "status", "message"]
ACKNOWLEDGED_OCR = ["request_id", "status", "resolution", "message"]
NAIVE = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}")
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
PASSWORD = "four words nobody guesses"


def jpeg() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (120, 40), "white").save(out, "JPEG")
    return out.getvalue()


# --- the gateway


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("ai-gateway")


@pytest.fixture(scope="module")
def cast(folder) -> Iterator[Cast]:
    people = People(folder / "data")
    made = Cast(people)
    people.user("ada@example.org", name="ada", password=PASSWORD, balance=10)
    people.user("boss2@example.org", name="Bo Ss", role=Role.ADMIN, tier=Tier.ADMIN, password=PASSWORD)
    yield made
    people.close()


@pytest.fixture(scope="module")
def callers(cast) -> dict[str, Caller]:
    return cast.callers()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[ScriptedUpstream]:
    upstream = ScriptedUpstream(chat)
    await upstream.start()
    yield upstream
    await upstream.stop()


@pytest.fixture
def upstream(server) -> Iterator[ScriptedUpstream]:
    server.requests.clear()
    yield server
    server.script = chat


@pytest.fixture(scope="module")
def port() -> int:
    return free_ports()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(folder, server, callers, port) -> AsyncIterator[GatewayProcess]:
    config = {
        "compat": ["ai-gateway", "go-ollama-api"],
        "ocr": {"enabled": True},
        "ai_gateway": {"port": port, "demo_login": True, "requests_per_minute": 0},
        "go_ollama": {"ports": [port]},
        "models": {"gemma": {"targets": ["up/up"]}},
        "providers": {"up": {"base_url": server.url, "models": ["up"], "api_key": ""}},
        "limits": {"tiers": {"payg": {"requests_per_minute": 0}, "sub": {"requests_per_minute": 0}}},
        "money": {"wait_seconds": 0},
    }
    async with running_gateway(folder, config) as running:
        yield running


@pytest.fixture(scope="module")
def home(folder, gateway, port) -> Path:
    lead_curl(folder / "person", {"8080": port})
    return folder / "person"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def token(gateway, port) -> str:
    return str((await log_in(port, "admin", "admin")).json["access_token"])


@pytest.fixture
def run(home, token, tmp_path):
    async def with_token(line: str) -> str:
        finished = await run_line(line.replace("YOUR_TOKEN", token), tmp_path, home)
        assert finished.code == 0, finished.errors
        return finished.output

    return with_token


async def log_in(port: int, username: str, password: str) -> Answer:
    body = f"username={username}&password={password}".encode()
    return await (await send(port, write_request("POST", "/auth/token", body, FORM))).read()


async def ask(port: int, token: str, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    fields = {"Authorization": f"Bearer {token}", **{name.replace("_", "-"): each for name, each in headers.items()}}
    data = json.dumps(body).encode() if body is not None else b"" if method == "POST" else None
    return await (await send(port, write_request(method, path, data, fields))).read()


async def result_of(port: int, token: str, request_id: str) -> dict[str, Any]:
    async def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = (await ask(port, token, "GET", f"/api/requests/{request_id}?wait=20")).json
        return found if found["status"] not in ("queued", "running") else None

    found: dict[str, Any] = await wait_until(ended)
    return found


def refusal(answer: Answer) -> tuple[int, str]:
    assert list(answer.json) == ["detail"], answer.body
    return answer.status, answer.json["detail"]


# --- what people have in their scripts


async def test_the_line_for_a_token_gives_a_pair(run):
    pair = json.loads(await run(TOKEN_LINE))
    assert list(pair)[:3] == ["access_token", "refresh_token", "token_type"]
    assert pair["token_type"] == "bearer"
    assert pair["access_token"].count(".") == 2


async def test_the_line_for_health_needs_nothing(run):
    said = json.loads(await run(HEALTH_LINE))
    assert list(said) == ["status", "timestamp"]
    assert said["status"] == "healthy"
    assert NAIVE.fullmatch(said["timestamp"])


async def test_the_line_for_a_chat_is_acknowledged_and_answered_later(run, port, token, upstream):
    said = json.loads(await run(CHAT_LINE))
    assert list(said) == ACKNOWLEDGED
    assert (said["status"], said["message"]) == ("queued", "Request queued for processing")
    found = await result_of(port, token, said["request_id"])
    assert (found["status"], found["client_id"], found["priority"]) == ("completed", "my_app", "normal")
    assert found["result"]["choices"][0]["message"]["content"] == "Hello!"
    sent = upstream.requests[-1].json
    assert (sent["max_tokens"], sent["temperature"]) == (100, 0.7)
    assert sent["messages"] == [{"role": "user", "content": "What is 2+2?"}]


async def test_the_line_for_a_document_is_acknowledged_with_its_resolution(run, tmp_path, port, token):
    (tmp_path / "your_image.jpg").write_bytes(jpeg())
    said = json.loads(await run(OCR_LINE))
    assert list(said) == ACKNOWLEDGED_OCR
    assert (said["resolution"], said["message"]) == ("large", "Request queued for OCR processing")
    found = (await ask(port, token, "GET", f"/api/requests/{said['request_id']}")).json
    assert (found["kind"], found["model"], found["labels"]["resolution"]) == ("ocr", "rapidocr", "large")


async def test_the_lines_for_administrators_are_answered_in_the_documented_shapes(run):
    models = json.loads(await run(MODELS_LINE))
    assert list(models)[:2] == ["gemma", "deepseek"]
    for name, model in models.items():
        fields = ["name", "status", "port", "started_at", "uptime_seconds", "resolution", "is_healthy"]
        assert list(model) == fields
        assert model["name"] == name
    assert (models["gemma"]["status"], models["gemma"]["is_healthy"]) == ("running", True)
    assert (models["gemma"]["resolution"], models["deepseek"]["resolution"]) == (None, "large")
    switched = [json.loads(line) for line in re.findall(r"\{.*?\}", await run(SWITCH_LINES))]
    assert switched == [
        {"status": "switched", "resolution": mode, "message": f"OCR resolution switched to {mode}"}
        for mode in ("gundam", "large")
    ]
    assert json.loads(await run(CRASHES_LINE)) == []


async def test_the_line_for_a_queue_counts_what_was_done(run, port, token):
    before = json.loads(await run(QUEUE_LINE))
    assert list(before) == [
        "model", "processing", "waiting", "max_concurrent", "max_waiting", "total_processed", "total_failed",
        "total_timeout", "utilization",
    ]  # fmt: skip
    await ask(port, token, "POST", "/api/chat?wait=20", hello("gemma"))
    assert json.loads(await run(QUEUE_LINE))["total_processed"] == before["total_processed"] + 1
    assert before["model"] == "gemma"
    assert 0 <= before["utilization"] <= 1


async def test_the_line_for_missing_models_shows_who_asked_for_what(run, port, token):
    asked = await ask(port, token, "POST", "/api/chat", hello("gpt-4"), x_client_id="my_app")
    assert refusal(asked) == (404, "Model gpt-4 not available")

    async def written() -> list[dict[str, Any]]:
        return [row for row in json.loads(await run(MISSING_LINE)) if row["model_name"] == "gpt-4"]

    [row] = await wait_until(written)
    assert list(row) == ["model_name", "client_id", "timestamp"]
    assert row["client_id"] == "my_app"
    assert NAIVE.fullmatch(row["timestamp"])


async def test_the_line_that_starts_a_model_is_content_with_one_that_answers(run):
    assert json.loads(await run(START_LINE)) == {"status": "started", "model": "gemma"}


async def test_the_first_script_reads_a_document(run, tmp_path):
    (tmp_path / "document.jpg").write_bytes(jpeg())
    said = json.loads(await run(OCR_SCRIPT))
    assert list(said) == ACKNOWLEDGED_OCR
    assert said["resolution"] == "gundam"


async def test_the_second_script_chats(run, port, token):
    said = json.loads(await run(CHAT_SCRIPT))
    assert list(said) == ACKNOWLEDGED
    assert (await result_of(port, token, said["request_id"]))["client_id"] == "my_chat_app"


async def test_the_third_script_shows_both_queues(home, token, tmp_path):
    script = MONITOR_SCRIPT.replace("YOUR_TOKEN", token).replace("sleep 5", "exit 0")
    finished = await run_line(f"export TERM=dumb\n{script}", tmp_path, home)
    shown = [json.loads(text) for text in re.findall(r"\{[^}]*\}", finished.output)]
    assert [each["model"] for each in shown] == ["gemma", "deepseek"]
    assert "=== DeepSeek Queue ===" in finished.output


async def test_the_documented_class_works_unchanged(gateway, port, token, tmp_path):
    (tmp_path / "document.jpg").write_bytes(jpeg())
    program = f"{SDK}print(result)\n{SDK_OCR}print(result)\n"
    (tmp_path / "client.py").write_text(program.replace("localhost:8080", f"localhost:{port}"))
    finished = await run_command(
        "-c", 'cd "$FOLDER" && exec "$0" client.py', sys.executable,
        environment={**gateway.environment, "FOLDER": str(tmp_path)}, program=("sh",),
    )  # fmt: skip
    assert finished.code == 0, finished.errors
    chatted, read = (eval(line) for line in finished.output.splitlines())  # dicts as Python prints them
    assert list(chatted) == ACKNOWLEDGED
    assert list(read) == ACKNOWLEDGED_OCR
    assert (await result_of(port, token, chatted["request_id"]))["client_id"] == "python_sdk"


# --- tokens


@pytest.mark.parametrize("name", ["ada@example.org", "ada", "ADA@example.org"])
async def test_a_person_logs_in_by_address_or_name(port, gateway, name):
    pair = (await log_in(port, name, PASSWORD.replace(" ", "+"))).json
    mine = await ask(port, pair["access_token"], "GET", "/api/requests")
    assert mine.status == 200
    # One and the same login counts on every listener.
    assert (await get(gateway.port, pair["access_token"], "/user/api/me")).json["email"] == "ada@example.org"
    again = await ask(port, pair["access_token"], "POST", "/auth/refresh", {"refresh_token": pair["refresh_token"]})
    assert again.json["token_type"] == "bearer"


async def test_a_token_is_given_for_json_and_for_the_query_too(port):
    said = await post(port, None, {"username": "ada", "password": PASSWORD}, "/auth/token")
    assert said.status == 200
    query = f"/auth/token?username=ada&password={PASSWORD.replace(' ', '%20')}"
    asked = write_request("POST", query, b"", {})
    assert (await (await send(port, asked)).read()).status == 200


@pytest.mark.parametrize(
    ("username", "password"), [("ada", "wrong"), ("nobody", "wrong"), ("", ""), ("admin", "Admin"), ("ada", "")]
)
async def test_wrong_credentials_are_refused_in_the_documented_words(port, username, password):
    assert refusal(await log_in(port, username, password)) == (401, "Invalid credentials")


async def test_the_demo_login_is_for_programs_on_this_machine_alone(port, gateway):
    body = b"username=admin&password=admin"
    for headers in ({"X-Forwarded-For": "192.0.2.1"}, {"Forwarded": "for=192.0.2.1"}):
        answer = await (await send(port, write_request("POST", "/auth/token", body, FORM | headers))).read()
        assert refusal(answer) == (401, "Invalid credentials")
    asked = write_request("POST", "/auth/token", body, FORM | {"Origin": "https://evil.example"})
    assert (await (await send(port, asked)).read()).status == 403
    # And on this listener alone.
    assert (await post(gateway.port, None, {"username": "admin", "password": "admin"}, "/auth/token")).status == 401


async def test_bad_tokens_are_refused_in_the_documented_words(port, callers):
    pair = (await log_in(port, "admin", "admin")).json
    words = {pair["refresh_token"]: "Invalid token type", "a.b.c": "Invalid token", "sk-sw-x": "Invalid token"}
    for shown, text in words.items():
        answer = await ask(port, shown, "GET", "/admin/models")
        assert refusal(answer) == (401, text)
        assert answer.headers["www-authenticate"] == "Bearer"
    expired = callers["an expired JWT"].headers["Authorization"].removeprefix("Bearer ")
    assert refusal(await ask(port, expired, "GET", "/admin/models")) == (401, "Token has expired")
    assert refusal(await get(port, None, "/admin/models")) == (401, "Not authenticated")


async def test_a_logout_ends_both_tokens(port):
    pair = (await log_in(port, "admin", "admin")).json
    assert (await ask(port, pair["access_token"], "POST", "/auth/logout")).status == 200
    assert refusal(await ask(port, pair["access_token"], "GET", "/admin/models")) == (401, "Invalid token")


# --- requests


async def test_an_answer_can_be_waited_for(port, token, upstream):
    for path, more in (("/api/chat?wait=20", {}), ("/api/chat", {"prefer": "wait=20"})):
        said = (await ask(port, token, "POST", path, hello("gemma"), **more)).json
        assert said["status"] == "completed"
        assert said["result"]["choices"][0]["message"]["content"] == "Hello!"
        assert (await ask(port, token, "GET", f"/api/requests/{said['request_id']}")).status == 200


async def test_the_high_go_before_the_low(port, gateway, token, upstream):
    key = await new_key(gateway)
    opened, order = asyncio.Event(), []

    async def in_turn(talk: Talk) -> None:
        order.append(talk.request.json["messages"][0]["content"])
        await opened.wait()
        await chat(talk)

    upstream.script = in_turn
    paused = await post(gateway.port, gateway.key, b"", "/admin/api/queues/up%2Fup/pause")
    assert paused.status == 200
    ids = []
    for priority in ("low", "NORMAL", "high"):
        body = {"model": "gemma", "messages": [{"role": "user", "content": priority}]}
        ids.append((await ask(port, key, "POST", "/api/chat", body, x_priority=priority)).json["request_id"])
    positions = [(await ask(port, key, "GET", f"/api/requests/{each}")).json["position"] for each in ids]
    assert positions == [3, 2, 1]
    await post(gateway.port, gateway.key, b"", "/admin/api/queues/up%2Fup/resume")
    await wait_until(lambda: len(order) == 3)
    opened.set()
    for each in ids:
        assert (await result_of(port, key, each))["status"] == "completed"


@pytest.mark.parametrize(
    ("path", "headers", "body", "detail"),
    [
        ("/api/chat", {"x_priority": "urgent"}, hello("gemma"), "Invalid X-Priority: low, normal and high are known"),
        ("/api/ocr", {"x_resolution": "huge"}, hello("deepseek"), "Invalid resolution: huge"),
        ("/api/chat?wait=x", {}, hello("gemma"), "Invalid value for 'wait': a number from 0 to 300"),
        ("/api/ocr", {}, {"model": "deepseek"}, "Missing required parameter: 'messages'."),
        ("/api/chat", {}, {"model": "gemma"}, "Missing required parameter: 'messages'."),
        ("/api/chat", {}, {"model": 7, "messages": []}, "Invalid value for 'model'."),
    ],
)
async def test_nonsense_is_refused_before_it_is_queued(port, token, upstream, path, headers, body, detail):
    assert refusal(await ask(port, token, "POST", path, body, **headers)) == (400, detail)
    assert upstream.requests == []


async def test_a_request_is_its_owners_business(port, token, gateway):
    mine, other = await new_key(gateway), await new_key(gateway)
    said = (await ask(port, mine, "POST", "/api/chat?wait=20", hello("gemma"))).json
    path = f"/api/requests/{said['request_id']}"
    assert refusal(await ask(port, other, "GET", path)) == (404, "There is no such job.")
    assert (await ask(port, mine, "GET", path)).json["client_id"] == "test"
    assert (await ask(port, token, "GET", path)).status == 200


# --- one port for two


async def test_the_key_in_the_query_decides_whose_health_is_asked_for(port, gateway):
    key = await new_key(gateway)
    assert (await get(port, None, "/health")).json["status"] == "healthy"
    assert (await get(port, None, f"/health?apikey={key}")).json["status"] == "API is healthy"
    bad = await get(port, None, "/health?apikey=abc123")
    assert (bad.status, bad.json) == (403, {"error": "Invalid API key"})
    body = {"apikey": key, "model": "up/up", "prompt": "Hi"}
    assert (await post(port, None, body, "/generate")).json["response"] == "Hello"
    assert (await post(port, None, {**body, "apikey": ""}, "/generate")).json == {"error": "API key is required"}
    assert refusal(await get(port, None, "/nowhere"))[0] == 404
    assert list((await get(port, None, "/generate")).json) == ["error"]


async def test_both_are_named_once(gateway, port):
    assert [name for name in await listeners_of(gateway) if name != "main"] == [f"ai-gateway+go-ollama-api {port}"]


# --- who may do what


async def test_the_table_has_each_route_and_no_other():
    class Nobody:
        """Never asked: the routes are only listed."""

        def __getattr__(self, _: str) -> Any:
            return Nobody()

    parts = ("listeners", "people", "metrics", "jobs", "line", "catalogue", "engines")
    nobodies: dict[str, Any] = {name: Nobody() for name in parts}
    router = AIGatewayListener(Config(), login_secret=b"x" * 32, environ={}, **nobodies).make_router()
    assert {(route.method, route.path): route.access for route in router} == {
        where: row.access for where, row in ROWS.items()
    }


@pytest.mark.parametrize("name", CALLERS)
async def test_each_caller_gets_what_the_table_says(port, cast, callers, name):
    caller = callers[name]
    connections = [KeptConnection(port) for _ in range(2)]
    rows = {**ROWS, **SHARED_ROWS}
    seen = await sweep(connections, caller, [*cells(cast, rows), *cells_of_others(cast, rows)])
    wrong = []
    for cell, answer in seen:
        statuses, _ = cell.expect(caller)
        if cell.template == "/generate" and cell.method == "POST":
            statuses = (400,)
        if answer.status not in statuses:
            wrong.append(f"{cell.method} {cell.path}: {answer.status}, not {statuses}")
    assert not wrong, "\n".join(wrong)
    for connection in connections:
        connection.close()


async def test_no_password_token_or_prompt_stands_in_a_log_or_in_the_data_folder(gateway, port, upstream):
    key, prompt, secret = await new_key(gateway), "a prompt canary 5f0c", "p4ssw0rd-canary-77aa"
    pair = (await log_in(port, "ada", PASSWORD.replace(" ", "+"))).json
    await log_in(port, "ada", secret)
    await log_in(port, secret, PASSWORD)
    await get(port, None, f"/auth/token?username=ada&password={secret}")
    body = {"model": "gemma", "messages": [{"role": "user", "content": prompt}]}
    for shown in (key, pair["access_token"]):
        assert (await ask(port, shown, "POST", "/api/chat?wait=20", body)).status == 200
        assert (await ask(port, shown, "POST", "/api/ocr", {**body, "model": "deepseek"})).status == 200
        await ask(port, shown, "POST", "/api/chat", {**body, "model": key})
        await ask(port, shown, "POST", "/api/chat", {"model": "gemma", "messages": prompt})
    await ask(port, pair["refresh_token"], "GET", "/admin/models")
    await ask(port, key, "POST", "/api/chat", {**body, "model": "written-last"})

    async def written() -> bool:
        rows = (await ask(port, gateway.key, "GET", "/admin/missing-models")).json
        return any(row["model_name"] == "written-last" for row in rows)

    await wait_until(written)
    texts = [gateway.log.encode(), gateway.output.encode()]
    texts += [file.read_bytes() for file in gateway.data.rglob("*") if file.is_file()]
    for text in (key, prompt, secret, PASSWORD, pair["access_token"], pair["refresh_token"]):
        assert not any(text.encode() in each for each in texts), text


# --- with its own config

FILE = """
server: {host: 0.0.0.0, port: 8080, workers: 4}
models:
  gemma: {name: google/gemma-3-4b-it, port: PORT, gpu_memory: 0.95, max_concurrent: 1}
  deepseek:
    resolution_mode: "gundam"
queue: {max_waiting: 3, timeout: 300}
auto_switch: {enabled: true, min_requests_for_switch: 7}
rate_limit: {enabled: true, requests_per_minute: 60, burst: 10}
auth: {jwt_secret: "${JWT_SECRET}", access_token_expire_minutes: 30}
mongodb: {uri: "mongodb://mongodb:27017"}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def filed(tmp_path_factory, vllm) -> AsyncIterator[tuple[GatewayProcess, int, str]]:
    folder = tmp_path_factory.mktemp("with-file")
    (folder / "config").mkdir()
    (folder / "config/config.yaml").write_text(FILE.replace("PORT", vllm.url.rpartition(":")[2].removesuffix("/v1")))
    config = {"compat": ["ai-gateway"], "ai_gateway": {"port": 0}}
    async with running_gateway(folder, config, environment={"JWT_SECRET": "s" * 40}) as running:
        [name] = [name for name in await listeners_of(running) if name != "main"]
        port, key = int(name.rpartition(" ")[2]), await new_key(running)

        async def discovered() -> bool:
            models = (await ask(port, running.key, "GET", "/admin/models")).json
            return bool(models["gemma"]["is_healthy"])

        await wait_until(discovered)
        yield running, port, key


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def vllm() -> AsyncIterator[ScriptedUpstream]:
    upstream = ScriptedUpstream(speak_vllm)
    await upstream.start()
    yield upstream
    await upstream.stop()


async def speak_vllm(talk: Talk) -> None:
    if talk.request.path == "/v1/models":
        await talk.answer({"object": "list", "data": [{"id": "google/gemma-3-4b-it", "object": "model"}]})
    else:
        await chat(talk)


async def test_its_own_config_says_where_models_are_and_how_pages_are_read(filed):
    running, port, _ = filed
    models = (await ask(port, running.key, "GET", "/admin/models")).json
    assert models["gemma"]["status"] == "running"
    assert models["gemma"]["port"] > 0
    assert models["deepseek"]["resolution"] == "gundam"
    queue = (await ask(port, running.key, "GET", "/admin/queue/gemma")).json
    assert (queue["max_waiting"], queue["max_concurrent"]) == (3, 1)
    for text in ("config/config.yaml:2: server has no effect here", "auth.jwt_secret has no effect here"):
        await wait_until(lambda text=text: text in running.log)


async def test_a_server_that_answers_has_been_started_and_is_not_ours_to_stop(filed):
    running, port, _ = filed
    started = await ask(port, running.key, "POST", "/admin/models/gemma/start")
    assert (started.status, started.json) == (200, {"status": "started", "model": "gemma"})
    stopped = await ask(port, running.key, "POST", "/admin/models/gemma/stop")
    assert (stopped.status, stopped.json) == (500, {"detail": "Failed to stop model"})


async def test_a_paused_queue_takes_requests_and_begins_none(filed):
    running, port, key = filed
    paused = (await ask(port, running.key, "POST", "/admin/queue/gemma/pause")).json
    assert (paused["model"], paused["paused"], paused["max_waiting"]) == ("gemma", True, 3)
    queued = (await ask(port, key, "POST", "/api/chat?wait=1", hello("gemma"), x_client_id="paused")).json
    assert queued["status"] == "queued"
    assert (await ask(port, running.key, "GET", "/admin/queue/gemma")).json["waiting"] == 1
    assert "paused" not in (await ask(port, running.key, "POST", "/admin/queue/gemma/resume")).json
    assert (await result_of(port, key, queued["request_id"]))["status"] == "completed"


async def test_the_fourth_that_would_have_to_wait_is_refused(filed, vllm):
    _, port, key = filed
    going, seen = asyncio.Event(), asyncio.Event()

    async def hold(talk: Talk) -> None:
        if talk.request.path == "/v1/chat/completions":
            seen.set()
            await going.wait()
        await speak_vllm(talk)

    vllm.script = hold
    first = await ask(port, key, "POST", "/api/chat", hello("gemma-3-4b-it"), x_client_id="full")
    async with asyncio.timeout(60):
        await seen.wait()
    asked = [ask(port, key, "POST", "/api/chat", hello("gemma-3-4b-it"), x_client_id="full") for _ in range(6)]
    answers = await asyncio.gather(*asked)
    refused = [refusal(answer) for answer in answers if answer.status != 200]
    assert refused == [(503, "Queue is full, please try again later")] * 3
    going.set()
    for answer in (first, *answers):
        if answer.status == 200:
            assert (await result_of(port, key, answer.json["request_id"]))["status"] == "completed"
    vllm.script = speak_vllm


async def test_more_than_ten_at_once_are_refused_and_told_when_to_come_back(filed):
    _, port, key = filed
    asked = [ask(port, key, "POST", "/api/chat", hello("gemma"), x_client_id="fast") for _ in range(60)]
    begun = time.monotonic()
    answers = await asyncio.gather(*asked)
    refused = [answer for answer in answers if answer.status == 429]
    # One more is let through with each second that asking takes.
    assert 49 - (time.monotonic() - begun) <= len(refused) <= 50
    assert {refusal(answer)[1] for answer in refused} == {"Rate limit exceeded, please try again later"}
    assert {answer.headers["retry-after"] for answer in refused} == {"1"}
    for answer in answers:
        # The queue takes three of those that were in time.
        assert answer.status in (200, 429, 503)
        if answer.status == 200:
            await result_of(port, key, answer.json["request_id"])
    # Another application of the same person has a limit of its own.
    assert (await ask(port, key, "POST", "/api/chat", hello("gemma"), x_client_id="slow")).status == 200


async def test_a_config_that_cannot_be_used_is_refused_with_its_place(tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text("auth:\n  jwt_secret: ${JWT_SECRET}\nqueue:\n  max_waiting: many\n")
    (tmp_path / "stellwerk.yaml").write_text("compat: [ai-gateway]\n")
    finished = await run_line(
        f'"{sys.executable}" -m stellwerk serve --data data --config stellwerk.yaml', tmp_path, tmp_path
    )
    assert finished.code != 0
    assert "config/config.yaml:2:15: auth.jwt_secret: the environment variable JWT_SECRET is not set" in finished.errors
    assert "config/config.yaml:4:16: queue.max_waiting" in finished.errors
