"""What the main listener serves: every API that speaks to our own keys."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from stellwerk import __version__
from stellwerk.api._guard import Routes
from stellwerk.api.health import HealthAPI
from stellwerk.api.ollama.endpoints import OllamaAPI
from stellwerk.api.ollama.errors import render_error as render_ollama_error
from stellwerk.api.openai.endpoints import OpenAIAPI
from stellwerk.api.openai.rerank import RerankAPI
from stellwerk.app.auto_switch import AutoSwitch
from stellwerk.app.conversations import make_conversations
from stellwerk.app.jobs import JobParts
from stellwerk.app.line import Line
from stellwerk.app.local_models import LocalModelParts
from stellwerk.app.notices import Notices
from stellwerk.app.observation import Observation
from stellwerk.app.ocr import OcrParts
from stellwerk.app.ollama_models import manage_models
from stellwerk.app.people import People
from stellwerk.app.providers import Providers
from stellwerk.app.registration import register_people
from stellwerk.app.store import Store
from stellwerk.config.settings import Config
from stellwerk.http.router import Router
from stellwerk.routing.catalogue import Catalogue
from stellwerk.routing.discovery import Discovery
from stellwerk.routing.plan import may_see
from stellwerk.sessions.memory import MemoryBlock
from stellwerk.telemetry.metrics import Metrics


class MainAPIs:
    """Makes them and registers their routes; other listeners use some of them too."""

    def __init__(
        self,
        config: Callable[[], Config],
        *,
        line: Line,
        people: People,
        notices: Notices,
        store: Store,
        catalogue: Catalogue,
        local: LocalModelParts,
        providers: Providers,
        discovery: Discovery,
        auto_switch: AutoSwitch,
        ocr: OcrParts,
        observation: Observation,
        metrics: Metrics,
        data: Path,
        stopping: Callable[[], bool],
    ) -> None:
        """`config` is asked anew where a change of it counts at once; `stopping` says that waiting answers should
        end."""
        now = config()
        clock = people.clock
        self.router = Router()
        self.memory = MemoryBlock(data, clock)
        self.conversations = make_conversations(
            now,
            line.gateway,
            self.memory,
            data=data,
            database=store.database,
            catalogue=catalogue,
            is_local=people.is_local,
            clock=clock,
        )
        routes = Routes(self.router, people.keys, metrics)
        total = now.upstream.total_seconds
        visible = partial(may_see, catalogue=catalogue)
        self.openai = OpenAIAPI(line.gateway, catalogue, visible, total, self.conversations)
        self.openai.register(routes)
        RerankAPI(line.gateway, lambda: config().upstream.total_seconds).register(routes)
        self.jobs = JobParts(
            now,
            people=people,
            store=store,
            line=line,
            routes=routes,
            notices=notices,
            complete=discovery.is_complete,
            stopping=stopping,
        )
        ocr.register(routes, line=line, catalogue=catalogue, engines=local.slots, egress=notices.egress, jobs=self.jobs)
        _register_health(routes, observation, metrics)
        register_people(
            routes,
            people,
            notices,
            store.seal,
            auto_switch,
            line.gateway,
            catalogue=catalogue,
            engines=local.slots,
            config=config,
            local=local,
            jobs=self.jobs,
        )
        management = manage_models(now, local.slots, local.pulls, providers, discovery)
        self.ollama = OllamaAPI(line.gateway, catalogue, visible, total, management, clock)
        self.ollama.register(Routes(self.router, people.keys, metrics, render=render_ollama_error))

    def change(self, config: Config) -> None:
        """Takes over a changed config."""
        self.openai.total_seconds = self.ollama.total_seconds = config.upstream.total_seconds


def _register_health(routes: Routes, observation: Observation, metrics: Metrics) -> None:
    HealthAPI(
        version=__version__,
        obstacles=observation.obstacles,
        details=observation.details,
        metrics=metrics.render,
    ).register(routes)
