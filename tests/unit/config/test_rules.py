from collections.abc import Callable
from pathlib import Path

import pytest

from stellwerk.config.problems import ConfigProblem
from stellwerk.config.reading import load
from stellwerk.config.rules import is_loopback

Write = Callable[[str], Path]
Wrong = Callable[..., list[ConfigProblem]]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "LocalHost"])
def test_loopback_needs_nothing_more(write: Write, host: str):
    assert is_loopback(host)
    assert load(write(f"listen: {{host: '{host}'}}"), {}).listen.host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "2001:db8::1", "gateway.example"])
def test_a_public_bind_says_what_it_needs(wrong: Wrong, host: str):
    (problem,) = wrong(f"listen:\n  port: 1\n  host: '{host}'")
    assert (problem.line, problem.column, problem.key) == (3, 9, "listen.host")
    assert "listen.allowed_hosts" in problem.message
    assert "listen.behind_proxy" in problem.message


def test_a_public_bind_of_another_listener_needs_the_same(wrong: Wrong, write: Write):
    (problem,) = wrong("go_ollama: {host: 0.0.0.0}")
    assert (problem.key, problem.code) == ("go_ollama.host", "public_bind")
    config = load(write("listen: {allowed_hosts: [gateway.example]}\ngo_ollama: {host: 0.0.0.0}"), {})
    assert (config.go_ollama.host, config.go_ollama.ports) == ("0.0.0.0", (8080, 8081))


@pytest.mark.parametrize(
    ("text", "key", "code"),
    [
        ("ollama_cloud_proxy: {host: 0.0.0.0}", "ollama_cloud_proxy.host", "public_bind"),
        ("ollama_cloud_proxy: {base_url: ollama.com}", "ollama_cloud_proxy.base_url", "url_scheme"),
        ("ollama_cloud_proxy: {keys: [a, 'b c']}", "ollama_cloud_proxy.keys[1]", "secret_characters"),
        ("ollama_cloud_proxy: {token: 'ä'}", "ollama_cloud_proxy.token", "secret_characters"),
        ("hub: {endpoint: 'ftp://hub'}", "hub.endpoint", "url_scheme"),
        ("hub: {token: 'a b'}", "hub.token", "secret_characters"),
        ("egress: {allowed_origins: ['http://a/hook']}", "egress.allowed_origins[0]", "url_path"),
        ("egress: {allowed_origins: ['http://a', 'file:///a']}", "egress.allowed_origins[1]", "url_scheme"),
        ("listen: {cors_origins: ['https://a', 'https://b/']}", "listen.cors_origins[1]", "url_path"),
        ("listen: {cors_origins: ['https://b:443']}", "listen.cors_origins[0]", "origin_port"),
        ("listen: {cors_origins: ['https://*.b']}", "listen.cors_origins[0]", "origin_wildcard"),
        ("listen: {cors_origins: ['null']}", "listen.cors_origins[0]", "origin_null"),
        ("listen: {cors_origins: [app.example.org]}", "listen.cors_origins[0]", "origin_form"),
        ("engines: {commands: {vllm: {command: [x]}}}", "engines.commands.vllm", "own_engine"),
        ("engines: {commands: {a: {command: [x, '{ports}']}}}", "engines.commands.a.command[1]", "unknown_placeholder"),
        (
            "engines: {commands: {a: {command: [x], environment: {KEY: '{kee}'}}}}",
            "engines.commands.a.environment.KEY",
            "unknown_placeholder",
        ),
        ("models: {a: {targets: [b, c], weights: [1]}}", "models.a.weights", "weights"),
        ("engines: {models: {m: {engine: b}}}", "engines.models.m.engine", "unknown_engine"),
    ],
)
def test_what_the_types_cannot_say_is_checked(wrong: Wrong, text: str, key: str, code: str):
    (problem,) = wrong(text)
    assert (problem.key, problem.code) == (key, code)
    assert problem.message


def test_an_own_engine_may_run_a_model(write: Write):
    text = "engines: {commands: {a: {command: [x, '--port={port}']}}, models: {m: {engine: a}}}"
    assert load(write(text), {}).engines.models["m"].engine == "a"


def test_braces_that_are_no_placeholder_stand_for_themselves(write: Write):
    command = """{command: [x, '{"a": {}, "b": {"c": 1}}', '{port}'], environment: {K: '{key}'}}"""
    config = load(write(f"engines: {{commands: {{a: {command}}}}}"), {})
    assert config.engines.commands["a"].command[1] == '{"a": {}, "b": {"c": 1}}'


@pytest.mark.parametrize("more", ["allowed_hosts: [gateway.example]", "behind_proxy: true"])
def test_a_public_bind_is_allowed_with_hosts_or_a_proxy(write: Write, more: str):
    assert load(write(f"listen: {{host: 0.0.0.0, {more}}}"), {}).listen.host == "0.0.0.0"


def test_a_public_bind_by_variable_names_the_variable(wrong: Wrong):
    (problem,) = wrong("", {"STELLWERK_LISTEN__HOST": "0.0.0.0"})
    assert (problem.file, problem.code) == ("STELLWERK_LISTEN__HOST", "public_bind")


@pytest.mark.parametrize("network", ["10.0.0.7/8", "1.2.3", "10.0.0.0/33", "::/129", "1.2.3.4.5", ":::"])
def test_a_proxy_that_is_neither_address_nor_network_is_refused(wrong: Wrong, network: str):
    (problem,) = wrong(f"listen: {{trusted_proxies: [127.0.0.1, '{network}']}}")
    assert (problem.key, problem.code) == ("listen.trusted_proxies[1]", "not_a_network")
    assert network in problem.message


@pytest.mark.parametrize(("given", "missing"), [("certificate", "certificate_key"), ("certificate_key", "certificate")])
def test_half_a_certificate_is_refused(wrong: Wrong, given: str, missing: str):
    (problem,) = wrong(f"sigorest: {{{given}: /etc/x.pem}}")
    assert (problem.key, problem.code) == (f"sigorest.{missing}", "half_a_certificate")


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("ftp://host/v1", "url_scheme"),
        ("host/v1", "url_scheme"),
        ("http:///v1", "url_host"),
        ("http://host:99999", "url_host"),
        ("http://host:0", "url_host"),
        ("http://[::1", "url_host"),
        ("https://me:pass@host/v1", "url_userinfo"),
        ("https://host/v1?key=1", "url_query"),
        ("https://host/v1#", "url_query"),
        ("https://host/v1\\n", "url_characters"),
        ("https://host/a b", "url_characters"),
        ("https://hüst/", "url_characters"),
        ("https://host\\\\@evil/", "url_characters"),
    ],
)
def test_an_address_that_could_mislead_is_refused_without_being_shown(wrong: Wrong, url: str, code: str):
    (problem,) = wrong(f'providers:\n  mine:\n    base_url: "{url}"')
    assert (problem.line, problem.key, problem.code) == (3, "providers.mine.base_url", code)
    assert "pass" not in problem.message.replace("password", "")
    assert wrong(f'discovery: {{ollama_url: "{url}"}}')[0].code == code


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/v1", "https://host", "HTTPS://[::1]:1/x/"])
def test_plain_addresses_are_taken(write: Write, url: str):
    assert load(write(f"providers: {{mine: {{base_url: '{url}'}}}}"), {}).providers["mine"].base_url == url


def test_secrets_cannot_break_a_header_apart(wrong: Wrong):
    text = 'providers:\n  a:\n    api_key: "sk\\r\\nx: y"\n    headers:\n      X-A: "b\\nc"\n      Host: other\n'
    assert [(problem.line, problem.code) for problem in wrong(text)] == [
        (3, "secret_characters"), (5, "header_characters"), (6, "header_name"),
    ]  # fmt: skip
    assert "bad_name" in [problem.code for problem in wrong(text + '      "a b": c\n')]


def test_each_of_several_keys_is_looked_at_and_none_is_shown(wrong: Wrong):
    (problem,) = wrong('providers:\n  a:\n    base_url: http://a\n    api_keys: [sk-good, "sk bad"]\n')
    assert (problem.line, problem.key, problem.code) == (4, "providers.a.api_keys[1]", "secret_characters")
    assert "sk bad" not in str(problem)


def test_engine_ports_must_exist_and_leave_the_gateway_its_own(wrong: Wrong, write: Write):
    assert wrong("engines: {first_port: 65530}")[0].code == "ports_past_end"
    assert wrong("listen: {port: 4803}")[0].code == "port_taken"
    assert load(write("listen: {port: 4803}\nengines: {enabled: false}"), {}).listen.port == 4803


def test_a_request_target_fits_into_the_head(wrong: Wrong):
    assert wrong("guard: {head_bytes: 4096}")[0].code == "target_past_head"


def test_models_that_lead_back_to_themselves_are_refused(wrong: Wrong, write: Write):
    text = "models:\n  a: {targets: [b]}\n  b: {targets: [c/x, c]}\n  c: {targets: [a]}\n  d: {targets: [a]}\n"
    assert [(problem.key, problem.code) for problem in wrong(text)] == [
        (f"models.{name}.targets", "model_loop") for name in "abc"
    ]
    assert wrong("models: {a: {targets: [a]}}")[0].code == "model_loop"
    assert load(write("models: {a: {targets: [b, c]}, b: {targets: [c]}, c: {targets: [x/y]}}"), {}).models


def test_a_provider_is_a_known_vendor_or_has_an_address(wrong: Wrong, write: Write):
    vendors = {"openai", "mistral", "vllm"}
    (problem,) = wrong("providers:\n  opnai: {}", vendors=vendors)
    assert (problem.line, problem.column, problem.key) == (2, 3, "providers.opnai")
    assert "did you mean openai?" in problem.message
    (problem,) = wrong("providers:\n  a: {vendor: zzzz, base_url: 'http://a'}", vendors=vendors)
    assert (problem.key, problem.code) == ("providers.a.vendor", "unknown_vendor")
    text = "providers: {openai: {}, a: {vendor: vllm}, b: {base_url: 'http://b'}}"
    assert len(load(write(text), {}, vendors=vendors).providers) == 3
    assert load(write("providers: {opnai: {}}"), {}).providers


def test_the_name_of_the_own_models_is_taken(wrong: Wrong):
    assert [problem.code for problem in wrong("providers: {local: {}}", vendors={"openai"})] == ["own_provider"]


def test_origins_are_allowed_by_name_and_all_of_them_by_a_star(write: Write):
    origins = ("https://app.example.org", "http://localhost:3000", "chrome-extension://abc", "*")
    assert load(write(f"listen: {{cors_origins: {list(origins)}}}"), {}).listen.cors_origins == origins
    assert load(write("log: {}"), {}).listen.cors_origins == ()
