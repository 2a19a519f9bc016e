import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.engines.gguf import GgufFacts
from stellwerk.engines.model_types import CAPABILITIES, ModelType, detect_type


def facts(architecture="llama", *, kind="model", embeds=False, ranks=False):
    return GgufFacts(
        architecture=architecture,
        name="",
        kind=kind,
        context_length=None,
        parameter_count=None,
        quantization=None,
        embeds=embeds,
        ranks=ranks,
        has_chat_template=False,
        knows_tools=False,
    )


@pytest.mark.parametrize(
    ("kind", "abilities"),
    [
        ("text", {"text"}),
        ("vision", {"text", "vision"}),
        ("omni", {"text", "vision", "audio"}),
        ("embedding", {"text", "embedding"}),
        ("vision-embedding", {"text", "vision", "embedding"}),
        ("audio", {"audio"}),
        ("tts", {"tts"}),
    ],
)
def test_each_type_can_what_is_documented(kind, abilities):
    known = CAPABILITIES[ModelType(kind)]
    assert {name for name in known.__struct_fields__ if getattr(known, name)} == abilities


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Qwen2.5-7B-Instruct-Q4_K_M.gguf", "text"),
        ("mmproj-Qwen2.5-VL-7B-f16.gguf", None),
        ("Qwen2.5-Omni-mmproj-f16.gguf", None),
        ("OuteTTS-0.2-500M.gguf", "tts"),
        ("WavTokenizer-vocoder.gguf", "tts"),
        ("kokoro-82m.gguf", "tts"),
        ("piper-de-omni.gguf", "tts"),
        ("Qwen2.5-Omni-7B.gguf", "omni"),
        ("omni-embed-v1.gguf", "omni"),
        ("whisper-large-v3.gguf", "audio"),
        ("ggml-base.en.bin", "audio"),
        ("ggml-medium-q5_0.gguf", "audio"),
        ("ggml-something.gguf", "text"),
        ("kokoro.bin", "audio"),
        ("mmproj-model.bin", None),
        ("qwen3-vl-embed-2b.gguf", "vision-embedding"),
        ("vision-embedding.gguf", "vision-embedding"),
        ("nomic-embed-text-v1.5.Q8_0.gguf", "embedding"),
        ("Qwen3-Embedding-0.6B.gguf", "embedding"),
        ("Qwen2.5-VL-7B-Instruct.gguf", "vision"),
        ("model_VL_2.gguf", "vision"),
        ("Llama-3.2-11B-Vision.gguf", "vision"),
        ("MiniCPM-V-2_6.gguf", "vision"),
        ("a-model", "text"),
    ],
)
@pytest.mark.parametrize("header", [None, facts()])
def test_a_name_tells_the_type_in_the_documented_order(name, kind, header):
    assert detect_type(name, header) == kind


@pytest.mark.parametrize(
    ("name", "header", "kind"),
    [
        ("bge-m3.gguf", facts("bert", embeds=True), "embedding"),
        ("kokoro-vits.gguf", facts("nomic-bert", embeds=True), "embedding"),
        ("jina-clip-vision.gguf", facts("bert", embeds=True), "vision-embedding"),
        ("bge-reranker.gguf", facts("bert", ranks=True), "embedding"),
        ("model.gguf", facts("clip", kind="mmproj"), None),
        ("lora.gguf", facts(kind="adapter"), None),
        ("model.gguf", facts("whisper"), "audio"),
        ("model.gguf", facts("wavtokenizer-dec"), "tts"),
    ],
)
def test_what_a_header_is_certain_of_counts_before_the_name(name, header, kind):
    assert detect_type(name, header) == kind


@given(st.text(max_size=40))
def test_every_name_has_a_type_or_is_a_projector(name):
    assert (detect_type(name, None) is None) == ("mmproj" in name.lower())
