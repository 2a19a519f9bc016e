"""The calls of LLM Gateway's administration of models, as its users wrote them down: with curl."""

import asyncio
import json
import shutil
import subprocess

import pytest

from tests.gateway_process import environment_for, running_gateway
from tests.real_engines import free_ports
from tests.small_hub import SmallHub
from tests.tiny_gguf import write_tiny_chat_model

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")

NAME = "Qwen2.5-7B-Instruct-Q4_K_M"
REPOSITORY = "Qwen/Qwen2.5-7B-Instruct-GGUF"
LOAD = """
curl -s -X POST http://localhost:4000/admin/api/slots/load \\
  -H "Authorization: Bearer sk-admin-xxx" \\
  -H "Content-Type: application/json" \\
  -d '{
    "slot": 4801,
    "model_path": "Qwen2.5-7B-Instruct-Q4_K_M.gguf",
    "model_type": "text"
  }'
"""
"""To the letter but for `-s`."""
CHAT = """
curl -s http://localhost:4000/v1/chat/completions \\
  -H "Authorization: Bearer sk-xxx" \\
  -H "Content-Type: application/json" \\
  -d '{
    "model": "qwen",
    "messages": [{"role": "user", "content": "Hello!"}],
    "stream": true
  }'
"""
AUTHORIZED = 'curl -s -H "Authorization: Bearer sk-admin-xxx"'
UNLOAD = f"{AUTHORIZED} -X POST http://localhost:4000/admin/api/slots/4801/unload"
SLOTS = f"{AUTHORIZED} http://localhost:4000/admin/api/slots"
LOCAL = f"{AUTHORIZED} http://localhost:4000/admin/api/models/local"
SEARCH = f"{AUTHORIZED} 'http://localhost:4000/admin/api/models/search?q=qwen'"
DOWNLOAD = f"""
{AUTHORIZED} -X POST http://localhost:4000/admin/api/models/download -H 'Content-Type: application/json' \\
  -d '{{"repo_id": "{REPOSITORY}", "filename": "{NAME}.gguf"}}'
"""
DELETE = f"""
{AUTHORIZED} -X POST http://localhost:4000/admin/api/models/delete -H 'Content-Type: application/json' \\
  -d '{{"model_path": "{NAME}.gguf"}}'
"""


class Shell:
    """Runs the lines; the gateway's own port, slots and keys stand in place of those of the document."""

    def __init__(self, gateway, folder, first_port):
        self._gateway = gateway
        self.models = gateway.data / "models"
        self._environment = environment_for(folder)
        self.first_port = first_port

    async def text(self, line):
        line = line.replace("http://localhost:4000", self._gateway.url).replace("4801", str(self.first_port))
        line = line.replace("sk-admin-xxx", self._gateway.key).replace("sk-xxx", self._gateway.key)
        process = await asyncio.create_subprocess_shell(
            line.strip(), env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        async with asyncio.timeout(120):
            output, _ = await process.communicate()
        return output.decode()

    async def run(self, line):
        return json.loads(await self.text(line))


@pytest.fixture
async def hub(tmp_path):
    model = write_tiny_chat_model(tmp_path / "model.gguf").read_bytes()
    hub = SmallHub()
    hub.add(REPOSITORY, {f"{NAME}.gguf": model, "README.md": b"x"}, downloads=120_000, likes=90)
    await hub.start()
    yield hub
    await hub.stop()


@pytest.fixture
async def shell(tmp_path, hub):
    first_port = free_ports(7)
    config = {
        "engines": {"enabled": True, "demo": False, "first_port": first_port, "threads": 1},
        "hub": {"endpoint": hub.url},
    }
    async with running_gateway(tmp_path / "gateway", config) as gateway:
        yield Shell(gateway, tmp_path, first_port)


async def test_a_model_is_found_fetched_loaded_asked_unloaded_and_deleted(shell):
    assert await shell.run(SEARCH) == [
        {
            "repo_id": REPOSITORY,
            "downloads": 120_000,
            "likes": 90,
            "gated": False,
            "files": [f"{NAME}.gguf"],
            "file_count": 1,
        }
    ]
    fetched = await shell.run(DOWNLOAD)
    documented = {name: fetched[name] for name in ("status", "path", "repo", "filename")}
    assert documented == {
        "status": "downloaded",
        "path": f"{NAME}.gguf",
        "repo": REPOSITORY,
        "filename": f"{NAME}.gguf",
    }
    [local] = await shell.run(LOCAL)
    assert (local["name"], local["path"], local["detected_type"]) == (NAME, f"{NAME}.gguf", "text")
    assert local["size_mb"] == pytest.approx(local["size_bytes"] / (1 << 20), abs=0.1)

    loaded = await shell.run(LOAD)
    assert (loaded["status"], loaded["slot"], loaded["model"]) == ("loaded", shell.first_port, NAME)
    assert loaded["model_type"] == "text"
    slots = await shell.run(SLOTS)
    assert [slot["port"] for slot in slots] == list(range(shell.first_port, shell.first_port + 7))
    first, *others = slots
    assert (first["status"], first["model_name"], first["model_type"]) == ("running", NAME, "text")
    assert (first["pid"], first["model_path"]) == (loaded["pid"], f"{NAME}.gguf")
    assert first["ram_mb"] > 1
    assert {slot["status"] for slot in others} == {"empty"}

    answer = await shell.text(CHAT)
    assert answer.rstrip().endswith("data: [DONE]")
    assert '"finish_reason"' in answer

    assert (await shell.run(DELETE))["error"]["code"] == "model_loaded"
    assert await shell.run(UNLOAD) == {"status": "unloaded", "slot": shell.first_port}
    assert await shell.run(UNLOAD) == {"status": "not_loaded", "slot": shell.first_port}
    assert await shell.run(DELETE) == {"status": "deleted", "path": f"{NAME}.gguf"}
    assert await shell.run(LOCAL) == []
    assert (await shell.run(LOAD))["detail"] == "The models folder has no such model."


async def test_no_file_outside_the_models_folder_is_loaded_or_deleted(shell, tmp_path):
    outside = write_tiny_chat_model(tmp_path / "outside.gguf")
    for path in (str(outside), "../../outside.gguf", "/etc/passwd", "..", "a/b.gguf"):
        for line in (LOAD, DELETE):
            refused = await shell.run(line.replace(f"{NAME}.gguf", path))
            assert refused["error"]["code"] == "outside_models_folder", path
            assert str(tmp_path) not in refused["detail"]
    assert outside.exists()


async def test_a_file_that_is_no_model_is_listed_with_the_reason_and_can_be_deleted(shell):
    shell.models.mkdir(parents=True, exist_ok=True)
    (shell.models / f"{NAME}.gguf").write_bytes(b"GGUF and nothing that follows")
    [local] = await shell.run(LOCAL)
    assert local["problem"]
    assert (await shell.run(LOAD))["error"]["code"] == "model_failed"
    assert (await shell.run(DELETE))["status"] == "deleted"
    assert await shell.run(LOCAL) == []
