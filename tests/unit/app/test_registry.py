import asyncio
import logging

import msgspec
import pytest

from stellwerk.app.registry import RegistryFile, place
from stellwerk.app.upstreams import plan_upstreams
from stellwerk.config.settings import Config, Discovery, Provider
from stellwerk.core.call import Operation
from stellwerk.core.plan import Price
from stellwerk.core.secrets import Secret
from stellwerk.http.fetch import Fetch
from stellwerk.http.pool import parse_base_url
from stellwerk.providers.ollama import Ollama
from stellwerk.providers.openai_compatible import OpenAICompatible
from stellwerk.providers.registry import builtin_models, read_registry
from stellwerk.providers.vendors import load_vendors
from stellwerk.routing import discovery as routing
from stellwerk.routing.catalogue import Catalogue
from tests.port_fakes import StillClock, make_call

VENDORS = load_vendors()
BUILTIN = builtin_models()
NEARBY = Config(discovery=Discovery(ollama=False))
KEYS = {"MAMMOUTH_API_KEY": "sk-m", "MOONSHOT_API_KEY": "sk-k", "ZAI_API_KEY": "sk-z"}
OWN = "https://llm.example.org:8443/v1"


def placed(environ, *, rows=BUILTIN, config=NEARBY, own_urls=()):
    upstreams = plan_upstreams(config, VENDORS, environ, own_urls)
    return place(rows, upstreams, configured=config.providers, vendors=VENDORS, environ=environ, own_urls=own_urls)


def table(*rows):
    registry = read_registry("\n".join(rows))
    assert registry.warnings == ()
    return registry.models


def row(name, base_url=OWN, variable="MY_KEY", end="chat/completions", shortcode=""):
    return f"{name};{shortcode};{base_url}/{end};{variable};8000;1000;1;2;0;1"


def shortcodes(placement):
    return {name: {model.shortcode for model in models} for name, models in placement.models.items()}


def test_every_row_becomes_a_model_of_its_vendor():
    placement = placed(KEYS)
    assert {name: len(models) for name, models in placement.models.items()} == {"mammouth": 52, "moonshot": 6, "zai": 3}
    assert placement.upstreams == plan_upstreams(NEARBY, VENDORS, KEYS)
    models = {model.shortcode: model for models in placement.models.values() for model in models}
    haiku, kimi = models["claude-h"], models["kimi"]
    assert (haiku.provider, haiku.name, haiku.id) == (
        "mammouth",
        "claude-3-5-haiku-20241022",
        "mammouth/claude-3-5-haiku-20241022",
    )
    assert (haiku.context_length, haiku.max_output_tokens, haiku.temperature) == (200_000, 8192, (0.0, 1.0))
    assert haiku.operations == {Operation.CHAT, Operation.COMPLETION}
    assert (haiku.completion_tokens, models["gpt5m"].completion_tokens) == (False, True)
    assert (kimi.provider, kimi.name) == ("moonshot", "kimi-k2.5")
    assert (models["embedding-small"].operations, models["embedding-small"].max_output_tokens) == (
        {Operation.EMBEDDING, Operation.RERANK},
        None,
    )
    assert placement.row("mammouth", haiku.name).shortcode == "claude-h"


def test_prices_are_those_of_the_table_in_dollars_whatever_the_case_of_the_name():
    placement = placed(KEYS)
    assert placement.price("mammouth", "GPT-4.1") == Price(input=2_000_000, output=8_000_000, currency="USD")
    assert placement.price("zai", "glm-4.6") == Price(input=600_000, output=2_200_000)
    assert placement.price("openai", "gpt-4.1") is None


def test_models_of_a_vendor_without_a_key_are_not_offered_and_the_variable_is_named(caplog):
    with caplog.at_level(logging.INFO):
        placement = placed({"MOONSHOT_API_KEY": "sk-k"})
    assert placement.models.keys() == {"moonshot"}
    assert [message.rpartition(": ")[2] for message in caplog.messages] == [
        "MAMMOUTH_API_KEY is not set",
        "ZAI_API_KEY is not set",
    ]


def test_numbered_keys_count_as_keys():
    assert placed({"MAMMOUTH_API_KEY_1": "sk-b"}).models.keys() == {"mammouth"}


def test_a_configured_provider_stands_for_its_vendor_wherever_it_is():
    mine = Provider(vendor="mammouth", base_url="http://127.0.0.1:9/v1", api_key=Secret("sk-m"))
    placement = placed({}, config=msgspec.structs.replace(NEARBY, providers={"mine": mine}))
    assert placement.models.keys() == {"mine"}
    assert placement.models["mine"][0].id.startswith("mine/")
    assert placement.upstreams.keys() == {"mine"}


def test_a_configured_list_of_models_is_not_widened():
    mammouth = Provider(api_key=Secret("sk-m"), models=("gpt-4.1", "something"))
    placement = placed({}, config=msgspec.structs.replace(NEARBY, providers={"mammouth": mammouth}))
    assert shortcodes(placement) == {"mammouth": {"gpt41"}}


def test_an_unknown_endpoint_becomes_a_provider_with_the_key_that_its_row_names():
    rows = table(row("a"), row("b", end="embeddings", shortcode="bee"), row("c", "http://[::1]:8000", ""))
    placement = placed({"MY_KEY": " sk-own\n", "MY_KEY_0": "sk-other"}, rows=rows)
    assert shortcodes(placement) == {"llm-example-org-8443": {"a", "bee"}, "1-8000": {"c"}}
    own, near = placement.upstreams["llm-example-org-8443"], placement.upstreams["1-8000"]
    assert (own.settings.base_url, own.settings.keys) == (OWN, (Secret("sk-own"), Secret("sk-other")))
    assert (own.settings.embeddings, own.settings.completions, own.settings.lists_models) == (True, False, False)
    assert (near.settings.base_url, near.settings.keys, near.settings.embeddings) == ("http://[::1]:8000", (), False)
    assert not own.any_model


def test_another_key_or_path_at_a_vendors_address_is_a_provider_of_its_own():
    mammouth = "https://api.mammouth.ai/v1"
    rows = table(
        row("a", mammouth, "MY_KEY"),
        row("b", "https://API.mammouth.ai/v1/", "MAMMOUTH_API_KEY").replace("//chat", "/chat"),
    )
    placement = placed(
        KEYS | {"MY_KEY": "sk-own"}, rows=[*rows, *table(row("c", "https://api.mammouth.ai/v2", "MY_KEY"))]
    )
    assert shortcodes(placement) == {"api-mammouth-ai": {"a"}, "mammouth": {"b"}, "api-mammouth-ai-2": {"c"}}


def test_an_endpoint_without_a_key_may_be_that_of_a_configured_provider():
    mine = Provider(base_url=OWN)
    placement = placed(
        {}, rows=table(row("a", variable="")), config=msgspec.structs.replace(NEARBY, providers={"mine": mine})
    )
    assert placement.models["mine"][0].shortcode == "a"
    assert placement.upstreams.keys() == {"mine"}


@pytest.mark.parametrize(
    ("environ", "own_urls", "reason"),
    [
        ({}, (), "MY_KEY is not set"),
        ({"MY_KEY": "sk-canary…"}, (), "a key of it holds blanks"),
        ({"MY_KEY": "sk-canary"}, (OWN,), "it is the gateway itself"),
    ],
)
def test_an_endpoint_that_cannot_be_used_is_left_out_and_its_key_is_not_repeated(caplog, environ, own_urls, reason):
    with caplog.at_level(logging.INFO):
        placement = placed(environ, rows=table(row("a"), row("b")), own_urls=own_urls)
    assert (placement.models, placement.upstreams) == ({}, {})
    assert reason in caplog.text
    assert "canary" not in caplog.text


def test_endpoints_are_bounded(caplog):
    rows = table(*(row(f"m{number}", f"http://host{number}/v1", "") for number in range(60)))
    assert len(placed({}, rows=rows).upstreams) == 50
    assert "the table names more than 50 endpoints" in caplog.text


def test_what_cannot_be_used_of_the_file_is_said_at_start(tmp_path, caplog):
    (tmp_path / "models.csv").write_text("claude-h,claud-s,kimi")
    with caplog.at_level(logging.WARNING):
        file = RegistryFile(tmp_path)
    assert [model.shortcode for model in file.models] == ["claude-h", "kimi"]
    [message] = caplog.messages
    assert message.startswith("models.csv: line 1: there is no model 'claud-s'; did you mean claude-s")


async def test_a_changed_file_is_read_again(tmp_path):
    file = RegistryFile(tmp_path)
    assert not file.reread()
    assert len(file.models) == 61
    changes = asyncio.Queue()
    following = asyncio.create_task(file.follow(lambda: changes.put_nowait(len(file.models)), seconds=0.001))
    async with asyncio.timeout(30):
        (tmp_path / "new").write_text("claude-h,kimi")
        (tmp_path / "new").rename(tmp_path / "models.csv")
        assert await changes.get() == 2
        (tmp_path / "models.csv").unlink()
        assert await changes.get() == 61
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


@pytest.mark.parametrize(
    "name", ["claude-h", "CLAUDE-H", "Claude-3-5-Haiku-20241022", "mammouth/claude-3-5-haiku-20241022"]
)
async def test_a_shortcode_reaches_its_vendor_under_the_full_name(pools, upstream, name):
    placement = placed(KEYS | {"MAMMOUTH_BASE_URL": upstream.url})
    settings = placement.upstreams["mammouth"].settings
    provider = OpenAICompatible(settings, pools.pool(parse_base_url(settings.base_url)[0]), StillClock())
    catalogue = Catalogue()
    source = routing.Source(lister=provider, open=True, registered=placement.models["mammouth"])
    discovery = routing.Discovery(catalogue, clock=StillClock(), sources=[source], price=placement.price)
    await discovery.refresh_now()
    assert len(catalogue.models()) == 53, "those of the table and the one that the vendor lists"
    plan = catalogue.plan(name)
    assert plan.targets[0].price == Price(input=800_000, output=4_000_000)
    call = make_call()
    async with asyncio.timeout(30):
        await (await provider.send(call, plan.targets[0], call.wire, call.fields)).read()
    assert upstream.requests[-1].path == "/v1/chat/completions"
    assert upstream.requests[-1].json["model"] == "claude-3-5-haiku-20241022"
    assert upstream.requests[-1].headers["authorization"] == "Bearer sk-m"


async def test_the_shortcode_of_an_ollama_reaches_it_as_the_real_tag(pools, upstream):
    async def script(talk):
        if talk.request.path == "/api/tags":
            await talk.answer({"models": [{"name": "gemma3:4b"}, {"name": "qwen3:latest"}]})
        elif talk.request.path == "/api/show":
            await talk.answer({"capabilities": ["completion"]})
        else:
            await talk.answer({"id": "1", "choices": []})

    upstream.script = script
    address = upstream.url.removesuffix("/v1")
    plan = plan_upstreams(Config(), VENDORS, {"OLLAMA_HOST": address})["ollama"]
    provider = OpenAICompatible(plan.settings, pools.pool(parse_base_url(plan.settings.base_url)[0]), StillClock())
    catalogue = Catalogue()
    source = routing.Source(lister=Ollama(Fetch(pools, StillClock()), address=plan.ollama_url))
    await routing.Discovery(catalogue, clock=StillClock(), sources=[source]).refresh_now()
    for name, tag in (("ollama-gemma3-4b", "gemma3:4b"), ("OLLAMA-QWEN3", "qwen3:latest")):
        call = make_call()
        async with asyncio.timeout(30):
            await (await provider.send(call, catalogue.plan(name).targets[0], call.wire, call.fields)).read()
        assert (upstream.requests[-1].path, upstream.requests[-1].json["model"]) == ("/v1/chat/completions", tag)
