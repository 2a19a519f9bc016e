"""Requests made from the OpenAPI document, valid and invalid ones, against a running gateway."""

import asyncio
import importlib.util
import subprocess
import sys

import pytest

from tests.gateway_process import environment_for, running_gateway
from tests.raw_http import get

SCHEMATHESIS = (sys.executable, "-m", "schemathesis.cli", "run")
# Numbers of things that are not there, times that are over and names that are taken fit every schema.
UNCHECKED = "positive_data_acceptance"


async def run_schemathesis(gateway, folder, *, examples, seconds):
    document = folder / "openapi.json"
    document.write_bytes((await get(gateway.port, gateway.key, "/openapi.json")).body)
    process = await asyncio.create_subprocess_exec(
        *SCHEMATHESIS,
        str(document),
        f"--url={gateway.url}",
        f"--header=Authorization: Bearer {gateway.key}",
        "--checks=all",
        f"--exclude-checks={UNCHECKED}",
        "--phases=examples,coverage,fuzzing,stateful",
        f"--max-examples={examples}",
        "--generation-deterministic",
        "--continue-on-failure",
        "--request-timeout=60",
        "--suppress-health-check=all",
        "--no-color",
        "--warnings=off",
        env=environment_for(folder),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(seconds):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    return process.returncode, output.decode()


@pytest.mark.parametrize("examples", [3, pytest.param(60, marks=pytest.mark.slow)])
async def test_the_gateway_does_what_its_document_says(tmp_path, examples):
    assert importlib.util.find_spec("schemathesis") is not None
    async with running_gateway(tmp_path / "gateway") as gateway:
        code, report = await run_schemathesis(gateway, tmp_path, examples=examples, seconds=300 + 20 * examples)
        assert code == 0, report[-20_000:]
        assert not gateway.ended
        assert "a handler failed" not in gateway.log
        assert gateway.key not in gateway.log
