"""AI Gateway's own config/config.yaml: its keys as the settings that mean the same here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, inspect
from msgspec import field as setting

from stellwerk.config.checking import Checker, plain_type
from stellwerk.config.document import parse
from stellwerk.config.jobs import AIGatewayModel, Resolution
from stellwerk.config.models import Gate
from stellwerk.config.settings import Config, Provider
from stellwerk.config.tree import Entry, Place, Problems, shorten, under
from stellwerk.config.value_types import Count, ModelName, Name, Port, Seconds

COMPAT = "ai-gateway"
USUAL = Path("config/config.yaml")
"""Below the folder in which the gateway was started."""
_OCR_MODEL = "deepseek"
_LONGEST_ACCESS_MINUTES = 60
_NO_NUMBER = 0

_AtLeastOne = Annotated[int, Meta(ge=1, le=1_000_000)]


class _Model(Struct, frozen=True, kw_only=True):
    name: ModelName | None = None
    port: Port | None = None
    max_concurrent: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    gpu_memory: Annotated[float, Meta(ge=0.1, le=1)] | None = None
    max_model_len: _AtLeastOne | None = None
    resolution_mode: Resolution | None = None
    enabled: bool = True


class _Queue(Struct, frozen=True, kw_only=True):
    max_waiting: Count | None = None
    timeout: Seconds | None = None
    priority_enabled: bool = True
    persistence_enabled: bool = True
    recovery_check_interval: Seconds | None = None


class _AutoSwitch(Struct, frozen=True, kw_only=True):
    enabled: bool | None = None
    pattern_window_days: Annotated[float, Meta(gt=0, le=365)] | None = None
    min_requests_for_switch: _AtLeastOne | None = None
    switch_cooldown_minutes: Annotated[float, Meta(gt=0, le=10_080)] | None = None


class _RateLimit(Struct, frozen=True, kw_only=True):
    enabled: bool = True
    requests_per_minute: _AtLeastOne | None = None
    burst: _AtLeastOne | None = None


class _Auth(Struct, frozen=True, kw_only=True):
    jwt_secret: str | None = None
    jwt_algorithm: Literal["HS256"] = "HS256"
    access_token_expire_minutes: Annotated[float, Meta(gt=0, le=1_000_000)] | None = None
    refresh_token_expire_days: Annotated[float, Meta(gt=0, le=365)] | None = None


class AIGatewayFile(Struct, frozen=True, kw_only=True):
    """What the file says; what it leaves out is None or as AI Gateway has it."""

    queue: _Queue = setting(default_factory=_Queue)
    models: Annotated[Mapping[Name, _Model], Meta(max_length=100)] = setting(default_factory=dict)
    auto_switch: _AutoSwitch = setting(default_factory=_AutoSwitch)
    rate_limit: _RateLimit = setting(default_factory=_RateLimit)
    auth: _Auth = setting(default_factory=_Auth)


_FILE = inspect.type_info(AIGatewayFile)
_OTHER_SECTIONS = ("server", "mongodb", "monitoring")
_KEYS = "keys"
"""Of Ollama Cloud Proxy, whose config has the same name."""
_WITHOUT_EFFECT = (
    "queue.priority_enabled", "queue.persistence_enabled", "queue.recovery_check_interval", "auth.jwt_secret",
)  # fmt: skip
_WITHOUT_EFFECT_FOR_MODELS = frozenset({"gpu_memory", "max_model_len"})


def find(config: Config) -> Path | None:
    """The file that counts; None when AI Gateway's clients are not served, or when there is none in the usual place.

    One that was named is returned even when it does not exist, so that reading it says so.
    """
    if COMPAT not in config.compat:
        return None
    if config.ai_gateway.config_file is not None:
        return Path(config.ai_gateway.config_file).expanduser()
    return USUAL if USUAL.is_file() else None


def parse_file(
    text: str, file: str, environ: Mapping[str, str], problems: Problems, notes: list[str] | None = None
) -> AIGatewayFile:
    """What the text says. What has no effect here goes to `notes`, each with its place. Raises ConfigError with all of
    `problems`."""
    said: list[str] = [] if notes is None else notes
    root = Place(file)
    tree = parse(text, file, problems, environ) or Entry(value=None, place=root, named=root)
    values = Checker(_FILE, problems).check(_known(tree, _FILE, "", said), _FILE, "")
    problems.stop_if_any()
    return msgspec.convert(values, AIGatewayFile)


def _known(entry: Entry, kind: inspect.Type, key: str, notes: list[str]) -> Entry:
    """Without the keys that there are not here; each leaves a note."""
    kind = plain_type(kind)
    if not isinstance(entry.value, dict):
        return entry
    kept: dict[str, Entry] = {}
    for name, child in entry.value.items():
        path = under(key, name)
        inner = _type_of(kind, name)
        if inner is not None:
            kept[name] = _known(child, inner, path, notes)
        if inner is None and not (key == "" and name == _KEYS):
            what = "has no effect here" if path in _OTHER_SECTIONS else "is not known and has no effect"
            notes.append(_note(child, path, what))
        elif path in _WITHOUT_EFFECT or (path.startswith("models.") and name in _WITHOUT_EFFECT_FOR_MODELS):
            notes.append(_note(child, path, "has no effect here"))
    return Entry(value=kept, place=entry.place, named=entry.named)


def _type_of(kind: inspect.Type, name: str) -> inspect.Type | None:
    if isinstance(kind, inspect.DictType):
        return kind.value_type
    if isinstance(kind, inspect.StructType):
        return next((field.type for field in kind.fields if field.name == name), None)
    return None


def _note(entry: Entry, key: str, what: str) -> str:
    return f"{entry.named.file}:{entry.named.line}: {shorten(key)} {what}"


def apply(file: AIGatewayFile, config: Config) -> Config:
    """`config` with what the file says in place of its own values."""
    changed: dict[str, Any] = {
        "ai_gateway": _replace(config.ai_gateway, **_of_listener(file), models=_models(file, config)),
        "auto_switch": _replace(
            config.auto_switch,
            enabled=file.auto_switch.enabled,
            pattern_window_days=file.auto_switch.pattern_window_days,
            min_requests_for_switch=file.auto_switch.min_requests_for_switch,
            cooldown_minutes=file.auto_switch.switch_cooldown_minutes,
        ),
        "jobs": _replace(config.jobs, attempt_seconds=file.queue.timeout),
        "providers": {**_servers(file), **config.providers},
        "gates": {**_gates(file), **config.gates},
    }
    if (reader := file.models.get(_OCR_MODEL)) is not None:
        changed["ocr"] = _replace(config.ocr, resolution=reader.resolution_mode)
    return msgspec.structs.replace(config, **changed)


def _of_listener(file: AIGatewayFile) -> dict[str, Any]:
    rate, auth = file.rate_limit, file.auth
    minutes = auth.access_token_expire_minutes
    return {
        "max_waiting": file.queue.max_waiting,
        "requests_per_minute": rate.requests_per_minute if rate.enabled else _NO_NUMBER,
        "burst": rate.burst,
        "access_minutes": None if minutes is None else min(minutes, _LONGEST_ACCESS_MINUTES),
        "refresh_days": auth.refresh_token_expire_days,
    }


def _models(file: AIGatewayFile, config: Config) -> dict[str, AIGatewayModel]:
    said = {
        short: AIGatewayModel(name=model.name, port=model.port, enabled=model.enabled)
        for short, model in file.models.items()
    }
    return {**config.ai_gateway.models, **said}


def _servers(file: AIGatewayFile) -> dict[str, Provider]:
    """AI Gateway's models are servers on this machine."""
    return {
        short: Provider(vendor="vllm", base_url=f"http://127.0.0.1:{model.port}/v1")
        for short, model in file.models.items()
        if model.enabled and model.port is not None
    }


def _gates(file: AIGatewayFile) -> dict[str, Gate]:
    return {
        model.name if model.port is None else f"{short}/{model.name}": Gate(max_concurrent=model.max_concurrent)
        for short, model in file.models.items()
        if model.enabled and model.name is not None and model.max_concurrent is not None
    }


def _replace(struct: Any, **values: Any) -> Any:
    """None leaves a value as it is."""
    return msgspec.structs.replace(struct, **{name: value for name, value in values.items() if value is not None})
