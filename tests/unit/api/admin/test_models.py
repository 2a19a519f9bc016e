import pytest

from stellwerk.core.principal import Role
from tests.local_models_site import LocalModelsSite
from tests.small_hub import SmallHub
from tests.tiny_gguf import write_tiny_chat_model, write_tiny_embedding_model, write_tiny_projector

LOCAL, DELETE = "/admin/api/models/local", "/admin/api/models/delete"


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    write_tiny_chat_model(folder / "chat.gguf")
    write_tiny_embedding_model(folder / "embed.gguf")
    write_tiny_projector(folder / "mmproj-a.gguf")
    (folder / "broken.gguf").write_bytes(b"GGUF and then nonsense that is long enough")
    return folder


@pytest.fixture
async def hub():
    hub = SmallHub()
    await hub.start()
    yield hub
    await hub.stop()


@pytest.fixture
async def local(site, models, hub, tmp_path):
    outside = write_tiny_chat_model(tmp_path / "outside.gguf")
    made = LocalModelsSite(site, models, hub.url, {"mine": outside})
    yield made
    await made.stop()


async def test_the_folder_is_listed_by_name_with_type_and_size(site, local, models):
    listed = {model["name"]: model for model in await site.get(LOCAL)}
    assert list(listed) == ["broken", "chat", "embed", "mine", "mmproj-a"]
    assert [listed[name]["detected_type"] for name in listed] == [None, "text", "embedding", "text", "mmproj"]
    chat, size = listed["chat"], (models / "chat.gguf").stat().st_size
    assert (chat["path"], chat["size_bytes"], chat["quantization"]) == ("chat.gguf", size, "F16")
    assert (chat["architecture"], chat["context_length"], chat["loaded"]) == ("llama", 2048, False)
    assert listed["broken"]["problem"]
    assert listed["mmproj-a"]["problem"] is None
    assert str(models) not in str(listed)


async def test_a_loaded_model_shows_its_slot(site, local):
    await site.send("POST", "/admin/api/slots/load", {"model": "chat", "slot": 4802})
    [chat] = [model for model in await site.get(LOCAL) if model["name"] == "chat"]
    assert (chat["loaded"], chat["slot"]) == (True, 4802)


async def test_the_details_hold_the_header_without_the_vocabulary(site, local):
    shown = await site.get("/admin/api/models/chat")
    metadata = {one["key"]: one for one in shown["metadata"]}
    assert metadata["general.architecture"]["value"] == "llama"
    tokens = metadata["tokenizer.ggml.tokens"]
    assert (tokens["type"], tokens["value"], tokens["count"] > 200) == ("array of string", None, True)
    assert (shown["options"]["context"], shown["capabilities"]["text"]) == (2048, True)
    assert await site.refused("GET", "/admin/api/models/nothing") == (404, "model_not_found")


async def test_a_file_that_has_become_another_one_is_said_to_be_unreadable(site, local, models):
    (models / "chat.gguf").write_bytes(b"nonsense")
    assert await site.refused("GET", "/admin/api/models/chat") == (409, "model_unreadable")


async def test_a_model_is_deleted_unless_it_is_loaded(site, local):
    await site.send("POST", "/admin/api/slots/load", {"model": "chat"})
    assert await site.refused("POST", DELETE, {"model_path": "chat.gguf"}) == (409, "model_loaded")
    assert await site.send("POST", DELETE, {"model_path": "embed.gguf"}) == {"status": "deleted", "path": "embed.gguf"}
    assert local.engines.removed == ["embed"]
    assert ("model.delete", "model:embed") in site.audited()


async def test_a_broken_file_can_be_deleted(site, local, models):
    assert (await site.send("POST", DELETE, {"model_path": "broken.gguf"}))["path"] == "broken.gguf"
    assert not (models / "broken.gguf").exists()


@pytest.mark.parametrize("name", ["ggml-odd.bin", "two words.gguf", "part-00001-of-00002.gguf"])
async def test_what_is_listed_as_unusable_is_deleted_by_the_path_that_the_list_shows(site, local, models, name):
    (models / name).write_bytes(b"nothing")
    [path] = [one["path"] for one in await site.get(LOCAL) if one["problem"] and one["name"] != "broken"]
    assert await site.send("POST", DELETE, {"model_path": path}) == {"status": "deleted", "path": path}
    assert not (models / name).exists()
    assert await site.refused("POST", DELETE, {"model_path": path}) == (404, "model_not_found")


async def test_a_projector_is_deleted_unless_a_loaded_model_uses_it(site, local, models):
    body = {"model": "chat", "model_type": "vision", "mmproj_path": "mmproj-a.gguf"}
    await site.send("POST", "/admin/api/slots/load", body)
    slot = next(iter(local.engines.slots.values()))
    local.engines.slots[slot.port] = type(slot)(port=slot.port, state="ready", model="chat", mmproj="mmproj-a.gguf")
    assert await site.refused("POST", DELETE, {"model_path": "mmproj-a.gguf"}) == (409, "model_loaded")
    await site.send("POST", f"/admin/api/slots/{slot.port}/unload")
    await site.send("POST", DELETE, {"model_path": "mmproj-a.gguf"})
    assert not (models / "mmproj-a.gguf").exists()


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside.gguf", "a/chat.gguf", "..", ".", "chat\n.gguf"])
async def test_nothing_outside_the_folder_can_be_named(site, local, path):
    assert await site.refused("POST", DELETE, {"model_path": path}) == (400, "outside_models_folder")
    assert local.engines.removed == []


async def test_a_model_is_pinned_and_let_go(site, local):
    pin = "/admin/api/models/pin"
    assert await site.send("POST", pin, {"model": "chat"}) == {"status": "pinned", "model": "chat"}
    assert (await site.send("POST", pin, {"model": "chat", "pinned": False}))["status"] == "unpinned"
    assert local.engines.pinned == {"chat": False}
    assert await site.refused("POST", pin, {"model": "nothing"}) == (404, "model_not_found")


async def test_a_search_shows_at_most_fifteen_files_of_each_repository(site, local, hub):
    hub.add("someone/many-GGUF", {f"model-{number}.gguf": b"x" for number in range(20)} | {"README.md": b"x"})
    [found] = await site.get("/admin/api/models/search", query="q=many")
    assert (found["repo_id"], len(found["files"]), found["file_count"]) == ("someone/many-GGUF", 15, 20)
    assert (await site.refused("GET", "/admin/api/models/search"))[0] == 400
    assert (await site.refused("GET", "/admin/api/models/search", query="q=x&limit=101"))[0] == 400


async def test_a_hub_that_fails_is_no_success(site, local, hub):
    hub.broken = 418
    status, code = await site.refused("GET", "/admin/api/models/search", query="q=x")
    assert (status, code) == (502, "upstream_error")


async def test_a_viewer_sees_models_and_changes_nothing(site, local):
    viewer = site.make_key(None, Role.VIEWER)
    assert len(await site.get(LOCAL, key=viewer)) == 5
    assert (await site.refused("POST", DELETE, {"model_path": "chat.gguf"}, key=viewer))[0] == 403
    assert (await site.refused("GET", "/admin/api/models/search", query="q=x", key=viewer))[0] == 403
