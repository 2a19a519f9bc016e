"""How much memory a model will need: an estimate from what its file says, and afterwards what was measured."""

import re

import msgspec

from stellwerk.engines.model_files import ModelFile
from stellwerk.engines.options import LLAMA_ENGINES, XLLAMACPP, EngineOptions, KvCache

_MIB = 1 << 20
_PROCESS = 48 * _MIB
"""An engine without a model."""
_UNKNOWN_SHARE = 0.1
"""Of the weights, for the cache and the computing of a model that does not say how it is built."""
_BUFFERS = 16
"""Numbers of four bytes that computing one token takes for each number of its embedding."""
_CELL_BYTES: dict[KvCache, float] = {"f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
_CACHED_CONTEXTS = 4
"""Prompts of full length that the prompt cache will hold at most; a bound for small models only."""
_LACKS_MEMORY = re.compile(
    r"out of memory|insufficient memory|bad_alloc|(?:failed|unable) to (?:m?map|allocate)|cannot allocate|"
    r"alloc\w* failed|SIGKILL",
    re.IGNORECASE,
)


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate in MiB, by what the memory is for."""

    weights: float
    cache: float
    """The attention cache at full context, and prompts that are kept for later."""
    computing: float

    @property
    def total(self) -> float:
        return self.weights + self.cache + self.computing


def estimate(file: ModelFile, options: EngineOptions, projector_bytes: int = 0) -> Need:
    """Pure. The whole model, less the layers that somebody told the engine to put onto a GPU.

    `projector_bytes` is the size of the projector that is loaded with it.
    """
    weights = file.size * _share_in_memory(file, options)
    shape = file.facts.shape
    cell = _CELL_BYTES[options.kv_cache]
    # Together they say how much one token of the context takes.
    parts = (shape.block_count, shape.head_count_kv, shape.key_length, shape.value_length)
    if None in parts:
        cache = weights * _UNKNOWN_SHARE
    else:
        layers, heads, key, value = (part or 0 for part in parts)
        cache = layers * heads * (key + value) * cell * options.context * _share_in_memory(file, options)
    if options.engine in LLAMA_ENGINES and not options.embeds:
        cache += min(options.cache_ram_mib * _MIB, _CACHED_CONTEXTS * cache)
    width = shape.embedding_length or 0
    computing = _PROCESS + options.micro_batch * width * 4 * _BUFFERS
    if options.flash_attention == "off":
        computing += (shape.head_count or 0) * options.micro_batch * options.context * 4
    return Need(
        weights=(weights + projector_bytes) / _MIB,
        cache=cache / _MIB,
        computing=(computing or weights * _UNKNOWN_SHARE) / _MIB,
    )


def _share_in_memory(file: ModelFile, options: EngineOptions) -> float:
    """The part of the layers that stays in main memory, as far as somebody has said so.

    The wheel `xllamacpp` computes on the processor, or in memory that both share: there nothing goes away.
    """
    layers = file.facts.shape.block_count
    if options.engine == XLLAMACPP or not options.gpu_layers or layers is None:
        return 1.0
    # One more than there are blocks: the output counts as a layer too.
    return max(0.0, 1 - options.gpu_layers / (layers + 1))


def correct(measured_mib: float, file: ModelFile, options: EngineOptions) -> float:
    """What a measurement means for the next load: of a file that is mapped, not everything has been looked at yet."""
    if options.engine != XLLAMACPP:
        return measured_mib
    return max(measured_mib, file.size / _MIB)


def lacks_memory(reason: str) -> bool:
    """Whether an engine that failed while it was loading seems to have had too little memory."""
    return _LACKS_MEMORY.search(reason) is not None
