import asyncio

import pytest

from stellwerk.core.principal import Role
from tests.local_models_site import LocalModelsSite
from tests.small_hub import Fault, SmallHub
from tests.tiny_gguf import write_tiny_chat_model

DOWNLOAD, DOWNLOADS = "/admin/api/models/download", "/admin/api/models/downloads"
REPOSITORY = "someone/tiny-GGUF"
WANTED = {"repo_id": REPOSITORY, "filename": "tiny-Q4_K_M.gguf"}


@pytest.fixture
async def hub(tmp_path):
    hub = SmallHub()
    data = write_tiny_chat_model(tmp_path / "model.gguf").read_bytes()
    hub.add(REPOSITORY, {"tiny-Q4_K_M.gguf": data})
    hub.add("someone/gated-GGUF", {"gated.gguf": data}, gated=True)
    hub.add("someone/wrong-GGUF", {"wrong.gguf": data}, sums={"wrong.gguf": "0" * 64})
    await hub.start()
    yield hub
    await hub.stop()


@pytest.fixture
async def local(site, tmp_path, hub):
    made = LocalModelsSite(site, tmp_path / "models", hub.url)
    await made.downloads.start()
    yield made
    await made.stop()


async def begin(site, body=WANTED):
    exchange = await site.ask("POST", DOWNLOAD, {**body, "wait": False})
    assert exchange.status == 202, exchange.written
    return exchange.json


async def test_the_documented_body_answers_when_the_model_is_here(site, local, tmp_path):
    async with asyncio.timeout(30):
        done = await site.send("POST", DOWNLOAD, WANTED)
    assert {name: done[name] for name in ("status", "path", "repo", "filename")} == {
        "status": "downloaded",
        "path": "tiny-Q4_K_M.gguf",
        "repo": REPOSITORY,
        "filename": "tiny-Q4_K_M.gguf",
    }
    assert (tmp_path / "models" / "tiny-Q4_K_M.gguf").is_file()
    assert ("model.download", f"repository:{REPOSITORY}") in site.audited()
    [listed] = await site.get(DOWNLOADS)
    assert (listed["id"], listed["status"], listed["percent"]) == (done["id"], "done", 100.0)


async def test_a_model_can_be_named_as_people_name_it(site, local):
    assert (await site.send("POST", DOWNLOAD, {"model": f"hf.co/{REPOSITORY}:Q4_K_M"}))["model"] == "tiny-Q4_K_M"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "invalid_value"),
        ({"filename": "x.gguf"}, 400, "invalid_value"),
        ({"repo_id": "nonsense"}, 400, "invalid_value"),
        ({"model": REPOSITORY, "repo_id": REPOSITORY}, 400, "invalid_value"),
        ({"model": REPOSITORY, "filename": "x.gguf"}, 400, "invalid_value"),
        ({"repo_id": REPOSITORY, "filename": "../x.gguf"}, 400, "invalid_value"),
        ({"repo_id": REPOSITORY, "filename": "x.gguf"}, 404, "not_found"),
        ({"repo_id": "someone/gated-GGUF", "filename": "gated.gguf"}, 403, "model_gated"),
        ({"repo_id": "someone/wrong-GGUF", "filename": "wrong.gguf"}, 502, "download_failed"),
    ],
)
async def test_what_cannot_be_fetched_is_a_proper_error(site, local, body, status, code):
    async with asyncio.timeout(30):
        assert await site.refused("POST", DOWNLOAD, body) == (status, code)


async def test_a_full_disk_is_no_fault_of_the_hub(site, local):
    local.room = 1000
    async with asyncio.timeout(30):
        assert await site.refused("POST", DOWNLOAD, WANTED) == (503, "disk_full")
        local.room = 1 << 40
        assert (await site.send("POST", DOWNLOAD, WANTED))["status"] == "downloaded"


async def test_who_does_not_wait_follows_the_events_to_the_end(site, local, hub):
    hub.faults.append(Fault(stop_after=1000))
    begun = await begin(site)
    assert begun["events_url"] == f"{DOWNLOADS}/{begun['id']}/events"
    following = asyncio.ensure_future(site.ask("GET", begun["events_url"]))
    async with asyncio.timeout(30):
        await hub.stopped.wait()
        hub.go_on.set()
        exchange = await following
    assert exchange.header("content-type") == "text/event-stream"
    states = exchange.events
    assert states[-1]["status"] == "done"
    assert [state["completed"] for state in states] == sorted(state["completed"] for state in states)


async def test_a_download_is_paused_resumed_and_cancelled(site, local, hub):
    hub.always = Fault(stop_after=1000)
    waiting = asyncio.ensure_future(site.ask("POST", DOWNLOAD, WANTED))
    async with asyncio.timeout(30):
        await hub.stopped.wait()
        [begun] = await site.get(DOWNLOADS)
        one = f"{DOWNLOADS}/{begun['id']}"
        assert (await site.send("POST", f"{one}/pause"))["status"] == "paused"
        answer = await waiting
        assert (answer.status, answer.json["status"]) == (202, "paused")
        assert (await site.send("POST", f"{one}/resume"))["status"] in {"queued", "running"}
        cancelled = await site.send("POST", f"{one}/cancel")
    assert (cancelled["status"], cancelled["completed"]) == ("cancelled", 0)
    assert (await site.get(one))["status"] == "cancelled"
    actions = {action for action, _ in site.audited()}
    assert actions >= {"download.pause", "download.resume", "download.cancel"}


async def test_the_events_of_a_gateway_that_stops_end(site, local, hub):
    hub.always = Fault(stop_after=1000)
    begun = await begin(site)
    local.stopping = True
    async with asyncio.timeout(30):
        await site.ask("GET", begun["events_url"])


async def test_unknown_downloads_are_not_found(site, local):
    for path in (f"{DOWNLOADS}/{'0' * 16}", f"{DOWNLOADS}/{'0' * 16}/events", f"{DOWNLOADS}/x"):
        assert (await site.refused("GET", path))[0] == 404
    for verb in ("pause", "resume", "cancel"):
        assert (await site.refused("POST", f"{DOWNLOADS}/{'0' * 16}/{verb}"))[0] == 404


async def test_a_viewer_watches_and_steers_nothing(site, local, hub):
    hub.always = Fault(stop_after=1000)
    begun = await begin(site)
    viewer = site.make_key(None, Role.VIEWER)
    assert (await site.get(f"{DOWNLOADS}/{begun['id']}", key=viewer))["model"] == "tiny-Q4_K_M"
    assert (await site.refused("POST", f"{DOWNLOADS}/{begun['id']}/cancel", key=viewer))[0] == 403
    assert (await site.refused("POST", DOWNLOAD, WANTED, key=viewer))[0] == 403
