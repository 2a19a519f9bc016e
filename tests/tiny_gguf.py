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
CALL_TEMPLATE = (
    "{% if tools %}# Tools: call one within <tool_call></tool_call>{% for tool in tools %}\n{{ tool | tojson }}"
    "{% endfor %}\n{% endif %}{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content or '' }}"
    '{% for call in message.tool_calls or [] %}\n<tool_call>\n{"name": "{{ call.function.name }}", '
    '"arguments": {{ call.function.arguments | tojson }}}\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}'
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""As that of models that were trained to call tools."""

_CONTROL, _UNKNOWN, _NORMAL = 3, 2, 1


def write_tiny_chat_model(
    path: Path,
    *,
    name: str = "tiny chat",
    context: int = 2048,
    template: str | None = CHAT_TEMPLATE,
    architecture: str = "llama",
    heads: int = 4,
    strings: dict[str, str] | None = None,
) -> Path:
    """Writes a two-layer chat model with a byte vocabulary; its answers are noise, its protocol is real."""
    width, layers, hidden, key_heads = 64, 2, 128, 2
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


def write_parrot(path: Path, says: str, *, template: str, context: int = 4096) -> Path:
    """Writes a chat model that says the same, whatever it is asked: all of it is one token, which follows on a new
    line, and nothing follows on that."""
    tokens, types, merges = _byte_vocabulary()
    letters = _letters()
    tokens.append("".join(letters[byte] for byte in says.encode()))
    types.append(_NORMAL)
    new_line, last = tokens.index(letters[ord("\n")]), len(tokens) - 1
    width, heads, hidden = 320, 4, 32
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("parrot")
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template(template)
    # Nothing is added to what a token is, and each is a direction of its own.
    tensors = {name: np.zeros_like(values) for name, values in _llama_tensors(1, width, 1, hidden, width).items()}
    output = np.zeros((len(tokens), width))
    output[last, new_line] = output[3, last] = 5.0
    norms = ("output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight")
    tensors |= {name: np.ones(width) for name in norms}
    tensors |= {"token_embd.weight": np.eye(len(tokens), width), "output.weight": output}
    _write(writer, tensors)
    return path


def write_tiny_reranker(path: Path, *, name: str = "tiny reranker", context: int = 512) -> Path:
    """Writes the same with a head that makes one number of a query and a document."""
    return write_tiny_embedding_model(path, name=name, context=context, ranks=True)


def write_tiny_embedding_model(
    path: Path, *, name: str = "tiny embedding", context: int = 512, ranks: bool = False
) -> Path:
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
    writer.add_pooling_type(gguf.PoolingType.RANK if ranks else gguf.PoolingType.MEAN)
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
    tensors = _bert_tensors(len(tokens), width, hidden, context)
    if ranks:
        random = np.random.default_rng(9)
        tensors |= {
            "cls.weight": random.normal(0, 0.1, (width, width)),
            "cls.bias": np.zeros(width),
            "cls.output.weight": random.normal(0, 0.3, (1, width)),
            "cls.output.bias": np.zeros(1),
        }
    _write(writer, tensors)
    return path


def write_tiny_projector(
    path: Path, *, sense: str = "vision", width: int = 64, numbers: dict[str, int] | None = None
) -> Path:
    """Writes a one-layer projector for models whose embeddings have `width` numbers: gemma3's for `vision`, that of
    qwen2-audio for `audio`. `numbers` take the place of what stands under `clip.<sense>.`."""
    own, hidden, letter = 64, 128, sense[0]
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_bool(f"clip.has_{sense}_encoder", True)
    writer.add_string("clip.projector_type", "gemma3" if sense == "vision" else "qwen2a")
    writer.add_bool("clip.use_gelu", True)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_float32(f"clip.{sense}.attention.layer_norm_epsilon", 1e-5)
    keys = {
        "embedding_length": own,
        "feed_forward_length": hidden,
        "block_count": 1,
        "attention.head_count": 2,
        "projection_dim": width,
    } | ({"image_size": 256, "patch_size": 16} if sense == "vision" else {"num_mel_bins": 128})
    for key, number in (keys | (numbers or {})).items():
        writer.add_uint32(f"clip.{sense}.{key}", number)
    random = np.random.default_rng(3)

    def weights(*shape: int) -> Any:
        return random.normal(0, 0.05, shape)

    if sense == "vision":
        writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
        writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
        tensors = {
            "v.patch_embd.weight": weights(own, 3, 16, 16),
            "v.patch_embd.bias": np.zeros(own),
            "v.position_embd.weight": weights(256, own),
            "mm.input_projection.weight": weights(own, width),
            "mm.soft_emb_norm.weight": np.ones(own),
        }
    else:
        tensors = {
            "a.conv1d.1.weight": weights(own, 128, 3),
            "a.conv1d.1.bias": weights(own, 1),
            "a.conv1d.2.weight": weights(own, own, 3),
            "a.conv1d.2.bias": weights(own, 1),
            "a.position_embd.weight": weights(1500, own),
            "mm.a.fc.weight": weights(width, own),
            "mm.a.fc.bias": np.zeros(width),
        }
    for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
        tensors[f"{letter}.blk.0.{part}.weight"] = weights(own, own)
        # The encoder of whisper, which hears, has no bias at its keys.
        if sense == "vision" or part != "attn_k":
            tensors[f"{letter}.blk.0.{part}.bias"] = np.zeros(own)
    for part in ("blk.0.ln1", "blk.0.ln2", "post_ln"):
        tensors |= {f"{letter}.{part}.weight": np.ones(own), f"{letter}.{part}.bias": np.zeros(own)}
    tensors |= {
        f"{letter}.blk.0.ffn_up.weight": weights(hidden, own),
        f"{letter}.blk.0.ffn_up.bias": np.zeros(hidden),
        f"{letter}.blk.0.ffn_down.weight": weights(own, hidden),
        f"{letter}.blk.0.ffn_down.bias": np.zeros(own),
    }
    _write(writer, tensors)
    return path


def _byte_vocabulary() -> tuple[list[str], list[int], list[str]]:
    """The GPT-2 byte alphabet behind four control tokens; llama.cpp wants at least one merge."""
    letters = _letters()
    special = ["<|pad|>", "<|bos|>", "<|im_start|>", "<|im_end|>"]
    tokens = [*special, *(letters[byte] for byte in range(256)), "th", "in", "er"]
    types = [_CONTROL] * len(special) + [_NORMAL] * (len(tokens) - len(special))
    return tokens, types, ["t h", "i n", "e r"]


def _letters() -> dict[int, str]:
    """How this alphabet writes each byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(0x100 + i) for i, byte in enumerate(hidden)}


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
    # These are looked up or added, not multiplied: llama.cpp wants them in full precision.
    full = {
        "position_embd.weight", "token_types.weight", "v.position_embd.weight", "a.position_embd.weight",
        "mm.input_projection.weight", "a.conv1d.1.bias", "a.conv1d.2.bias",
    }  # fmt: skip
    for name, values in tensors.items():
        half = values.ndim >= 2 and name not in full
        writer.add_tensor(name, np.ascontiguousarray(values, dtype=np.float16 if half else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
