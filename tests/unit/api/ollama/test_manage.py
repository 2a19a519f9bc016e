import pytest

from stellwerk.core.errors import NotFound
from stellwerk.engines.slot import SlotStatus


async def delete(site, name, *, key=b"admin"):
    return await site.ask("/api/delete", {"model": name}, method="DELETE", key=key)


async def copy(site, source, destination, *, key=b"admin"):
    return await site.ask("/api/copy", {"source": source, "destination": destination}, key=key)


async def test_a_file_of_ours_is_deleted(site):
    exchange = await delete(site, "tiny:latest")
    assert (exchange.status, exchange.written) == (200, b"")
    assert site.engines.done == [("remove", "tiny")]
    exchange = await site.ask("/api/delete", {"name": "tiny"}, method="DELETE", key=b"admin")
    assert exchange.status == 200


async def test_a_file_that_cannot_be_loaded_is_deleted_too(site):
    site.engines.files.add("broken")
    assert (await delete(site, "broken")).status == 200
    assert site.engines.done == [("remove", "broken")]


async def test_a_loaded_model_is_unloaded_first(site):
    site.engines.slots = [SlotStatus(port=1, state="ready", model="tiny")]
    assert (await delete(site, "tiny")).status == 200
    assert site.engines.done == [("unload", "tiny"), ("remove", "tiny")]


async def test_a_model_that_answers_is_not_deleted(site):
    site.engines.slots = [SlotStatus(port=1, state="ready", model="tiny", leases=1)]
    exchange = await delete(site, "tiny")
    assert exchange.status == 409
    assert "answering" in exchange.json["error"]
    assert site.engines.done == []


@pytest.mark.parametrize("name", ["nobody", "tin", "house/unlisted"])
async def test_what_is_not_there_is_not_found(site, name):
    for exchange in (await delete(site, name), await copy(site, name, "new")):
        assert (exchange.status, exchange.json) == (404, {"error": f"model '{name}' not found"})
    assert (site.engines.done, site.remote.asked) == ([], [])


async def test_what_is_a_vendors_stays(site):
    for exchange in (await delete(site, "house/up"), await copy(site, "house/up", "new")):
        assert exchange.status == 400
        assert "a provider's" in exchange.json["error"]


async def test_a_name_of_the_configuration_is_no_model(site):
    exchange = await delete(site, "fast")
    assert (exchange.status, site.engines.done) == (400, [])


async def test_an_ollama_deletes_its_own(site):
    assert (await delete(site, "qwen3")).status == 200
    assert (await delete(site, "ollama/hidden")).status == 200
    assert site.remote.asked == [
        ("DELETE", "/api/delete", {"model": "qwen3:latest"}),
        ("DELETE", "/api/delete", {"model": "hidden"}),
    ]
    assert site.refreshed == ["ollama", "ollama"]
    site.remote.refusal = NotFound("model 'hidden' not found")
    assert (await delete(site, "ollama/hidden")).status == 404
    assert len(site.refreshed) == 2


@pytest.mark.parametrize(
    ("destination", "name"), [("new", "new"), ("new:latest", "new"), ("new:7b", "new-7b"), ("Mine.2_x", "Mine.2_x")]
)
async def test_a_copy_is_another_name_of_the_file(site, destination, name):
    exchange = await copy(site, "tiny", destination)
    assert (exchange.status, exchange.written) == (200, b"")
    assert site.engines.done == [("copy", "tiny", name)]


@pytest.mark.parametrize("destination", ["../x", "a/b", ".x", "x y", "a:b:c/d", "x" * 200, ":latest"])
async def test_a_name_that_no_file_can_have_is_refused(site, destination):
    exchange = await copy(site, "tiny", destination)
    assert (exchange.status, site.engines.done) == (400, [])
    assert len(exchange.json["error"]) < 300


async def test_an_ollama_copies_its_own(site):
    for destination in ("mine", "ollama/mine"):
        assert (await copy(site, "gemma3:4b", destination)).status == 200
        assert site.remote.asked.pop() == ("POST", "/api/copy", {"source": "gemma3:4b", "destination": "mine"})


async def test_a_copy_needs_both_names(site):
    for body in ({"source": "tiny"}, {"destination": "x"}, {}):
        assert (await site.ask("/api/copy", body, method="POST", key=b"admin")).status == 400


@pytest.mark.parametrize("key", [b"alice", b"bob", b"viewer"])
async def test_only_admins_change_what_there_is(site, key):
    for exchange in (await delete(site, "tiny", key=key), await copy(site, "tiny", "new", key=key)):
        assert (exchange.status, list(exchange.json)) == (403, ["error"])
    assert (site.engines.done, site.remote.asked) == ([], [])


async def test_a_gateway_without_models_of_its_own_has_none_to_delete(site_without_engines):
    site = site_without_engines
    assert (await delete(site, "tiny")).status == 404
    assert (await copy(site, "tiny", "new")).status == 404
    assert (await site.ask("/api/ps")).json == {"models": []}
    assert (await site.ask("/api/generate", {"model": "tiny"})).json["done_reason"] == "load"


@pytest.mark.parametrize("name", ["tiny", "broken", "ollama/hidden", "qwen3"])
async def test_a_key_for_certain_models_changes_no_others(site, name):
    site.engines.files.add("broken")
    for exchange in (await delete(site, name, key=b"ann"), await copy(site, name, "new", key=b"ann")):
        assert exchange.status == 404
    assert (await site.ask("/api/pull", {"model": name}, key=b"ann")).status == 403
    assert (site.engines.done, site.remote.asked, site.source.begun) == ([], [], [])
