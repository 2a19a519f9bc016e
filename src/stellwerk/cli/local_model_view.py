"""How local models, slots, downloads and what the hub has are shown."""

from collections.abc import Mapping, Sequence
from typing import Any

from stellwerk.api.admin.download_shapes import DownloadShape
from stellwerk.api.admin.model_shapes import FoundModel, LocalModel, LocalModelDetails, MetadatumShape
from stellwerk.cli import pull_progress
from stellwerk.cli.pull_progress import size
from stellwerk.cli.refusals import explain_text
from stellwerk.cli.tables import NOTHING, Column, Wording, local_time, print_record, print_table
from stellwerk.records.missing_models import MissingModel

TEXTS: Mapping[str, Mapping[str, str]] = {
    "column_name": {"en": "model", "de": "Modell"},
    "column_type": {"en": "type", "de": "Typ"},
    "column_size": {"en": "size", "de": "Größe"},
    "column_quantization": {"en": "quantisation", "de": "Quantisierung"},
    "column_context": {"en": "context", "de": "Kontext"},
    "column_state": {"en": "state", "de": "Zustand"},
    "column_repository": {"en": "repository", "de": "Repository"},
    "column_downloads": {"en": "downloads", "de": "Downloads"},
    "column_likes": {"en": "likes", "de": "Likes"},
    "column_gated": {"en": "gated", "de": "mit Bedingungen"},
    "column_files": {"en": "files", "de": "Dateien"},
    "column_id": {"en": "id", "de": "ID"},
    "column_amount": {"en": "amount", "de": "Menge"},
    "column_error": {"en": "error", "de": "Fehler"},
    "column_key": {"en": "key", "de": "Schlüssel"},
    "column_count": {"en": "times", "de": "Mal"},
    "column_last": {"en": "last", "de": "zuletzt"},
    "column_nearest": {"en": "nearest", "de": "ähnlich"},
    "loaded": {"en": "loaded at {slot}", "de": "geladen auf {slot}"},
    "broken": {"en": "unusable: {reason}", "de": "unbrauchbar: {reason}"},
    "yes": {"en": "yes", "de": "ja"},
    "more": {"en": "and {count} more", "de": "und {count} weitere"},
    "field_file": {"en": "file", "de": "Datei"},
    "field_architecture": {"en": "architecture", "de": "Architektur"},
    "field_parameters": {"en": "parameters", "de": "Parameter"},
    "field_mmproj": {"en": "projector", "de": "Projektor"},
    "field_capabilities": {"en": "can", "de": "kann"},
    "field_engine": {"en": "engine", "de": "Engine"},
    "field_load_context": {"en": "loads with a context of", "de": "lädt mit einem Kontext von"},
    "field_pinned": {"en": "pinned", "de": "angeheftet"},
    "values": {"en": "{count} values", "de": "{count} Werte"},
    "cut": {"en": "{text}… ({count} bytes)", "de": "{text}… ({count} Byte)"},
}
text = Wording(TEXTS)

_SHOWN_FILES = 4
_SHOWN_VALUE = 200


def print_models(models: Sequence[LocalModel]) -> None:
    columns = ("name", "type", "size", "quantization", "context", "state")
    rows = [
        [
            model.name,
            model.detected_type or NOTHING,
            size(model.size_bytes),
            model.quantization or NOTHING,
            _number(model.context_length),
            state_of(model),
        ]
        for model in models
    ]
    print_table(_columns(columns, right=("size", "context"), wraps=("name", "state"), usual=("state",)), rows)


def print_details(model: LocalModelDetails) -> None:
    able = [name for name, value in _fields(model.capabilities) if value]
    fields = [
        (text("column_name"), model.name),
        (text("field_file"), model.path),
        (text("column_type"), model.detected_type or NOTHING),
        (text("field_capabilities"), ", ".join(able) or NOTHING),
        (text("column_size"), size(model.size_bytes)),
        (text("field_architecture"), model.architecture or NOTHING),
        (text("field_parameters"), _number(model.parameters)),
        (text("column_quantization"), model.quantization or NOTHING),
        (text("column_context"), _number(model.context_length)),
        (text("field_mmproj"), model.mmproj or NOTHING),
        (text("column_state"), state_of(model)),
        (text("field_engine"), model.options.engine),
        (text("field_load_context"), _number(model.options.context)),
        (text("field_pinned"), text("yes") if model.options.pinned else NOTHING),
    ]
    print_record([*fields, *((one.key, _value(one)) for one in model.metadata)])


def print_found(models: Sequence[FoundModel]) -> None:
    columns = ("repository", "downloads", "likes", "gated", "files")
    rows = [
        [
            model.repo_id,
            _number(model.downloads),
            _number(model.likes),
            text("yes") if model.gated else NOTHING,
            _files(model),
        ]
        for model in models
    ]
    print_table(_columns(columns, right=("downloads", "likes"), wraps=("files",), usual=("gated",)), rows)


def print_downloads(downloads: Sequence[DownloadShape]) -> None:
    columns = ("id", "name", "state", "amount", "error")
    rows = [
        [
            one.id,
            one.model,
            " ".join(part for part in (pull_progress.text(one.status), pull_progress.speed(one)) if part),
            pull_progress.amount(one),
            explain_text(one.error) if one.error else NOTHING,
        ]
        for one in downloads
    ]
    print_table(_columns(columns, wraps=("name", "error"), usual=("error",)), rows)


def print_missing(rows: Sequence[MissingModel]) -> None:
    columns = ("name", "key", "count", "last", "nearest")
    print_table(
        _columns(columns, right=("count",), wraps=("name", "nearest"), usual=("nearest",)),
        [[row.name, row.key_id, str(row.count), local_time(row.last_at), row.nearest or NOTHING] for row in rows],
    )


def state_of(model: LocalModel) -> str:
    if model.problem is not None:
        return text("broken", reason=model.problem)
    return text("loaded", slot=model.slot) if model.loaded else NOTHING


def _columns(
    names: Sequence[str], *, right: Sequence[str] = (), wraps: Sequence[str] = (), usual: Sequence[str] = ()
) -> list[Column]:
    return [
        Column(
            text(f"column_{name}"), wraps=name in wraps, right=name in right, usual=NOTHING if name in usual else None
        )
        for name in names
    ]


def _files(model: FoundModel) -> str:
    shown = [name.rpartition("/")[2] for name in model.files[:_SHOWN_FILES]]
    if model.file_count > len(shown):
        shown.append(text("more", count=model.file_count - len(shown)))
    return ", ".join(shown)


def _value(one: MetadatumShape) -> str:
    if one.value is None:
        return text("values", count=one.count) if one.count is not None else NOTHING
    shown = str(one.value)
    if len(shown) > _SHOWN_VALUE or (one.count is not None and one.type == "string"):
        return text("cut", text=shown[:_SHOWN_VALUE], count=one.count or len(shown.encode()))
    return shown


def _number(value: int | None) -> str:
    return NOTHING if value is None else str(value)


def _fields(shape: Any) -> list[tuple[str, Any]]:
    return [(name, getattr(shape, name)) for name in shape.__struct_fields__]
