"""llama.cpp as an engine: how a server for one model is started, out of the wheel `xllamacpp` or as `llama-server`."""

import os
import shutil
import sys
from collections.abc import Mapping
from typing import Literal

import msgspec

from stellwerk.core.call import Operation
from stellwerk.core.plan import Model
from stellwerk.core.ports import EngineAddress
from stellwerk.engines.failure import EngineFailed
from stellwerk.engines.model_files import ModelFile
from stellwerk.engines.process import Launch

PROVIDER = "local"

_CHAT_PARAMETERS = (
    "frequency_penalty", "logit_bias", "logprobs", "max_tokens", "min_p", "presence_penalty", "response_format", "seed",
    "stop", "temperature", "top_k", "top_logprobs", "top_p",
)  # fmt: skip
_TOOL_PARAMETERS = ("tool_choice", "tools")
_ENVIRONMENT = frozenset({"HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TMPDIR", "TZ"})
_ENVIRONMENT_PREFIXES = ("CUDA_", "GGML_", "HIP_", "HSA_", "NVIDIA_", "OMP_", "ROCR_", "VK_")
_SPARE_HTTP_THREADS = 8
_BATCH = 2_048
_MICRO_BATCH = 512


class LlamaCppSettings(msgspec.Struct, frozen=True, kw_only=True):
    backend: Literal["xllamacpp", "llama-server"] = "xllamacpp"
    executable: str = "llama-server"
    """Name on PATH or absolute path, for the backend `llama-server`."""
    context_length: int = 8_192
    """Tokens that all requests of an engine share; a model with a shorter context keeps its own."""
    embedding_context_length: int = 2_048
    """The same for embedding models, whose longest input has to fit into one computation."""
    threads: int = 0
    """0 takes every core but one."""
    parallel: int = 4
    """Requests that are computed at once; more wait inside the engine."""
    gpu_layers: int = -1
    """-1 lets llama.cpp decide."""
    cache_ram_mib: int = 256
    """Memory for prompts that may come back."""
    max_requests: int = 64
    """Leases of one engine at the same time; more wait before it."""


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What `llama_cpp_runner.py` reads from its standard input."""

    parent: int
    model: str
    alias: str
    host: str
    port: int
    key: str
    context: int
    batch: int
    micro_batch: int
    parallel: int
    gpu_layers: int
    threads: int
    http_threads: int
    cache_ram_mib: int
    embedding: bool


def describe(file: ModelFile, settings: LlamaCppSettings) -> Model:
    """The catalogue's view of a file."""
    facts = file.facts
    parameters = () if facts.embeds else _CHAT_PARAMETERS + (_TOOL_PARAMETERS if facts.knows_tools else ())
    return Model(
        provider=PROVIDER,
        name=file.id,
        id=file.id,
        owned_by=PROVIDER,
        created=file.stamp.modified // 1_000_000_000,
        context_length=context_length(file, settings),
        operations=frozenset({Operation.EMBEDDING} if facts.embeds else {Operation.CHAT, Operation.COMPLETION}),
        output_modalities=("embeddings",) if facts.embeds else ("text",),
        parameters=tuple(sorted(parameters)),
        description=facts.name,
        architecture=facts.architecture,
        parameter_count=facts.parameter_count,
        quantization=facts.quantization,
        size_bytes=file.size,
        local=True,
    )


def context_length(file: ModelFile, settings: LlamaCppSettings) -> int:
    cap = settings.context_length
    if file.facts.embeds:
        cap = min(cap, settings.embedding_context_length)
    return min(file.facts.context_length or cap, cap)


def launch(
    file: ModelFile, address: EngineAddress, settings: LlamaCppSettings, environment: Mapping[str, str]
) -> Launch:
    """How to start a server for `file` at `address`. Raises EngineFailed when the wanted backend is not installed."""
    context = context_length(file, settings)
    orders = Orders(
        parent=os.getpid(),
        model=str(file.path),
        alias=file.id,
        host=address.host,
        port=address.port,
        key=address.key,
        context=context,
        # An embedding is computed in one piece: llama.cpp refuses inputs that are longer than the micro batch.
        batch=context if file.facts.embeds else _BATCH,
        micro_batch=context if file.facts.embeds else _MICRO_BATCH,
        parallel=settings.parallel,
        gpu_layers=settings.gpu_layers,
        threads=settings.threads or max(1, _cores() - 1),
        # Every request holds a thread; the health probe must find one left.
        http_threads=settings.max_requests + _SPARE_HTTP_THREADS,
        cache_ram_mib=settings.cache_ram_mib,
        embedding=file.facts.embeds,
    )
    if settings.backend == "llama-server":
        return _launch_binary(orders, address, settings.executable, environment)
    return Launch(
        # -P: a file in the working directory must not be taken for a module.
        command=(sys.executable, "-P", "-m", "stellwerk.engines.llama_cpp_runner"),
        environment=child_environment(environment),
        orders=msgspec.json.encode(orders) + b"\n",
        announces=True,
        address=address,
        hidden=(orders.model, orders.key),
    )


def _launch_binary(orders: Orders, address: EngineAddress, executable: str, environment: Mapping[str, str]) -> Launch:
    program = shutil.which(executable, path=environment.get("PATH"))
    if program is None:
        raise EngineFailed("llama-server is not installed, or not where the configuration says")
    arguments = [
        *("--model", orders.model, "--alias", orders.alias, "--host", orders.host, "--port", str(orders.port)),
        *(
            "--ctx-size",
            str(orders.context),
            "--batch-size",
            str(orders.batch),
            "--ubatch-size",
            str(orders.micro_batch),
        ),
        *("--parallel", str(orders.parallel), "--threads", str(orders.threads)),
        *("--threads-http", str(orders.http_threads), "--no-webui"),
        *(("--n-gpu-layers", str(orders.gpu_layers)) if orders.gpu_layers >= 0 else ()),
        *(("--embedding",) if orders.embedding else ()),
    ]
    return Launch(
        command=(sys.executable, "-P", "-m", "stellwerk.engines.parent_death", str(orders.parent), program, *arguments),
        environment=child_environment(environment)
        | {
            "LLAMA_API_KEY": orders.key,
            # Wishes, not needs: a release that does not know one of these ignores it, while it would refuse a flag.
            "LLAMA_ARG_CACHE_RAM": str(orders.cache_ram_mib),
            "LLAMA_ARG_KV_UNIFIED": "1",
            "LLAMA_ARG_LOG_VERBOSITY": "2",
            "LLAMA_ARG_OFFLINE": "1",
        },
        orders=b"",
        announces=False,
        address=address,
        hidden=(orders.model, orders.key),
    )


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What an engine may know of our environment: nothing that could be a secret."""
    allowed = {
        name: value
        for name, value in environment.items()
        if name in _ENVIRONMENT or name.startswith(_ENVIRONMENT_PREFIXES)
    }
    # Otherwise a failed assertion starts a debugger, which holds the pipes open and outlives the engine.
    return allowed | {"GGML_NO_BACKTRACE": "1"}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
