"""How a model is to be loaded: what the operator said of this one, over what is said of all, within what its type and
its file allow."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from stellwerk.engines.model_files import ModelFile
from stellwerk.engines.model_types import CAPABILITIES, LOAD_SECONDS, Capabilities, ModelType, detect_type
from stellwerk.engines.projectors import Projector, find_own, find_projector, serves

XLLAMACPP, LLAMA_SERVER, VLLM = "xllamacpp", "llama-server", "vllm"
LLAMA_ENGINES = frozenset({XLLAMACPP, LLAMA_SERVER})
BUILT_IN_ENGINES = frozenset({*LLAMA_ENGINES, VLLM})

FlashAttention: TypeAlias = Literal["auto", "on", "off"]
KvCache: TypeAlias = Literal["f16", "q8_0", "q4_0"]

_EMBEDDING_CONTEXT = 2_048
_MICRO_BATCH = 512
_CACHE_BLOCK = 32
"""A quantised cache keeps the numbers of a head in blocks of so many."""


class EngineDefaults(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for every model of which nothing else is said."""

    engine: str = XLLAMACPP
    context: int = 8_192
    """Tokens that all requests of an engine share; a model with a shorter context keeps its own."""
    threads: int = 0
    """0 takes every core but one."""
    parallel: int = 4
    """Requests that are computed at once; more wait inside the engine."""
    batch: int = 2_048
    gpu_layers: int | None = None
    """None lets the engine decide."""
    flash_attention: FlashAttention = "auto"
    mlock: bool = False
    kv_cache: KvCache = "f16"
    load_seconds: float | None = None
    """None is by the type of the model."""
    idle_seconds: float = 0.0
    """After so long without a request the model is unloaded; 0 never."""
    cache_ram_mib: int = 256
    """Memory for prompts that may come back."""
    max_requests: int = 64
    """Leases of one engine at the same time; more wait before it."""


class EngineOverrides(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of one model, by the configuration or by whoever loads it. None leaves it to the defaults."""

    type: ModelType | None = None
    engine: str | None = None
    context: int | None = None
    threads: int | None = None
    parallel: int | None = None
    batch: int | None = None
    gpu_layers: int | None = None
    flash_attention: FlashAttention | None = None
    mlock: bool | None = None
    kv_cache: KvCache | None = None
    mmproj: Path | None = None
    """One of the projectors that a scan has found."""
    load_seconds: float | None = None
    idle_seconds: float | None = None
    pinned: bool | None = None

    def over(self, other: "EngineOverrides") -> "EngineOverrides":
        """Both together; where both speak, this one counts."""
        said = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}
        return msgspec.structs.replace(other, **said)


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that an engine is told about one model."""

    type: ModelType
    engine: str
    """`xllamacpp`, `llama-server`, `vllm`, or the name of a command in the operator's configuration."""
    context: int
    threads: int
    """0 takes every core but one."""
    parallel: int
    batch: int
    micro_batch: int
    gpu_layers: int | None
    flash_attention: FlashAttention
    mlock: bool
    kv_cache: KvCache
    mmproj: Path | None
    sees: bool
    hears: bool
    pooling: str | None
    """How an embedding model makes one vector of many; None leaves it to the file."""
    load_seconds: float
    keep_alive_seconds: float | None
    """Seconds without a request after which it is unloaded; None never."""
    pinned: bool
    cache_ram_mib: int
    max_requests: int
    fault: str | None = None
    """Why it cannot be loaded like this, in words for the client."""
    notes: tuple[str, ...] = ()
    """Wishes that were not granted, with the reason."""

    @property
    def capabilities(self) -> Capabilities:
        return CAPABILITIES[self.type]

    @property
    def embeds(self) -> bool:
        return self.capabilities.embedding


def resolve_options(
    file: ModelFile,
    defaults: EngineDefaults,
    overrides: EngineOverrides | None = None,
    projectors: Sequence[Projector] = (),
) -> EngineOptions:
    """Pure. `projectors` are those of the scan that found `file`; what makes a load impossible stands in `fault`."""
    said = overrides or EngineOverrides()
    engine = said.engine or defaults.engine
    senses = _senses(file, engine, said, projectors)
    projector = senses.projector
    capabilities = CAPABILITIES[senses.type]
    context = _context(file, said.context or defaults.context, capabilities)
    batch = said.batch or defaults.batch
    # Some models read an image in one piece: llama.cpp aborts when it does not fit into the micro batch.
    micro_batch = batch if capabilities.vision else min(batch, _MICRO_BATCH)
    if capabilities.embedding:
        # An embedding is computed in one piece: llama.cpp refuses inputs that are longer than the micro batch.
        batch = micro_batch = context
    flash_attention = said.flash_attention or defaults.flash_attention
    kv_cache, kept_from = _kv_cache(file, engine, said.kv_cache or defaults.kv_cache, flash_attention)
    idle = said.idle_seconds if said.idle_seconds is not None else defaults.idle_seconds
    return EngineOptions(
        type=senses.type,
        engine=engine,
        context=context,
        threads=said.threads if said.threads is not None else defaults.threads,
        parallel=said.parallel or defaults.parallel,
        batch=batch,
        micro_batch=micro_batch,
        gpu_layers=said.gpu_layers if said.gpu_layers is not None else defaults.gpu_layers,
        flash_attention="on" if kv_cache != "f16" else flash_attention,
        mlock=said.mlock if said.mlock is not None else defaults.mlock,
        kv_cache=kv_cache,
        mmproj=projector.path if projector else None,
        sees=capabilities.vision and (projector is None or projector.facts.sees),
        hears=capabilities.audio and (projector is None or projector.facts.hears),
        pooling=_pooling(file) if capabilities.embedding else None,
        load_seconds=said.load_seconds or defaults.load_seconds or LOAD_SECONDS[senses.type],
        keep_alive_seconds=idle or None,
        pinned=bool(said.pinned),
        cache_ram_mib=defaults.cache_ram_mib,
        max_requests=defaults.max_requests,
        fault=senses.fault,
        notes=(*senses.notes, *kept_from),
    )


class _Senses(msgspec.Struct, frozen=True):
    """What a model is loaded as, with which projector, and why not."""

    type: ModelType
    projector: Projector | None = None
    fault: str | None = None
    notes: tuple[str, ...] = ()


def _senses(file: ModelFile, engine: str, said: EngineOverrides, projectors: Sequence[Projector]) -> _Senses:
    """A type that somebody named is kept, and what it lacks is a fault; one that was only guessed from a file name
    gives way to a simpler one when the engine could not run it."""
    kind = said.type or detect_type(file.path.name, file.facts) or ModelType.TEXT
    if said.mmproj is not None:
        return _with_named(file, engine, kind, said, projectors)
    width = file.facts.shape.embedding_length
    fault = _engine_fault(file, engine, kind)
    if fault is None and said.type is None and kind is ModelType.TEXT and engine in LLAMA_ENGINES:
        own = find_own(file.id, projectors, width=width)
        if own is not None:
            return _Senses(ModelType.OMNI if own.facts.hears else ModelType.VISION, own)
    found = None
    if fault is None and engine in LLAMA_ENGINES and CAPABILITIES[kind].needs_projector:
        found = find_projector(file.id, kind, projectors, width=width)
        if found is None:
            fault = f"a model of the type {kind.value} needs a projector (mmproj) beside it or named for it"
    simpler = _simpler(file, engine, kind)
    if fault is None or said.type is not None or simpler is None:
        return _Senses(kind, found, fault)
    note = f"it is loaded as {simpler.value}, although its name says {kind.value}: {fault}"
    return _Senses(simpler, notes=(note,))


def _with_named(
    file: ModelFile, engine: str, kind: ModelType, said: EngineOverrides, projectors: Sequence[Projector]
) -> _Senses:
    """With the projector that somebody named, or a fault: no other one is taken in its place."""
    named = next((one for one in projectors if one.path == said.mmproj), None)
    if named is None:
        return _Senses(kind, fault="the projector that was named for it is not there or cannot be read")
    if named.facts.fault:
        return _Senses(kind, fault=f"the projector that was named for it cannot be used: {named.facts.fault}")
    if said.type is None and not CAPABILITIES[kind].needs_projector:
        kind = ModelType.OMNI if named.facts.hears else ModelType.VISION
    needed = CAPABILITIES[kind].needs_projector
    if needed and not serves(named.facts, kind):
        return _Senses(kind, fault=f"the projector that was named for it is not one for the type {kind.value}")
    return _Senses(kind, named if needed or engine not in LLAMA_ENGINES else None, _engine_fault(file, engine, kind))


def _engine_fault(file: ModelFile, engine: str, kind: ModelType) -> str | None:
    if engine in LLAMA_ENGINES and file.format != "gguf":
        return f"the engine {engine} takes GGUF files only"
    if engine in BUILT_IN_ENGINES and kind is ModelType.TTS:
        return f"the engine {engine} cannot speak; give the model an engine of engines.commands"
    return None


def _simpler(file: ModelFile, engine: str, kind: ModelType) -> ModelType | None:
    """What a model can still be run as when its engine cannot run it as `kind`."""
    if engine not in LLAMA_ENGINES or file.format != "gguf" or file.facts.architecture == "whisper":
        return None
    if CAPABILITIES[kind].embedding:
        return ModelType.EMBEDDING
    return ModelType.TEXT if CAPABILITIES[kind].text or file.facts.has_chat_template else None


def _context(file: ModelFile, wanted: int, capabilities: Capabilities) -> int:
    if capabilities.embedding:
        wanted = min(wanted, _EMBEDDING_CONTEXT)
    return min(file.facts.context_length or wanted, wanted)


def _pooling(file: ModelFile) -> str | None:
    if file.facts.ranks:
        return "rank"
    return None if file.facts.pooling not in (None, "none") else "last"


def _kv_cache(
    file: ModelFile, engine: str, wanted: KvCache, flash_attention: FlashAttention
) -> tuple[KvCache, tuple[str, ...]]:
    """The cache's type, and why it is not the one that was wanted."""
    if wanted == "f16":
        return wanted, ()
    if engine not in LLAMA_ENGINES:
        return "f16", (f"kv_cache {wanted} is nothing that the engine {engine} can be told",)
    if flash_attention == "off":
        return "f16", (f"kv_cache {wanted} needs flash attention, which is off: f16 is used",)
    sizes = {file.facts.shape.key_length, file.facts.shape.value_length}
    if any(size is None or size % _CACHE_BLOCK for size in sizes):
        return "f16", (f"kv_cache {wanted} needs attention heads whose size divides by {_CACHE_BLOCK}: f16 is used",)
    return wanted, ()
