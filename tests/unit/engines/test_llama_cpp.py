import json
from pathlib import Path

import msgspec
import pytest

from stellwerk.core.call import Operation
from stellwerk.core.ports import EngineAddress
from stellwerk.engines import llama_cpp
from stellwerk.engines.failure import EngineFailed
from stellwerk.engines.llama_cpp import LlamaCppSettings
from stellwerk.engines.model_files import ModelFile, ModelFiles
from tests.real_engines import write_fake_server

ADDRESS = EngineAddress(host="127.0.0.1", port=4801, key="the-key-of-this-start")
ENVIRONMENT = {
    "PATH": "/usr/bin",
    "HOME": "/home/me",
    "CUDA_VISIBLE_DEVICES": "0",
    "OPENAI_API_KEY": "sk-secret",
    "STELLWERK_ADMIN_KEY": "admin-secret",
    "HF_TOKEN": "hf-secret",
    "AWS_SECRET_ACCESS_KEY": "aws-secret",
    "LD_PRELOAD": "/tmp/x.so",
}


@pytest.fixture(scope="module")
def files(tiny_models: Path) -> dict[str, ModelFile]:
    return dict(ModelFiles(tiny_models).scan().files)


def test_the_runner_gets_its_orders_and_key_through_its_input_only(files: dict[str, ModelFile]):
    launch = llama_cpp.launch(files["chat"], ADDRESS, LlamaCppSettings(), ENVIRONMENT)
    assert json.loads(launch.orders)["key"] == ADDRESS.key
    assert ADDRESS.key not in " ".join(launch.command)
    assert ADDRESS.key not in " ".join(launch.environment.values())


def test_an_engine_sees_no_secret_of_our_environment(files: dict[str, ModelFile], tmp_path: Path):
    server = write_fake_server(tmp_path / "llama-server")
    for settings in (LlamaCppSettings(), LlamaCppSettings(backend="llama-server", executable=str(server))):
        environment = llama_cpp.launch(files["chat"], ADDRESS, settings, ENVIRONMENT).environment
        assert "secret" not in " ".join(environment.values())
        assert "LD_PRELOAD" not in environment
        assert environment["CUDA_VISIBLE_DEVICES"] == "0"
        assert environment["GGML_NO_BACKTRACE"] == "1"


def test_a_llama_server_is_found_on_the_path_and_gets_its_key_by_environment(
    files: dict[str, ModelFile], tmp_path: Path
):
    server = write_fake_server(tmp_path / "llama-server")
    settings = LlamaCppSettings(backend="llama-server", context_length=1024, gpu_layers=7)
    launch = llama_cpp.launch(files["chat"], ADDRESS, settings, {"PATH": str(tmp_path)})
    command = launch.command[launch.command.index(str(server)) :]
    options = dict(zip(command[1::2], command[2::2], strict=False))
    assert (options["--host"], options["--port"], options["--ctx-size"]) == ("127.0.0.1", "4801", "1024")
    assert "--no-webui" in command
    assert command[command.index("--n-gpu-layers") + 1] == "7"
    assert ADDRESS.key not in " ".join(command)
    assert launch.environment["LLAMA_API_KEY"] == ADDRESS.key


def test_a_llama_server_that_is_not_there_is_said_plainly(files: dict[str, ModelFile], tmp_path: Path):
    settings = LlamaCppSettings(backend="llama-server")
    with pytest.raises(EngineFailed, match="not installed"):
        llama_cpp.launch(files["chat"], ADDRESS, settings, {"PATH": str(tmp_path)})


def test_the_context_is_that_of_the_model_up_to_the_cap(files: dict[str, ModelFile]):
    assert llama_cpp.context_length(files["chat"], LlamaCppSettings()) == 2048
    assert llama_cpp.context_length(files["chat"], LlamaCppSettings(context_length=1000)) == 1000
    silent = msgspec.structs.replace(
        files["chat"], facts=msgspec.structs.replace(files["chat"].facts, context_length=None)
    )
    assert llama_cpp.context_length(silent, LlamaCppSettings()) == 8192


def test_an_embedding_is_computed_in_one_piece(files: dict[str, ModelFile]):
    settings = LlamaCppSettings(embedding_context_length=256)
    orders = json.loads(llama_cpp.launch(files["embedding"], ADDRESS, settings, ENVIRONMENT).orders)
    assert (orders["context"], orders["batch"], orders["micro_batch"], orders["embedding"]) == (256, 256, 256, True)


def test_the_catalogue_sees_what_a_model_can_do(files: dict[str, ModelFile]):
    chat = llama_cpp.describe(files["chat"], LlamaCppSettings())
    assert chat.operations == {Operation.CHAT, Operation.COMPLETION}
    assert (chat.provider, chat.id, chat.quantization, chat.context_length) == ("local", "chat", "F16", 2048)
    assert (chat.architecture, chat.parameter_count) == ("llama", files["chat"].facts.parameter_count)
    assert chat.local
    assert chat.created > 1_700_000_000
    assert "temperature" in chat.parameters
    assert "tools" not in chat.parameters
    assert llama_cpp.describe(files["embedding"], LlamaCppSettings()).operations == {Operation.EMBEDDING}
