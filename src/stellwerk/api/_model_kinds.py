"""The documented words for what a model takes and gives."""

from typing import Literal

import msgspec

from stellwerk.core.call import Operation
from stellwerk.core.plan import Model

_VECTORS = frozenset({Operation.EMBEDDING, Operation.RERANK})
"""What is done with the vectors of texts: such a model writes nothing."""

ModelKind = Literal["text", "vision", "omni", "audio", "tts", "embedding", "vision-embedding"]


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a model can do: text written or embedded, images seen, speech heard, text embedded, speech spoken."""

    text: bool
    vision: bool
    audio: bool
    embedding: bool
    tts: bool


def kind_of(model: Model) -> ModelKind:
    sees, hears = "image" in model.input_modalities, "audio" in model.input_modalities
    if _makes_vectors(model):
        return "vision-embedding" if sees else "embedding"
    if "audio" in model.output_modalities and "text" not in model.output_modalities:
        return "tts"
    if hears:
        return "omni" if sees else "audio"
    return "vision" if sees else "text"


def capabilities_of(model: Model) -> Capabilities:
    return Capabilities(
        # A model that makes vectors of texts counts as one for text: clients of the slots' table expect it.
        text=_makes_vectors(model) or (bool(model.operations) and "text" in model.output_modalities),
        vision="image" in model.input_modalities,
        audio="audio" in model.input_modalities,
        embedding=Operation.EMBEDDING in model.operations,
        tts="audio" in model.output_modalities,
    )


def _makes_vectors(model: Model) -> bool:
    return bool(model.operations) and model.operations <= _VECTORS
