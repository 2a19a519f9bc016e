"""What the endpoints for slots take and answer."""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from stellwerk.api._model_kinds import Capabilities
from stellwerk.api._shapes import Instant, show_instant
from stellwerk.api.admin.loads import Load
from stellwerk.core.errors import BadRequest
from stellwerk.engines.crashes import MOST_CRASHES, Crash
from stellwerk.engines.model_types import CAPABILITIES, ModelType
from stellwerk.engines.options import EngineOverrides, FlashAttention, KvCache
from stellwerk.engines.slot import SlotStatus
from stellwerk.telemetry.processes import ProcessLoad

SlotPort = Annotated[int, Meta(ge=1, le=65_535, description="The port of a slot.")]
LoadId = Annotated[str, Meta(pattern="^load_[0-9a-f]{16}$")]
FileName = Annotated[str, Meta(min_length=1, max_length=4096)]
ModelId = Annotated[str, Meta(min_length=1, max_length=240, pattern=r"^[!-~]+$")]
Context = Annotated[int, Meta(ge=256, le=16_777_216)]
Threads = Annotated[int, Meta(ge=0, le=1024)]
SlotWord = Literal["running", "loading", "draining", "crashed", "empty"]
_WORDS: Final[dict[str, SlotWord]] = {
    "ready": "running",
    "loading": "loading",
    "restarting": "crashed",
    "failed": "crashed",
    "draining": "draining",
}
_MIB = 1 << 20


class SlotState(msgspec.Struct, kw_only=True):
    """One slot. What only a model has is null in an empty one."""

    port: int
    status: SlotWord
    model_name: str | None
    model_type: ModelType | None
    ram_mb: Annotated[float, Meta(description="MiB that its processes hold, files that they have mapped included.")]
    model_path: Annotated[str | None, Meta(description="Name of the file.")]
    ctx_size: int | None
    threads: int | None
    pid: int | None
    capabilities: Capabilities | None
    cpu_percent: Annotated[float | None, Meta(description="Of one core; eight busy ones are 800.")]
    engine: str | None
    mmproj: Annotated[str | None, Meta(description="Name of the projector's file.")]
    parallel: int | None
    batch: int | None
    gpu_layers: int | None
    flash_attention: str | None
    kv_cache: str | None
    mlock: bool | None
    pinned: bool
    requests: Annotated[int, Meta(description="That run or wait.")]
    waiting: int
    restarts: Annotated[int, Meta(description="Since the gateway started.")]
    reserved_mb: Annotated[float | None, Meta(description="MiB that it counts with in the budget.")]
    loaded_at: Instant | None
    last_used_at: Instant | None
    unloads_at: Annotated[Instant | None, Meta(description="When nobody asks until then.")]
    error: Annotated[str | None, Meta(description="The last failure, also when it was repaired.")]
    notes: Annotated[list[str], Meta(description="Wishes that were not granted.")]


class LoadBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which model to load, by `model_path` or `model`, and how. What is left out is as it was for this model before;
    any setting at all replaces what was remembered of it."""

    model_path: (
        Annotated[FileName, Meta(description="Name of a file of the models folder.", examples=["my-model.gguf"])] | None
    ) = None
    model: Annotated[ModelId, Meta(description="Its id, in place of `model_path`.")] | None = None
    slot: Annotated[SlotPort, Meta(description="Its port, such as 4801; without it any that is free.")] | None = None
    model_type: Annotated[ModelType, Meta(description="Without it, what the file is.")] | None = None
    ctx_size: Annotated[Context, Meta(description="Tokens.")] | None = None
    threads: Annotated[Threads, Meta(description="0 is one less than cores.")] | None = None
    mmproj_path: (
        Annotated[
            str, Meta(max_length=4096, description="Name of a projector of the models folder; empty looks for one.")
        ]
        | None
    ) = None
    parallel: Annotated[int, Meta(ge=1, le=256)] | None = None
    batch: Annotated[int, Meta(ge=32, le=65_536)] | None = None
    gpu_layers: Annotated[int, Meta(ge=0, le=10_000)] | None = None
    flash_attention: FlashAttention | None = None
    kv_cache: KvCache | None = None
    mlock: bool | None = None
    idle_seconds: Annotated[float, Meta(ge=0, le=31_536_000, description="0 never unloads it.")] | None = None
    pinned: Annotated[bool, Meta(description="Load it at every start and never make room in its place.")] | None = None
    wait: Annotated[
        bool, Meta(description="Answer when it is loaded; false, or `Prefer: respond-async`, answers 202 at once.")
    ] = True


class LoadedModel(msgspec.Struct, kw_only=True):
    """A model that answers now."""

    status: Literal["loaded"]
    slot: int
    model: str
    model_type: ModelType | None
    pid: int | None
    notes: Annotated[list[str], Meta(description="Wishes that were not granted.")]


class LoadState(msgspec.Struct, kw_only=True):
    """How far a load is."""

    id: str
    status: Literal["loading", "loaded", "failed"]
    model: str
    slot: int | None
    pid: int | None
    status_url: str
    error: str | None
    code: str | None
    started_at: Instant
    ended_at: Instant | None


class UnloadQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How a model leaves."""

    graceful: Annotated[bool, Meta(description="false cuts off the requests that run.")] = True


class UnloadedSlot(msgspec.Struct, kw_only=True):
    """`not_loaded` when there was nothing in it."""

    status: Literal["unloaded", "not_loaded"]
    slot: int


class CrashesQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which crashes; the newest come first."""

    model: ModelId | None = None
    limit: Annotated[int, Meta(ge=1, le=MOST_CRASHES)] = 100


class CrashShape(msgspec.Struct, kw_only=True):
    """One end of an engine that nobody wanted."""

    at: Instant
    model: str
    engine: str
    reason: str
    exit_code: int | None
    signal: str | None
    memory_mb: float | None
    uptime: Annotated[float, Meta(description="Seconds.")]
    had_served: bool
    last_lines: list[str]
    request_ids: Annotated[list[str], Meta(description="What ran on it.")]


def show_slot(status: SlotStatus, file_name: str | None, load: ProcessLoad | None) -> SlotState:
    """`file_name` is that of the model, `load` what its process does now."""
    kind = None if status.type is None else ModelType(status.type)
    measured = status.memory_mib
    if measured is None and load is not None:
        measured = load.resident_bytes / _MIB
    return SlotState(
        port=status.port,
        status=word_of(status),
        model_name=status.model,
        model_type=kind,
        ram_mb=round(measured or 0.0, 1),
        model_path=file_name,
        ctx_size=status.context,
        threads=status.threads,
        pid=status.pid,
        capabilities=None if kind is None else Capabilities(**msgspec.structs.asdict(CAPABILITIES[kind])),
        cpu_percent=None if load is None else load.cpu_percent,
        engine=status.engine,
        mmproj=status.mmproj,
        parallel=status.parallel,
        batch=status.batch,
        gpu_layers=status.gpu_layers,
        flash_attention=status.flash_attention,
        kv_cache=status.kv_cache,
        mlock=status.mlock,
        pinned=status.pinned,
        requests=status.leases,
        waiting=status.waiting,
        restarts=status.restarts,
        reserved_mb=status.reserved_mib,
        loaded_at=_moment(status.loaded_at),
        last_used_at=_moment(status.last_used),
        unloads_at=_moment(status.expires_at),
        error=status.error,
        notes=list(status.notes),
    )


def word_of(status: SlotStatus) -> SlotWord:
    """The documented word for what a slot does."""
    # A slot without a model whose port another program holds is of no use, but nothing has crashed in it.
    return "empty" if status.model is None else _WORDS[status.state]


def show_load(load: Load) -> LoadState:
    status, error = load.status, load.error
    return LoadState(
        id=load.id,
        status=load.state,
        model=load.model,
        slot=load.slot if status is None else status.port,
        pid=None if status is None else status.pid,
        status_url=f"/admin/api/slots/loads/{load.id}",
        error=None if error is None else error.message,
        code=None if error is None else error.code,
        started_at=show_instant(load.started),
        ended_at=_moment(load.ended),
    )


def show_loaded(status: SlotStatus) -> LoadedModel:
    return LoadedModel(
        status="loaded",
        slot=status.port,
        model=status.model or "",
        model_type=None if status.type is None else ModelType(status.type),
        pid=status.pid,
        notes=list(status.notes),
    )


def show_crash(crash: Crash) -> CrashShape:
    facts = msgspec.structs.asdict(crash)
    del facts["memory_mib"]
    lists = {"last_lines": list(crash.last_lines), "request_ids": list(crash.request_ids)}
    memory = None if crash.memory_mib is None else round(crash.memory_mib, 1)
    return CrashShape(**{**facts, **lists, "at": show_instant(crash.at)}, memory_mb=memory)


def to_overrides(body: LoadBody, mmproj: Any) -> EngineOverrides | None:
    """None when nothing was said. Raises BadRequest when the model is named twice or not at all."""
    if (body.model is None) == (body.model_path is None):
        raise BadRequest("Name the model either by 'model_path' or by 'model'.", param="model_path")
    said = {
        "type": body.model_type,
        "context": body.ctx_size,
        "mmproj": mmproj,
        **{name: getattr(body, name) for name in _SAME_NAMES},
    }
    # An empty name of a projector is a word too: it takes back the one that was named before.
    spoken = body.mmproj_path is not None or any(value is not None for value in said.values())
    return EngineOverrides(**said) if spoken else None


_SAME_NAMES = (
    "threads", "parallel", "batch", "gpu_layers", "flash_attention", "kv_cache", "mlock", "idle_seconds", "pinned",
)  # fmt: skip


def _moment(at: float | None) -> str | None:
    return None if at is None else show_instant(at)


_NOTHING: Final[dict[str, Any]] = {
    "status": "empty", "model_name": None, "model_type": None, "ram_mb": 0.0, "model_path": None, "ctx_size": None,
    "threads": None, "pid": None, "capabilities": None, "cpu_percent": None, "engine": None, "mmproj": None,
    "parallel": None, "batch": None, "gpu_layers": None, "flash_attention": None, "kv_cache": None, "mlock": None,
    "pinned": False, "requests": 0, "waiting": 0, "restarts": 0, "reserved_mb": None, "loaded_at": None,
    "last_used_at": None, "unloads_at": None, "error": None, "notes": [],
}  # fmt: skip
SLOT: Final[dict[str, Any]] = {
    **_NOTHING,
    "port": 4801,
    "status": "running",
    "model_name": "Qwen2.5-7B-Instruct-Q4_K_M",
    "model_type": "text",
    "ram_mb": 5012.4,
    "model_path": "Qwen2.5-7B-Instruct-Q4_K_M.gguf",
    "ctx_size": 8192,
    "threads": 0,
    "pid": 4711,
    "capabilities": {"text": True, "vision": False, "audio": False, "embedding": False, "tts": False},
    "cpu_percent": 0.0,
    "engine": "xllamacpp",
    "parallel": 4,
    "batch": 2048,
    "flash_attention": "auto",
    "kv_cache": "f16",
    "mlock": False,
    "reserved_mb": 5100.0,
    "loaded_at": "2026-11-21T09:30:00.000Z",
    "last_used_at": "2026-11-21T09:31:12.250Z",
}
EMPTY_SLOT: Final[dict[str, Any]] = {**_NOTHING, "port": 4802}
LOADED: Final[dict[str, Any]] = {
    "status": "loaded",
    "slot": 4801,
    "model": "Qwen2.5-7B-Instruct-Q4_K_M",
    "model_type": "text",
    "pid": 4711,
    "notes": [],
}
LOADING: Final[dict[str, Any]] = {
    "id": "load_0123456789abcdef",
    "status": "loading",
    "model": "Qwen2.5-7B-Instruct-Q4_K_M",
    "slot": 4801,
    "pid": None,
    "status_url": "/admin/api/slots/loads/load_0123456789abcdef",
    "error": None,
    "code": None,
    "started_at": "2026-11-21T09:30:00.000Z",
    "ended_at": None,
}
CRASH: Final[dict[str, Any]] = {
    "at": "2026-11-21T09:30:00.000Z",
    "model": "my-model",
    "engine": "xllamacpp",
    "reason": "it was ended by SIGSEGV",
    "exit_code": None,
    "signal": "SIGSEGV",
    "memory_mb": 5012.4,
    "uptime": 812.5,
    "had_served": True,
    "last_lines": [],
    "request_ids": ["req_0123"],
}
