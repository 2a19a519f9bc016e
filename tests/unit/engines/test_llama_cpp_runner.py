import base64
import json
import os
import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stellwerk.core.ports import EngineAddress
from stellwerk.engines.launching import EnginePrograms, launch
from stellwerk.engines.model_files import ModelFiles
from stellwerk.engines.model_types import ModelType
from stellwerk.engines.options import EngineDefaults, EngineOverrides, resolve_options
from tests.real_engines import ask, ends, free_ports
from tests.tiny_gguf import write_tiny_chat_model, write_tiny_projector


@contextmanager
def runner(folder: Path, model: str, **said: object) -> Iterator[tuple[subprocess.Popen[bytes], EngineAddress]]:
    address = EngineAddress(host="127.0.0.1", port=free_ports(1), key="the key")
    shelf = ModelFiles(folder).scan()
    options = resolve_options(shelf.files[model], EngineDefaults(), EngineOverrides(**said), shelf.projectors)
    assert options.fault is None
    started = launch(shelf.files[model], options, address, os.environ, EnginePrograms())
    with subprocess.Popen(
        started.command,
        env=dict(started.environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(started.orders)
        process.stdin.flush()
        try:
            yield process, address
        finally:
            process.kill()


def is_ready(process: subprocess.Popen[bytes]) -> bool:
    assert process.stdout is not None
    return b"ready" in process.stdout.readline()


async def test_the_runner_announces_itself_and_says_nothing_else(tiny_models: Path):
    with runner(tiny_models, "chat", context=512) as (process, address):
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == {"ready": f"http://127.0.0.1:{address.port}"}
        status, slots = await ask(address, "/slots")
        assert status == 200
        # All requests share the context; it is not cut into pieces.
        assert [slot["n_ctx"] for slot in slots] == [512] * 4
        process.terminate()
        assert process.stdout.read() == b""
        assert process.wait() == -15


async def test_an_embedding_model_embeds_as_much_as_it_says(tiny_models: Path):
    with runner(tiny_models, "embedding") as (process, address):
        assert process.stdout is not None
        process.stdout.readline()
        status, body = await ask(address, "/v1/embeddings", {"input": ["a " * 500] * 6, "model": "embedding"})
        assert status == 200
        assert [len(row["embedding"]) for row in body["data"]] == [96] * 6


def test_the_runner_ends_when_its_input_ends(tiny_models: Path):
    with runner(tiny_models, "chat") as (process, _):
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        process.stdin.close()
        assert ends(process.pid, 30.0)


def test_the_gateway_never_loads_the_native_code():
    code = "import sys, stellwerk.engines.slots, stellwerk.engines.llama_cpp_runner; print('xllamacpp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b"False\n"


def question(kind: str, part: object) -> dict[str, object]:
    parts = [{"type": kind, kind: part}, {"type": "text", "text": "?"}]
    return {"messages": [{"role": "user", "content": parts}], "max_tokens": 3}


def png() -> str:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"\x80\x10\x20" * 8 for _ in range(8))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
    image = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(image).decode()


def wav() -> str:
    sound = bytes(32_000)
    head = struct.pack("<4sI8sIHHIIHH", b"RIFF", 36 + len(sound), b"WAVEfmt ", 16, 1, 1, 16_000, 32_000, 2, 16)
    return base64.b64encode(head + b"data" + struct.pack("<I", len(sound)) + sound).decode()


async def test_a_model_sees_through_its_projector(tmp_path: Path):
    write_tiny_chat_model(tmp_path / "seer-vision.gguf")
    write_tiny_projector(tmp_path / "mmproj-seer-vision.gguf")
    with runner(tmp_path, "seer-vision") as (process, address):
        assert is_ready(process)
        status, body = await ask(address, "/v1/chat/completions", question("image_url", {"url": png()}))
        # Gemma's projector makes 256 / 16 / 4 squared pieces of an image, and each of them counts as a token.
        assert (status, body["usage"]["prompt_tokens"] >= 16) == (200, True)
        assert (await ask(address, "/v1/chat/completions", question("input_audio", {"data": wav()})))[0] == 500
        assert process.poll() is None


async def test_a_model_hears_through_its_projector(tmp_path: Path):
    write_tiny_chat_model(tmp_path / "ears-omni.gguf")
    write_tiny_projector(tmp_path / "mmproj-ears-omni.gguf", sense="audio")
    with runner(tmp_path, "ears-omni") as (process, address):
        assert is_ready(process)
        sound = {"data": wav(), "format": "wav"}
        assert (await ask(address, "/v1/chat/completions", question("input_audio", sound)))[0] == 200


def test_a_projector_for_another_model_ends_the_runner_with_a_reason(tmp_path: Path):
    write_tiny_chat_model(tmp_path / "seer-vision.gguf")
    write_tiny_projector(tmp_path / "mmproj-seer-vision.gguf", width=32)
    with runner(tmp_path, "seer-vision") as (process, _):
        assert process.stderr is not None
        assert b"mismatch" in process.stderr.read()
        assert process.wait() not in (0, None)


async def test_a_chat_model_embeds_when_it_is_told_to(tiny_models: Path):
    with runner(tiny_models, "chat", type=ModelType.EMBEDDING) as (process, address):
        assert is_ready(process)
        status, body = await ask(address, "/v1/embeddings", {"input": ["a", "b"]})
        assert (status, [len(row["embedding"]) for row in body["data"]]) == (200, [64, 64])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how much memory is locked")
@pytest.mark.skipif(
    -1 < resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] < 1 << 20, reason="nothing may be locked on this machine"
)
async def test_weights_are_locked_and_the_cache_is_small_when_the_operator_wants_it(tmp_path: Path):
    write_tiny_chat_model(tmp_path / "chat.gguf", heads=2)
    with runner(tmp_path, "chat", mlock=True, kv_cache="q8_0", context=512) as (process, address):
        assert is_ready(process)
        talk = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}
        assert (await ask(address, "/v1/chat/completions", talk))[0] == 200
        assert locked_kilobytes(process.pid) > 0


def locked_kilobytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmLck:"))
