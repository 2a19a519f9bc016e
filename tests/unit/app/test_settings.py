"""What the engines are told of the config."""

from pathlib import Path

import msgspec

from stellwerk.app.settings import slot_settings
from stellwerk.config.settings import Config
from stellwerk.engines.options import EngineOverrides


def slots(**config):
    return slot_settings(msgspec.convert(config, Config), Path("/data"))


def test_vllm_is_where_the_operator_says_and_gets_the_further_arguments():
    program = slots(engines={"vllm": {"program": "/srv/vllm", "arguments": ["--dtype", "auto"]}}).programs.vllm
    assert (program.executable, program.arguments) == ("/srv/vllm", ("--dtype", "auto"))
    assert slots().programs.vllm.executable == "vllm"


def test_the_time_for_a_load_is_nobodys_word_until_the_operator_says_one():
    assert slots().defaults.load_seconds is None
    said = slots(engines={"load_seconds": 5, "models": {"m": {"load_seconds": 9}}})
    assert said.defaults.load_seconds == 5
    assert said.overrides == {"m": EngineOverrides(load_seconds=9)}


def test_an_engine_in_use_may_be_silent_for_as_long_as_a_client_may_wait():
    assert slots().supervisor.liveness.patience == 120
    assert slots(upstream={"first_byte_seconds": 600}).supervisor.liveness.patience == 600
