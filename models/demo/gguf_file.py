"""Writes the trained network as a q8_0 GGUF that llama.cpp serves as it is."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from network import Network, Shape
from tokenizers import Tokenizer

SPECIALS = ["<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]

# Content may be missing (a tool call) or come in parts; what is no text is left out.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
  {{- '<|im_start|>' + ('system' if message.role == 'developer' else message.role) + '\\n' -}}
  {%- if message.content is string -%}
    {{- message.content | trim -}}
  {%- elif message.content -%}
    {%- for part in message.content -%}
      {%- if part.type == 'text' -%}{{- part.text | trim -}}{%- endif -%}
    {%- endfor -%}
  {%- endif -%}
  {{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def write(path: Path, network: Network, tokenizer: Tokenizer) -> None:
    """The whole file: metadata, tokenizer, tensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, "llama")
    describe(writer)
    add_shape(writer, network.shape)
    add_tokenizer(writer, tokenizer)
    for name, tensor in tensors(network).items():
        add_tensor(writer, name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def describe(writer: gguf.GGUFWriter) -> None:
    writer.add_name("stellwerk-demo")
    writer.add_description("Tiny demo that answers questions about Stellwerk in English and German, and nothing else.")
    writer.add_license("apache-2.0")
    writer.add_license_name("Apache License 2.0")
    writer.add_languages(["en", "de"])
    writer.add_size_label("2M")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    # llama.cpp takes its default from here: without a word from the caller, the same question gets the same answer.
    writer.add_sampling_temp(0.0)


def add_shape(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.head)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    writer.add_vocab_size(shape.vocabulary)


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    model: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    kinds = [gguf.TokenType.CONTROL if token in SPECIALS else gguf.TokenType.NORMAL for token in tokens]
    pad, end_of_text, _, end_of_message = (tokens.index(special) for special in SPECIALS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]])
    writer.add_bos_token_id(end_of_text)
    writer.add_eos_token_id(end_of_message)
    writer.add_pad_token_id(pad)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def tensors(network: Network) -> dict[str, np.ndarray]:
    """The weights under the names llama.cpp looks for; the output is tied to the embedding."""
    named = {"token_embd.weight": network.embedding.weight, "output_norm.weight": network.norm.weight}
    for number, block in enumerate(network.blocks):
        named |= {f"blk.{number}.{name}": weight for name, weight in block.named_parameters()}
    return {name: weight.detach().float().numpy() for name, weight in named.items()}


def add_tensor(writer: gguf.GGUFWriter, name: str, tensor: np.ndarray) -> None:
    if tensor.ndim < 2:
        writer.add_tensor(name, tensor)
        return
    kind = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor(name, gguf.quants.quantize(tensor, kind), raw_dtype=kind)
