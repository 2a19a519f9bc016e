from stellwerk.api.ollama.lists import capabilities, render_loaded, render_shown, render_tags
from stellwerk.core.call import Operation
from stellwerk.core.plan import Model

OWN = Model(
    provider="local",
    name="tiny",
    id="tiny",
    created=1_700_000_000,
    context_length=2048,
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


def test_the_context_length_stands_under_the_architecture():
    info = render_shown(OWN)["model_info"]
    assert info[f"{info['general.architecture']}.context_length"] == 2048
    assert info["general.basename"] == "tiny"
    assert len(render_shown(VENDORS)["model_info"]) == 2


def test_nothing_loaded_is_a_list_too():
    assert render_loaded([]) == {"models": []}
    (row,) = render_loaded([OWN])["models"]
    assert (row["name"], row["context_length"], row["size"]) == ("tiny", 2048, 77)
