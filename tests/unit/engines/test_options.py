from pathlib import Path

import msgspec
import pytest

from stellwerk.engines.gguf import FileStamp, GgufFacts, Shape
from stellwerk.engines.model_files import ModelFile
from stellwerk.engines.model_types import ModelType
from stellwerk.engines.options import EngineDefaults, EngineOptions, EngineOverrides, resolve_options
from stellwerk.engines.projector_facts import ProjectorFacts
from stellwerk.engines.projectors import Projector

FOLDER = Path("/models")


def model(name: str = "chat", **facts: object) -> ModelFile:
    known = {
        "architecture": "llama",
        "name": "",
        "kind": "model",
        "context_length": 32_768,
        "parameter_count": None,
        "quantization": None,
        "embeds": False,
        "ranks": False,
        "has_chat_template": True,
        "knows_tools": False,
        "shape": Shape(embedding_length=4096, key_length=128, value_length=128),
    }
    return ModelFile(
        id=name,
        path=FOLDER / f"{name}.gguf",
        facts=GgufFacts(**(known | facts)),
        stamp=FileStamp(size=1, modified=0, inode=1),
        size=1,
    )


def options(
    file: ModelFile, said: EngineOverrides | None = None, *projectors: Projector, **defaults: object
) -> EngineOptions:
    return resolve_options(file, EngineDefaults(**defaults), said, projectors)


def eyes(name: str = "mmproj-seer-vision-f16.gguf", **facts: object) -> Projector:
    return Projector(path=FOLDER / name, facts=ProjectorFacts(**({"sees": True} | facts)))


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [("text", 180), ("vision", 300), ("omni", 300), ("embedding", 600), ("vision-embedding", 300), ("audio", 180),
     ("tts", 120)],
)  # fmt: skip
def test_how_long_a_load_may_take_is_by_the_type_unless_somebody_says_it(kind: str, seconds: float):
    said = EngineOverrides(type=ModelType(kind), engine="mine")
    assert options(model(), said).load_seconds == seconds
    assert options(model(), said, load_seconds=7.0).load_seconds == 7.0
    assert options(model(), msgspec.structs.replace(said, load_seconds=5.0), load_seconds=7.0).load_seconds == 5.0


def test_what_is_said_of_a_model_counts_over_what_is_said_of_all():
    said = EngineOverrides(
        engine="llama-server",
        context=1024,
        threads=3,
        parallel=2,
        batch=256,
        gpu_layers=7,
        flash_attention="off",
        mlock=False,
        idle_seconds=9.0,
        load_seconds=5.0,
        pinned=True,
    )
    found = options(model(), said, mlock=True, threads=8, flash_attention="on", gpu_layers=0, idle_seconds=60.0)
    assert (found.engine, found.context, found.threads, found.parallel) == ("llama-server", 1024, 3, 2)
    assert (found.batch, found.micro_batch, found.gpu_layers) == (256, 256, 7)
    assert (found.flash_attention, found.mlock, found.pinned) == ("off", False, True)
    assert (found.keep_alive_seconds, found.load_seconds) == (9.0, 5.0)
    plain = options(model(), mlock=True, threads=8, flash_attention="on", gpu_layers=0, idle_seconds=60.0)
    assert (plain.threads, plain.flash_attention, plain.mlock, plain.gpu_layers) == (8, "on", True, 0)
    assert (plain.keep_alive_seconds, plain.pinned, plain.notes, plain.fault) == (60.0, False, (), None)


def test_zero_idle_seconds_keep_a_model_for_ever():
    assert options(model()).keep_alive_seconds is None
    assert options(model(), EngineOverrides(idle_seconds=0), idle_seconds=60.0).keep_alive_seconds is None


def test_who_loads_a_model_counts_over_the_configuration_field_by_field():
    configured = EngineOverrides(context=1024, threads=2, pinned=True)
    asked = EngineOverrides(context=2048, type=ModelType.TEXT)
    assert asked.over(configured) == EngineOverrides(context=2048, type=ModelType.TEXT, threads=2, pinned=True)
    assert EngineOverrides().over(configured) == configured


def test_a_model_with_a_shorter_context_keeps_its_own():
    assert options(model(context_length=2048)).context == 2048
    assert options(model(), context=1000).context == 1000
    assert options(model(context_length=None)).context == 8192


@pytest.mark.parametrize(
    ("context_length", "wanted", "context"),
    [(8192, 8192, 2048), (512, 8192, 512), (8192, 256, 256), (None, 4096, 2048)],
)
def test_an_embedding_model_computes_its_longest_text_in_one_piece(context_length, wanted, context):
    found = options(model(embeds=True, pooling="mean", context_length=context_length), context=wanted, batch=64)
    assert (found.type, found.embeds) == (ModelType.EMBEDDING, True)
    assert (found.context, found.batch, found.micro_batch) == (context, context, context)


@pytest.mark.parametrize(
    ("in_file", "told"), [("mean", None), ("cls", None), ("last", None), (None, "last"), ("none", "last")]
)
def test_vectors_are_pooled_as_the_file_says_and_else_by_the_last(in_file, told):
    assert options(model(embeds=True, pooling=in_file)).pooling == told
    assert options(model("a-embed", pooling=in_file)).pooling == told
    assert options(model()).pooling is None


def test_a_quantised_cache_switches_flash_attention_on():
    found = options(model(), kv_cache="q8_0")
    assert (found.kv_cache, found.flash_attention, found.notes) == ("q8_0", "on", ())


@pytest.mark.parametrize(
    ("shape", "said", "why"),
    [
        (Shape(key_length=128, value_length=128), EngineOverrides(flash_attention="off"), "flash attention"),
        (Shape(key_length=80, value_length=128), EngineOverrides(), "divides by 32"),
        (Shape(key_length=128, value_length=80), EngineOverrides(), "divides by 32"),
        (Shape(), EngineOverrides(), "divides by 32"),
        (Shape(key_length=128, value_length=128), EngineOverrides(engine="vllm"), "vllm"),
    ],
)
def test_a_cache_that_cannot_be_quantised_stays_as_it_is_and_says_why(shape, said, why):
    found = options(model(shape=shape), said, kv_cache="q4_0")
    assert (found.kv_cache, len(found.notes), found.fault) == ("f16", 1, None)
    assert why in found.notes[0]


def test_a_model_that_sees_gets_its_projector_and_reads_an_image_in_one_piece():
    found = options(model("seer-vision"), None, eyes("mmproj-other.gguf"), eyes())
    assert (found.type, found.mmproj) == (ModelType.VISION, FOLDER / "mmproj-seer-vision-f16.gguf")
    assert (found.sees, found.hears, found.fault) == (True, False, None)
    assert found.batch == found.micro_batch == 2048


def test_an_omni_model_has_the_senses_of_its_projector():
    ears = eyes(sees=False, hears=True)
    found = options(model("talk-omni"), None, ears)
    assert (found.type, found.sees, found.hears) == (ModelType.OMNI, False, True)
    both = options(model("talk-omni"), None, eyes(hears=True))
    assert (both.sees, both.hears) == (True, True)


def test_a_model_that_is_only_called_vision_is_loaded_as_text_when_it_has_no_projector():
    found = options(model("seer-vision"))
    assert (found.type, found.mmproj, found.fault, found.sees) == (ModelType.TEXT, None, None, False)
    assert "vision" in found.notes[0]
    assert options(model("bark-7b")).type is ModelType.TEXT


def test_a_model_whose_name_says_nothing_sees_with_the_projector_that_came_with_it():
    name, own = "gemma-3-4b-it-Q4_K_M", eyes("mmproj-gemma-3-4b-it-F16.gguf", width=4096)
    strangers = (eyes("mmproj-gemma-3-12b-it-F16.gguf"), eyes("mmproj-model-f16.gguf"))
    found = options(model(name), None, *strangers, own)
    assert (found.type, found.mmproj, found.sees, found.fault) == (ModelType.VISION, own.path, True, None)
    assert options(model(name), None, eyes(own.path.name, hears=True)).type is ModelType.OMNI
    for projectors in (strangers, (eyes(own.path.name, width=64),), (eyes(own.path.name, fault="bad"),)):
        found = options(model(name), None, *projectors)
        assert (found.type, found.mmproj) == (ModelType.TEXT, None)
    assert options(model(name), EngineOverrides(type=ModelType.TEXT), own).mmproj is None
    assert options(model(name, embeds=True, pooling="mean"), None, own).type is ModelType.EMBEDDING


def test_a_model_that_embeds_goes_on_doing_so_without_a_projector():
    found = options(model("vision-embed", embeds=True, pooling="mean"))
    assert (found.type, found.fault, found.embeds) == (ModelType.EMBEDDING, None, True)


def test_a_projector_is_not_loaded_for_a_type_that_has_no_use_for_it():
    said = EngineOverrides(type=ModelType.TEXT, mmproj=eyes().path)
    assert options(model(), said, eyes()).mmproj is None
    elsewhere = EngineOverrides(type=ModelType.TEXT, mmproj=eyes().path, engine="mine")
    assert options(model(), elsewhere, eyes()).mmproj == eyes().path


@pytest.mark.parametrize("kind", ["vision", "omni", "vision-embedding", "audio"])
def test_a_type_that_somebody_named_cannot_do_without_its_projector(kind):
    found = options(model(), EngineOverrides(type=ModelType(kind)))
    assert found.type == kind
    assert "projector" in str(found.fault)


def test_a_named_projector_makes_a_model_see_whatever_its_name():
    one, other = eyes("mmproj-a.gguf"), eyes("mmproj-b.gguf", hears=True)
    found = options(model(), EngineOverrides(mmproj=one.path), one, other)
    assert (found.type, found.mmproj, found.sees, found.hears) == (ModelType.VISION, one.path, True, False)
    found = options(model(), EngineOverrides(mmproj=other.path), one, other)
    assert (found.type, found.mmproj, found.hears) == (ModelType.OMNI, other.path, True)


@pytest.mark.parametrize(
    ("projectors", "kind", "why"),
    [
        ((), None, "not there"),
        ((eyes("x.gguf", fault="its patch is odd"),), None, "its patch is odd"),
        ((eyes("x.gguf", sees=False, hears=True),), ModelType.VISION, "not one for the type vision"),
    ],
)
def test_a_named_projector_that_does_not_do_is_no_reason_to_take_another(projectors, kind, why):
    said = EngineOverrides(type=kind, mmproj=FOLDER / "x.gguf")
    found = options(model("seer-vision"), said, *projectors, eyes())
    assert why in str(found.fault)
    assert found.mmproj is None


@pytest.mark.parametrize("engine", ["xllamacpp", "llama-server", "vllm"])
def test_no_engine_of_ours_speaks(engine):
    found = options(model(has_chat_template=False), EngineOverrides(type=ModelType.TTS, engine=engine))
    assert "cannot speak" in str(found.fault)
    assert options(model(), EngineOverrides(type=ModelType.TTS, engine="my-voice")).fault is None


def test_llama_cpp_takes_gguf_files_only():
    folder = msgspec.structs.replace(model(has_chat_template=False), format="folder")
    assert "GGUF" in str(options(folder).fault)
    assert options(folder, EngineOverrides(engine="vllm")).fault is None
    heard = msgspec.structs.replace(model("ggml-base", architecture="whisper"), format="whisper")
    assert options(heard).type is ModelType.AUDIO
    assert "GGUF" in str(options(heard).fault)
    assert options(heard, EngineOverrides(engine="whisper")).fault is None
