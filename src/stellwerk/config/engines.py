"""Settings of the models that run on this machine, and of the hub that they come from."""

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct
from msgspec import field as setting

from stellwerk.config.value_types import FilePath, ModelName, Name, Port, Seconds, Url, VariableName
from stellwerk.core.secrets import Secret

FlashAttention: TypeAlias = Literal["auto", "on", "off"]
KvCache: TypeAlias = Literal["f16", "q8_0", "q4_0"]
ModelKind: TypeAlias = Literal["text", "vision", "omni", "embedding", "vision-embedding", "audio", "tts"]
Argument = Annotated[str, Meta(pattern=r"^[^\x00-\x1f]{1,4096}$", extra={"form": "argument"})]


class EngineCommand(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    command: Annotated[
        tuple[Argument, ...],
        Meta(
            description="Program and arguments, without a shell. {model}, {host}, {port}, {key}, {context}, {threads}, "
            "{parallel} and {mmproj} are filled in.",
            min_length=1,
            max_length=256,
            examples=[["vllm", "serve", "{model}", "--host", "{host}", "--port", "{port}"]],
        ),
    ]
    health: Annotated[
        str,
        Meta(
            description="Path that answers 200 once the engine is ready.",
            pattern=r"^/[!-~]{0,200}$",
            extra={"form": "path"},
        ),
    ] = "/health"
    checks_key: Annotated[bool, Meta(description="The engine refuses requests that do not show {key}.")] = False
    environment: Annotated[
        Mapping[VariableName, Secret], Meta(description="Variables of the engine's environment.", max_length=64)
    ] = setting(default_factory=dict)


class Vllm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    program: Annotated[FilePath | None, Meta(description="The program vllm; null looks for it on PATH.")] = None
    arguments: Annotated[
        tuple[Argument, ...],
        Meta(
            description="Further arguments of vllm serve.",
            max_length=256,
            examples=[["--gpu-memory-utilization", "0.8"]],
        ),
    ] = ()


class EngineModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: Annotated[ModelKind | None, Meta(description="What it can do; null is seen from the file.")] = None
    path: Annotated[FilePath | None, Meta(description="The file or folder, for a model outside the models folder.")] = (
        None
    )
    mmproj: Annotated[
        FilePath | None, Meta(description="Its projector for images and sound; null looks for it beside the model.")
    ] = None
    engine: Annotated[
        Name | None, Meta(description="xllamacpp, llama-server, vllm or one of engines.commands; null is backend.")
    ] = None
    context: Annotated[
        Annotated[int, Meta(ge=256, le=16_777_216)] | None, Meta(description="Null is engines.context.")
    ] = None
    threads: Annotated[Annotated[int, Meta(ge=0, le=1024)] | None, Meta(description="Null is engines.threads.")] = None
    parallel: Annotated[Annotated[int, Meta(ge=1, le=256)] | None, Meta(description="Null is engines.parallel.")] = None
    batch: Annotated[Annotated[int, Meta(ge=32, le=65536)] | None, Meta(description="Null is engines.batch.")] = None
    gpu_layers: Annotated[
        Annotated[int, Meta(ge=0, le=10_000)] | None,
        Meta(description="Layers that go to the GPU; null lets the engine decide."),
    ] = None
    flash_attention: Annotated[FlashAttention | None, Meta(description="Null is engines.flash_attention.")] = None
    mlock: Annotated[bool | None, Meta(description="Null is engines.mlock.")] = None
    kv_cache: Annotated[KvCache | None, Meta(description="Null is engines.kv_cache.")] = None
    idle_seconds: Annotated[
        Annotated[float, Meta(ge=0, le=31_536_000)] | None, Meta(description="Null is engines.idle_seconds.")
    ] = None
    load_seconds: Annotated[Seconds | None, Meta(description="Null is engines.load_seconds.")] = None
    pinned: Annotated[bool, Meta(description="Load it at the start and never make room in its place.")] = False


class Engines(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    enabled: Annotated[bool, Meta(description="Run models of its own in child processes.")] = True
    demo: Annotated[bool, Meta(description="Offer the small demo model that ships with Stellwerk.")] = True
    models_folder: Annotated[
        FilePath | None, Meta(description="Folder with GGUF files; null is the folder models inside the data folder.")
    ] = None
    backend: Annotated[
        Literal["xllamacpp", "llama-server"],
        Meta(description="xllamacpp comes with Stellwerk; llama-server is a program that you install."),
    ] = "xllamacpp"
    llama_server: Annotated[
        FilePath | None, Meta(description="The program for the backend llama-server; null looks for it on PATH.")
    ] = None
    vllm: Annotated[Vllm, Meta(description="For models whose engine is vllm, which you install.")] = Vllm()
    first_port: Annotated[Port, Meta(description="Port of the first slot, on loopback; the others follow.")] = 4801
    slots: Annotated[int, Meta(description="Models that may be loaded at the same time.", ge=1, le=64)] = 7
    threads: Annotated[int, Meta(description="Threads of one engine; 0 is one less than cores.", ge=0, le=1024)] = 0
    context: Annotated[
        int, Meta(description="Context of a loaded model, in tokens, for each request.", ge=256, le=16_777_216)
    ] = 8192
    batch: Annotated[int, Meta(description="Tokens of a prompt that are computed in one piece.", ge=32, le=65536)] = (
        2048
    )
    flash_attention: Annotated[
        FlashAttention, Meta(description="A faster way to compute; auto takes it where model and machine know it.")
    ] = "auto"
    mlock: Annotated[
        bool, Meta(description="Keep loaded models in memory, so that nothing of them is swapped out.")
    ] = False
    kv_cache: Annotated[
        KvCache, Meta(description="How what was read is kept: the smaller ones save memory and cost a little quality.")
    ] = "f16"
    parallel: Annotated[int, Meta(description="Requests that one loaded model answers side by side.", ge=1, le=256)] = 4
    load_seconds: Annotated[
        Seconds | None,
        Meta(
            description="Seconds for a model to load and become healthy; null is by its type: 180 for text and audio, "
            "300 for vision, omni and vision-embedding, 600 for embedding, 120 for tts."
        ),
    ] = None
    memory_mib: Annotated[
        int,
        Meta(
            description="Memory for loaded models, in MiB; 0 is what the machine has, less a reserve.", ge=0, le=1 << 30
        ),
    ] = 0
    idle_seconds: Annotated[
        float,
        Meta(
            description="Seconds after which a model that nobody asks is unloaded; 0 never does.", ge=0, le=31_536_000
        ),
    ] = 0
    commands: Annotated[
        Mapping[Name, EngineCommand],
        Meta(description="Further engines: programs that you installed.", max_length=64, examples=["my-engine"]),
    ] = setting(default_factory=dict)
    models: Annotated[
        Mapping[ModelName, EngineModel],
        Meta(
            description="Settings of single models, by the name of their file without .gguf.",
            max_length=1000,
            examples=["my-model"],
        ),
    ] = setting(default_factory=dict)


class Hub(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    endpoint: Annotated[
        Url,
        Meta(
            description="Where models are looked for and downloaded from; HF_ENDPOINT counts as long as this "
            "is the default."
        ),
    ] = "https://huggingface.co"
    ollama_registry: Annotated[
        Url,
        Meta(description="Where models with plain names, such as llama3.2, are downloaded from by Ollama's clients."),
    ] = "https://registry.ollama.ai"
    token: Annotated[
        Secret | None, Meta(description="Token for gated models; null is HF_TOKEN.", examples=["${HF_TOKEN}"])
    ] = None
