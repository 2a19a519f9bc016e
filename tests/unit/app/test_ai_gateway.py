"""What short names there are, and when one port serves two."""

import pytest

from stellwerk.app.ai_gateway import short_names
from stellwerk.app.compat import compat_ports, shared_port
from stellwerk.config.jobs import AIGateway, AIGatewayModel
from stellwerk.config.listeners import GoOllama
from stellwerk.config.settings import Config

BOTH = ("ai-gateway", "go-ollama-api")


def test_the_documented_names_are_there_without_a_config():
    assert {short: each.name for short, each in short_names(AIGateway()).items()} == {
        "gemma": "google/gemma-3-4b-it",
        "deepseek": "deepseek-ai/DeepSeek-OCR",
    }


def test_the_config_says_what_they_stand_for_and_which_others_there_are():
    models = {
        "mine": AIGatewayModel(name="local/mine"),
        "deepseek": AIGatewayModel(enabled=False),
        "gemma": AIGatewayModel(port=8000),
    }
    shorts = short_names(AIGateway(models=models))
    assert list(shorts) == ["gemma", "mine"]
    assert (shorts["gemma"].name, shorts["gemma"].port) == ("google/gemma-3-4b-it", 8000)
    assert (shorts["mine"].name, shorts["mine"].documented) == ("local/mine", None)


def test_both_defaults_meet_on_one_port():
    config = Config(compat=BOTH)
    assert shared_port(config) == 8080
    assert sorted(set(compat_ports(config))) == [8080, 8081]


@pytest.mark.parametrize(
    "config",
    [
        Config(compat=("ai-gateway",)),
        Config(compat=("go-ollama-api",)),
        Config(compat=BOTH, ai_gateway=AIGateway(port=8090)),
        Config(compat=BOTH, ai_gateway=AIGateway(port=0), go_ollama=GoOllama(ports=(0,))),
        Config(compat=BOTH, ai_gateway=AIGateway(host="10.0.0.7")),
    ],
)
def test_otherwise_each_has_its_own(config):
    assert shared_port(config) is None
