"""AI Gateway's own config: what its keys mean here, what has no effect, and what is refused where it stands."""

import pytest

from stellwerk.config.ai_gateway_file import AIGatewayFile, apply, parse_file
from stellwerk.config.problems import ConfigError
from stellwerk.config.reading import ai_gateway_notes, load
from stellwerk.config.settings import Config, Provider
from stellwerk.config.tree import Problems

WHOLE = """
server: {host: 0.0.0.0, port: 8080, workers: 4, reload: false}
models:
  gemma:
    name: google/gemma-3-4b-it
    port: 8000
    gpu_memory: 0.95
    max_model_len: 2048
    max_concurrent: 10
    enabled: true
  deepseek:
    name: deepseek-ai/DeepSeek-OCR
    port: 8001
    gpu_memory: 0.90
    max_model_len: 4096
    max_concurrent: 2
    resolution_mode: gundam
    enabled: true
queue:
  max_waiting: 10
  timeout: 300
  priority_enabled: true
  persistence_enabled: true
  recovery_check_interval: 60
auto_switch:
  enabled: true
  pattern_window_days: 7
  min_requests_for_switch: 12
  switch_cooldown_minutes: 9
auth:
  jwt_secret: ${JWT_SECRET}
  jwt_algorithm: HS256
  access_token_expire_minutes: 60
  refresh_token_expire_days: 7
mongodb:
  uri: mongodb://mongodb:27017
  collections: {metrics: metrics}
monitoring: {enabled: true, log_level: INFO}
rate_limit: {enabled: true, requests_per_minute: 90, burst: 20}
keys: [cloud-key]
"""
ENVIRON = {"JWT_SECRET": "x" * 40}


def read(text: str, environ=ENVIRON) -> tuple[AIGatewayFile, list[str]]:
    notes: list[str] = []
    return parse_file(text, "config.yaml", environ, Problems(), notes), notes


def applied(text: str, config: Config | None = None) -> Config:
    return apply(read(text)[0], config or Config())


def wrong(text: str, environ=ENVIRON) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text, environ)
    return [str(problem) for problem in caught.value.problems]


def test_every_key_that_means_something_here_is_taken():
    config = applied(WHOLE)
    listener = config.ai_gateway
    assert (listener.max_waiting, listener.requests_per_minute, listener.burst) == (10, 90, 20)
    assert (listener.access_minutes, listener.refresh_days) == (60, 7)
    assert {short: (model.name, model.port) for short, model in listener.models.items()} == {
        "gemma": ("google/gemma-3-4b-it", 8000),
        "deepseek": ("deepseek-ai/DeepSeek-OCR", 8001),
    }
    switch = config.auto_switch
    assert (switch.enabled, switch.pattern_window_days, switch.min_requests_for_switch) == (True, 7, 12)
    assert (switch.cooldown_minutes, switch.share) == (9, 0.6)
    assert config.jobs.attempt_seconds == 300
    assert config.ocr.resolution == "gundam"
    assert config.providers["gemma"].base_url == "http://127.0.0.1:8000/v1"
    assert config.gates["deepseek/deepseek-ai/DeepSeek-OCR"].max_concurrent == 2


def test_what_has_no_effect_is_said_with_its_place():
    notes = read(WHOLE)[1]
    assert "config.yaml:2: server has no effect here" in notes
    assert "config.yaml:31: auth.jwt_secret has no effect here" in notes
    said = {note.split(": ", 1)[1] for note in notes}
    assert said >= {
        "mongodb has no effect here",
        "monitoring has no effect here",
        "queue.priority_enabled has no effect here",
        "models.gemma.gpu_memory has no effect here",
    }
    assert not any("keys" in note or "x" * 40 in note for note in notes)


def test_an_unknown_key_is_said_and_left_out():
    assert read("queue: {max_wating: 3}\nmodels: {gemma: {colour: red}}\nextra: 1\n")[1] == [
        "config.yaml:1: queue.max_wating is not known and has no effect",
        "config.yaml:2: models.gemma.colour is not known and has no effect",
        "config.yaml:3: extra is not known and has no effect",
    ]


def test_an_empty_file_changes_nothing():
    assert applied("") == Config()
    assert applied("queue:\n") == Config()


def test_the_documented_example_is_enough():
    config = applied(
        "queue:\n  max_waiting: 10\n  timeout: 300\nauto_switch:\n  enabled: true\n"
        'models:\n  deepseek:\n    resolution_mode: "large"  # or "gundam"\n'
    )
    assert (config.ai_gateway.max_waiting, config.auto_switch.enabled, config.ocr.resolution) == (10, True, "large")
    assert config.providers == {}


def test_a_rate_limit_that_is_switched_off_is_none():
    assert applied("rate_limit: {enabled: false, requests_per_minute: 60}").ai_gateway.requests_per_minute == 0


def test_a_model_that_is_switched_off_has_no_server():
    config = applied("models: {gemma: {port: 8000, enabled: false, max_concurrent: 3, name: a}}")
    assert (config.providers, config.gates, config.ai_gateway.models["gemma"].enabled) == ({}, {}, False)


def test_a_provider_of_the_same_name_in_our_own_config_stays():
    own = Provider(base_url="http://127.0.0.1:9/v1")
    config = applied("models: {gemma: {port: 8000}}", Config(providers={"gemma": own}))
    assert config.providers["gemma"] is own


def test_longer_tokens_than_there_can_be_are_cut():
    assert applied("auth: {access_token_expire_minutes: 1440}").ai_gateway.access_minutes == 60


def test_a_missing_variable_is_refused_with_file_line_and_key():
    assert wrong(WHOLE, {}) == ["config.yaml:31:15: auth.jwt_secret: the environment variable JWT_SECRET is not set"]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("queue: {max_waiting: many}", "config.yaml:1:22: queue.max_waiting: expected a whole number or null"),
        ("models: {gemma: {gpu_memory: 2}}", "config.yaml:1:30: models.gemma.gpu_memory: 2 is too large"),
        ("models: {deepseek: {resolution_mode: huge}}", 'models.deepseek.resolution_mode: "huge" is not one of'),
        ("auth: {jwt_algorithm: none}", 'auth.jwt_algorithm: "none" is not one of HS256'),
        ("rate_limit: {burst: 0}", "rate_limit.burst: 0 is too small"),
        ("models: [gemma]", "models: expected a section of keys"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(text, where):
    [problem] = wrong(text)
    assert where in problem


def test_it_counts_only_where_its_clients_are_served(tmp_path):
    (tmp_path / "theirs.yaml").write_text("queue: {max_waiting: 7, nothing: 1}\n")
    ours = tmp_path / "stellwerk.yaml"
    section = f"ai_gateway: {{config_file: '{tmp_path / 'theirs.yaml'}'}}\n"
    ours.write_text(section)
    assert load(ours, {}).ai_gateway.max_waiting is None
    ours.write_text(f"compat: [ai-gateway]\n{section}")
    config = load(ours, {})
    assert config.ai_gateway.max_waiting == 7
    [note] = ai_gateway_notes(config, {})
    assert note.endswith("theirs.yaml:1: queue.nothing is not known and has no effect")


def test_a_file_that_was_named_and_is_not_there_is_a_mistake(tmp_path):
    ours = tmp_path / "stellwerk.yaml"
    ours.write_text(f"compat: [ai-gateway]\nai_gateway: {{config_file: '{tmp_path / 'nothing.yaml'}'}}\n")
    with pytest.raises(ConfigError, match=r"nothing\.yaml: the file cannot be read"):
        load(ours, {})
