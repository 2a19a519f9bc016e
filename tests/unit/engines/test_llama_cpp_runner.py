import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stellwerk.core.ports import EngineAddress
from stellwerk.engines import llama_cpp
from stellwerk.engines.llama_cpp import LlamaCppSettings
from stellwerk.engines.model_files import ModelFiles
from tests.real_engines import ask, ends, free_ports


@contextmanager
def runner(
    folder: Path, model: str, settings: LlamaCppSettings
) -> Iterator[tuple[subprocess.Popen[bytes], EngineAddress]]:
    address = EngineAddress(host="127.0.0.1", port=free_ports(1), key="the key")
    launch = llama_cpp.launch(ModelFiles(folder).scan().files[model], address, settings, os.environ)
    with subprocess.Popen(
        launch.command,
        env=dict(launch.environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(launch.orders)
        process.stdin.flush()
        try:
            yield process, address
        finally:
            process.kill()


async def test_the_runner_announces_itself_and_says_nothing_else(tiny_models: Path):
    with runner(tiny_models, "chat", LlamaCppSettings(context_length=512)) as (process, address):
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
    with runner(tiny_models, "embedding", LlamaCppSettings()) as (process, address):
        assert process.stdout is not None
        process.stdout.readline()
        status, body = await ask(address, "/v1/embeddings", {"input": ["a " * 500] * 6, "model": "embedding"})
        assert status == 200
        assert [len(row["embedding"]) for row in body["data"]] == [96] * 6


def test_the_runner_ends_when_its_input_ends(tiny_models: Path):
    with runner(tiny_models, "chat", LlamaCppSettings()) as (process, _):
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        process.stdin.close()
        assert ends(process.pid, 5.0)


def test_the_gateway_never_loads_the_native_code():
    code = "import sys, stellwerk.engines.slots, stellwerk.engines.llama_cpp_runner; print('xllamacpp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b"False\n"
