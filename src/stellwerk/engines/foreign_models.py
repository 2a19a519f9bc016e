"""Models that are no GGUF: folders as vLLM reads them and the files of whisper.cpp."""

import os
import stat
from pathlib import Path
from typing import Any, Literal

import msgspec

from stellwerk.engines.gguf import FileStamp, GgufFacts, InvalidGguf, stamp_of

_WHISPER_MAGIC = b"lmgg"
_MAX_CONFIG = 1 << 20
_MAX_FILES = 1_000

ModelFormat = Literal["gguf", "whisper", "folder"]


class ForeignModel(msgspec.Struct, frozen=True, kw_only=True):
    format: ModelFormat
    facts: GgufFacts
    stamp: FileStamp
    size: int


def read_foreign(path: Path) -> ForeignModel:
    """What a folder with a `config.json`, or a file of whisper.cpp, is. Blocks; raises InvalidGguf with the reason."""
    try:
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode):
            return _read_folder(path, status)
        if stat.S_ISREG(status.st_mode):
            return _read_whisper(path, status)
    except OSError as error:
        raise InvalidGguf(f"it cannot be read ({error.strerror})") from None
    raise InvalidGguf("it is neither a file nor a folder")


def _read_folder(path: Path, status: os.stat_result) -> ForeignModel:
    config = path / "config.json"
    with config.open("rb") as file:
        text = file.read(_MAX_CONFIG + 1)
    try:
        values = msgspec.json.decode(text, type=dict[str, Any])
    except (ValueError, RecursionError):
        raise InvalidGguf("its config.json cannot be read") from None
    size = 0
    with os.scandir(path) as entries:
        for number, entry in enumerate(entries):
            if number == _MAX_FILES:
                break
            size += entry.stat().st_size if entry.is_file() else 0
    return ForeignModel(format="folder", facts=_facts(values), stamp=stamp_of(status), size=size)


def _facts(values: dict[str, Any]) -> GgufFacts:
    kind = values.get("model_type")
    # Models that see keep the numbers of their language part one level deeper.
    inner = values.get("text_config")
    context = values.get("max_position_embeddings")
    if context is None and isinstance(inner, dict):
        context = inner.get("max_position_embeddings")
    return _bare_facts(
        architecture=kind[:64] if isinstance(kind, str) and kind else "unknown",
        context=context if isinstance(context, int) and 0 < context < 1 << 31 else None,
    )


def _read_whisper(path: Path, status: os.stat_result) -> ForeignModel:
    with path.open("rb") as file:
        if file.read(4) != _WHISPER_MAGIC:
            raise InvalidGguf("it is neither a GGUF file nor one of whisper.cpp")
    facts = _bare_facts(architecture="whisper", context=None)
    return ForeignModel(format="whisper", facts=facts, stamp=stamp_of(status), size=status.st_size)


def _bare_facts(*, architecture: str, context: int | None) -> GgufFacts:
    return GgufFacts(
        architecture=architecture,
        name="",
        kind="model",
        context_length=context,
        parameter_count=None,
        quantization=None,
        embeds=False,
        ranks=False,
        has_chat_template=False,
        knows_tools=False,
    )
