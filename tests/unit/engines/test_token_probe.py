"""The token probe against the real llama.cpp."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from stellwerk.core.ports import EngineAddress
from stellwerk.engines import launching, probe
from stellwerk.engines.launching import EnginePrograms
from stellwerk.engines.model_files import ModelFiles
from stellwerk.engines.options import EngineDefaults, resolve_options
from stellwerk.engines.process import EngineProcess
from tests.real_engines import DEADLINE, ask, free_ports


async def cached_tokens(address: EngineAddress, prompt: str) -> int:
    body = {"prompt": prompt, "max_tokens": 1, "temperature": 0}
    status, answer = await ask(address, "/v1/completions", body)
    assert status == 200
    return int(answer["usage"]["prompt_tokens_details"]["cached_tokens"])


async def started(folder: Path, model: str, **defaults: Any) -> EngineProcess:
    file = ModelFiles(folder).scan().files[model]
    address = EngineAddress(host="127.0.0.1", port=free_ports(1), key="the key")
    options = resolve_options(file, EngineDefaults(context=1024, **defaults))
    process = await EngineProcess.start(launching.launch(file, options, address, os.environ, EnginePrograms()))
    await process.wait_ready()
    return process


@pytest.mark.parametrize(
    ("parallel", "cache_ram_mib", "prompts"),
    [
        (1, 256, ["b" * 100]),
        (4, 256, ["b" * 100, "c" * 100, "d" * 100, "e" * 100]),
        # Without memory for prompts, it is only the choice of a spare slot that keeps them.
        (3, 0, ["b" * 100, "c" * 100]),
    ],
)
async def test_a_probe_costs_nobody_what_the_engine_remembers(
    tiny_models: Path, parallel: int, cache_ram_mib: int, prompts: list[str]
):
    async with asyncio.timeout(DEADLINE):
        process = await started(tiny_models, "chat", parallel=parallel, cache_ram_mib=cache_ram_mib)
        try:
            for _ in range(2):
                remembered = [await cached_tokens(process.address, prompt) for prompt in prompts]
            assert min(remembered) > 90
            for _ in range(3):
                assert await process.computes(5.0)
            assert [await cached_tokens(process.address, prompt) for prompt in prompts] == remembered
        finally:
            await process.stop(2.0)


async def test_an_embedding_model_proves_itself_by_a_vector(tiny_models: Path):
    async with asyncio.timeout(DEADLINE):
        process = await started(tiny_models, "embedding")
        try:
            assert process.launch.token_probe == probe.embedding_probe("embedding")
            assert await process.computes(5.0)
        finally:
            await process.stop(2.0)
