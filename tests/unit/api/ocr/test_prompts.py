import pytest

from stellwerk.api.ocr.prompts import family_of, longest_side, make_manner, other_mode
from stellwerk.engines.ocr.modes import MODES


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("deepseek-ai/DeepSeek-OCR", "deepseek"),
        ("deepseek-ocr:3b", "deepseek"),
        ("DeepSeek_OCR-Q8_0", "deepseek"),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "qwen"),
        ("qwen3-vl:8b", "qwen"),
        ("PaddlePaddle/PaddleOCR-VL", "paddle"),
        ("zai-org/GLM-OCR", "glm"),
        ("rednote-hilab/dots.ocr", "dots"),
        ("gpt-5-mini", "general"),
        ("deepseek-chat", "general"),
    ],
)
def test_a_family_is_known_by_its_name(name, family):
    assert family_of(name) == family


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("DeepSeek-OCR", "<|grounding|>Convert the document to markdown. "),
        ("PaddleOCR-VL", "OCR:"),
        ("GLM-OCR", "Text Recognition:"),
    ],
)
def test_ocr_models_are_asked_to_the_letter(name, words):
    assert make_manner(name, "other", "large").prompt == words


@pytest.mark.parametrize("server", ["vllm", "own vllm", "llama.cpp", "other"])
def test_the_second_attempt_is_stronger_and_looks_otherwise(server):
    first = make_manner("DeepSeek-OCR", server, "large")
    second = make_manner("DeepSeek-OCR", server, "large", again=True)
    assert first.settings != second.settings
    assert first.longest != second.longest


def test_only_a_vllm_of_others_takes_arguments_for_its_processor():
    assert "vllm_xargs" in make_manner("DeepSeek-OCR", "vllm", "large").settings
    for server in ("own vllm", "llama.cpp", "other"):
        assert "vllm_xargs" not in make_manner("DeepSeek-OCR", server, "large").settings


def test_deepseek_has_no_true_base_and_so_gets_one_overview():
    assert [longest_side("deepseek", mode) for mode in MODES] == [512, 640, 640, 1280, 3584]
    assert [longest_side("general", mode) for mode in MODES] == [512, 640, 1024, 1280, 3584]


def test_every_mode_has_another():
    assert all(other_mode(mode) != mode for mode in MODES)


def test_a_short_context_leaves_room_for_the_page():
    assert make_manner("seer", "other", "large", context=4096).settings["max_tokens"] == 2048
    assert make_manner("seer", "other", "large", max_tokens=77).settings["max_tokens"] == 77
