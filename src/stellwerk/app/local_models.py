"""The models of this machine: their engines, the hub that they come from, and the downloads in between."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from stellwerk.api.admin.loads import Loads
from stellwerk.api.admin.local_models import LocalModels
from stellwerk.app import settings as cut
from stellwerk.config.engines import Hub as HubConfig
from stellwerk.config.settings import Config
from stellwerk.core.clock import Clock
from stellwerk.core.secrets import Secret
from stellwerk.engines.crashes import Crash
from stellwerk.engines.downloads import Download, Downloads
from stellwerk.engines.hub import Hub
from stellwerk.engines.ollama_registry import OllamaRegistry
from stellwerk.engines.pulls import Pulls
from stellwerk.engines.slots import Slots
from stellwerk.http.pool import Pools
from stellwerk.telemetry.processes import ProcessLoads

_log = logging.getLogger("stellwerk.app")
_TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_ENDPOINT_VARIABLE = "HF_ENDPOINT"


class LocalModelParts:
    """Builds and owns them; `start` after the database, `stop` when no request runs any more."""

    def __init__(
        self,
        config: Config,
        *,
        data: Path,
        clock: Clock,
        environ: Mapping[str, str],
        pools: Pools,
        changed: Callable[[], None],
        on_crash: Callable[[Crash], None],
        hide: Callable[[Secret], None],
        stopping: Callable[[], bool],
    ) -> None:
        """`changed` is told when there are other models than before, `on_crash` of every engine that ends unasked,
        `hide` of secrets that must not be seen in logs; `stopping` is asked whether waiting answers should end."""
        self._enabled = config.engines.enabled
        settings = cut.slot_settings(config, data)
        folder = settings.folder or data / cut.MODELS_FOLDER
        hub = make_hub(config.hub, environ)
        if hub.token is not None:
            _hide(hub.token, hide)
        self.slots = Slots(settings, clock, environ, changed, on_crash=on_crash)
        registry = OllamaRegistry(pools, address=config.hub.ollama_registry)
        self.downloads = Downloads(folder, hub, clock, registry=registry, on_done=self._rescan)
        self.pulls = Pulls(self.downloads, hub)
        self.loads = Loads(clock)
        self.processes = ProcessLoads(clock)
        self.api = LocalModels(
            engines=self.slots,
            downloads=self.downloads,
            hub=hub,
            folder=folder,
            enabled=self._enabled,
            stopping=stopping,
        )
        """What the administration stands on."""

    async def start(self) -> None:
        """Does nothing for a gateway that runs no models of its own."""
        if self._enabled:
            await self.slots.start()
            await self.downloads.start()

    async def stop(self) -> None:
        if self._enabled:
            await self.downloads.stop()
            await self.loads.stop()
            await self.slots.stop()

    async def _rescan(self, _: Download) -> None:
        await self.slots.rescan()


def _hide(token: Secret, hide: Callable[[Secret], None]) -> None:
    try:
        hide(token)
    except ValueError as error:
        _log.warning("not every secret can be kept out of the log: %s", error)


def make_hub(config: HubConfig, environ: Mapping[str, str]) -> Hub:
    """The variables of the hub's own tools count where the config says nothing."""
    usual = msgspec.structs.fields(HubConfig)
    default = next(field.default for field in usual if field.name == "endpoint")
    endpoint = config.endpoint
    if endpoint == default and environ.get(_ENDPOINT_VARIABLE, "").startswith(("http://", "https://")):
        endpoint = environ[_ENDPOINT_VARIABLE]
    token = config.token
    if not token:
        named = (environ.get(name, "").strip() for name in _TOKEN_VARIABLES)
        token = next((Secret(found) for found in named if found), None)
    return Hub(endpoint, token)
