import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from stellwerk.config.rules import COMMAND_PLACEHOLDERS
from stellwerk.core.call import Operation
from stellwerk.core.ports import EngineAddress
from stellwerk.core.secrets import Secret
from stellwerk.engines.command_engine import PLACEHOLDERS, EngineCommand, unknown_placeholders
from stellwerk.engines.failure import EngineFailed
from stellwerk.engines.launching import EnginePrograms, check_files, describe, launch
from stellwerk.engines.model_files import ModelFile, ModelFiles
from stellwerk.engines.model_types import ModelType
from stellwerk.engines.options import EngineDefaults, EngineOptions, EngineOverrides, resolve_options
from stellwerk.engines.process import EngineProcess, Launch
from stellwerk.engines.vllm import VllmProgram
from tests.real_engines import DEADLINE, ask, free_ports
from tests.stand_in_engine import write_stand_in
from tests.tiny_gguf import write_tiny_chat_model, write_tiny_projector, write_tiny_reranker

ENVIRONMENT = {
    "PATH": "/usr/bin",
    "HOME": "/home/me",
    "CUDA_VISIBLE_DEVICES": "0",
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_API_KEY": "secret-of-another-vllm",
    "OPENAI_API_KEY": "sk-secret",
    "STELLWERK_ADMIN_KEY": "admin-secret",
    "HF_TOKEN": "hf-secret",
    "LD_PRELOAD": "/tmp/secret.so",
}


@pytest.fixture(scope="module")
def files(tiny_models: Path) -> dict[str, ModelFile]:
    return dict(ModelFiles(tiny_models).scan().files)


def options(file: ModelFile, **said: object) -> EngineOptions:
    return resolve_options(file, EngineDefaults(), EngineOverrides(**said))


def address() -> EngineAddress:
    return EngineAddress(host="127.0.0.1", port=free_ports(1), key="the-key-of-this-start")


@asynccontextmanager
async def running(started: Launch) -> AsyncIterator[dict]:
    """A started engine, once it is ready: how it says that it was started."""
    process = await EngineProcess.start(started)
    try:
        async with asyncio.timeout(DEADLINE):
            await process.wait_ready()
        status, body = await ask(started.address, "/start")
        assert status == 200
        yield body
    finally:
        await process.stop(0.1)


@pytest.fixture
def folder(tmp_path: Path) -> ModelFile:
    """A model as vLLM wants it."""
    path = tmp_path / "qwen"
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model_type": "qwen3", "max_position_embeddings": 4096}))
    (path / "model.safetensors").write_bytes(b"x" * 1000)
    return ModelFiles(None, named={"Qwen/qwen3": path}).scan().files["Qwen/qwen3"]


async def test_vllm_is_started_with_its_key_in_the_environment(folder: ModelFile, tmp_path: Path):
    program = write_stand_in(tmp_path / "vllm", key="VLLM_API_KEY")
    programs = EnginePrograms(vllm=VllmProgram(executable=str(program), arguments=("--dtype", "auto")))
    chosen = options(folder, engine="vllm", parallel=3, context=8192, threads=2)
    where = address()
    async with running(launch(folder, chosen, where, ENVIRONMENT, programs)) as start:
        arguments, environment = start["arguments"], start["environment"]
    assert arguments[:2] == ["serve", str(folder.path)]
    told = dict(zip(arguments[2::2], arguments[3::2], strict=False))
    assert told["--served-model-name"] == "Qwen/qwen3"
    assert (told["--host"], told["--port"]) == ("127.0.0.1", str(where.port))
    assert (told["--max-model-len"], told["--max-num-seqs"]) == ("4096", "3")
    assert arguments[-2:] == ["--dtype", "auto"]
    assert where.key not in " ".join(arguments)
    assert (environment["VLLM_API_KEY"], environment["OMP_NUM_THREADS"]) == (where.key, "2")
    assert (environment["VLLM_CPU_KVCACHE_SPACE"], environment["HF_HUB_OFFLINE"]) == ("2", "1")
    assert "secret" not in " ".join(environment.values())


def test_vllm_embeds_when_it_is_told_to(folder: ModelFile, tmp_path: Path):
    program = write_stand_in(tmp_path / "vllm")
    chosen = options(folder, engine="vllm", type=ModelType.EMBEDDING)
    command = launch(
        folder, chosen, address(), ENVIRONMENT, EnginePrograms(vllm=VllmProgram(executable=str(program)))
    ).command
    assert command[command.index("--runner") + 1] == "pooling"


async def test_a_command_of_the_operator_is_filled_in_and_no_shell_reads_it(
    files: dict[str, ModelFile], tmp_path: Path
):
    program = write_stand_in(tmp_path / "my engine", key="MY_KEY", health="/ready")
    command = EngineCommand(
        command=(
            str(program), "--model={model}", "--host", "{host}", "--port", "{port}", "-t", "{threads}",
            "{context}/{parallel}", "$(id) ; {other", '{"json": {"a": 1}}',
        ),
        health="/ready",
        checks_key=True,
        environment={"MY_KEY": Secret("{key}"), "MY_OPTION": Secret("for {model}")},
    )  # fmt: skip
    file = files["chat"]
    chosen = options(file, engine="mine", threads=3, context=1024, parallel=2)
    started = launch(file, chosen, address(), ENVIRONMENT, EnginePrograms(commands={"mine": command}))
    assert (started.engine, started.health_path, started.checks_key) == ("mine", "/ready", True)
    async with running(started) as start:
        assert start["arguments"] == [
            f"--model={file.path}", "--host", "127.0.0.1", "--port", str(started.address.port), "-t", "3",
            "1024/2", "$(id) ; {other", '{"json": {"a": 1}}',
        ]  # fmt: skip
        assert start["environment"]["MY_KEY"] == started.address.key
        assert start["environment"]["MY_OPTION"] == f"for {file.path}"
        assert "secret" not in " ".join(start["environment"].values())


async def test_an_engine_without_keys_is_ready_when_it_is_well(tmp_path: Path):
    """As whisper-server is."""
    program = write_stand_in(tmp_path / "whisper-server", health="/")
    (tmp_path / "ggml-base.bin").write_bytes(b"lmgg" + b"x" * 100)
    file = ModelFiles(tmp_path).scan().files["ggml-base"]
    command = EngineCommand(
        command=(str(program), "--model", "{model}", "--host", "{host}", "--port", "{port}"), health="/"
    )
    chosen = options(file, engine="whisper")
    check_files(file, chosen)
    assert describe(file, chosen).operations == frozenset()
    assert describe(file, chosen).input_modalities == ("audio",)
    async with running(
        launch(file, chosen, address(), ENVIRONMENT, EnginePrograms(commands={"whisper": command}))
    ) as start:
        assert start["arguments"][:2] == ["--model", str(file.path)]


@pytest.mark.parametrize("text", ["{mode}", "--a={Model}", "{model}{x1}", "{_}"])
def test_a_placeholder_that_nobody_knows_is_refused_when_the_configuration_is_read(text):
    assert unknown_placeholders(["program", text])
    with pytest.raises(ValueError, match="does not know"):
        EngineCommand(command=("program", text))
    with pytest.raises(ValueError, match="does not know"):
        EngineCommand(command=("program",), environment={"A": Secret(text)})


def test_the_configuration_knows_the_same_placeholders():
    assert COMMAND_PLACEHOLDERS == PLACEHOLDERS


@pytest.mark.parametrize("text", ["{}", "{{x}", "{ model }", '{"a": 1}', "{0}", "{mmproj}", "a{port}b"])
def test_other_braces_stand_for_themselves(text):
    assert (unknown_placeholders([text]) == []) is ("{x}" not in text)


def test_what_is_filled_in_is_not_read_again(files: dict[str, ModelFile], tmp_path: Path):
    program = write_stand_in(tmp_path / "engine")
    file = msgspec.structs.replace(files["chat"], path=tmp_path / "{key}.gguf")
    command = EngineCommand(command=(str(program), "{model}"))
    started = launch(file, options(file, engine="x"), address(), ENVIRONMENT, EnginePrograms(commands={"x": command}))
    assert started.command[-1] == str(tmp_path / "{key}.gguf")


def test_a_command_that_needs_a_projector_is_not_run_without_one(files: dict[str, ModelFile], tmp_path: Path):
    program = write_stand_in(tmp_path / "engine")
    programs = EnginePrograms(commands={"x": EngineCommand(command=(str(program), "{mmproj}"))})
    with pytest.raises(EngineFailed, match="mmproj"):
        launch(files["chat"], options(files["chat"], engine="x"), address(), ENVIRONMENT, programs)


@pytest.mark.parametrize("engine", ["llama-server", "vllm", "mine"])
def test_a_program_that_is_not_there_is_said_without_its_place(files: dict[str, ModelFile], engine: str):
    nowhere = "/nowhere/at/all/program"
    programs = EnginePrograms(
        llama_server=nowhere,
        vllm=VllmProgram(executable=nowhere),
        commands={"mine": EngineCommand(command=(nowhere, "{model}"))},
    )
    with pytest.raises(EngineFailed, match="the program program is not installed") as caught:
        launch(files["chat"], options(files["chat"], engine=engine), address(), ENVIRONMENT, programs)
    assert "/nowhere" not in caught.value.reason


def test_an_engine_that_is_not_configured_is_named(files: dict[str, ModelFile]):
    with pytest.raises(EngineFailed, match="no engine other"):
        launch(files["chat"], options(files["chat"], engine="other"), address(), ENVIRONMENT, EnginePrograms())


def test_options_with_a_fault_start_nothing(files: dict[str, ModelFile]):
    broken = options(files["chat"], type=ModelType.VISION)
    with pytest.raises(EngineFailed, match="needs a projector"):
        launch(files["chat"], broken, address(), ENVIRONMENT, EnginePrograms())


def test_the_files_are_looked_at_once_more_before_an_engine_reads_them(tmp_path: Path):
    write_tiny_chat_model(tmp_path / "seer-vision.gguf")
    projector = write_tiny_projector(tmp_path / "mmproj-seer-vision.gguf")
    shelf = ModelFiles(tmp_path).scan()
    file = shelf.files["seer-vision"]
    chosen = resolve_options(file, EngineDefaults(), None, shelf.projectors)
    check_files(file, chosen)
    write_tiny_projector(projector, numbers={"patch_size": 0})
    with pytest.raises(EngineFailed, match="its projector cannot be used: its image or patch size"):
        check_files(file, chosen)
    file.path.write_bytes(b"GGUF")
    with pytest.raises(EngineFailed, match="GGUF"):
        check_files(file, chosen)


def test_what_a_model_takes_is_known_of_llama_cpp_only(files: dict[str, ModelFile]):
    file = files["chat"]
    assert [describe(file, options(file, engine=engine)).certain for engine in ("xllamacpp", "llama-server")] == [
        True
    ] * 2
    assert not describe(file, options(file, engine="vllm")).certain


def test_a_model_that_scores_pairs_reranks_and_does_nothing_else(tmp_path: Path):
    write_tiny_reranker(tmp_path / "ranks.gguf")
    file = ModelFiles(tmp_path).scan().files["ranks"]
    chosen = options(file)
    model = describe(file, chosen)
    assert (model.operations, model.output_modalities) == ({Operation.RERANK}, ("scores",))
    assert (chosen.pooling, chosen.embeds) == ("rank", True)


def test_the_catalogue_sees_what_a_model_can_do(files: dict[str, ModelFile], tmp_path: Path):
    chat = describe(files["chat"], options(files["chat"]))
    assert chat.operations == {Operation.CHAT, Operation.COMPLETION}
    assert (chat.provider, chat.id, chat.quantization, chat.context_length) == ("local", "chat", "F16", 2048)
    assert (chat.architecture, chat.parameter_count) == ("llama", files["chat"].facts.parameter_count)
    assert chat.embedding_length == files["chat"].facts.shape.embedding_length > 0
    assert chat.local
    assert chat.created > 1_700_000_000
    assert (chat.input_modalities, chat.output_modalities) == (("text",), ("text",))
    assert "temperature" in chat.parameters
    assert "tools" not in chat.parameters
    embedding = describe(files["embedding"], options(files["embedding"]))
    assert (embedding.operations, embedding.parameters) == ({Operation.EMBEDDING, Operation.RERANK}, ())
    assert embedding.output_modalities == ("embeddings",)
    write_tiny_chat_model(tmp_path / "all-omni.gguf")
    write_tiny_projector(tmp_path / "mmproj-all-omni.gguf")
    shelf = ModelFiles(tmp_path).scan()
    seer = shelf.files["all-omni"]
    assert describe(seer, resolve_options(seer, EngineDefaults(), None, shelf.projectors)).input_modalities == (
        "text",
        "image",
    )
