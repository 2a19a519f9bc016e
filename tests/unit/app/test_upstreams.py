import logging

import pytest

from stellwerk.app.upstreams import plan_upstreams
from stellwerk.config.settings import Config, Discovery, Provider
from stellwerk.core.secrets import Secret
from stellwerk.providers.vendors import load_vendors

VENDORS = load_vendors()
NEARBY = Config(discovery=Discovery(ollama=False))


def names(config: Config, environ: dict[str, str]) -> set[str]:
    return set(plan_upstreams(config, VENDORS, environ))


def test_a_vendor_with_a_key_in_the_environment_is_there():
    planned = plan_upstreams(NEARBY, VENDORS, {"OPENAI_API_KEY": " sk-abc\n"})
    assert planned.keys() == {"openai"}
    assert planned["openai"].settings.keys == (Secret("sk-abc"),)


def test_what_is_configured_goes_before_what_is_found():
    config = Config(
        providers={"openai": Provider(api_key=Secret("sk-mine"), base_url="http://10.0.0.1/v1")}, discovery=Discovery()
    )
    planned = plan_upstreams(config, VENDORS, {"OPENAI_API_KEY": "sk-theirs"})
    assert planned["openai"].settings.keys == (Secret("sk-mine"),)
    assert planned["openai"].settings.base_url == "http://10.0.0.1/v1"


def test_whether_a_provider_reranks_is_known_of_a_vendor_and_tried_with_everybody_else():
    own = Provider(base_url="http://10.0.0.1/v1")
    config = Config(providers={"own": own, "openai": own}, discovery=Discovery(environment=False, ollama=False))
    planned = plan_upstreams(config, VENDORS, {})
    assert {name: plan.settings.rerank for name, plan in planned.items()} == {"own": "rerank", "openai": ""}


def test_a_configured_vendor_takes_its_key_from_the_environment_without_the_blanks_around_it():
    config = Config(providers={"groq": Provider()}, discovery=Discovery(environment=False, ollama=False))
    planned = plan_upstreams(config, VENDORS, {"GROQ_API_KEY": "gsk-abc\n"})
    assert planned["groq"].settings.keys == (Secret("gsk-abc"),)


@pytest.mark.parametrize(
    "environ",
    [
        {"OPENAI_API_KEY": "sk-canary…"},
        {"OPENAI_API_KEY": "sk-canary\r\nx-evil: 1"},
        {"OPENAI_API_KEY": "sk-canary" * 1000},
        {"OPENAI_API_KEY": "sk-abc", "OPENAI_BASE_URL": "canary:1234"},
        {"OPENAI_API_KEY": "sk-abc", "OPENAI_BASE_URL": "http://canary:port/v1"},
        {"OPENAI_API_KEY": "sk-abc", "OPENAI_BASE_URL": "http://canary canary/v1"},
        {"OPENAI_API_KEY": "sk-abc", "OPENAI_BASE_URL": "http://user:canary@localhost/v1"},
    ],
)
def test_a_variable_that_cannot_be_used_leaves_its_vendor_out_and_is_not_repeated(caplog, environ):
    with caplog.at_level(logging.ERROR):
        assert names(NEARBY, {"GROQ_API_KEY": "gsk-abc", **environ}) == {"groq"}
    [message] = caplog.messages
    assert message.startswith("the provider openai is left out: ")
    assert "canary" not in message


def test_the_gateway_is_no_vendor_of_its_own():
    environ = {"OPENAI_API_KEY": "sk-abc", "OPENAI_BASE_URL": "http://127.0.0.1:4000/v1"}
    assert plan_upstreams(NEARBY, VENDORS, environ, ["http://127.0.0.1:4000/v1"]) == {}


def keys_of(provider: Provider, environ: dict[str, str] | None = None) -> tuple[Secret, ...]:
    config = Config(providers={"groq": provider}, discovery=Discovery(environment=False, ollama=False))
    return plan_upstreams(config, VENDORS, environ or {})["groq"].settings.keys


def test_several_keys_are_taken_in_their_order_each_once():
    a, b, c = Secret("a"), Secret("b"), Secret("c")
    assert keys_of(Provider(api_key=a, api_keys=(b, a, Secret(""), c))) == (a, b, c)
    assert keys_of(Provider(api_keys=(b, c)), {"GROQ_API_KEY": "theirs"}) == (b, c)
    assert keys_of(Provider(), {"GROQ_API_KEY": "a", "GROQ_API_KEY_0": "b"}) == (a, b)
    assert keys_of(Provider(api_key=Secret("")), {"GROQ_API_KEY": "theirs"}) == ()


def test_an_ollama_may_have_several_keys_too():
    config = Config(providers={"ollama": Provider(api_keys=(Secret("a"), Secret("b")))})
    planned = plan_upstreams(config, VENDORS, {})
    assert planned["ollama"].settings.keys == (Secret("a"), Secret("b"))
