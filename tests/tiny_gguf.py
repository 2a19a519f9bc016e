"""Models of a few hundred kilobytes with random weights: real files for a real engine, made in milliseconds."""

import string
from pathlib import Path
from typing import Any

import gguf
import numpy as np

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOL_TEMPLATE = (
    "{% if tools %}# Tools{% for tool in tools %}\n{{ tool | tojson }}{% endfor %}\n{% endif %}" + CHAT_TEMPLATE
)

_CONTROL, _UNKNOWN, _NORMAL = 3, 2, 1


def write_tiny_chat_model(
    path: Path,
    *,
    name: str = "tiny chat",
    context: int = 2048,
    template: str | None = CHAT_TEMPLATE,
    architecture: str = "llama",
    strings: dict[str, str] | None = None,
) -> Path:
    """Writes a two-layer chat model with a byte vocabulary; its answers are noise, its protocol is real."""
    width, layers, hidden, heads, key_heads = 64, 2, 128, 4, 2
    tokens, types, merges = _byte_vocabulary()
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(name)
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(key_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    for key, text in (strings or {}).items():
        writer.add_string(key, text)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(False)
    if template is not None:
        writer.add_chat_template(template)
    _write(writer, _llama_tensors(len(tokens), width, layers, hidden, width // heads * key_heads))
    return path


def write_tiny_embedding_model(path: Path, *, name: str = "tiny embedding", context: int = 512) -> Path:
    """Writes a one-layer BERT with a character vocabulary and mean pooling; 96 dimensions."""
    width, hidden, heads = 96, 192, 4
    letters = string.ascii_lowercase + string.digits + ".,!?'-:;()/\"" + "äöüß"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens = [*special, *("\u2581" + letter for letter in letters), *letters]
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name(name)
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([_CONTROL, _UNKNOWN, _CONTROL, _CONTROL, _CONTROL] + [_NORMAL] * (2 * len(letters)))
    writer.add_token_type_count(2)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(3)
    writer.add_sep_token_id(3)
    writer.add_mask_token_id(4)
    _write(writer, _bert_tensors(len(tokens), width, hidden, context))
    return path


def _byte_vocabulary() -> tuple[list[str], list[int], list[str]]:
    """The GPT-2 byte alphabet behind four control tokens; llama.cpp wants at least one merge."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable} | {byte: chr(0x100 + i) for i, byte in enumerate(hidden)}
    special = ["<|pad|>", "<|bos|>", "<|im_start|>", "<|im_end|>"]
    tokens = [*special, *(letters[byte] for byte in range(256)), "th", "in", "er"]
    types = [_CONTROL] * len(special) + [_NORMAL] * (len(tokens) - len(special))
    return tokens, types, ["t h", "i n", "e r"]


def _llama_tensors(vocabulary: int, width: int, layers: int, hidden: int, key_width: int) -> dict[str, Any]:
    random = np.random.default_rng(7)

    def weights(*shape: int) -> Any:
        return random.normal(0, 0.08, shape)

    tensors = {"token_embd.weight": weights(vocabulary, width), "output_norm.weight": np.ones(width)}
    for layer in range(layers):
        block = f"blk.{layer}."
        tensors |= {
            block + "attn_norm.weight": np.ones(width),
            block + "attn_q.weight": weights(width, width),
            block + "attn_k.weight": weights(key_width, width),
            block + "attn_v.weight": weights(key_width, width),
            block + "attn_output.weight": weights(width, width),
            block + "ffn_norm.weight": np.ones(width),
            block + "ffn_gate.weight": weights(hidden, width),
            block + "ffn_up.weight": weights(hidden, width),
            block + "ffn_down.weight": weights(width, hidden),
        }
    return tensors


def _bert_tensors(vocabulary: int, width: int, hidden: int, context: int) -> dict[str, Any]:
    random = np.random.default_rng(7)

    def weights(*shape: int) -> Any:
        return random.normal(0, 0.1, shape)

    tensors = {
        "token_embd.weight": weights(vocabulary, width) * 3,
        "position_embd.weight": weights(context, width) * 0.1,
        "token_types.weight": np.zeros((2, width)),
        "token_embd_norm.weight": np.ones(width),
        "token_embd_norm.bias": np.zeros(width),
    }
    for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
        tensors |= {f"blk.0.{part}.weight": weights(width, width), f"blk.0.{part}.bias": np.zeros(width)}
    for part in ("attn_output_norm", "layer_output_norm"):
        tensors |= {f"blk.0.{part}.weight": np.ones(width), f"blk.0.{part}.bias": np.zeros(width)}
    return tensors | {
        "blk.0.ffn_up.weight": weights(hidden, width),
        "blk.0.ffn_up.bias": np.zeros(hidden),
        "blk.0.ffn_down.weight": weights(width, hidden),
        "blk.0.ffn_down.bias": np.zeros(width),
    }


def _write(writer: gguf.GGUFWriter, tensors: dict[str, Any]) -> None:
    # These two are looked up, not multiplied: llama.cpp wants them in full precision.
    full = {"position_embd.weight", "token_types.weight"}
    for name, values in tensors.items():
        half = values.ndim == 2 and name not in full
        writer.add_tensor(name, np.ascontiguousarray(values, dtype=np.float16 if half else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
