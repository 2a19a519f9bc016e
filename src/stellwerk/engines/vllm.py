"""vLLM as an engine: `vllm serve` for a folder as it lies on Hugging Face, or for whatever else vLLM takes."""

from collections.abc import Mapping

import msgspec

from stellwerk.core.ports import EngineAddress
from stellwerk.engines.environment import bound_command, child_environment, threads_of
from stellwerk.engines.model_files import ModelFile
from stellwerk.engines.options import VLLM, EngineOptions
from stellwerk.engines.probe import completion_probe, embedding_probe
from stellwerk.engines.process import Launch

_PREFIX = "VLLM_"
_SECRET = "VLLM_API_KEY"  # noqa: S105 — the name of the variable


class VllmProgram(msgspec.Struct, frozen=True, kw_only=True):
    executable: str = "vllm"
    """Name on PATH or absolute path."""
    arguments: tuple[str, ...] = ()
    """Further arguments of `vllm serve`, from the operator."""


def launch(
    file: ModelFile,
    options: EngineOptions,
    address: EngineAddress,
    environment: Mapping[str, str],
    program: VllmProgram,
) -> Launch:
    """Raises EngineFailed when vLLM is not installed."""
    arguments = (
        *("serve", str(file.path), "--served-model-name", file.id, "--host", address.host, "--port", str(address.port)),
        *("--max-model-len", str(options.context), "--max-num-seqs", str(options.parallel)),
        *(("--runner", "pooling") if options.embeds else ()),
        "--disable-fastapi-docs",
        *program.arguments,
    )
    own = {name: value for name, value in environment.items() if name.startswith(_PREFIX) and name != _SECRET}
    return Launch(
        command=bound_command(program.executable, arguments, environment),
        environment=child_environment(environment)
        | own
        | {
            "VLLM_API_KEY": address.key,
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            # What is served lies on this disk: nothing is fetched, least of all code.
            "HF_HUB_OFFLINE": "1",
        }
        | ({"OMP_NUM_THREADS": str(threads_of(options.threads))} if options.threads else {}),
        orders=b"",
        announces=False,
        address=address,
        hidden=(str(file.path), address.key),
        engine=VLLM,
        token_probe=embedding_probe(file.id) if options.embeds else completion_probe(file.id),
    )
