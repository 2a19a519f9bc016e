import msgspec
import pytest

from stellwerk.api._model_kinds import capabilities_of, kind_of
from stellwerk.core.plan import Model
from stellwerk.engines.gguf import FileStamp, GgufFacts, Shape
from stellwerk.engines.launching import describe
from stellwerk.engines.model_files import ModelFile
from stellwerk.engines.model_types import CAPABILITIES, ModelType
from stellwerk.engines.options import EngineDefaults, EngineOverrides, resolve_options


def described(kind: ModelType, tmp_path) -> Model:
    facts = GgufFacts(
        architecture="llama", name="", kind="model", context_length=512, parameter_count=None, quantization=None,
        embeds=False, ranks=False, has_chat_template=True, knows_tools=False, shape=Shape(),
    )  # fmt: skip
    stamp = FileStamp(size=1, modified=0, inode=1)
    file = ModelFile(id="m", path=tmp_path / "m.gguf", facts=facts, stamp=stamp, size=1)
    # Of an engine of the operator's nobody asks for projectors.
    return describe(file, resolve_options(file, EngineDefaults(), EngineOverrides(type=kind, engine="mine")))


@pytest.mark.parametrize("kind", list(ModelType))
def test_users_and_the_slots_are_told_the_same_of_a_model(kind, tmp_path):
    model = described(kind, tmp_path)
    assert kind_of(model) == kind.value
    assert msgspec.to_builtins(capabilities_of(model)) == msgspec.to_builtins(CAPABILITIES[kind])


def test_a_vendors_model_that_writes_and_speaks_does_both():
    model = Model(provider="v", name="m", id="v/m", output_modalities=("text", "audio"))
    assert msgspec.to_builtins(capabilities_of(model)) == {
        "text": True, "vision": False, "audio": False, "embedding": False, "tts": True
    }  # fmt: skip
