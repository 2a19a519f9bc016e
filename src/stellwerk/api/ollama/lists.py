"""The objects of /api/tags, /api/ps and /api/show, from what the catalogue knows. What is not known is empty."""

import hashlib
from collections.abc import Iterable
from typing import Any

from stellwerk.api.ollama.answers import timestamp
from stellwerk.core.call import Operation
from stellwerk.core.plan import Model
from stellwerk.engines.slot import SlotStatus

_NEVER = "2318-01-01T00:00:00Z"
"""When a model goes that stays until another one needs the room. Clients show it as forever."""
_MIB = 1 << 20
_UNKNOWN = "unknown"
_THINKING = frozenset({"reasoning", "reasoning_effort", "include_reasoning"})


def render_tag(model: Model) -> dict[str, Any]:
    """One row of /api/tags."""
    return {
        "name": model.id,
        "model": model.id,
        "modified_at": timestamp(model.created),
        "size": model.size_bytes or 0,
        "digest": _digest(model),
        "details": _details(model),
        "capabilities": capabilities(model),
    }


def render_tags(models: Iterable[Model]) -> dict[str, Any]:
    """Newest first."""
    return {"models": [render_tag(model) for model in sorted(models, key=lambda model: -model.created)]}


def render_loaded(models: Iterable[tuple[Model, SlotStatus]]) -> dict[str, Any]:
    """The answer of /api/ps, in the given order."""
    return {
        "models": [
            {
                "name": model.id,
                "model": model.id,
                "size": int(slot.memory_mib * _MIB) if slot.memory_mib else model.size_bytes or 0,
                "digest": _digest(model),
                "details": _details(model),
                "expires_at": _NEVER if slot.expires_at is None else timestamp(slot.expires_at),
                "size_vram": 0,
                "context_length": slot.context or model.context_length or 0,
            }
            for model, slot in models
        ]
    }


def render_shown(model: Model) -> dict[str, Any]:
    """The answer of /api/show."""
    architecture = model.architecture or _UNKNOWN
    info: dict[str, Any] = {"general.architecture": architecture, "general.basename": model.id}
    if model.parameter_count is not None:
        info["general.parameter_count"] = model.parameter_count
    if model.context_length is not None:
        # Clients put the name of this field together from the architecture.
        info[f"{architecture}.context_length"] = model.context_length
    if model.embedding_length is not None:
        info[f"{architecture}.embedding_length"] = model.embedding_length
    return {
        "license": "",
        "modelfile": f"FROM {model.id}\n",
        "parameters": "",
        "template": "",
        "details": _details(model),
        "model_info": info,
        "capabilities": capabilities(model),
        "modified_at": timestamp(model.created),
    }


def capabilities(model: Model) -> list[str]:
    """In Ollama's words; only what is known of the model."""
    known = {
        "completion": Operation.CHAT in model.operations,
        "tools": "tools" in model.parameters,
        "vision": "image" in model.input_modalities,
        "audio": "audio" in model.input_modalities,
        "embedding": Operation.EMBEDDING in model.operations,
        "thinking": not _THINKING.isdisjoint(model.parameters),
    }
    return [name for name, has_it in known.items() if has_it]


def _digest(model: Model) -> str:
    """Stable for as long as the model has its name; a model of a vendor has no bytes to take a digest of."""
    return hashlib.sha256(model.id.encode()).hexdigest()


def _details(model: Model) -> dict[str, Any]:
    details: dict[str, Any] = {
        "parent_model": "",
        "format": "gguf" if model.local else "",
        "family": model.architecture or "",
        "families": [model.architecture] if model.architecture else [],
        "parameter_size": _round_size(model.parameter_count) if model.parameter_count is not None else "",
        "quantization_level": model.quantization or "",
    }
    if model.context_length is not None:
        details["context_length"] = model.context_length
    return details


def _round_size(parameters: int) -> str:
    """As Ollama writes it: 8.2B, 137M, 566.70M; what is smaller, to the thousand."""
    if parameters < 1_000_000:
        return f"{parameters / 1e3:.0f}K" if parameters >= 1_000 else str(parameters)
    size, digits, unit = (parameters / 1e9, 1, "B") if parameters >= 1_000_000_000 else (parameters / 1e6, 2, "M")
    return f"{size:.{0 if size.is_integer() else digits}f}{unit}"
