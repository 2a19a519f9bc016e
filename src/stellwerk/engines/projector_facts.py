"""What a projector (mmproj) says of itself: the file beside a model that turns images or sound into its embeddings.

llama.cpp trusts some of these numbers and aborts on nonsense, so nonsense is named here, before a load.
"""

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

import msgspec

from stellwerk.engines.gguf_reader import ARRAY, BOOL, FLOAT32, INT32, STRING, UINT32
from stellwerk.engines.gguf_tensors import Tensor
from stellwerk.engines.projector_tensors import tensor_faults

_MOST_WIDTH = 1 << 17
_MOST_LAYERS = 1_024
_MOST_HEADS = 4_096
_MOST_PIXELS = 1 << 14
_MOST_MEL_BANDS = 256
_COLOURS = 3
_PREFIX = "clip."
_TYPES = frozenset({UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY})
_NAMED_TYPES = {
    "projector_type": STRING, "mm_patch_merge_type": STRING, "layer_norm_epsilon": FLOAT32, "use_gelu": BOOL,
    "use_silu": BOOL, "has_vision_encoder": BOOL, "has_audio_encoder": BOOL, "has_llava_projector": BOOL,
    "image_mean": ARRAY, "image_std": ARRAY, "image_grid_pinpoints": ARRAY, "feature_layer": ARRAY,
    "minicpmv_version": INT32, "wa_layer_indexes": ARRAY, "spatial_offsets": ARRAY,
}  # fmt: skip
"""By the end of the key. llama.cpp aborts when a value has another type than it expects."""
_COUNTS = (
    "_length", "_count", "_dim", "_size", "_factor", "_bins", "_pixels", "_tiles", "_pattern", "_side", "_layers",
    "_num",
)  # fmt: skip
"""Ends of keys that it reads as uint32."""


class ProjectorFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a header says that passed `read_projector`, or why it did not."""

    sees: bool = False
    hears: bool = False
    width: int | None = None
    """Size of the embeddings that it makes; some models take several times their own."""
    fault: str = ""
    """Why it cannot be used; empty when it can."""


def read_projector(
    values: Mapping[str, Any],
    kinds: Mapping[str, int],
    lists: Mapping[str, tuple[int, int]],
    tensors: Mapping[str, Tensor],
) -> ProjectorFacts:
    """Judges a header whose architecture is `clip`; `kinds` are GGUF's numbers of the types of its values, `lists` the
    type and number of the members of those that are lists."""
    sees = values.get("clip.has_vision_encoder") is True
    hears = values.get("clip.has_audio_encoder") is True
    width = values.get("clip.vision.projection_dim" if sees else "clip.audio.projection_dim")
    return ProjectorFacts(
        sees=sees,
        hears=hears,
        width=width if isinstance(width, int) else None,
        fault=next(_faults(values, kinds, lists, sees=sees, hears=hears), "")
        or next(_tensor_faults(values, tensors, sees=sees, hears=hears), ""),
    )


def _faults(
    values: Mapping[str, Any],
    kinds: Mapping[str, int],
    lists: Mapping[str, tuple[int, int]],
    *,
    sees: bool,
    hears: bool,
) -> Iterator[str]:
    if not (sees or hears):
        yield "it is a projector for neither images nor sound"
    for key, kind in kinds.items():
        if key.startswith(_PREFIX) and not _is_expected(key, kind, lists):
            yield f"its {key[:100]} has a type that nothing expects"
    known = {key: value for key, value in values.items() if kinds.get(key) == UINT32}
    for side in [side for side, there in (("vision", sees), ("audio", hears)) if there]:
        yield from _encoder_faults(known, f"clip.{side}.")
    if sees:
        yield from _image_faults(known)
        yield from _colour_faults(values)
    if hears and not _within(known.get("clip.audio.num_mel_bins"), _MOST_MEL_BANDS):
        yield "its number of frequency bands is impossible"


def _is_expected(key: str, kind: int, lists: Mapping[str, tuple[int, int]]) -> bool:
    name = key.rpartition(".")[2]
    wanted = _NAMED_TYPES.get(name)
    if wanted is None:
        return kind == UINT32 if name.endswith(_COUNTS) else kind in _TYPES
    if kind == wanted == ARRAY and not name.startswith(("image_mean", "image_std")):
        return lists[key][0] in {INT32, UINT32}
    return kind == wanted


def _tensor_faults(
    values: Mapping[str, Any], tensors: Mapping[str, Tensor], *, sees: bool, hears: bool
) -> Iterator[str]:
    for side in [side for side, there in (("vision", sees), ("audio", hears)) if there]:
        yield from tensor_faults(values, tensors, side)


def _encoder_faults(values: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, most in (
        ("embedding_length", _MOST_WIDTH),
        ("feed_forward_length", _MOST_WIDTH),
        ("projection_dim", _MOST_WIDTH),
        ("block_count", _MOST_LAYERS),
        ("attention.head_count", _MOST_HEADS),
    ):
        if not _within(values.get(prefix + name), most):
            yield f"its {prefix}{name} is missing or impossible"


def _image_faults(values: Mapping[str, Any]) -> Iterator[str]:
    size, patch = values.get("clip.vision.image_size"), values.get("clip.vision.patch_size")
    if not _within(size, _MOST_PIXELS) or not _within(patch, _MOST_PIXELS) or patch > size:  # type: ignore[operator]
        yield "its image or patch size is impossible"


def _colour_faults(values: Mapping[str, Any]) -> Iterator[str]:
    for name in ("image_mean", "image_std"):
        colours = values.get(f"clip.vision.{name}")
        if (
            not isinstance(colours, list)
            or len(colours) < _COLOURS
            or not all(isinstance(one, float) and isfinite(one) for one in colours)
        ):
            yield f"its {name} does not hold three colours"


def _within(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most
