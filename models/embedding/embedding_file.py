"""Writes the table as a BERT that llama.cpp loads, one whose layers hand on what they are given."""

from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray
from vocabulary import SPECIALS

CONTEXT = 512
BALLAST = 2
"""Numbers of each token's vector that only make its length right, see `with_ballast`."""
_HEADS = 2
_INNER = 32


def with_ballast(table: NDArray[np.float32]) -> NDArray[np.float32]:
    """Two more numbers behind each vector, so that all of them have the same length and the mean 0.

    A layer norm then only scales every one of them alike. Without it, a frequent word would weigh as much as a rare
    one. The last norm of the network multiplies the two with 0.
    """
    rows = table.astype(np.float64)
    squares, sums = (rows**2).sum(axis=1), rows.sum(axis=1)
    # The two must have the sum -sums and the squares that are missing: that has a solution from this size on.
    whole = (squares + sums**2 / 2).max() * 1.01
    apart = np.sqrt((whole - squares) / 2 - sums**2 / 4)
    return np.column_stack([rows, -sums / 2 + apart, -sums / 2 - apart]).astype(np.float32)


def write(path: Path, table: NDArray[np.float32], pieces: list[str]) -> None:
    """The whole file: metadata, tokenizer, tensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    full = with_ballast(table)
    writer = gguf.GGUFWriter(path, "bert")
    _describe(writer, full.shape[1])
    _add_tokenizer(writer, pieces)
    for name, tensor in _tensors(full).items():
        # What is looked up and added, and what has one dimension, llama.cpp wants in full precision.
        half = tensor.ndim > 1 and name not in ("position_embd.weight", "token_types.weight")
        writer.add_tensor(name, np.ascontiguousarray(tensor, dtype=np.float16 if half else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: gguf.GGUFWriter, width: int) -> None:
    writer.add_name("stellwerk-demo-embedding")
    writer.add_description("Tiny demo that embeds questions about Stellwerk in English and German, and little else.")
    writer.add_license("apache-2.0")
    writer.add_license_name("Apache License 2.0")
    writer.add_languages(["en", "de"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(_INNER)
    writer.add_head_count(_HEADS)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)


def _add_tokenizer(writer: gguf.GGUFWriter, pieces: list[str]) -> None:
    kinds = [gguf.TokenType.NORMAL] * len(pieces)
    kinds[: len(SPECIALS)] = [gguf.TokenType.CONTROL] * len(SPECIALS)
    pad, unknown, first, last, mask = range(len(SPECIALS))
    kinds[unknown] = gguf.TokenType.UNKNOWN
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces)
    writer.add_token_types(kinds)
    writer.add_token_type_count(2)
    writer.add_pad_token_id(pad)
    writer.add_unk_token_id(unknown)
    writer.add_bos_token_id(first)
    writer.add_eos_token_id(last)
    writer.add_sep_token_id(last)
    writer.add_mask_token_id(mask)


def _tensors(table: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Attention and feed-forward are zero: what is left of a layer are its sums and its norms."""
    width = table.shape[1]
    ones = np.ones(width, dtype=np.float32)
    tensors: dict[str, NDArray[np.float32]] = {
        "token_embd.weight": table,
        "position_embd.weight": np.zeros((CONTEXT, width), dtype=np.float32),
        "token_types.weight": np.zeros((2, width), dtype=np.float32),
    }
    for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
        tensors |= {f"blk.0.{part}.weight": np.zeros((width, width)), f"blk.0.{part}.bias": np.zeros(width)}
    tensors |= {
        "blk.0.ffn_up.weight": np.zeros((_INNER, width)),
        "blk.0.ffn_up.bias": np.zeros(_INNER),
        "blk.0.ffn_down.weight": np.zeros((width, _INNER)),
        "blk.0.ffn_down.bias": np.zeros(width),
    }
    for norm in ("token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm"):
        tensors |= {f"{norm}.weight": ones, f"{norm}.bias": np.zeros(width)}
    tensors["blk.0.layer_output_norm.weight"] = np.concatenate([ones[:-BALLAST], np.zeros(BALLAST)])
    return tensors
