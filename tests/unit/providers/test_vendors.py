from datetime import date

import msgspec
import pytest
from genai_prices import data_snapshot

from stellwerk.providers.vendors import keys_in_environment, load_vendors, parse_vendors, vendors_in_environment

ROW = b"""
acme:
  title: Acme
  base_url: https://api.acme.example/v1
  key_variables: [ACME_API_KEY]
  checked: 2026-11-21
  source: https://docs.acme.example
"""

EXPECTED = {
    "openai", "mammouth", "moonshot", "zai", "openrouter", "mistral", "groq", "deepseek", "xai", "gemini", "together",
    "fireworks", "cerebras", "sambanova", "perplexity", "nebius", "nvidia", "dashscope", "minimax", "huggingface",
    "github", "cohere", "ollama", "vllm", "llama-server", "lmstudio", "localai", "jina",
    "openai-compatible",
}  # fmt: skip


def test_every_promised_vendor_has_a_row():
    assert load_vendors().keys() >= EXPECTED


def test_reranking_is_below_the_base_url_or_at_a_path_of_the_host():
    rows = load_vendors()
    assert {name: row.rerank for name, row in rows.items() if row.rerank.startswith("/")} == {"cohere": "/v2/rerank"}
    assert {rows[name].rerank for name in ("vllm", "llama-server", "jina", "openai-compatible")} == {"rerank"}
    assert rows["openai"].rerank == ""


def test_every_row_can_be_used_or_says_that_the_configuration_must_name_the_address():
    for vendor in load_vendors().values():
        assert vendor.base_url or vendor.name == "openai-compatible"
        assert vendor.key_variables or not vendor.key_required
        assert vendor.source.startswith("https://")
        assert vendor.checked <= date(2100, 1, 1)


def test_only_vendors_on_the_owners_machines_are_reached_without_encryption():
    for vendor in load_vendors().values():
        if vendor.base_url:
            assert vendor.base_url.startswith("http://127.0.0.1:" if vendor.local else "https://"), vendor.name


def test_no_two_vendors_read_the_same_key():
    variables = [name for vendor in load_vendors().values() for name in vendor.key_variables]
    assert len(variables) == len(set(variables))


def test_price_vendors_are_known_to_genai_prices():
    known = {provider.id for provider in data_snapshot.get_snapshot().providers}
    assert {vendor.price_vendor for vendor in load_vendors().values() if vendor.price_vendor} <= known


def test_a_row_takes_its_name_and_owner_from_its_key():
    vendor = parse_vendors(ROW)["acme"]
    assert (vendor.name, vendor.owned_by) == ("acme", "acme")
    assert vendor.checked == date(2026, 11, 21)


@pytest.mark.parametrize(
    "line",
    [
        b"  embedings: false",
        b"  embeddings: 'no'",
        b"  base_url: ftp://api.acme.example",
        b"  base_url: https://api.acme.example/v1/",
        b"  key_variables: [acme-key]",
        b"  checked: yesterday",
    ],
)
def test_a_wrong_row_is_refused(line):
    with pytest.raises(msgspec.ValidationError):
        parse_vendors(ROW + line + b"\n")


def test_a_key_in_the_environment_is_enough():
    (access,) = vendors_in_environment(load_vendors(), {"MISTRAL_API_KEY": "secret"})
    assert access.vendor.name == "mistral"
    assert access.base_url == "https://api.mistral.ai/v1"
    assert [key.reveal() for key in access.keys] == ["secret"]
    assert "secret" not in repr(access)


def test_the_first_key_variable_that_is_set_wins():
    (access,) = vendors_in_environment(load_vendors(), {"GEMINI_API_KEY": " ", "GOOGLE_API_KEY": "second"})
    assert [key.reveal() for key in access.keys] == ["second"]


def test_the_environment_may_move_a_vendor():
    environment = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "https://eu.api.openai.com/v1/", "OPENAI_API_BASE": "x"}
    (access,) = vendors_in_environment(load_vendors(), environment)
    assert access.base_url == "https://eu.api.openai.com/v1"


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OPENAI_API_KEY": ""},
        {"OPENAI_BASE_URL": "https://proxy.example/v1"},
        {"HF_TOKEN": "for downloads"},
        {"GITHUB_TOKEN": "for git"},
        {"VLLM_API_KEY": "k"},
    ],
)
def test_nothing_else_turns_a_vendor_on(environment):
    assert vendors_in_environment(load_vendors(), environment) == []


def test_a_local_server_is_used_when_its_address_is_set():
    (access,) = vendors_in_environment(load_vendors(), {"VLLM_API_BASE": "http://10.0.0.7:8000/v1"})
    assert (access.vendor.name, access.base_url, access.keys) == ("vllm", "http://10.0.0.7:8000/v1", ())


def test_a_token_with_other_uses_needs_the_address_beside_it():
    environment = {"GITHUB_TOKEN": "t", "GITHUB_MODELS_BASE_URL": "https://models.github.ai/inference"}
    (access,) = vendors_in_environment(load_vendors(), environment)
    assert access.vendor.name == "github"


def revealed(environment, *variables):
    return [key.reveal() for key in keys_in_environment(variables or ("ACME_API_KEY",), environment)]


def test_a_vendor_may_have_several_keys_in_the_order_of_their_numbers():
    environment = {f"ACME_API_KEY_{number}": f"k{number}" for number in (31, 10, 2, 0)}
    assert revealed(environment) == ["k0", "k2", "k10", "k31"]
    assert revealed({**environment, "ACME_API_KEY": "k"}) == ["k", "k0", "k2", "k10", "k31"]
    (access,) = vendors_in_environment(load_vendors(), {"MAMMOUTH_API_KEY_0": "a", "MAMMOUTH_API_KEY_1": "b"})
    assert [key.reveal() for key in access.keys] == ["a", "b"]


def test_a_key_that_stands_twice_counts_once_and_blanks_are_none():
    assert revealed({"ACME_API_KEY": " a ", "ACME_API_KEY_0": "a", "ACME_API_KEY_1": " ", "ACME_API_KEY_2": "b"}) == [
        "a",
        "b",
    ]


def test_numbers_end_at_31_and_are_written_plainly():
    assert revealed({"ACME_API_KEY_32": "a", "ACME_API_KEY_01": "a", "ACME_API_KEY_": "a", "ACME_API_KEY0": "a"}) == []


def test_keys_of_two_variables_are_not_mixed():
    environment = {"GEMINI_API_KEY_1": "a", "GOOGLE_API_KEY": "b"}
    assert revealed(environment, "GEMINI_API_KEY", "GOOGLE_API_KEY") == ["a"]
