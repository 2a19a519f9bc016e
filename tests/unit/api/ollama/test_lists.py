import pytest
from msgspec.structs import replace

from stellwerk.api.ollama.lists import capabilities, render_loaded, render_shown, render_tags
from stellwerk.core.call import Operation
from stellwerk.core.plan import Model
from stellwerk.engines.slot import SlotStatus

OWN = Model(
    provider="local",
    name="tiny",
    id="tiny",
    created=1_700_000_000,
    context_length=2048,
    architecture="qwen3",
    parameter_count=8_190_735_360,
    embedding_length=4096,
    parameters=("temperature", "tools"),
    quantization="Q4_K_M",
    size_bytes=77,
    local=True,
)
VENDORS = Model(
    provider="house",
    name="up",
    id="house/up",
    input_modalities=("text", "image"),
    parameters=("reasoning_effort",),
    operations=frozenset({Operation.CHAT}),
)
EMBEDS = Model(provider="house", name="e", id="house/e", operations=frozenset({Operation.EMBEDDING}), created=9)


def test_models_are_listed_newest_first_with_what_is_known():
    rows = render_tags([VENDORS, EMBEDS, OWN])["models"]
    assert [row["name"] for row in rows] == ["tiny", "house/e", "house/up"]
    own, _, vendors = rows
    assert own["model"] == "tiny"
    assert own["modified_at"] == "2023-11-14T22:13:20.000000000Z"
    assert (own["size"], vendors["size"]) == (77, 0)
    assert own["details"]["quantization_level"] == "Q4_K_M"
    assert (own["details"]["format"], own["details"]["context_length"]) == ("gguf", 2048)
    assert "context_length" not in vendors["details"]
    assert len({row["digest"] for row in rows}) == 3
    assert all(len(row["digest"]) == 64 for row in rows)
    assert rows == render_tags([OWN, EMBEDS, VENDORS])["models"]


def test_capabilities_are_named_as_ollama_names_them():
    assert capabilities(OWN) == ["completion", "tools"]
    assert capabilities(VENDORS) == ["completion", "vision", "thinking"]
    assert capabilities(EMBEDS) == ["embedding"]


def test_lengths_stand_under_the_architecture():
    assert render_shown(OWN)["model_info"] == {
        "general.architecture": "qwen3",
        "general.basename": "tiny",
        "general.parameter_count": 8_190_735_360,
        "qwen3.context_length": 2048,
        "qwen3.embedding_length": 4096,
    }


def test_what_is_not_known_of_a_model_is_not_made_up():
    shown = render_shown(VENDORS)
    assert shown["model_info"] == {"general.architecture": "unknown", "general.basename": "house/up"}
    details = shown["details"]
    assert (details["family"], details["families"], details["parameter_size"]) == ("", [], "")


@pytest.mark.parametrize(
    ("parameters", "size"),
    [
        (8_190_735_360, "8.2B"),
        (70_000_000_000, "70B"),
        (566_700_000, "566.70M"),
        (137_000_000, "137M"),
        (999_999, "1000K"),
        (2_000, "2K"),
        (999, "999"),
    ],
)
def test_a_size_is_written_as_ollama_writes_it(parameters: int, size: str):
    details = render_tags([replace(OWN, parameter_count=parameters)])["models"][0]["details"]
    assert details["parameter_size"] == size
    assert (details["family"], details["families"]) == ("qwen3", ["qwen3"])


def test_nothing_loaded_is_a_list_too():
    assert render_loaded([]) == {"models": []}
    slot = SlotStatus(port=1, state="ready", model="tiny")
    (row,) = render_loaded([(OWN, slot)])["models"]
    assert (row["name"], row["context_length"], row["size"]) == ("tiny", 2048, 77)
    assert row["expires_at"].startswith("23")
    measured = replace(slot, memory_mib=2.0, context=512, expires_at=1_700_000_000.5)
    (row,) = render_loaded([(OWN, measured)])["models"]
    assert (row["context_length"], row["size"]) == (512, 2 << 20)
    assert row["expires_at"] == "2023-11-14T22:13:20.500000000Z"
