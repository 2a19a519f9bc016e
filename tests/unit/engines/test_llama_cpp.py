import json
from itertools import pairwise
from pathlib import Path

import pytest

from stellwerk.core.ports import EngineAddress
from stellwerk.engines import llama_cpp
from stellwerk.engines.failure import EngineFailed
from stellwerk.engines.launching import EnginePrograms, launch
from stellwerk.engines.llama_cpp_runner import parameters
from stellwerk.engines.model_files import ModelFile, ModelFiles
from stellwerk.engines.options import EngineDefaults, EngineOptions, EngineOverrides, resolve_options
from stellwerk.engines.process import Launch
from tests.real_engines import write_fake_server
from tests.tiny_gguf import write_tiny_chat_model, write_tiny_projector

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


@pytest.fixture
def seer(tmp_path: Path) -> tuple[ModelFile, EngineOptions]:
    write_tiny_chat_model(tmp_path / "seer-vision.gguf", heads=2)
    write_tiny_projector(tmp_path / "mmproj-seer-vision.gguf")
    shelf = ModelFiles(tmp_path).scan()
    file = shelf.files["seer-vision"]
    said = EngineOverrides(context=1024, threads=3, parallel=2, batch=512, gpu_layers=7, mlock=True, kv_cache="q8_0")
    return file, resolve_options(file, EngineDefaults(), said, shelf.projectors)


def worker(file: ModelFile, **said: object) -> Launch:
    options = resolve_options(file, EngineDefaults(), EngineOverrides(**said))
    return launch(file, options, ADDRESS, ENVIRONMENT, EnginePrograms())


def binary(file: ModelFile, options: EngineOptions, server: Path) -> tuple[list[str], Launch]:
    """The server's own command line, and the launch."""
    started = llama_cpp.launch_binary(file, options, ADDRESS, {"PATH": str(server.parent)}, server.name)
    command = list(started.command)
    return command[command.index(str(server)) :], started


def test_the_runner_gets_its_orders_and_key_through_its_input_only(files: dict[str, ModelFile]):
    started = worker(files["chat"])
    assert json.loads(started.orders)["key"] == ADDRESS.key
    assert ADDRESS.key not in " ".join(started.command)
    assert ADDRESS.key not in " ".join(started.environment.values())
    assert (started.engine, started.announces, started.checks_key) == ("xllamacpp", True, True)


def test_an_engine_sees_no_secret_of_our_environment(files: dict[str, ModelFile], tmp_path: Path):
    server = write_fake_server(tmp_path / "llama-server")
    for engine in ("xllamacpp", "llama-server"):
        options = resolve_options(files["chat"], EngineDefaults(engine=engine))
        programs = EnginePrograms(llama_server=str(server))
        environment = launch(files["chat"], options, ADDRESS, ENVIRONMENT, programs).environment
        assert "secret" not in " ".join(environment.values())
        assert "LD_PRELOAD" not in environment
        assert environment["CUDA_VISIBLE_DEVICES"] == "0"
        assert environment["GGML_NO_BACKTRACE"] == "1"


def test_every_setting_reaches_the_wheel(seer: tuple[ModelFile, EngineOptions]):
    file, options = seer
    p = parameters(json.loads(llama_cpp.launch_worker(file, options, ADDRESS, ENVIRONMENT).orders))
    assert (p.model.path, p.mmproj.path) == (str(file.path), str(options.mmproj))
    assert (set(p.model_alias), list(p.hostnames), p.port, list(p.api_keys)) == (
        {"seer-vision"},
        ["127.0.0.1"],
        4801,
        [ADDRESS.key],
    )
    assert (p.n_ctx, p.n_batch, p.n_ubatch, p.n_parallel, p.n_gpu_layers) == (1024, 512, 512, 2, 7)
    assert (p.cpuparams.n_threads, p.cpuparams_batch.n_threads, p.n_threads_http) == (3, 3, 72)
    # On, mmap with mlock, Q8_0: the values of llama.cpp's own enumerations.
    assert (int(p.flash_attn_type), int(p.load_mode)) == (1, 3)
    assert (int(p.cache_type_k), int(p.cache_type_v)) == (8, 8)
    assert (p.cache_ram_mib, p.embedding, p.kv_unified, p.ui, p.offline) == (256, False, True, False, True)


def test_what_is_not_set_is_left_to_llama_cpp(files: dict[str, ModelFile]):
    p = parameters(json.loads(worker(files["chat"], flash_attention="off").orders))
    assert (int(p.flash_attn_type), int(p.load_mode), int(p.cache_type_k), p.n_gpu_layers) == (0, -1, 1, -1)
    assert (p.mmproj.path, int(p.pooling_type)) == ("", -1)


def test_an_embedding_is_computed_in_one_piece(files: dict[str, ModelFile]):
    orders = json.loads(worker(files["embedding"], context=256).orders)
    assert (orders["context"], orders["batch"], orders["micro_batch"], orders["embedding"]) == (256, 256, 256, True)
    assert int(parameters(orders).pooling_type) == -1
    orders = json.loads(worker(files["chat"], type="embedding").orders)
    assert int(parameters(orders).pooling_type) == 3


def test_every_setting_reaches_a_llama_server(seer: tuple[ModelFile, EngineOptions], tmp_path: Path):
    file, options = seer
    server = write_fake_server(tmp_path / "llama-server")
    command, started = binary(file, options, server)
    told = dict(pairwise(command))
    assert told["--model"] == str(file.path)
    assert (told["--alias"], told["--host"], told["--port"]) == ("seer-vision", "127.0.0.1", "4801")
    assert (told["--ctx-size"], told["--batch-size"], told["--ubatch-size"]) == ("1024", "512", "512")
    assert (told["--parallel"], told["--threads"], told["--n-gpu-layers"]) == ("2", "3", "7")
    assert (told["--flash-attn"], told["--cache-type-k"], told["--cache-type-v"]) == ("on", "q8_0", "q8_0")
    assert told["--mmproj"] == str(options.mmproj)
    assert {"--mlock", "--no-webui"} < set(command)
    assert "--embedding" not in command
    assert ADDRESS.key not in " ".join(command)
    assert started.environment["LLAMA_API_KEY"] == ADDRESS.key
    assert str(options.mmproj) in started.hidden


def test_a_llama_server_that_embeds_is_told_how(files: dict[str, ModelFile], tmp_path: Path):
    server = write_fake_server(tmp_path / "llama-server")
    options = resolve_options(files["chat"], EngineDefaults(), EngineOverrides(type="embedding"))
    command, _ = binary(files["chat"], options, server)
    assert command[command.index("--pooling") + 1] == "last"
    assert "--embedding" in command
    assert not {"--mlock", "--mmproj", "--cache-type-k", "--n-gpu-layers"} & set(command)


def test_a_llama_server_that_is_not_there_is_said_plainly(files: dict[str, ModelFile], tmp_path: Path):
    options = resolve_options(files["chat"], EngineDefaults(engine="llama-server"))
    with pytest.raises(EngineFailed, match="not installed"):
        launch(files["chat"], options, ADDRESS, {"PATH": str(tmp_path)}, EnginePrograms())
