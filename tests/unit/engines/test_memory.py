from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.engines.gguf import FileStamp, GgufFacts, Shape
from stellwerk.engines.memory import correct, estimate, lacks_memory
from stellwerk.engines.model_files import ModelFile
from stellwerk.engines.options import EngineDefaults, EngineOptions, resolve_options

GIB = 1 << 30
# The numbers of a model with eight billion parameters.
EIGHT_BILLION = Shape(
    block_count=32, embedding_length=4096, head_count=32, head_count_kv=8, key_length=128, value_length=128
)


def file(size: int = 5 * GIB, shape: Shape = EIGHT_BILLION) -> ModelFile:
    facts = GgufFacts(
        architecture="llama", name="", kind="model", context_length=131072, parameter_count=None, quantization=None,
        embeds=False, ranks=False, has_chat_template=True, knows_tools=False, shape=shape,
    )  # fmt: skip
    stamp = FileStamp(size=size, modified=1, inode=1)
    return ModelFile(id="a", path=Path("/a.gguf"), facts=facts, stamp=stamp, size=size)


def options(model: ModelFile, **said: object) -> EngineOptions:
    return resolve_options(model, msgspec.structs.replace(EngineDefaults(), **said))


def test_the_cache_of_a_known_model_is_computed_from_its_shape():
    model = file()
    need = estimate(model, options(model, context=8192, cache_ram_mib=0))
    assert need.weights == 5 * 1024
    assert need.cache == 1024
    assert need.total == need.weights + need.cache + need.computing
    assert 100 < need.computing < 600


def test_a_smaller_cache_needs_less():
    model = file()
    full, eight, four = (
        estimate(model, options(model, kv_cache=kind, cache_ram_mib=0)).cache for kind in ("f16", "q8_0", "q4_0")
    )
    assert eight == pytest.approx(full * 34 / 64)
    assert four == pytest.approx(full * 18 / 64)


def test_kept_prompts_count_up_to_their_bound():
    model = file()
    assert estimate(model, options(model, context=8192, cache_ram_mib=256)).cache == 1024 + 256


def test_a_model_of_unknown_shape_gets_a_tenth_of_its_size_for_the_rest():
    model = file(shape=Shape())
    assert estimate(model, options(model, cache_ram_mib=0)).cache == pytest.approx(512)


def test_layers_on_a_gpu_do_not_count_where_an_engine_has_one():
    model = file()
    whole = estimate(model, options(model, engine="llama-server"))
    half = estimate(model, options(model, engine="llama-server", gpu_layers=16))
    none = estimate(model, options(model, engine="llama-server", gpu_layers=99))
    assert none.weights == none.cache == 0
    assert half.weights == pytest.approx(whole.weights * (1 - 16 / 33))
    # The wheel computes on the processor whatever it is told.
    assert estimate(model, options(model, gpu_layers=99)).weights == whole.weights


def test_a_projector_counts_as_weights():
    model = file()
    assert estimate(model, options(model), 1 << 20).weights == estimate(model, options(model)).weights + 1


def test_a_mapped_file_that_was_not_looked_at_yet_still_counts():
    model = file(size=100 << 20)
    assert correct(40.0, model, options(model)) == 100.0
    assert correct(400.0, model, options(model)) == 400.0
    assert correct(40.0, model, options(model, engine="llama-server")) == 40.0


SIZES = st.integers(1, 1 << 40)


@given(SIZES, SIZES, st.integers(256, 1 << 20), st.integers(256, 1 << 20))
def test_more_weights_and_more_context_never_need_less(size: int, other: int, context: int, longer: int):
    small, large = sorted((size, other))
    short, long = sorted((context, longer))
    model, bigger = file(small), file(large)
    least = estimate(model, options(model, context=short)).total
    assert 0 < least <= estimate(bigger, options(bigger, context=short)).total
    assert least <= estimate(model, options(model, context=long)).total


@pytest.mark.parametrize(
    "reason",
    [
        "it was ended by SIGKILL",
        "unable to allocate CPU buffer",
        "failed to allocate buffer of size 1 GiB",
        "ggml_aligned_malloc: insufficient memory: failed to allocate 3 MB",
        "std::bad_alloc",
        "CUDA error: out of memory",
        "mmap failed: Cannot allocate memory",
    ],
)
def test_a_lack_of_memory_is_heard(reason: str):
    assert lacks_memory(reason)


def test_another_failure_is_no_lack_of_memory():
    assert not lacks_memory("unknown model architecture: 'wonder'")
    assert not lacks_memory("it was ended by SIGSEGV")
