"""llama.cpp as an engine: how a server for one model is started, out of the wheel `xllamacpp` or as `llama-server`."""

import os
import sys
from collections.abc import Mapping

import msgspec

from stellwerk.core.ports import EngineAddress
from stellwerk.engines.environment import bound_command, child_environment, threads_of
from stellwerk.engines.model_files import ModelFile
from stellwerk.engines.options import LLAMA_SERVER, XLLAMACPP, EngineOptions
from stellwerk.engines.probe import TokenProbe, completion_probe, embedding_probe
from stellwerk.engines.process import Launch

_SPARE_HTTP_THREADS = 8


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What `llama_cpp_runner.py` reads from its standard input."""

    parent: int
    model: str
    mmproj: str
    """Empty for none."""
    alias: str
    host: str
    port: int
    key: str
    context: int
    batch: int
    micro_batch: int
    parallel: int
    gpu_layers: int
    """-1 lets llama.cpp decide."""
    threads: int
    http_threads: int
    cache_ram_mib: int
    flash_attention: str
    """`auto`, `on` or `off`."""
    mlock: bool
    kv_cache: str
    """llama.cpp's name of the type: f16, q8_0, q4_0."""
    embedding: bool
    pooling: str
    """`mean`, `cls`, `last` or `rank`; empty leaves it to the file."""


def orders_for(file: ModelFile, options: EngineOptions, address: EngineAddress) -> Orders:
    return Orders(
        parent=os.getpid(),
        model=str(file.path),
        mmproj=str(options.mmproj or ""),
        alias=file.id,
        host=address.host,
        port=address.port,
        key=address.key,
        context=options.context,
        batch=options.batch,
        micro_batch=options.micro_batch,
        parallel=options.parallel,
        gpu_layers=-1 if options.gpu_layers is None else options.gpu_layers,
        threads=threads_of(options.threads),
        # Every request holds a thread; the health probe must find one left.
        http_threads=options.max_requests + _SPARE_HTTP_THREADS,
        cache_ram_mib=options.cache_ram_mib,
        flash_attention=options.flash_attention,
        mlock=options.mlock,
        kv_cache=options.kv_cache,
        embedding=options.embeds,
        pooling=options.pooling or "",
    )


def launch_worker(
    file: ModelFile, options: EngineOptions, address: EngineAddress, environment: Mapping[str, str]
) -> Launch:
    """The server of the wheel `xllamacpp`, in a process of ours; everything it is told goes through its input."""
    orders = orders_for(file, options, address)
    return Launch(
        # -P: a file in the working directory must not be taken for a module.
        command=(sys.executable, "-P", "-m", "stellwerk.engines.llama_cpp_runner"),
        environment=child_environment(environment),
        orders=msgspec.json.encode(orders) + b"\n",
        announces=True,
        address=address,
        hidden=_hidden(orders),
        engine=XLLAMACPP,
        token_probe=_token_probe(options, orders),
    )


def launch_binary(
    file: ModelFile, options: EngineOptions, address: EngineAddress, environment: Mapping[str, str], executable: str
) -> Launch:
    """`llama-server` itself. Raises EngineFailed when it is not installed."""
    orders = orders_for(file, options, address)
    return Launch(
        command=bound_command(executable, _arguments(orders), environment),
        environment=child_environment(environment)
        | {
            "LLAMA_API_KEY": orders.key,
            # Wishes, not needs: a release that does not know one of these ignores it, while it would refuse a flag.
            "LLAMA_ARG_CACHE_RAM": str(orders.cache_ram_mib),
            "LLAMA_ARG_KV_UNIFIED": "1",
            "LLAMA_ARG_LOG_VERBOSITY": "2",
            "LLAMA_ARG_OFFLINE": "1",
            # Otherwise it looks for a projector of its own beside the model.
            "LLAMA_ARG_MMPROJ_AUTO": "0",
        },
        orders=b"",
        announces=False,
        address=address,
        hidden=_hidden(orders),
        engine=LLAMA_SERVER,
        token_probe=_token_probe(options, orders),
    )


def _arguments(orders: Orders) -> tuple[str, ...]:
    numbers = {
        "--port": orders.port,
        "--ctx-size": orders.context,
        "--batch-size": orders.batch,
        "--ubatch-size": orders.micro_batch,
        "--parallel": orders.parallel,
        "--threads": orders.threads,
        "--threads-http": orders.http_threads,
    } | ({"--n-gpu-layers": orders.gpu_layers} if orders.gpu_layers >= 0 else {})
    return (
        *("--model", orders.model, "--alias", orders.alias, "--host", orders.host),
        *(word for name, number in numbers.items() for word in (name, str(number))),
        *("--flash-attn", orders.flash_attention),
        *(("--mlock",) if orders.mlock else ()),
        *(("--cache-type-k", orders.kv_cache, "--cache-type-v", orders.kv_cache) if orders.kv_cache != "f16" else ()),
        *(("--mmproj", orders.mmproj) if orders.mmproj else ()),
        *(("--embedding",) if orders.embedding else ()),
        *(("--pooling", orders.pooling) if orders.pooling else ()),
        "--no-webui",
    )


def _token_probe(options: EngineOptions, orders: Orders) -> TokenProbe | None:
    if orders.pooling == "rank":
        return None
    if options.embeds:
        return embedding_probe(orders.alias)
    return completion_probe(orders.alias, slots_path="/slots")


def _hidden(orders: Orders) -> tuple[str, ...]:
    return tuple(text for text in (orders.model, orders.mmproj, orders.key) if text)
