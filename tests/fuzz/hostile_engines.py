"""What an engine makes of a file that has passed the check: the way from the models folder to the first answer."""

import base64
import io
import os
import struct
import wave
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stellwerk.core.ports import EngineAddress
from stellwerk.engines.launching import EnginePrograms, check_files, launch
from stellwerk.engines.model_files import ModelFile, ModelFiles
from stellwerk.engines.options import EngineDefaults, EngineOptions, EngineOverrides, resolve_options
from stellwerk.engines.process import EngineProcess
from tests.fuzz.gguf_mutants import Base, Mutant
from tests.real_engines import ask

DEFAULTS = EngineDefaults(context=1024, batch=1024, threads=1, parallel=1, cache_ram_mib=0)


@dataclass
class Trial:
    """A mutant in a folder, together with what it needs, ready to be loaded."""

    file: ModelFile
    options: EngineOptions
    question: dict[str, Any]

    @property
    def path(self) -> str:
        return "/v1/embeddings" if self.options.embeds else "/v1/chat/completions"


def prepare(mutant: Mutant, bases: list[Base], folder: Path) -> Trial | None:
    """What the gateway would load; None for what its scan refuses. Raises EngineFailed as a load does."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    by_role = {base.role: base for base in reversed(bases)}
    overrides = EngineOverrides()
    if mutant.role in {"vision", "audio"}:
        _write(by_role["chat"], folder / "m-omni.gguf")
        overrides = EngineOverrides(mmproj=mutant.write(folder / "mmproj-m.gguf"))
    elif mutant.role == "part":
        _write(by_role["split"], folder / "m-00001-of-00002.gguf")
        mutant.write(folder / "m-00002-of-00002.gguf")
    elif mutant.role == "split":
        mutant.write(folder / "m-00001-of-00002.gguf")
        _write(by_role["part"], folder / "m-00002-of-00002.gguf")
    else:
        mutant.write(folder / "m.gguf")
    shelf = ModelFiles(folder).scan()
    if not shelf.files:
        return None
    [file] = shelf.files.values()
    options = resolve_options(file, DEFAULTS, overrides, shelf.projectors)
    if options.fault is not None:
        return None
    check_files(file, options)
    return Trial(file, options, _question(mutant.role))


async def serve(trial: Trial, port: int) -> int | None:
    """The status of the first answer. Raises EngineFailed when the engine did not load."""
    address = EngineAddress(host="127.0.0.1", port=port, key="key")
    order = launch(trial.file, trial.options, address, os.environ, EnginePrograms())
    process = await EngineProcess.start(order)
    try:
        await process.wait_ready()
        status, _ = await ask(address, trial.path, trial.question)
        assert process.is_alive(), process.output
        return status
    finally:
        await process.stop(2.0)


def _write(base: Base, path: Path) -> None:
    path.write_bytes(base.head + base.layout.data)


def _question(role: str) -> dict[str, Any]:
    content: Any = "hello"
    if role == "vision":
        picture = "data:image/png;base64," + base64.b64encode(_picture()).decode()
        content = [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": picture}}]
    elif role == "audio":
        sound = {"data": base64.b64encode(_sound()).decode(), "format": "wav"}
        content = [{"type": "text", "text": "x"}, {"type": "input_audio", "input_audio": sound}]
    return {"model": "m", "input": "hello", "max_tokens": 3, "messages": [{"role": "user", "content": content}]}


def _picture(side: int = 32) -> bytes:
    rows = b"".join(b"\0" + b"\x7f\x10\xf0" * side for _ in range(side))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _sound() -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(16_000))
    return buffer.getvalue()
