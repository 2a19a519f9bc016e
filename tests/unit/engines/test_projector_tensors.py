from pathlib import Path

import gguf
import pytest

from stellwerk.engines.gguf_tensors import Tensor
from stellwerk.engines.projector_tensors import tensor_faults
from tests.tiny_gguf import write_tiny_projector

NUMBERS = ("embedding_length", "attention.head_count", "block_count", "image_size", "patch_size", "num_mel_bins")


def sound(folder: Path, sense: str) -> tuple[dict, dict[str, Tensor]]:
    """Values and tensors of a projector as it should be."""
    reader = gguf.GGUFReader(write_tiny_projector(folder / f"{sense}.gguf", sense=sense))
    values = {key: field.contents() for key, field in reader.fields.items()}
    shapes = {tensor.name: tuple(map(int, tensor.shape)) for tensor in reader.tensors}
    return values, {
        tensor.name: Tensor(shape=shapes[tensor.name], kind=int(tensor.tensor_type)) for tensor in reader.tensors
    }


@pytest.mark.parametrize("sense", ["vision", "audio"])
def test_a_sound_projector_has_no_fault(tmp_path: Path, sense: str):
    values, tensors = sound(tmp_path, sense)
    assert list(tensor_faults(values, tensors, sense)) == []


@pytest.mark.parametrize("sense", ["vision", "audio"])
def test_every_tensor_of_the_encoder_matters(tmp_path: Path, sense: str):
    values, tensors = sound(tmp_path, sense)
    optional = {"blk.0.ln1", "post_ln", "blk.0.attn_k.bias", "attn_out", "ffn", "patch_embd.bias", "blk.0.ln2"}
    optional |= {"blk.0.attn_q.bias", "blk.0.attn_v.bias", "fc"}
    for name in tensors:
        without = {other: tensor for other, tensor in tensors.items() if other != name}
        told = list(tensor_faults(values, without, sense))
        # What llama.cpp itself misses, or can do without.
        assert told or any(part in name for part in optional), name
        for other in ((1,), (63, 65), (63, 65, 3, 1)):
            changed = tensors | {name: Tensor(shape=other, kind=tensors[name].kind)}
            assert list(tensor_faults(values, changed, sense)), (name, other)


@pytest.mark.parametrize(
    ("sense", "key", "number"),
    [
        ("vision", "clip.vision.embedding_length", 96),
        ("vision", "clip.vision.attention.head_count", 3),
        ("vision", "clip.vision.image_size", 272),
        ("vision", "clip.vision.patch_size", 8),
        ("vision", "clip.vision.projector.scale_factor", 3),
        ("vision", "clip.vision.projector.scale_factor", 0),
        ("vision", "clip.projector_type", "mlp"),
        ("vision", "clip.projector_type", "gemma3nv"),
        ("audio", "clip.audio.embedding_length", 32),
        ("audio", "clip.audio.num_mel_bins", 80),
        ("audio", "clip.audio.attention.head_count", 5),
    ],
)
def test_numbers_that_the_weights_do_not_fit_are_told(tmp_path: Path, sense: str, key: str, number: object):
    values, tensors = sound(tmp_path, sense)
    assert list(tensor_faults(values | {key: number}, tensors, sense))


def test_old_files_may_have_exchanged_the_two_halves_of_a_layer(tmp_path: Path):
    values, tensors = sound(tmp_path, "vision")
    up, down = "v.blk.0.ffn_up", "v.blk.0.ffn_down"
    exchanged = {f"{up}.{end}": tensors[f"{down}.{end}"] for end in ("weight", "bias")}
    exchanged |= {f"{down}.{end}": tensors[f"{up}.{end}"] for end in ("weight", "bias")}
    assert list(tensor_faults(values, tensors | exchanged, "vision")) == []
