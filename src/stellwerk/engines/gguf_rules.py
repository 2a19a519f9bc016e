"""What the values of a GGUF header may say: llama.cpp aborts, or reads past an end, on some that it does not check."""

import re
from collections.abc import Mapping
from math import isfinite
from typing import Any

import msgspec

from stellwerk.engines.gguf_reader import ARRAY, FLOAT32, INT32, STRING, UINT16, UINT32, InvalidGguf
from stellwerk.engines.gguf_tensors import Tensor

VOCABULARY_TYPES = "tokenizer.ggml.token_type"
VOCABULARY = "tokenizer.ggml.tokens"
CHAT_TEMPLATES = "tokenizer.chat_template"

ENCODERS = frozenset({
    "bert", "eurobert", "gemma-embedding", "jina-bert-v2", "jina-bert-v3", "llama-embed", "modern-bert", "neo-bert",
    "nomic-bert", "nomic-bert-moe", "t5encoder",
})  # fmt: skip
"""Architectures that only make embeddings."""
_SQUARE_HEADS = frozenset({"bert", "jina-bert-v2", "jina-bert-v3", "nomic-bert", "nomic-bert-moe"})
"""Architectures whose keys and values have the same size."""
_MAX_LAYERS = 512
_MAX_EXPERTS = 1_024
_MAX_TEMPLATE = 64 << 10
_MAX_BRACKETS = 1_500
_MAX_OPERATORS = 6_000
_OPERATOR = re.compile(r"[-+~|.*/%<>=]|\b(?:not|or|and|if|elif|else|is|in|for)\b")
_LISTS = {
    "tokenizer.ggml.scores": (FLOAT32,),
    VOCABULARY_TYPES: (INT32, UINT32),
}
"""Lists with one member for each token; llama.cpp neither counts them nor looks at what they hold."""
_MIN_CONTEXT, _MAX_CONTEXT = 16, (1 << 31) - 1
_WITHOUT_BYTE_TOKENS = frozenset({"bert", "gpt2"})
"""Kinds of vocabularies in which a token cannot be one byte."""
_NO_VOCABULARY = frozenset({"none", "no_vocab"})
_SPEAKING = "wavtokenizer-dec"
_SPLIT = {"split.no": UINT16, "split.count": UINT16, "split.tensors.count": INT32}


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """A header as it stands in the file."""

    values: Mapping[str, Any]
    """Numbers, and the texts and lists that are wanted; None for everything else."""
    kinds: Mapping[str, int]
    """GGUF's numbers of the types of the values."""
    lists: Mapping[str, tuple[int, int]]
    """The type and number of the members of each list."""
    tensors: Mapping[str, Tensor]
    byte_tokens: bool = False
    """Whether its vocabulary has tokens that are one byte."""


def check_values(header: Header) -> None:
    """Raises InvalidGguf."""
    for key, kind in _SPLIT.items():
        if header.kinds.get(key, kind) != kind:
            raise InvalidGguf(f"its {key} has a type that nothing expects")
    _check_vocabulary(header)
    for key, value in header.values.items():
        if key.startswith(CHAT_TEMPLATES) and isinstance(value, str):
            _check_template(value)
    architecture = header.values.get("general.architecture")
    if isinstance(architecture, str) and architecture != "clip":
        _check_layers(header, architecture)
    for key, value in header.values.items():
        if key.endswith("_epsilon") and isinstance(value, float) and not (isfinite(value) and value >= 0):
            raise InvalidGguf(f"its {key[:100]} is impossible")


def _check_vocabulary(header: Header) -> None:
    values = header.values
    if values.get("tokenizer.ggml.model") in _NO_VOCABULARY and values.get("general.architecture") != _SPEAKING:
        raise InvalidGguf("it has no vocabulary")
    kind, tokens = header.lists.get(VOCABULARY, (STRING, 0))
    if kind != STRING or header.kinds.get(VOCABULARY, ARRAY) != ARRAY:
        raise InvalidGguf("its vocabulary is no list of texts")
    for key, kinds in _LISTS.items():
        if key in header.kinds:
            kind, count = header.lists.get(key, (STRING, 0))
            if kind not in kinds or count != tokens:
                raise InvalidGguf(f"its {key} does not fit its vocabulary")
    if header.byte_tokens and values.get("tokenizer.ggml.model") in _WITHOUT_BYTE_TOKENS:
        raise InvalidGguf("its vocabulary has tokens of a type that nothing expects")


def _check_template(template: str) -> None:
    """A template is a program, and llama.cpp reads and runs nested ones by recursion."""
    brackets = sum(template.count(bracket) for bracket in "([{")
    if len(template) > _MAX_TEMPLATE or brackets > _MAX_BRACKETS or _count(template) > _MAX_OPERATORS:
        raise InvalidGguf("its chat template is larger than any that a model needs")


def _count(template: str) -> int:
    return sum(1 for _ in _OPERATOR.finditer(template))


def _check_layers(header: Header, architecture: str) -> None:
    def number(name: str, otherwise: int) -> int:
        value = header.values.get(f"{architecture}.{name}", otherwise)
        return value if isinstance(value, int) else otherwise

    if not _MIN_CONTEXT <= number("context_length", _MAX_CONTEXT) <= _MAX_CONTEXT:
        raise InvalidGguf("its context length is impossible")
    layers, experts = number("block_count", 1), number("expert_count", 0)
    if not 0 < layers <= _MAX_LAYERS:
        raise InvalidGguf("its number of layers is impossible")
    used = number("expert_used_count", 0)
    if not 0 <= used <= experts <= _MAX_EXPERTS or (experts and not used):
        raise InvalidGguf("its number of experts is impossible")
    if not 0 <= number("nextn_predict_layers", 0) <= layers:
        raise InvalidGguf("its number of layers is impossible")
    heads = number("attention.head_count", 1)
    sizes = {number(f"attention.{name}_length", -1) for name in ("key", "value")}
    if architecture in _SQUARE_HEADS and (heads < 1 or len(sizes) > 1):
        raise InvalidGguf("the size of its attention heads is impossible")
