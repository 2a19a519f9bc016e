import logging

import pytest

from stellwerk.app.compat import own_urls
from stellwerk.app.ollama_cloud import cloud_address, cloud_keys, is_own_url, keys_of_environment
from stellwerk.app.upstreams import plan_upstreams
from stellwerk.config.listeners import CloudProxy
from stellwerk.config.settings import Config, Discovery, Provider
from stellwerk.core.secrets import Secret
from stellwerk.providers.vendors import load_vendors

VENDORS = load_vendors()
CLOUD = "ollama-cloud"
ENVIRON = {"OLLAMA_API_KEYS": "one-of-environment,two-of-environment", "OLLAMA_API_KEY": "single"}


def texts(keys) -> list[str]:
    return [key.reveal() for key in keys]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    return tmp_path


def write(folder, text, name="config/config.yaml"):
    (folder / name).write_text(text)
    return str(folder / name)


# --- keys


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"OLLAMA_API_KEYS": "key1,key2,key3"}, ["key1", "key2", "key3"]),
        ({"OLLAMA_API_KEYS": " key1 ,, key2 , key1,"}, ["key1", "key2"]),
        ({"OLLAMA_API_KEYS": "key1", "OLLAMA_API_KEY": "other"}, ["key1"]),
        ({"OLLAMA_API_KEYS": " , ", "OLLAMA_API_KEY": "other"}, ["other"]),
        ({"OLLAMA_API_KEYS": "", "OLLAMA_API_KEY": "other\n"}, ["other"]),
        ({"OLLAMA_API_KEY_0": "a", "OLLAMA_API_KEY_1": "b"}, ["a", "b"]),
        ({}, []),
    ],
)
def test_keys_of_the_environment(environ, expected):
    assert texts(keys_of_environment(environ)) == expected


def test_keys_of_the_config_go_before_all_others_and_a_file_before_the_environment(folder):
    write(folder, 'keys:\n  - "key_1"\n  - " key_2 "\n  - ""\n  - key_1\n  - 12345678\nserver: {}\n')
    assert texts(cloud_keys(CloudProxy(keys=(Secret("mine"), Secret(""))), ENVIRON)) == ["mine"]
    assert texts(cloud_keys(CloudProxy(), ENVIRON)) == ["key_1", "key_2", "12345678"]


@pytest.mark.parametrize(
    "content", ["", "keys: []\n", "keys:\n", "keys: text\n", "server: {}\n", "- key\n", 'keys: [""]']
)
def test_a_file_without_keys_leaves_it_to_the_environment(folder, content):
    write(folder, content)
    assert texts(cloud_keys(CloudProxy(), ENVIRON)) == ["one-of-environment", "two-of-environment"]


def test_the_file_may_stand_elsewhere_and_the_config_says_where_before_the_environment(folder):
    write(folder, "keys: [here]\n")
    other, third = write(folder, "keys: [other]\n", "other.yaml"), write(folder, "keys: [third]\n", "third.yaml")
    assert texts(cloud_keys(CloudProxy(), {"CONFIG_PATH": other})) == ["other"]
    assert texts(cloud_keys(CloudProxy(keys_file=third), {"CONFIG_PATH": other})) == ["third"]


@pytest.mark.parametrize(
    "content", ["keys: [canary", "\x00canary", "keys: !!python/object/apply:os.system [canary]", "a" * (2 << 20)]
)
def test_a_file_that_cannot_be_read_is_reported_without_what_stands_in_it(folder, caplog, content):
    write(folder, content)
    assert texts(cloud_keys(CloudProxy(), ENVIRON)) == ["one-of-environment", "two-of-environment"]
    [message] = caplog.messages
    assert "canary" not in message


def test_a_file_that_was_named_and_is_not_there_is_reported(folder, caplog):
    assert texts(cloud_keys(CloudProxy(keys_file="nowhere.yaml"), {"OLLAMA_API_KEY": "single"})) == ["single"]
    assert len(caplog.messages) == 1
    caplog.clear()
    assert cloud_keys(CloudProxy(), {}) == ()
    assert caplog.messages == []


# --- addresses


@pytest.mark.parametrize("end", ["", "/", "/api", "/api/", "/v1", "/v1/"])
def test_an_address_may_be_written_with_either_of_its_paths(end):
    assert cloud_address(f"https://ollama.com{end}") == "https://ollama.com"
    assert cloud_address(f"https://proxy.example/ollama{end}") == "https://proxy.example/ollama"


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("http://127.0.0.1:11434", True),
        ("http://127.0.0.1:11434/v1", True),
        ("http://localhost:11434/api", True),
        ("http://LOCALHOST.:11434", True),
        ("http://a.localhost:11434", True),
        ("http://[::1]:11434", True),
        ("http://127.8.8.8:11434", True),
        ("http://0.0.0.0:11434", True),
        ("https://localhost:11434", True),
        ("http://127.0.0.1:11435", False),
        ("http://192.168.1.5:11434", False),
        ("https://ollama.com", False),
        ("nonsense", False),
    ],
)
def test_an_address_of_the_gateway_itself_is_known_by_each_of_its_names(url, own):
    assert is_own_url(url, own_urls([4000, 11434])) is own


# --- the provider


def planned(environ, own=(), **config):
    return plan_upstreams(Config(**{"discovery": Discovery(ollama=False), **config}), VENDORS, environ, own)


def test_keys_in_the_environment_bring_the_cloud_as_one_provider_with_all_of_them(folder):
    found = planned(ENVIRON)
    assert found.keys() == {CLOUD}
    settings = found[CLOUD].settings
    assert texts(settings.keys) == ["one-of-environment", "two-of-environment"]
    assert (settings.base_url, settings.local) == ("https://ollama.com/v1", False)


def test_a_file_of_keys_counts_only_for_who_wants_the_listener(folder):
    write(folder, "keys: [of-file]\n")
    assert planned({}) == {}
    assert texts(planned({}, compat=("ollama-cloud-proxy",))[CLOUD].settings.keys) == ["of-file"]


def test_where_the_environment_is_not_looked_at_it_counts_for_who_wants_the_listener(folder):
    shut = Discovery(ollama=False, environment=False)
    assert planned(ENVIRON, discovery=shut) == {}
    assert planned(ENVIRON, discovery=shut, compat=("ollama-cloud-proxy",)).keys() == {CLOUD}


def test_the_address_of_the_cloud_can_be_another(folder):
    settings = CloudProxy(base_url="http://10.0.0.7:8080/api")
    assert planned(ENVIRON, ollama_cloud_proxy=settings)[CLOUD].settings.base_url == "http://10.0.0.7:8080/v1"


def test_a_cloud_that_is_the_gateway_itself_is_left_out(folder, caplog):
    settings = CloudProxy(base_url="http://localhost:11434")
    with caplog.at_level(logging.ERROR):
        assert planned(ENVIRON, own_urls([11434]), ollama_cloud_proxy=settings) == {}
    assert caplog.messages == ["the provider ollama-cloud is left out: its address is one of this gateway's own"]


def test_no_ollama_is_looked_for_where_the_gateway_listens_itself():
    assert planned({}, own_urls([11434]), discovery=Discovery()) == {}
    assert planned({}, own_urls([4000]), discovery=Discovery()).keys() == {"ollama"}
    assert planned({"OLLAMA_HOST": "0.0.0.0"}, own_urls([11434]), discovery=Discovery()) == {}


def test_the_config_can_make_it_a_provider_like_any_other(folder):
    mine = {"mine": Provider(vendor=CLOUD, api_keys=(Secret("a"), Secret("b")), models=("gpt-oss:120b",))}
    found = planned({}, providers=mine)["mine"]
    assert (found.settings.name, texts(found.settings.keys)) == ("mine", ["a", "b"])
    assert (found.settings.models, found.ollama_url, found.settings.local) == (("gpt-oss:120b",), None, False)
    by_name = planned(ENVIRON, providers={CLOUD: Provider()})[CLOUD]
    assert texts(by_name.settings.keys) == ["one-of-environment", "two-of-environment"]
