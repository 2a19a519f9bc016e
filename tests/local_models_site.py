"""The administration of models on a router: engines that a test steers, and real downloads from a small hub."""

import asyncio
from pathlib import Path

import msgspec

from stellwerk.api.admin.administration import Administration
from stellwerk.api.admin.downloads import DownloadsAPI
from stellwerk.api.admin.loads import Loads
from stellwerk.api.admin.local_models import LocalModels
from stellwerk.api.admin.models import ModelsAPI
from stellwerk.api.admin.slots import SlotsAPI
from stellwerk.api.admin.system import SystemAPI
from stellwerk.core.errors import Conflict, NotFound, Unavailable
from stellwerk.engines.downloads import Downloads
from stellwerk.engines.hub import Hub
from stellwerk.engines.load_line import WaitingLoad
from stellwerk.engines.machine_memory import MemoryStatus
from stellwerk.engines.model_files import ModelFiles
from stellwerk.engines.model_folder import remove_unusable
from stellwerk.engines.options import EngineDefaults, resolve_options
from stellwerk.engines.slot import SlotStatus
from stellwerk.telemetry.machine import Memory
from stellwerk.telemetry.processes import ProcessLoad
from tests.admin_site import DIGEST

PORTS = (4801, 4802)


def empty(port):
    return SlotStatus(port=port, state="empty")


class SteeredEngines:
    """Loads at once, or when `go_on` is set; `failure` is what a load ends with."""

    def __init__(self, folder, outside=None):
        self._folder = folder
        self._files = ModelFiles(folder, named=outside or {})
        self.shelf = self._files.scan()
        self.slots = {port: empty(port) for port in PORTS}
        self.asked, self.removed, self.pinned, self.patience = [], [], {}, []
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.failure = None
        self.line = ()

    def files(self):
        return self.shelf.files

    def broken(self):
        return self.shelf.broken

    def projectors(self):
        return self.shelf.projectors

    def options(self, model):
        return resolve_options(self.shelf.files[model], EngineDefaults(), None, self.shelf.projectors)

    def status(self):
        return tuple(self.slots.values())

    def waiting(self):
        return self.line

    async def memory(self):
        return MemoryStatus(capacity_mib=1000.0, reserved_mib=34.56, available_mib=None)

    async def load(self, model, *, port=None, overrides=None, wait_until=None):
        self.asked.append((model, port, overrides))
        await self.go_on.wait()
        if self.failure is not None:
            raise self.failure
        if model not in self.shelf.files:
            raise NotFound("There is no local model.", code="model_not_found")
        options = self.options(model)
        status = SlotStatus(
            port=port or PORTS[0],
            state="ready",
            model=model,
            type=options.type.value,
            engine=options.engine,
            pid=4711,
            memory_mib=34.56,
            context=options.context,
            threads=options.threads,
            mmproj=None if options.mmproj is None else options.mmproj.name,
            loaded_at=1_700_000_000.0,
        )
        self.slots[status.port] = status
        return status

    async def unload(self, *, port=None, model=None, drain_seconds=30.0):
        self.patience.append(drain_seconds)
        before, self.slots[port] = self.slots[port], empty(port)
        return None if before.model is None else self.slots[port]

    async def pin(self, model, pinned):
        if model not in self.shelf.files:
            raise NotFound("There is no local model.", code="model_not_found")
        self.pinned[model] = pinned

    async def remove(self, model):
        if any(slot.model == model for slot in self.slots.values()):
            raise Conflict("It is loaded.", code="model_loaded")
        if model in self.shelf.broken:
            remove_unusable(model, self._folder)
            await self.rescan()
        self.removed.append(model)

    async def rescan(self):
        self.shelf = self._files.scan()


class LocalModelsSite:
    """`site` with the models of `folder`."""

    def __init__(self, site, folder: Path, hub_url: str, outside=None, **how):
        self.site = site
        self.engines = SteeredEngines(folder, outside)
        hub = Hub(hub_url)
        self.room = 1 << 40
        """Bytes that are free on the disk."""
        self.downloads = Downloads(folder, hub, site.clock, free_bytes=lambda _: self.room)
        self.stopping = False
        self.loads = Loads(site.clock)
        self.local = LocalModels(
            engines=self.engines,
            downloads=self.downloads,
            hub=hub,
            folder=folder,
            stopping=lambda: self.stopping,
            **how,
        )
        administration = Administration(
            run=site._run,
            fetch=site.database.fetch,
            clock=site.clock,
            digest=DIGEST,
            currency="EUR",
            changed=site._changed,
        )
        for api in (
            SlotsAPI(administration, self.local, loads=self.loads, look=self._look),
            SystemAPI(
                self.local,
                look=self._look,
                cores=lambda: [10.0, 20.0],
                processor=lambda: 15.0,
                memory=lambda: Memory(used=1 << 30, total=4 << 30),
            ),
            ModelsAPI(administration, self.local),
            DownloadsAPI(administration, self.local),
        ):
            api.register(site.registry)

    def _look(self, pids):
        return {pid: ProcessLoad(resident_bytes=64 << 20, cpu_percent=12.5) for pid in pids}

    def crash_slot(self, port, model):
        self.engines.slots[port] = SlotStatus(port=port, state="failed", model=model, type="text", error="it ended")

    def wait_in_line(self, model):
        self.engines.line = (WaitingLoad(model=model, place=1, requests=2, since=1_700_000_000.0),)

    def out_of_memory(self):
        self.engines.failure = Unavailable("It needs 9000 MiB, 1000 are there.", code="memory_short")

    async def stop(self):
        await self.downloads.stop()
        await self.loads.stop()


def said(overrides):
    """What a load was told of the model."""
    facts = {} if overrides is None else msgspec.structs.asdict(overrides)
    return {name: value for name, value in facts.items() if value is not None}
