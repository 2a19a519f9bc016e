"""How each family of models wants to be asked for a page: in words, sizes and settings of its sampler. Pure.

OCR models are trained on a few prompts and break down on others: the wording is theirs, to the letter.
"""

from typing import Any, Literal, TypeAlias

import msgspec

from stellwerk.engines.ocr.modes import LONG_SIDES, MODES, Mode

Server: TypeAlias = Literal["vllm", "own vllm", "llama.cpp", "other"]
"""Who runs a model: their samplers have different remedies against loops. `own vllm` is one that we have started, which
takes no arguments for processors from requests."""
Family: TypeAlias = Literal["deepseek", "qwen", "paddle", "glm", "dots", "general"]

_SIGNS: tuple[tuple[str, Family], ...] = (
    ("deepseek-ocr", "deepseek"),
    ("deepseekocr", "deepseek"),
    ("paddleocr", "paddle"),
    ("glm-ocr", "glm"),
    ("glmocr", "glm"),
    ("dots.ocr", "dots"),
    ("dots-ocr", "dots"),
    ("qwen2-vl", "qwen"),
    ("qwen2vl", "qwen"),
    ("qwen2.5-vl", "qwen"),
    ("qwen2.5vl", "qwen"),
    ("qwen3-vl", "qwen"),
    ("qwen3vl", "qwen"),
    ("qwen-vl", "qwen"),
)
_PROMPTS: dict[Family, str] = {
    "deepseek": "<|grounding|>Convert the document to markdown. ",
    "qwen": "Read all the text in the image. Answer with the text as Markdown and nothing else.",
    "paddle": "OCR:",
    "glm": "Text Recognition:",
    "dots": "Extract the text content from this image.",
    "general": "Transcribe all text on this page exactly as it stands there, in its reading order, as Markdown: "
    "headings, lists and tables as such. Do not translate, explain or leave out anything. Answer with the "
    "transcription alone; for a page without text answer with nothing.",
}
_DEEPSEEK_HERE = "<|grounding|>OCR"
"""What llama.cpp's template wants of the same model."""
_TILE = 640
"""Up to this many pixels on both sides a page is one overview to DeepSeek-OCR; beyond, it is cut into tiles too."""
_GUNDAM = 3584
"""The longest side that is sent at all; models reduce larger ones."""
_TOKENS, _DEEPSEEK_TOKENS = 8192, 6144
"""DeepSeek-OCR has 8192 for page and answer together."""
_LEAST_TOKENS = 256
_CELLS = (128821, 128822)
"""`<td>` and `</td>`: cells of a table may be alike."""


class Manner(msgspec.Struct, frozen=True, kw_only=True):
    """How a page is asked for."""

    prompt: str
    longest: int
    """Pixels of the longer side of the picture."""
    settings: dict[str, Any]
    """Fields of the request beside model and messages."""
    grounded: bool


def family_of(model: str) -> Family:
    name = model.casefold().replace("_", "-")
    return next((family for sign, family in _SIGNS if sign in name), "general")


def make_manner(
    model: str,
    server: Server,
    mode: Mode,
    *,
    prompt: str | None = None,
    max_tokens: int | None = None,
    context: int | None = None,
    again: bool = False,
) -> Manner:
    """How `model` is asked. `prompt` and `max_tokens` are the client's wishes; `again` says that it fell into a loop
    or wrote nothing in `mode`, and that stronger remedies are due."""
    family = family_of(model)
    settings: dict[str, Any] = {}
    if family != "general" or server != "other":
        # Clouds have models that refuse any temperature; none of these does.
        settings["temperature"] = 0.2 if again and family == "general" else 0
    settings |= _against_loops(family, server, again=again)
    settings["max_tokens"] = max_tokens or _most_tokens(family, context)
    said = prompt or (_DEEPSEEK_HERE if family == "deepseek" and server == "llama.cpp" else _PROMPTS[family])
    return Manner(
        prompt=said,
        longest=longest_side(family, other_mode(mode) if again else mode),
        settings=settings,
        grounded=family == "deepseek",
    )


def longest_side(family: Family, mode: Mode) -> int:
    """A server has one mode for all requests, so that of a request is the size of its picture."""
    if mode == "gundam":
        return _GUNDAM
    return min(LONG_SIDES[mode], _TILE) if family == "deepseek" and mode == "base" else LONG_SIDES[mode]


def other_mode(mode: Mode) -> Mode:
    """What to look with after a failure: finer from below, coarser from the top."""
    return "large" if mode == "gundam" else MODES[MODES.index(mode) + 1]


def _against_loops(family: Family, server: Server, *, again: bool) -> dict[str, Any]:
    if server == "llama.cpp":
        return {
            "dry_multiplier": 4.0 if again else 2.0,
            "dry_base": 1.75,
            "dry_allowed_length": 2,
            "dry_penalty_last_n": -1,
        } | ({"repeat_penalty": 1.1} if again else {})
    if server in ("vllm", "own vllm"):
        settings: dict[str, Any] = {"repetition_penalty": 1.1} if again else {}
        if family == "deepseek":
            # Its tags are special tokens.
            settings["skip_special_tokens"] = False
            if server == "vllm":
                settings["vllm_xargs"] = {
                    "ngram_size": 15 if again else 30,
                    "window_size": 256 if again else 90,
                    "whitelist_token_ids": list(_CELLS),
                }
        return settings
    return {"frequency_penalty": 0.4} if again else {}


def _most_tokens(family: Family, context: int | None) -> int:
    most = _DEEPSEEK_TOKENS if family == "deepseek" else _TOKENS
    return most if not context else max(_LEAST_TOKENS, min(most, context // 2))
