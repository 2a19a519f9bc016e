"""Reading of documents: the reader of this machine, its place among the providers, and the APIs that want text."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from stellwerk.api._guard import Request, Routes
from stellwerk.api.ocr.endpoints import OCR, PATH, OcrAPI, OcrSettings
from stellwerk.api.ocr.performer import OcrPerformer
from stellwerk.api.ocr.prompts import Server
from stellwerk.api.ocr.reading import ReadingService
from stellwerk.api.ocr.sources import Sources
from stellwerk.api.ocr.stored import StoredDocuments
from stellwerk.app.jobs import JobParts
from stellwerk.app.line import Line
from stellwerk.config.settings import Config
from stellwerk.core.clock import Clock
from stellwerk.core.errors import GatewayError
from stellwerk.core.plan import Target
from stellwerk.engines.ocr.engine import OcrEngine, installed_version
from stellwerk.engines.ocr.engine import OcrSettings as EngineSettings
from stellwerk.engines.orphans import PidFiles
from stellwerk.engines.slots import Slots
from stellwerk.http.egress import Egress
from stellwerk.providers.local import Local
from stellwerk.providers.ocr import Ocr
from stellwerk.routing.catalogue import Catalogue

_FOLDER = "readers"
_SERVERS: Mapping[str, Server] = {"vllm": "vllm", "llama-server": "llama.cpp"}
"""By the vendor of a provider."""


class OcrParts:
    """Builds and owns them; `start` before the first request, `stop` when none runs any more."""

    def __init__(self, config: Callable[[], Config], *, data: Path, clock: Clock, environ: Mapping[str, str]) -> None:
        """`config` is asked anew where a change of it counts at once."""
        self._config = config
        self._clock = clock
        self.engine = OcrEngine(_engine_settings(config()), clock, environ, PidFiles(data / _FOLDER))
        self._provider = Ocr(self.engine, clock.monotonic)

    @property
    def provider(self) -> Ocr | None:
        """None where rapidocr is not offered."""
        offered = self._config().ocr.enabled and installed_version() is not None
        return self._provider if offered else None

    def register(
        self, routes: Routes, *, line: Line, catalogue: Catalogue, engines: Slots, egress: Egress, jobs: JobParts
    ) -> None:
        config = self._config()
        stored = StoredDocuments(jobs.jobs, jobs.files, jobs.ownership)
        service = ReadingService(
            line.gateway,
            catalogue,
            self.engine,
            self._provider,
            self._clock,
            server_of=lambda target: server_of(target, self._config(), engines),
        )
        sources = Sources(egress, stored.read_file, stored.read_job, service.open, config.ocr.max_bytes)

        async def check_file(request: Request, file_id: str) -> None:
            await stored.find_file(request.caller, file_id)

        self._api = OcrAPI(service, sources, catalogue.plan, check_file, _settings(config))
        self._api.register(routes)
        jobs.intake.accepted[PATH] = self._api.accept
        jobs.performers[OCR] = OcrPerformer(jobs.jobs, jobs.call, self._api, sources, jobs.files, jobs.resolve)

    def change(self, config: Config) -> None:
        """Takes over what needs no new processes."""
        self._api.settings = _settings(config)

    async def start(self) -> None:
        """Starts no process: the first page does."""
        await self.engine.start()

    async def stop(self) -> None:
        await self.engine.stop()

    # --- the reader, as administrators see it

    async def load(self) -> None:
        """Returns when it can read. Raises GatewayError."""
        await self.engine.wake()

    async def unload(self, drain_seconds: float) -> None:
        """Ends its processes, once they have read what they are reading or had so long for it. The next page starts
        them again."""
        await self.engine.rest(drain_seconds)

    def is_ready(self) -> bool:
        return self.provider is not None and not self.engine.resting

    def status(self) -> dict[str, Any]:
        status = self.engine.status()
        found: dict[str, Any] = msgspec.to_builtins(status)
        return {"installed": status.version is not None, "offered": self.provider is not None, **found}


def server_of(target: Target, config: Config, engines: Slots) -> Server:
    """Who runs a model: the servers have different words against loops."""
    if target.provider != Local.name:
        configured = config.providers.get(target.provider)
        vendor = None if configured is None else configured.vendor
        return _SERVERS.get(vendor or target.provider, "other")
    try:
        engine = engines.options(target.model).engine
    except GatewayError:
        return "other"
    if engine == "vllm":
        return "own vllm"
    file = engines.files().get(target.model)
    return "llama.cpp" if file is not None and file.format == "gguf" else "other"


def _engine_settings(config: Config) -> EngineSettings:
    ocr = config.ocr
    return EngineSettings(
        dpi=ocr.dpi,
        max_pages=ocr.max_pages,
        max_pixels=ocr.max_pixels,
        max_bytes=ocr.max_bytes,
        workers=ocr.workers,
        idle_seconds=ocr.idle_seconds,
    )


def _settings(config: Config) -> OcrSettings:
    return OcrSettings(
        engine=config.ocr.engine,
        mode=config.ocr.resolution,
        dpi=config.ocr.dpi,
        total_seconds=config.upstream.total_seconds,
    )
