import pytest

PATH = "/admin/api/config"


async def test_the_settings_in_force_are_shown_without_secrets(site):
    shown = await site.get(PATH)
    assert shown == {
        "slots": {
            "4801": {"model_path": "demo.gguf", "model_type": "text", "ctx_size": 8192, "threads": 3},
            "4802": None,
        },
        "hf_token": None,
        "admin_key": "sk-…",
        "admin_key_display": "sk-…",
        "default_threads": 3,
        "default_ctx_size": 8192,
        "pricing": {"input_per_1k": 0.0001, "output_per_1k": 0.0002},
        "rate_limits": {"payg": 25, "sub": 100},
        "performance": {"flash_attention": True, "mlock": False, "kv_cache_quantization": "f16", "batch_size": 2048},
        "signup": {"enabled": False},
        "currency": "EUR",
        "changed": [],
    }


async def test_a_setting_goes_before_the_file_until_it_is_taken_back(site):
    body = {"pricing": {"input_per_1k": 0.00025}, "rate_limits": {"payg": 5}, "signup": {"enabled": True}}
    answer = await site.send("PATCH", PATH, body)
    assert answer["status"] == "updated"
    assert answer["config"] == await site.get(PATH)
    assert answer["config"]["pricing"] == {"input_per_1k": 0.00025, "output_per_1k": 0.0002}
    assert answer["config"]["rate_limits"] == {"payg": 5, "sub": 100}
    assert answer["config"]["signup"] == {"enabled": True}
    assert answer["config"]["changed"] == ["pricing.input_per_1k", "rate_limits.payg", "signup.enabled"]
    answer = await site.send("PATCH", PATH, {"pricing": {"input_per_1k": None}})
    assert answer["config"]["pricing"]["input_per_1k"] == 0.0001
    assert site.audited()[:2] == [("settings.change", "settings")] * 2
    [record, *_] = await site.get("/admin/api/audit")
    assert record["details"] == {"pricing.input_per_1k": {"before": "0.00025", "after": None}}


async def test_nothing_is_changed_by_nothing(site):
    before = site.audited()
    await site.send("PATCH", PATH, {})
    await site.send("PATCH", PATH, {"pricing": {}, "signup": {"enabled": None}})
    assert site.audited() == before


@pytest.mark.parametrize("name", ["default_threads", "hf_token", "admin_key", "slots", "nothing"])
async def test_other_settings_are_made_in_the_file(site, name):
    exchange = await site.ask("PATCH", PATH, {name: 1})
    assert (exchange.status, exchange.json["error"]["param"]) == (400, name)
    assert "stellwerk.yaml" in exchange.json["detail"]


@pytest.mark.parametrize(
    "body",
    [
        {"pricing": {"input_per_1k": -1}},
        {"pricing": {"input_per_1k": "1"}},
        {"pricing": {"input_per_1k": 1e-13}},
        {"rate_limits": {"payg": 1.5}},
        {"rate_limits": {"admin": 5}},
        {"signup": {"enabled": 1}},
        {"signup": True},
        [],
    ],
    ids=str,
)
async def test_a_setting_that_cannot_be_is_refused(site, body):
    assert (await site.refused("PATCH", PATH, body))[0] == 400
    assert (await site.get(PATH))["changed"] == []
