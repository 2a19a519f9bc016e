"""Seven slots of a real gateway, before and after it is stopped or killed."""

import asyncio
import json
import signal
from pathlib import Path

from stellwerk.engines.slot import SlotStatus
from tests.gateway_process import ADMIN_KEY, GatewayProcess, running_gateway, wait_until
from tests.raw_http import get, hello, post
from tests.real_engines import ends, free_ports
from tests.tiny_gguf import write_tiny_chat_model

NAMES = [f"model-{number}" for number in range(1, 8)]


async def loaded(gateway: GatewayProcess) -> dict[str, tuple[int, int]]:
    """Port and process of each model that is ready."""
    answer = await get(gateway.port, ADMIN_KEY, "/health/details")
    return {slot["model"]: (slot["port"], slot["pid"]) for slot in answer.json["slots"] if slot["state"] == "ready"}


async def all_loaded(gateway: GatewayProcess) -> dict[str, tuple[int, int]]:
    async def complete() -> dict[str, tuple[int, int]] | None:
        found = await loaded(gateway)
        return found if len(found) == len(NAMES) else None

    found: dict[str, tuple[int, int]] = await wait_until(complete, 60.0)
    return found


async def test_seven_models_are_there_again_after_a_stop_and_after_a_kill(tmp_path: Path):
    models = tmp_path / "models"
    models.mkdir()
    for name in NAMES:
        write_tiny_chat_model(models / f"{name}.gguf")
    engines = {"enabled": True, "demo": False, "models_folder": str(models), "context": 512, "threads": 1}
    config = {"engines": {**engines, "first_port": free_ports(7)}}
    async with running_gateway(tmp_path, config) as gateway:
        answers = await asyncio.gather(*(post(gateway.port, ADMIN_KEY, hello(name, max_tokens=2)) for name in NAMES))
        assert [answer.status for answer in answers] == [200] * 7
        before = await all_loaded(gateway)
        await gateway.stop()
        assert all(ends(pid, 0.0) for _, pid in before.values())
    async with running_gateway(tmp_path, config) as gateway:
        again = await all_loaded(gateway)
        assert ports(again) == ports(before)
        gateway.signal(signal.SIGKILL)
        await gateway.wait()
        assert all(ends(pid, 30.0) for _, pid in again.values())
    (models / "model-4.gguf").unlink()
    async with running_gateway(tmp_path, config) as gateway:

        async def six() -> bool:
            return len(await loaded(gateway)) == 6

        await wait_until(six, 60.0)
        expected = {name: port for name, port in ports(before).items() if name != "model-4"}
        assert ports(await loaded(gateway)) == expected
        details = (await get(gateway.port, ADMIN_KEY, "/health/details")).json
        assert details["broken_models"] == {"model-4": "its file is gone since the last start"}
        told = "the model model-4 is not loaded again: its file is gone since the last start"
        await wait_until(lambda: told in gateway.log)
        assert set(details["slots"][0]) == set(SlotStatus.__struct_fields__)
        assert str(models) not in json.dumps(details)


def ports(found: dict[str, tuple[int, int]]) -> dict[str, int]:
    return {name: port for name, (port, _) in found.items()}
