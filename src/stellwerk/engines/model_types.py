"""The seven types of local models: what each can do, and how the type of a file is seen."""

import re
from enum import StrEnum

import msgspec

from stellwerk.engines.gguf import GgufFacts


class ModelType(StrEnum):
    TEXT = "text"
    VISION = "vision"
    OMNI = "omni"
    EMBEDDING = "embedding"
    VISION_EMBEDDING = "vision-embedding"
    AUDIO = "audio"
    """Hears and writes down: whisper and its like."""
    TTS = "tts"


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    text: bool = False
    vision: bool = False
    audio: bool = False
    embedding: bool = False
    tts: bool = False

    @property
    def needs_projector(self) -> bool:
        """Whether llama.cpp needs a second file, the projector, to run it."""
        return self.vision or self.audio


CAPABILITIES = {
    ModelType.TEXT: Capabilities(text=True),
    ModelType.VISION: Capabilities(text=True, vision=True),
    ModelType.OMNI: Capabilities(text=True, vision=True, audio=True),
    ModelType.EMBEDDING: Capabilities(text=True, embedding=True),
    ModelType.VISION_EMBEDDING: Capabilities(text=True, vision=True, embedding=True),
    ModelType.AUDIO: Capabilities(audio=True),
    ModelType.TTS: Capabilities(tts=True),
}

LOAD_SECONDS = {
    ModelType.TEXT: 180.0,
    ModelType.VISION: 300.0,
    ModelType.OMNI: 300.0,
    ModelType.EMBEDDING: 600.0,
    ModelType.VISION_EMBEDDING: 300.0,
    ModelType.AUDIO: 180.0,
    ModelType.TTS: 120.0,
}
"""How long a model may take to become ready where nothing else is said."""

_SPEAKS = re.compile(
    r"tts|speech|vocoder|outetts|parler|kokoro|f5-tts|coqui|xtts|bark|vits|piper|silero|speecht5|tortoise"
)
_HEARS = re.compile(r"whisper|ggml-(?:tiny|base|small|medium|large)")
_SEES = re.compile(r"-vl|_vl|vision|minicpm-v")
_SPEAKING_ARCHITECTURES = frozenset({"wavtokenizer-dec"})


def detect_type(file_name: str, facts: GgufFacts | None) -> ModelType | None:
    """The type of a file; None for one that is no model by itself, such as a projector.

    What a GGUF header is certain of counts first, then the name; `facts` is None for other formats.
    """
    name = file_name.lower()
    if facts is not None:
        if facts.kind != "model":
            return None
        if facts.embeds or facts.ranks:
            return ModelType.VISION_EMBEDDING if _SEES.search(name) else ModelType.EMBEDDING
        if facts.architecture == "whisper":
            return ModelType.AUDIO
        if facts.architecture in _SPEAKING_ARCHITECTURES:
            return ModelType.TTS
    return _type_of_name(name)


def _type_of_name(name: str) -> ModelType | None:
    """The order counts: a name often has several of these marks."""
    if "mmproj" in name:
        return None
    # What ends like this is no GGUF: the models of whisper.cpp do.
    if name.endswith(".bin"):
        return ModelType.AUDIO
    if _SPEAKS.search(name):
        return ModelType.TTS
    if "omni" in name:
        return ModelType.OMNI
    if _HEARS.search(name):
        return ModelType.AUDIO
    if "embed" in name:
        return ModelType.VISION_EMBEDDING if _SEES.search(name) else ModelType.EMBEDDING
    return ModelType.VISION if _SEES.search(name) else ModelType.TEXT
