"""What the endpoints for the files of models take and answer; the command line prints the same."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from stellwerk.api._model_kinds import Capabilities
from stellwerk.api._shapes import Instant, show_instant
from stellwerk.api.admin.slot_shapes import FileName, ModelId
from stellwerk.engines.gguf_metadata import Metadatum
from stellwerk.engines.hub import HubModel
from stellwerk.engines.model_files import ModelFile
from stellwerk.engines.model_types import ModelType
from stellwerk.engines.options import EngineOptions
from stellwerk.engines.projectors import Projector
from stellwerk.engines.slot import SlotStatus

MOST_SHOWN_FILES = 15
_MIB, _GIB = 1 << 20, 1 << 30

DetectedType = Literal["text", "vision", "omni", "embedding", "vision-embedding", "audio", "tts", "mmproj"]
Quantity = Annotated[int, Meta(ge=0)]


class LocalModel(msgspec.Struct, kw_only=True):
    """One model on this machine, or one projector (`mmproj`), which is no model by itself."""

    name: Annotated[str, Meta(description="The id under which it is asked.")]
    path: Annotated[str, Meta(description="Name of the file; of a model in parts, the first one's.")]
    size_mb: float
    size_gb: float
    size_bytes: Quantity
    detected_type: DetectedType | None
    architecture: str | None
    parameters: int | None
    quantization: str | None
    context_length: Annotated[int | None, Meta(description="Tokens that it was made for.")]
    mmproj: Annotated[str | None, Meta(description="The projector that it would be loaded with.")]
    loaded: bool
    slot: int | None
    modified_at: Instant | None
    problem: Annotated[str | None, Meta(description="Why it cannot be loaded.")]


class LoadOptions(msgspec.Struct, kw_only=True):
    """How it would be loaded now."""

    engine: str
    type: ModelType
    context: int
    threads: int
    parallel: int
    batch: int
    gpu_layers: int | None
    flash_attention: str
    kv_cache: str
    mlock: bool
    pooling: str | None
    keep_alive_seconds: float | None
    pinned: bool
    notes: list[str]


class MetadatumShape(msgspec.Struct, kw_only=True):
    """One key of the file's header."""

    key: str
    type: str
    value: Annotated[Any, Meta(description="Null for what is left out: long arrays, and all arrays of texts.")]
    count: Annotated[int | None, Meta(description="How many an array has; of a text that was cut, bytes.")]


class LocalModelDetails(LocalModel, kw_only=True):
    """A model with all that its file says, vocabularies left out."""

    capabilities: Capabilities
    options: LoadOptions
    metadata: list[MetadatumShape]


class SearchQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What to look for."""

    q: Annotated[str, Meta(min_length=1, max_length=200)]
    limit: Annotated[int, Meta(ge=1, le=100)] = 10


class FoundModel(msgspec.Struct, kw_only=True):
    """One repository of the hub."""

    repo_id: str
    downloads: Quantity
    likes: Quantity
    gated: Annotated[bool, Meta(description="Its conditions have to be accepted at the hub first.")]
    files: Annotated[list[str], Meta(max_length=MOST_SHOWN_FILES)]
    file_count: Quantity


class DeleteBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which file; of a model in parts all of them go."""

    model_path: Annotated[FileName, Meta(examples=["my-model.gguf"])]


class DeletedModel(msgspec.Struct, kw_only=True):
    status: Literal["deleted"]
    path: str


class PinBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Whether it is loaded at every start and never makes room."""

    model: ModelId
    pinned: bool = True


class PinnedModel(msgspec.Struct, kw_only=True):
    status: Literal["pinned", "unpinned"]
    model: str


def show_models(
    files: Mapping[str, ModelFile],
    options: Mapping[str, EngineOptions],
    projectors: Sequence[Projector],
    broken: Mapping[str, str],
    slots: Sequence[SlotStatus] = (),
) -> list[LocalModel]:
    """Everything that a models folder holds, by name."""
    ports = {slot.model: slot.port for slot in slots if slot.model is not None and slot.state != "failed"}
    shown = [show_model(file, options[model], ports.get(model)) for model, file in files.items()]
    shown += [_show_projector(one) for one in projectors]
    shown += [_show_broken(model, reason) for model, reason in broken.items() if model not in files]
    return sorted(shown, key=lambda model: (model.name.casefold(), model.path))


def show_model(file: ModelFile, options: EngineOptions, port: int | None) -> LocalModel:
    facts = file.facts
    return LocalModel(
        name=file.id,
        path=file.path.name,
        **_sizes(file.size),
        detected_type=options.type.value,
        architecture=facts.architecture,
        parameters=facts.parameter_count,
        quantization=facts.quantization,
        context_length=facts.context_length,
        mmproj=None if options.mmproj is None else options.mmproj.name,
        loaded=port is not None,
        slot=port,
        modified_at=show_instant(file.stamp.modified / 1e9),
        problem=options.fault,
    )


def show_details(
    file: ModelFile, options: EngineOptions, metadata: Sequence[Metadatum], port: int | None
) -> LocalModelDetails:
    chosen = {name: getattr(options, name) for name in LoadOptions.__struct_fields__}
    return LocalModelDetails(
        **msgspec.structs.asdict(show_model(file, options, port)),
        capabilities=Capabilities(**msgspec.structs.asdict(options.capabilities)),
        options=LoadOptions(**{**chosen, "notes": list(options.notes)}),
        metadata=[MetadatumShape(**msgspec.structs.asdict(one)) for one in metadata],
    )


def show_found(model: HubModel) -> FoundModel:
    return FoundModel(
        repo_id=model.repo,
        downloads=model.downloads,
        likes=model.likes,
        gated=model.gated,
        files=[file.name for file in model.files[:MOST_SHOWN_FILES]],
        file_count=len(model.files),
    )


def _show_projector(projector: Projector) -> LocalModel:
    try:
        size = projector.path.stat().st_size
    except OSError:
        size = 0
    return _show_other(projector.path.stem, projector.path.name, "mmproj", projector.facts.fault or None, size)


def _show_broken(model: str, reason: str) -> LocalModel:
    return _show_other(model, f"{model}.gguf", None, reason, 0)


def _show_other(name: str, path: str, kind: DetectedType | None, problem: str | None, size: int) -> LocalModel:
    return LocalModel(
        name=name,
        path=path,
        **_sizes(size),
        detected_type=kind,
        architecture=None,
        parameters=None,
        quantization=None,
        context_length=None,
        mmproj=None,
        loaded=False,
        slot=None,
        modified_at=None,
        problem=problem,
    )


def _sizes(size: int) -> dict[str, Any]:
    return {"size_mb": round(size / _MIB, 1), "size_gb": round(size / _GIB, 2), "size_bytes": size}


LOCAL_MODEL: Final[dict[str, Any]] = {
    "name": "Qwen2.5-7B-Instruct-Q4_K_M",
    "path": "Qwen2.5-7B-Instruct-Q4_K_M.gguf",
    "size_mb": 4466.1,
    "size_gb": 4.36,
    "size_bytes": 4683074240,
    "detected_type": "text",
    "architecture": "qwen2",
    "parameters": 7615616512,
    "quantization": "Q4_K_M",
    "context_length": 32768,
    "mmproj": None,
    "loaded": True,
    "slot": 4801,
    "modified_at": "2026-11-21T09:30:00.000Z",
    "problem": None,
}
LOCAL_MODEL_DETAILS: Final[dict[str, Any]] = {
    **LOCAL_MODEL,
    "capabilities": {"text": True, "vision": False, "audio": False, "embedding": False, "tts": False},
    "options": {
        "engine": "xllamacpp",
        "type": "text",
        "context": 8192,
        "threads": 0,
        "parallel": 4,
        "batch": 2048,
        "gpu_layers": None,
        "flash_attention": "auto",
        "kv_cache": "f16",
        "mlock": False,
        "pooling": None,
        "keep_alive_seconds": None,
        "pinned": False,
        "notes": [],
    },
    "metadata": [
        {"key": "general.architecture", "type": "string", "value": "qwen2", "count": None},
        {"key": "tokenizer.ggml.tokens", "type": "array of string", "value": None, "count": 152064},
    ],
}
FOUND_MODEL: Final[dict[str, Any]] = {
    "repo_id": "Qwen/Qwen2.5-7B-Instruct-GGUF",
    "downloads": 120000,
    "likes": 90,
    "gated": False,
    "files": ["qwen2.5-7b-instruct-q4_k_m.gguf"],
    "file_count": 1,
}
