import asyncio

import pytest

from stellwerk.core.principal import Role
from stellwerk.engines.crashes import Crash, add_crash
from stellwerk.engines.model_types import ModelType
from stellwerk.engines.options import EngineOverrides
from tests.local_models_site import LocalModelsSite, said
from tests.tiny_gguf import write_tiny_chat_model, write_tiny_projector

LOAD = "/admin/api/slots/load"


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    write_tiny_chat_model(folder / "chat.gguf")
    write_tiny_projector(folder / "eyes-mmproj-f16.gguf")
    return folder


@pytest.fixture
async def local(site, models):
    made = LocalModelsSite(site, models, "http://127.0.0.1:9")
    yield made
    await made.stop()


async def test_the_documented_body_loads_a_model_and_tells_where(site, local):
    body = {"slot": 4802, "model_path": "chat.gguf", "model_type": "text"}
    assert await site.send("POST", LOAD, body) == {
        "status": "loaded", "slot": 4802, "model": "chat", "model_type": "text", "pid": 4711, "notes": [],
    }  # fmt: skip
    [(model, port, overrides)] = local.engines.asked
    assert (model, port, said(overrides)) == ("chat", 4802, {"type": ModelType.TEXT})
    assert ("slot.load", "slot:4802") in site.audited()


async def test_without_any_setting_what_was_remembered_of_the_model_counts(site, local):
    await site.send("POST", LOAD, {"model": "chat"})
    assert local.engines.asked == [("chat", None, None)]


async def test_an_empty_projector_takes_back_the_one_that_was_named(site, local):
    await site.send("POST", LOAD, {"model": "chat", "mmproj_path": ""})
    assert local.engines.asked == [("chat", None, EngineOverrides())]


async def test_every_setting_reaches_the_engine(site, local, models):
    settings = {
        "ctx_size": 512, "threads": 2, "parallel": 1, "batch": 64, "gpu_layers": 0, "flash_attention": "off",
        "kv_cache": "q8_0", "mlock": False, "idle_seconds": 60, "pinned": True,
    }  # fmt: skip
    await site.send("POST", LOAD, {"model": "chat", "mmproj_path": "eyes-mmproj-f16.gguf", **settings})
    [(_, _, overrides)] = local.engines.asked
    expected = {("context" if name == "ctx_size" else name): value for name, value in settings.items()}
    assert said(overrides) == {**expected, "mmproj": models / "eyes-mmproj-f16.gguf"}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "invalid_value"),
        ({"model": "chat", "model_path": "chat.gguf"}, 400, "invalid_value"),
        ({"model_path": "nothing.gguf"}, 404, "model_not_found"),
        ({"model_path": "/etc/passwd"}, 400, "outside_models_folder"),
        ({"model_path": "../chat.gguf"}, 400, "outside_models_folder"),
        ({"model": "chat", "mmproj_path": "/etc/passwd"}, 400, "invalid_value"),
        ({"model": "chat", "command": ["sh"]}, 400, "unknown_parameter"),
        ({"model": "chat", "model_type": "mmproj"}, 400, "invalid_value"),
    ],
)
async def test_a_load_that_makes_no_sense_never_reaches_the_engines(site, local, body, status, code):
    assert await site.refused("POST", LOAD, body) == (status, code)
    assert local.engines.asked == []


async def test_a_file_may_be_named_by_its_whole_path_in_the_models_folder(site, local, models):
    assert (await site.send("POST", LOAD, {"model_path": str(models / "chat.gguf")}))["model"] == "chat"


async def test_a_file_that_was_just_put_there_is_found(site, local, models):
    write_tiny_chat_model(models / "fresh.gguf")
    assert (await site.send("POST", LOAD, {"model_path": "fresh.gguf"}))["model"] == "fresh"


async def test_why_a_load_failed_is_told(site, local):
    local.out_of_memory()
    assert await site.refused("POST", LOAD, {"model": "chat"}) == (503, "memory_short")


@pytest.mark.parametrize(
    "how", [{"body": {"wait": False}}, {"headers": ((b"prefer", b"handling=lenient, respond-async"),)}]
)
async def test_who_does_not_wait_can_ask_how_far_it_is(site, local, how):
    local.engines.go_on.clear()
    body = {"model": "chat", "slot": 4801, **how.pop("body", {})}
    exchange = await site.ask("POST", LOAD, body, **how)
    assert exchange.status == 202
    begun = exchange.json
    assert (begun["status"], begun["slot"], begun["model"]) == ("loading", 4801, "chat")
    assert exchange.header("location") == begun["status_url"]
    local.engines.go_on.set()
    await local.loads.get(begun["id"]).task
    done = await site.get(begun["status_url"])
    assert (done["status"], done["pid"], done["error"]) == ("loaded", 4711, None)
    assert done["ended_at"]


async def test_a_load_that_fails_later_says_so_where_it_is_asked_after(site, local):
    local.engines.go_on.clear()
    begun = (await site.ask("POST", LOAD, {"model": "chat", "wait": False})).json
    local.out_of_memory()
    local.engines.go_on.set()
    await asyncio.wait({local.loads.get(begun["id"]).task})
    done = await site.get(begun["status_url"])
    assert (done["status"], done["code"]) == ("failed", "memory_short")


async def test_a_load_outlives_the_wait_for_it(site, models):
    local = LocalModelsSite(site, models, "http://127.0.0.1:9", wait_seconds=0.01)
    local.engines.go_on.clear()
    exchange = await site.ask("POST", LOAD, {"model": "chat"})
    assert (exchange.status, exchange.json["status"]) == (202, "loading")
    await local.stop()
    assert (await site.get(exchange.json["status_url"]))["status"] == "failed"


async def test_a_gateway_that_stops_lets_nobody_wait(site, local):
    local.engines.go_on.clear()
    local.stopping = True
    assert (await site.ask("POST", LOAD, {"model": "chat"})).status == 202


async def test_slots_are_listed_by_port_with_what_runs_in_them(site, local):
    await site.send("POST", LOAD, {"model": "chat", "slot": 4801})
    local.crash_slot(4802, "gone")
    first, second = await site.get("/admin/api/slots")
    documented = ("port", "status", "model_name", "model_type", "ram_mb", "model_path", "pid", "cpu_percent")
    assert [first[name] for name in documented] == [
        4801, "running", "chat", "text", 34.6, "chat.gguf", 4711, 12.5,
    ]  # fmt: skip
    assert first["capabilities"] == {"text": True, "vision": False, "audio": False, "embedding": False, "tts": False}
    assert (second["status"], second["model_path"], second["error"]) == ("crashed", None, "it ended")


async def test_unloading_an_empty_slot_is_no_error(site, local):
    await site.send("POST", LOAD, {"model": "chat", "slot": 4801})
    path = "/admin/api/slots/4801/unload"
    assert await site.send("POST", path) == {"status": "unloaded", "slot": 4801}
    assert await site.send("POST", path) == {"status": "not_loaded", "slot": 4801}
    for wrong in ("4899", "0", "first"):
        assert (await site.refused("POST", f"/admin/api/slots/{wrong}/unload"))[0] == 404


async def test_unloading_can_cut_off_what_runs(site, local):
    await site.send("POST", LOAD, {"model": "chat", "slot": 4801})
    await site.send("POST", "/admin/api/slots/4801/unload", query="graceful=false")
    await site.send("POST", "/admin/api/slots/4801/unload", query="graceful=true")
    assert local.engines.patience == [0.0, 30.0]
    assert (await site.refused("POST", "/admin/api/slots/4801/unload", query="graceful=perhaps"))[0] == 400


async def test_the_system_shows_machine_slots_and_the_line(site, local):
    await site.send("POST", LOAD, {"model": "chat"})
    local.wait_in_line("next")
    shown = await site.get("/admin/api/system")
    assert shown["cpu"] == {"percent_per_core": [10.0, 20.0], "total_percent": 15.0, "cores": 2}
    assert shown["memory"] == {"total_gb": 4.0, "available_gb": 3.0, "used_gb": 1.0, "percent": 25.0}
    assert shown["models"] == {"capacity_mb": 1000.0, "reserved_mb": 34.6, "available_mb": None}
    assert shown["slots"][0]["ram_percent"] == 0.8
    assert [(one["model"], one["place"], one["requests"]) for one in shown["waiting"]] == [("next", 1, 2)]


async def test_crashes_are_for_administrators(site, local):
    crash = Crash(at=1_700_000_000.0, model="chat", engine="xllamacpp", reason="it ended", uptime=1.5, had_served=True)
    site.write(lambda connection: add_crash(connection, crash))
    [shown] = await site.get("/admin/api/crashes")
    assert (shown["model"], shown["at"], shown["memory_mb"]) == ("chat", "2023-11-14T22:13:20.000Z", None)
    assert await site.get("/admin/api/crashes", query="model=other") == []
    viewer = site.make_key(None, Role.VIEWER)
    assert (await site.refused("GET", "/admin/api/crashes", key=viewer))[0] == 403
    assert len(await site.get("/admin/api/slots", key=viewer)) == 2


async def test_a_gateway_without_models_of_its_own_refuses_to_load_one(site, models):
    local = LocalModelsSite(site, models, "http://127.0.0.1:9", enabled=False)
    assert await site.refused("POST", LOAD, {"model": "chat"}) == (409, "engines_disabled")
    assert local.engines.asked == []
