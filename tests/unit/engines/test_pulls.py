"""What Ollama's clients fetch, from a hub and from a registry on real sockets."""

import asyncio
from contextlib import aclosing

import pytest

from stellwerk.core.clock import SystemClock
from stellwerk.core.errors import NotFound
from stellwerk.engines.downloads import Downloads, DownloadSettings, RunSettings, TransferSettings
from stellwerk.engines.hub import Hub
from stellwerk.engines.ollama_registry import OllamaRegistry, is_library_name
from stellwerk.engines.pulls import Pulls
from stellwerk.http.pool import Pools
from stellwerk.http.upstream import UpstreamSettings
from tests.small_hub import Fault, SmallHub
from tests.small_registry import MODEL, SmallRegistry
from tests.tiny_gguf import write_tiny_chat_model

SETTINGS = DownloadSettings(
    run=RunSettings(transfer=TransferSettings(stall_seconds=5, backoff=(0, 0, 0)), reserve_bytes=0)
)


class Watch:
    def connected(self): ...

    def reused(self): ...


class World:
    """A hub, a registry and a models folder."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.hub, self.registry = SmallHub(), SmallRegistry()
        self.pools = Pools(UpstreamSettings(), Watch(), SystemClock())

    async def __aenter__(self):
        await self.hub.start()
        await self.registry.start()
        await self.open()
        return self

    async def open(self):
        hub, registry = Hub(self.hub.url), OllamaRegistry(self.pools, self.registry.url)
        self.downloads = Downloads(self.folder, hub, SystemClock(), settings=SETTINGS, registry=registry)
        self.pulls = Pulls(self.downloads, hub)
        await self.downloads.start()

    async def __aexit__(self, *_):
        await self.downloads.stop()
        await self.hub.stop()
        await self.registry.stop()
        self.pools.close()

    async def pull(self, name):
        download = await self.pulls.begin(name)
        async with asyncio.timeout(30), aclosing(self.pulls.follow(download.id)) as changes:
            return [each async for each in changes][-1]

    async def pull_until(self, name, size):
        """Leaves once so many bytes have come."""
        download = await self.pulls.begin(name)
        async with asyncio.timeout(30), aclosing(self.pulls.follow(download.id)) as changes:
            async for each in changes:
                if each.completed >= size:
                    break
        return download.id

    async def reach(self, download_id, state):
        async with asyncio.timeout(30), aclosing(self.downloads.follow(download_id)) as changes:
            async for each in changes:
                if each.state == state:
                    return


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> bytes:
    return write_tiny_chat_model(tmp_path_factory.mktemp("pulls") / "m.gguf").read_bytes()


@pytest.fixture
async def world(tmp_path):
    async with World(tmp_path / "models") as made:
        yield made


@pytest.mark.parametrize(
    ("name", "is_library"),
    [
        ("llama3", True),
        ("qwen3:0.6b", True),
        ("registry.ollama.ai/library/qwen3", True),
        ("library/qwen3", True),
        ("https://ollama.com/library/qwen3", True),
        ("hf.co/u/r:Q4_K_M", False),
        ("huggingface.co/u/r", False),
        ("u/r", False),
        ("https://huggingface.co/u/r", False),
    ],
)
def test_a_name_says_who_has_the_model(name, is_library):
    assert is_library_name(name) is is_library


async def test_a_model_of_the_library_becomes_a_file(world, model):
    world.registry.add("library/tiny/0.6b", (MODEL, model))
    done = await world.pull("tiny:0.6b")
    assert (done.state, done.model_id) == ("done", "tiny-0.6b")
    assert (world.folder / "tiny-0.6b.gguf").read_bytes() == model
    assert list(world.pulls.candidates("tiny:0.6b")) == ["tiny-0.6b"]
    assert (await world.pull("tiny:0.6b")).id == done.id
    assert len(world.registry.bytes.store.requests) == 1


async def test_a_model_of_the_library_goes_on_where_it_broke_off(world, model):
    world.registry.add("library/tiny/latest", (MODEL, model))
    world.registry.bytes.faults.append(Fault(cut_after=5000))
    assert (await world.pull("tiny")).state == "done"
    ranges = [request.headers.get("range") for request in world.registry.bytes.store.requests]
    assert ranges == [None, "bytes=5000-"]


async def test_what_the_library_does_not_have_is_not_begun(world):
    with pytest.raises(NotFound, match="file does not exist"):
        await world.pulls.begin("nobody")
    assert world.downloads.list() == []


@pytest.mark.parametrize("name", ["hf.co/u/tiny-GGUF:Q4_0", "u/tiny-GGUF"])
async def test_a_model_of_the_hub_is_known_by_the_name_it_was_pulled_by(world, model, name):
    world.hub.add("u/tiny-GGUF", {"tiny-Q4_0.gguf": model})
    assert (await world.pull(name)).state == "done"
    for form in (name, "hf.co/U/Tiny-gguf:q4_0", "huggingface.co/u/tiny-GGUF"):
        assert next(iter(world.pulls.candidates(form))) == "tiny-Q4_0"
    assert list(world.pulls.candidates("hf.co/u/tiny-GGUF:Q8_0")) == ["tiny-Q8_0"]
    assert list(world.pulls.candidates("not/a/name/:x")) == []


async def test_who_leaves_pauses_and_who_comes_back_goes_on_at_the_byte(world, model):
    world.hub.add("u/r", {"m.gguf": model})
    world.hub.faults.append(Fault(stop_after=5000))
    left = await world.pull_until("u/r", 5000)
    await world.reach(left, "paused")
    assert (await world.pull("u/r")).state == "done"
    assert [request.headers.get("range") for request in world.hub.bodies()] == [None, "bytes=5000-"]
    assert (world.folder / "m.gguf").read_bytes() == model


async def test_who_comes_back_at_once_goes_on_too(world, model):
    world.hub.add("u/r", {"m.gguf": model})
    world.hub.faults.append(Fault(stop_after=5000))
    await world.pull_until("u/r", 5000)
    assert (await world.pull("u/r")).state == "done"


async def test_a_new_process_goes_on_with_what_was_left(world, model):
    world.registry.add("library/tiny/latest", (MODEL, model))
    world.registry.bytes.faults.append(Fault(stop_after=5000))
    await world.reach(await world.pull_until("tiny", 5000), "paused")
    await world.downloads.stop()
    await world.open()
    assert (await world.pull("tiny")).state == "done"
    assert world.registry.bytes.store.requests[-1].headers["range"] == "bytes=5000-"


async def test_it_goes_on_while_another_one_watches(world, model):
    world.hub.add("u/r", {"m.gguf": model})
    world.hub.faults.append(Fault(stop_after=5000))
    staying = asyncio.create_task(world.pull("u/r"))
    await world.hub.stopped.wait()
    await world.pull_until("u/r", 1)
    world.hub.go_on.set()
    assert (await staying).state == "done"
    assert len(world.hub.bodies()) == 1


async def test_what_somebody_else_began_goes_on_without_a_watcher(world, model):
    world.hub.add("u/r", {"m.gguf": model})
    world.hub.faults.append(Fault(stop_after=5000))
    begun = await world.downloads.add("u/r")
    await world.hub.stopped.wait()
    assert await world.pull_until("u/r", 1) == begun.id
    world.hub.go_on.set()
    await world.reach(begun.id, "done")
    assert len(world.hub.bodies()) == 1
