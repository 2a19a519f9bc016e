"""The documented words for what a model takes and gives."""

from typing import Literal

import msgspec

from stellwerk.core.call import Operation
from stellwerk.core.plan import Model

ModelKind = Literal["text", "vision", "omni", "audio", "tts", "embedding", "vision-embedding"]


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a model can do: text written, images seen, speech heard, text embedded, speech spoken."""

    text: bool
    vision: bool
    audio: bool
    embedding: bool
    tts: bool


def kind_of(model: Model) -> ModelKind:
    sees, hears = "image" in model.input_modalities, "audio" in model.input_modalities
    if model.operations == {Operation.EMBEDDING}:
        return "vision-embedding" if sees else "embedding"
    if "audio" in model.output_modalities and "text" not in model.output_modalities:
        return "tts"
    if hears:
        return "omni" if sees else "audio"
    return "vision" if sees else "text"


def capabilities_of(model: Model) -> Capabilities:
    return Capabilities(
        text=bool(model.operations - {Operation.EMBEDDING}) and "text" in model.output_modalities,
        vision="image" in model.input_modalities,
        audio="audio" in model.input_modalities,
        embedding=Operation.EMBEDDING in model.operations,
        tts="audio" in model.output_modalities,
    )
