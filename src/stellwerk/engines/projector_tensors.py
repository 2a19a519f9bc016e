"""Whether the weights of a projector fit what it says of itself: llama.cpp aborts or worse where they do not."""

from collections.abc import Iterator, Mapping
from typing import Any

from stellwerk.engines.gguf_tensors import Tensor

_WHISPERS = frozenset({"glma", "meralion", "musicflamingo", "qwen2.5o", "qwen2a", "qwen3a", "ultravox", "voxtral"})
"""Types whose encoder is that of whisper."""
_WHISPER_PARTS = ("ln1.weight", "ln1.bias", "ln2.weight", "ln2.bias", "attn_q.bias", "attn_v.bias")
_SQUARE = frozenset({"gemma3", "idefics3"})
"""Types whose images always have the size that the header tells."""
_PLAIN = frozenset({"mlp", "mlp_norm", None})
_MOBILE, _MOBILE_PARTS = "gemma3nv", ("v.conv_stem.conv.weight", "v.msfa.ffn.pw_proj.conv.weight")
"""The type whose encoder is no transformer, and what llama.cpp takes for granted there."""
_FRAMES = 1_500
"""Places that whisper's encoder knows, whatever a header says."""
_COLOURS = 3
_MERGED = 4
"""Patches of gemma3 in one direction that become one unless the header says otherwise."""
_FULL = 0

_Shapes = Mapping[str, tuple[int, ...]]


def tensor_faults(values: Mapping[str, Any], tensors: Mapping[str, Tensor], side: str) -> Iterator[str]:
    """What is wrong with the tensors of one side, `vision` or `audio`; its numbers have been checked before."""
    letter = side[0]
    shapes = {name: _plain(tensor.shape) for name, tensor in tensors.items()}
    width, heads = values[f"clip.{side}.embedding_length"], values[f"clip.{side}.attention.head_count"]
    for name, shape in shapes.items():
        if name.startswith((f"{letter}.", "mm.")) and name.endswith(".bias"):
            weight = shapes.get(name.removesuffix("bias") + "weight")
            if weight is not None and len(weight) < 3 and shape != weight[-1:]:
                yield f"its {name} does not fit its weights"
    for number in range(values[f"clip.{side}.block_count"]):
        yield from _block_faults(shapes, f"{letter}.blk.{number}.", width, heads)
        if f"clip.{side}.attention.head_count_kv" not in values:
            yield from _head_faults(shapes, f"{letter}.blk.{number}.")
    for name in ("pre_ln.weight", "post_ln.weight"):
        if shapes.get(f"{letter}.{name}", (width,)) != (width,):
            yield f"its {letter}.{name} does not fit its width"
    places = tensors.get(f"{letter}.position_embd.weight")
    kind = values.get("clip.projector_type") or values.get(f"clip.{side}.projector_type")
    if places is not None and places.kind != _FULL and kind in _SQUARE | _WHISPERS:
        yield "its places have a type that nothing expects"
    if side == "vision":
        yield from _picture_faults(values, shapes, width, kind)
    elif kind in _WHISPERS:
        yield from _whisper_faults(values, shapes, width)


def _block_faults(shapes: _Shapes, prefix: str, width: int, heads: int) -> Iterator[str]:
    """Of a layer that has the usual attention; others are of types that this does not know."""
    out = shapes.get(prefix + "attn_out.weight")
    if out is None:
        return
    queries = [shapes.get(f"{prefix}attn_{letter}.weight") for letter in "qkv"]
    if prefix + "attn_qkv.weight" not in shapes and None in queries:
        yield f"{prefix}* lacks a part of its attention"
    for shape in queries:
        if shape is not None and (len(shape) != 2 or shape[0] != width or shape[1] % heads):
            yield f"{prefix}* has an attention of another width"
    if len(out) != 2 or out[1] != width or (queries[0] is not None and out[0] != queries[0][-1]):
        yield f"{prefix}* has an attention of another width"
    for name in ("ln1", "ln2"):
        if shapes.get(f"{prefix}{name}.weight", (width,)) != (width,):
            yield f"{prefix}{name} does not fit its width"
    up, down = shapes.get(prefix + "ffn_up.weight"), shapes.get(prefix + "ffn_down.weight")
    # Some old files have exchanged them.
    if up is not None and down is not None and not (up == down[::-1] and width in up and len(up) == 2):
        yield f"{prefix}* has layers that do not follow each other"
    gate = shapes.get(prefix + "ffn_gate.weight")
    if gate is not None and gate not in {up, down}:
        yield f"{prefix}* has layers that do not follow each other"


def _head_faults(shapes: _Shapes, prefix: str) -> Iterator[str]:
    """Of a layer in which queries, keys and values have the same heads."""
    if len({shapes.get(f"{prefix}attn_{letter}.weight") for letter in "qkv"}) != 1:
        yield f"{prefix}* has an attention of another width"


def _picture_faults(values: Mapping[str, Any], shapes: _Shapes, width: int, kind: object) -> Iterator[str]:
    patch, size = values["clip.vision.patch_size"], values["clip.vision.image_size"]
    patches = shapes.get("v.patch_embd.weight")
    if patches is not None and len(patches) == 4 and patches != (patch, patch, _COLOURS, width):
        yield "its patches do not fit its width"
    if _elements(shapes.get("v.patch_embd.bias", (width,))) != width:
        yield "its patches do not fit its width"
    if kind in _PLAIN:
        yield from _perceptron_faults(shapes, width)
    if kind == _MOBILE and not all(name in shapes for name in _MOBILE_PARTS):
        yield "it lacks a part of its encoder"
    places = shapes.get("v.position_embd.weight")
    if places is not None and places[0] != width:
        yield "its places do not fit its width"
    if kind in _SQUARE:
        if patches is None or len(patches) != 4 or places != (width, (size // patch) ** 2) or size % patch:
            yield "its places do not fit its patches"
        merged = values.get("clip.vision.projector.scale_factor", _MERGED)
        if kind == "gemma3" and (
            not merged or size // patch % merged or shapes.get("mm.soft_emb_norm.weight") != (width,)
        ):
            yield "its patches cannot be put together"
        if kind == "gemma3" and shapes.get("mm.input_projection.weight", ())[1:] != (width,):
            yield "its projection does not fit its width"


def _perceptron_faults(shapes: _Shapes, width: int) -> Iterator[str]:
    first, second = shapes.get("mm.0.weight", ()), shapes.get("mm.2.weight")
    if len(first) != 2 or first[0] != width or "mm.0.bias" not in shapes:
        yield "its projection does not fit its width"
    # The second layer of some is called otherwise.
    elif second is not None and len(second) == 2 and (second[0] != first[1] or "mm.2.bias" not in shapes):
        yield "its projection has layers that do not follow each other"


def _whisper_faults(values: Mapping[str, Any], shapes: _Shapes, width: int) -> Iterator[str]:
    bands = values["clip.audio.num_mel_bins"]
    wanted = {"a.conv1d.1.weight": (3, bands, width), "a.conv1d.2.weight": (3, width, width)}
    if any(shapes.get(name) != shape for name, shape in wanted.items()):
        yield "its first layers do not fit its frequency bands"
    if any(shapes.get(f"a.conv1d.{number}.bias") != (1, width) for number in (1, 2)):
        yield "its first layers do not fit its width"
    places = shapes.get("a.position_embd.weight", (0, 0))
    if len(places) != 2 or places[0] != width or places[1] < _FRAMES:
        yield "its places do not fit its width"
    for number in range(values["clip.audio.block_count"]):
        if any(f"a.blk.{number}.{name}" not in shapes for name in _WHISPER_PARTS):
            yield f"a.blk.{number}.* lacks a norm or a bias"
    projection = shapes.get("mm.a.fc.weight")
    if projection is not None and (len(projection) != 2 or projection[0] != width):
        yield "its projection does not fit its width"


def _plain(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without the sides of 1 behind the others, which mean nothing."""
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return shape or (1,)


def _elements(shape: tuple[int, ...]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count
