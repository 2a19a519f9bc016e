"""One seam for every engine: what a model becomes in the catalogue, and how a process for it is started."""

from collections.abc import Mapping

import msgspec

from stellwerk.core.call import Operation
from stellwerk.core.plan import Model
from stellwerk.core.ports import EngineAddress
from stellwerk.engines import command_engine, llama_cpp, vllm
from stellwerk.engines.command_engine import EngineCommand
from stellwerk.engines.failure import EngineFailed
from stellwerk.engines.foreign_models import read_foreign
from stellwerk.engines.gguf import GgufFacts, InvalidGguf
from stellwerk.engines.model_files import ModelFile, read_whole
from stellwerk.engines.model_types import Capabilities
from stellwerk.engines.options import LLAMA_ENGINES, LLAMA_SERVER, VLLM, XLLAMACPP, EngineOptions
from stellwerk.engines.process import Launch
from stellwerk.engines.projectors import read_projector_file
from stellwerk.engines.vllm import VllmProgram

PROVIDER = "local"

_CHAT_PARAMETERS = (
    "frequency_penalty", "logit_bias", "logprobs", "max_tokens", "min_p", "presence_penalty", "response_format", "seed",
    "stop", "temperature", "top_k", "top_logprobs", "top_p",
)  # fmt: skip
_TOOL_PARAMETERS = ("tool_choice", "tools")


class EnginePrograms(msgspec.Struct, frozen=True, kw_only=True):
    """Where the engines are that do not come with Stellwerk."""

    llama_server: str = "llama-server"
    """Name on PATH or absolute path."""
    vllm: VllmProgram = VllmProgram()
    commands: Mapping[str, EngineCommand] = msgspec.field(default_factory=dict)


def describe(file: ModelFile, options: EngineOptions) -> Model:
    """The catalogue's view of a file."""
    facts, capabilities = file.facts, options.capabilities
    parameters: tuple[str, ...] = ()
    operations: frozenset[Operation] = frozenset()
    if facts.ranks and capabilities.embedding:
        operations = frozenset({Operation.RERANK})
    elif capabilities.embedding:
        operations = frozenset({Operation.EMBEDDING, Operation.RERANK})
    elif capabilities.text:
        operations = frozenset({Operation.CHAT, Operation.COMPLETION})
        # How other engines call tools depends on how they were started.
        calls_tools = facts.knows_tools and options.engine in LLAMA_ENGINES
        parameters = _CHAT_PARAMETERS + (_TOOL_PARAMETERS if calls_tools else ())
    return Model(
        provider=PROVIDER,
        name=file.id,
        id=file.id,
        owned_by=PROVIDER,
        created=file.stamp.modified // 1_000_000_000,
        context_length=options.context,
        operations=operations,
        input_modalities=_inputs(options),
        output_modalities=_outputs(facts, capabilities),
        parameters=tuple(sorted(parameters)),
        description=facts.name,
        architecture=facts.architecture,
        parameter_count=facts.parameter_count,
        embedding_length=facts.shape.embedding_length,
        quantization=facts.quantization,
        size_bytes=file.size,
        local=True,
        # What other engines can do depends on how they were started.
        certain=options.engine in LLAMA_ENGINES,
    )


def _outputs(facts: GgufFacts, capabilities: Capabilities) -> tuple[str, ...]:
    if capabilities.embedding:
        return ("scores",) if facts.ranks else ("embeddings",)
    return ("audio",) if capabilities.tts else ("text",)


def _inputs(options: EngineOptions) -> tuple[str, ...]:
    capabilities = options.capabilities
    inputs = (("text", capabilities.text or capabilities.tts), ("image", options.sees), ("audio", options.hears))
    return tuple(name for name, there in inputs if there)


def check_files(file: ModelFile, options: EngineOptions) -> None:
    """A last look at what an engine is about to read, since it trusts it more than we do. Blocks on the disk.

    Raises EngineFailed.
    """
    try:
        if file.format == "gguf":
            read_whole(file.path)
        else:
            read_foreign(file.path)
    except InvalidGguf as error:
        raise EngineFailed(str(error)) from None
    if options.mmproj is not None:
        try:
            read_projector_file(options.mmproj)
        except InvalidGguf as error:
            raise EngineFailed(f"its projector cannot be used: {error}") from None


def launch(
    file: ModelFile,
    options: EngineOptions,
    address: EngineAddress,
    environment: Mapping[str, str],
    programs: EnginePrograms,
) -> Launch:
    """How to start the engine of `options` for `file` at `address`; `environment` is the gateway's own.

    Raises EngineFailed when these options cannot work or the engine is not installed.
    """
    if options.fault is not None:
        raise EngineFailed(options.fault)
    if options.engine == XLLAMACPP:
        return llama_cpp.launch_worker(file, options, address, environment)
    if options.engine == LLAMA_SERVER:
        return llama_cpp.launch_binary(file, options, address, environment, programs.llama_server)
    if options.engine == VLLM:
        return vllm.launch(file, options, address, environment, programs.vllm)
    command = programs.commands.get(options.engine)
    if command is None:
        raise EngineFailed(f"there is no engine {options.engine}")
    return command_engine.launch(file, options, address, environment, command)
