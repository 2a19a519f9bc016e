"""The listeners for the clients of other systems, as the config's `compat` names them."""

from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any

from stellwerk.api.ollama.endpoints import OllamaAPI
from stellwerk.api.openai.conversations import Conversations
from stellwerk.api.openai.endpoints import OpenAIAPI
from stellwerk.app import go_ollama, ollama_cloud, sigorest
from stellwerk.app.ai_gateway import AIGatewayListener
from stellwerk.app.cloud_proxy import open_cloud_proxy
from stellwerk.app.jobs import JobParts
from stellwerk.app.line import Line
from stellwerk.app.listeners import Listeners
from stellwerk.app.notices import Notices
from stellwerk.app.ocr import OcrParts
from stellwerk.app.people import People
from stellwerk.app.providers import Providers
from stellwerk.app.web_origins import own_names
from stellwerk.config import ai_gateway_file
from stellwerk.config.settings import Config
from stellwerk.core.secrets import Secret
from stellwerk.engines.slots import Slots
from stellwerk.routing.catalogue import Catalogue
from stellwerk.sessions.memory import MemoryBlock
from stellwerk.telemetry.metrics import Metrics


def compat_ports(config: Config) -> list[int]:
    """The ports that they take; 0 where any free one is taken."""
    ports: list[int] = []
    if sigorest.COMPAT in config.compat:
        ports += [config.sigorest.http_port, config.sigorest.https_port]
    if go_ollama.COMPAT in config.compat:
        ports += config.go_ollama.ports
    if ollama_cloud.COMPAT in config.compat:
        ports.append(config.ollama_cloud_proxy.port)
    if ai_gateway_file.COMPAT in config.compat:
        ports.append(config.ai_gateway.port)
    return ports


def shared_port(config: Config) -> int | None:
    """The port on which the clients of AI Gateway and those of Go Ollama API both ask, None when there is none."""
    if not {go_ollama.COMPAT, ai_gateway_file.COMPAT} <= set(config.compat):
        return None
    port, go = config.ai_gateway.port, config.go_ollama
    # Who asks for any free port asks for one of his own.
    return port if port and port in go.ports and config.ai_gateway.host == go.host else None


def own_urls(ports: Iterable[int]) -> list[str]:
    """Base URLs of this gateway: an upstream there would be a loop."""
    hosts = ("127.0.0.1", "localhost")
    origins = [f"{scheme}://{host}:{port}" for port in ports for host in hosts for scheme in ("http", "https")]
    return [f"{origin}{path}" for origin in origins for path in ("/v1", "")]


class CompatListeners:
    """Makes the listeners that the config names. `open` once, before anybody is answered."""

    def __init__(
        self,
        config: Callable[[], Config],
        *,
        listeners: Listeners,
        people: People,
        notices: Notices,
        metrics: Metrics,
        login_secret: bytes,
        ollama: OllamaAPI,
        openai: OpenAIAPI,
        providers: Providers,
        catalogue: Catalogue,
        engines: Slots,
        line: Line,
        jobs: JobParts,
        reader: OcrParts,
        conversations: Conversations,
        memory: MemoryBlock,
        obstacles: Callable[[], list[str]],
        data: Path,
        environ: Mapping[str, str],
        hide: Callable[[Secret], None],
    ) -> None:
        """`config` is asked anew whenever it is needed, `hide` keeps a secret out of the log."""
        self._config = config
        self._listeners = listeners
        self._people = people
        self._notices = notices
        self._metrics = metrics
        self._ollama = ollama
        self._openai = openai
        self._providers = providers
        self._gateway = line.gateway
        self._environ = environ
        self._hide = hide
        self._ai_gateway = AIGatewayListener(
            config(),
            listeners=listeners,
            people=people,
            login_secret=login_secret,
            metrics=metrics,
            jobs=jobs,
            line=line,
            catalogue=catalogue,
            engines=engines,
            environ=environ,
            reader=reader,
        )
        self._sigorest = sigorest.SigoRestListeners(
            listeners=listeners,
            people=people,
            catalogue=catalogue,
            providers=providers,
            breakers=line.breakers,
            conversations=conversations,
            memory=memory,
            metrics=metrics,
            obstacles=obstacles,
            config=config,
            data=data,
        )

    @property
    def authority(self) -> Path | None:
        """What clients of a listener with TLS have to trust."""
        return self._sigorest.authority

    async def open(self) -> list[Coroutine[Any, Any, None]]:
        """Returns the work that has to run as long as they are open. Afterwards the providers have to be taken anew:
        only now it is known which ports are our own."""
        config = self._config()
        self._open_shared(config)
        if ollama_cloud.COMPAT in config.compat:
            await self._open_cloud_proxy(config)
        works = await self._sigorest.open() if sigorest.COMPAT in config.compat else []
        # A port that another program has is that program's: it may be the Ollama that is looked for there.
        self._providers.own_urls = own_urls(self._listeners.ports())
        return works

    def _open_shared(self, config: Config) -> None:
        """Those of Go Ollama API and of AI Gateway, which may have one port."""
        shared, router = shared_port(config), None
        if go_ollama.COMPAT in config.compat:
            router = go_ollama.go_ollama_router(
                self._people, self._metrics, self._ollama.generate, self._notices.generate_requested
            )
            go_ollama.open_go_ollama(config.go_ollama, router, self._listeners, shared=shared)
        if ai_gateway_file.COMPAT in config.compat:
            self._ai_gateway.open(None if shared is None else router)

    async def _open_cloud_proxy(self, config: Config) -> None:
        await open_cloud_proxy(
            config.ollama_cloud_proxy,
            self._environ,
            listeners=self._listeners,
            people=self._people,
            metrics=self._metrics,
            ollama=self._ollama,
            openai=self._openai,
            providers=self._providers,
            gateway=self._gateway,
            ports=(*self._listeners.ports(), *compat_ports(config)),
            names=own_names(config),
            hide=self._hide,
        )
