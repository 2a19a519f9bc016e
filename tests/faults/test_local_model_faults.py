"""Downloads of a running gateway while the hub, the disk or the gateway itself fails."""

import hashlib
import os
import random
import signal
import subprocess

import pytest

from tests.gateway_process import GatewayProcess, running_gateway, wait_until
from tests.raw_http import get, hello, post
from tests.real_engines import free_ports
from tests.small_hub import Fault, SmallHub
from tests.tiny_gguf import write_tiny_chat_model

REPOSITORY = "someone/tiny-GGUF"
FILE = "tiny-Q4_K_M.gguf"
MODEL = "tiny-Q4_K_M"
DOWNLOADS = "/admin/api/models/downloads"
SPARE = 512 << 20
"""Bytes that downloads leave free on the disk."""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> bytes:
    return write_tiny_chat_model(tmp_path_factory.mktemp("hub") / "m.gguf").read_bytes()


@pytest.fixture
async def hub(model):
    hub = SmallHub()
    hub.add(REPOSITORY, {FILE: model})
    await hub.start()
    yield hub
    await hub.stop()


@pytest.fixture
def small_disk(tmp_path, model):
    """A disk with room for what downloads leave free and one model."""
    folder = tmp_path / "disk"
    folder.mkdir()
    size = SPARE + 2 * len(model)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def with_hub(hub: SmallHub, **more) -> dict:
    engines = {"enabled": True, "demo": False, "slots": 1, "threads": 1, "context": 512, "first_port": free_ports(1)}
    return {"engines": engines | more, "hub": {"endpoint": hub.url}}


async def begin(gateway: GatewayProcess) -> str:
    """The id of a download that runs in the background."""
    body = {"repo_id": REPOSITORY, "filename": FILE, "wait": False}
    answer = await post(gateway.port, gateway.key, body, "/admin/api/models/download")
    assert answer.status == 202, answer.body
    return answer.json["id"]


async def ended(gateway: GatewayProcess, download: str) -> dict:
    async def final() -> dict | None:
        shown = (await get(gateway.port, gateway.key, f"{DOWNLOADS}/{download}")).json
        return shown if shown["status"] in {"done", "failed", "cancelled"} else None

    return await wait_until(final)


async def serves(gateway: GatewayProcess) -> bool:
    return (await post(gateway.port, gateway.key, hello(MODEL, max_tokens=2))).status == 200


async def is_well(gateway: GatewayProcess) -> bool:
    return (await get(gateway.port, None, "/health/readiness")).status == 200


async def test_a_download_that_is_cut_again_and_again_ends_whole(hub, model, tmp_path):
    places = sorted(random.Random(4).sample(range(1, len(model)), 3))
    hub.faults.extend(Fault(cut_after=to - at) for at, to in zip([0, *places], places, strict=False))
    async with running_gateway(tmp_path, with_hub(hub)) as gateway:
        shown = await ended(gateway, await begin(gateway))
        assert (shown["status"], shown["completed"]) == ("done", len(model))
        assert (gateway.data / "models" / FILE).read_bytes() == model
        assert [one.headers.get("range") for one in hub.bodies()] == [None, *(f"bytes={at}-" for at in places)]
        assert await serves(gateway)


async def test_a_gateway_that_is_killed_while_it_downloads_goes_on_when_it_is_back(hub, model, tmp_path):
    half = len(model) // 2
    hub.faults.append(Fault(stop_after=half))
    async with running_gateway(tmp_path, with_hub(hub)) as gateway:
        download = await begin(gateway)
        part = gateway.data / "models" / f"{FILE}.part"
        await wait_until(lambda: part.exists() and part.stat().st_size >= half)
        gateway.signal(signal.SIGKILL)
        await gateway.wait()
        hub.go_on.set()
    assert not (gateway.data / "models" / FILE).exists()
    async with running_gateway(tmp_path, with_hub(hub)) as gateway:
        assert (await ended(gateway, download))["status"] == "done"
        assert hub.bodies()[-1].headers["range"] == f"bytes={half}-"
        assert await serves(gateway)


async def test_a_model_with_the_wrong_checksum_is_not_let_in(hub, model, tmp_path):
    hub.repositories[REPOSITORY].sums[FILE] = hashlib.sha256(b"other").hexdigest()
    async with running_gateway(tmp_path, with_hub(hub)) as gateway:
        shown = await ended(gateway, await begin(gateway))
        assert (shown["status"], "checksum" in shown["error"]) == ("failed", True)
        assert list((gateway.data / "models").glob("*.gguf*")) == []
        answer = await post(gateway.port, gateway.key, hello(MODEL))
        assert (answer.status, answer.error["code"]) == (404, "model_not_found")
        assert await is_well(gateway)


async def test_a_disk_without_room_refuses_a_download_before_it_begins(hub, small_disk, model, tmp_path):
    fill(small_disk, 2 * len(model))
    async with running_gateway(tmp_path, with_hub(hub, models_folder=str(small_disk))) as gateway:
        shown = await ended(gateway, await begin(gateway))
        assert (shown["status"], "GB left" in shown["error"]) == ("failed", True)
        assert hub.bodies() == []


async def test_a_disk_that_becomes_full_stops_the_download_only_and_keeps_what_came(hub, small_disk, model, tmp_path):
    half = len(model) // 2
    hub.faults.append(Fault(stop_after=half))
    async with running_gateway(tmp_path, with_hub(hub, models_folder=str(small_disk))) as gateway:
        download = await begin(gateway)
        part = small_disk / f"{FILE}.part"
        await wait_until(lambda: part.exists() and part.stat().st_size >= half)
        free = os.statvfs(small_disk)
        filling = fill(small_disk, free.f_bavail * free.f_bsize)
        hub.go_on.set()
        shown = await ended(gateway, download)
        assert (shown["status"], "full" in shown["error"]) == ("failed", True)
        assert str(small_disk) not in shown["error"]
        assert part.stat().st_size >= half
        assert await is_well(gateway)
        filling.unlink()
        answer = await post(gateway.port, gateway.key, {}, f"{DOWNLOADS}/{download}/resume")
        assert answer.status == 200, answer.body
        assert (await ended(gateway, download))["status"] == "done"
        assert (small_disk / FILE).read_bytes() == model
        assert await serves(gateway)


def fill(disk, size: int):
    filling = disk / "filling"
    with filling.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
    return filling
