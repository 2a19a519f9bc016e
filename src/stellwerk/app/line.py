"""The line that every call takes, and what decides on it: made once, changed with the config."""

from collections.abc import Callable, Mapping, Sequence

from stellwerk.app import settings as cut
from stellwerk.app.people import People
from stellwerk.config.settings import Config
from stellwerk.core.call import Call
from stellwerk.core.clock import Clock
from stellwerk.core.errors import NotFound
from stellwerk.core.plan import Plan, Target
from stellwerk.core.ports import Provider, Recorder
from stellwerk.core.principal import Principal
from stellwerk.engines.slots import Slots
from stellwerk.http.egress import Egress
from stellwerk.ledger.prices import cost
from stellwerk.limits.gate import Gate, Gates, GateSettings
from stellwerk.pipeline.dispatch import Dispatch
from stellwerk.pipeline.estimate import estimate
from stellwerk.pipeline.gateway import Gateway, HoldMoney
from stellwerk.pipeline.images import Images
from stellwerk.pipeline.settle import Settle
from stellwerk.providers.local import Local
from stellwerk.providers.ocr import Ocr
from stellwerk.records.missing_models import MissingModels
from stellwerk.routing.breaker import Breakers
from stellwerk.routing.catalogue import Catalogue
from stellwerk.routing.choice import Chooser, Traffic
from stellwerk.routing.planner import Planner
from stellwerk.telemetry.metrics import Metrics

_OWN_PROVIDERS = frozenset({Local.name, Ocr.name})


class Line:
    """Owns everything between the APIs and the providers."""

    def __init__(
        self,
        config: Config,
        *,
        catalogue: Catalogue,
        people: People,
        engines: Slots,
        metrics: Metrics,
        hold: HoldMoney,
        recorders: Sequence[Recorder],
        redact: Callable[[str], str],
        allowed_origins: Callable[[], Sequence[str]],
        clock: Clock,
    ) -> None:
        """`hold` sets money aside, `recorders` get the record of every call, `redact` takes secrets out of a text;
        `allowed_origins` gives those of the private network from which images may be fetched."""
        self._redact = redact
        self._catalogue = catalogue
        self._gate_settings: Mapping[str, GateSettings] = {}
        self._own_gates: Callable[[str], GateSettings] = cut.own_gates(config)
        traffic = Traffic(clock)
        self._chooser = Chooser(traffic, cut.groups(config))
        self._planner = Planner(
            catalogue,
            self._chooser,
            cut.plan_rules(config),
            least_tokens=lambda call: estimate(call).least_input_tokens,
            loaded=lambda: [slot.model for slot in engines.status() if slot.model is not None],
        )
        self.missing = MissingModels(people.run, clock, lambda name: next(iter(catalogue.suggest(name)), None))
        self.breakers = Breakers(cut.breaker_settings(config), clock)
        self.gates = Gates(self._gate_of, clock)
        # A guard of its own: whoever makes names slow to look up must not hold up webhooks.
        self._images = Images(Egress(allowed_origins), cut.image_settings(config), clock, catalogue.model_of)
        self.dispatch = Dispatch(
            {},
            metrics,
            config.upstream.attempts,
            self.breakers,
            clock,
            gate=self._find_gate,
            traffic=traffic,
            images=self._images,
        )
        self.gateway = Gateway(
            plan=self._plan,
            admit=people.limits.admit,
            hold=hold,
            dispatch=self.dispatch,
            settle=Settle((*recorders, traffic.record), cost),
            clock=clock,
            answered=self._chooser.answered,
        )
        self._take_gates(config)

    def take_providers(self, providers: Mapping[str, Provider]) -> None:
        self.dispatch.providers = providers

    def change(self, config: Config) -> None:
        """Takes over a changed config."""
        self.dispatch.attempts = config.upstream.attempts
        self.breakers.settings = cut.breaker_settings(config)
        self._chooser.take(cut.groups(config))
        self._planner.rules = cut.plan_rules(config)
        self._images.settings = cut.image_settings(config)
        self._take_gates(config)

    def _plan(self, call: Call) -> Plan:
        try:
            return self._planner.plan(call)
        except NotFound as error:
            if error.code == "model_not_found":
                self.note_missing(call.model, call.principal)
            raise

    def note_missing(self, name: str, caller: Principal, client_id: str = "") -> None:
        """Somebody asked for a model that there is not; `client_id` is the application, where it is known."""
        # Some put their key where the model belongs.
        self.missing.note(self._redact(name), key_id=caller.key_id, user_id=caller.user_id, client_id=client_id)

    # --- gates

    def _take_gates(self, config: Config) -> None:
        self._gate_settings = cut.gate_settings(config)
        self._own_gates = cut.own_gates(config)

    def width(self, name: str) -> int | None:
        """How many calls of a model run at a time; None without a bound of ours."""
        plan = self._catalogue.plan(name)
        gate = None if plan is None else self._find_gate(plan.targets[0])
        return None if gate is None else gate.settings.max_concurrent

    def _find_gate(self, target: Target) -> Gate | None:
        if target.provider in _OWN_PROVIDERS:
            return self.gates.find(target.model)
        return self.gates.find(f"{target.provider}/{target.model}") if self._gate_settings else None

    def _gate_of(self, name: str) -> GateSettings | None:
        """Our own models have a gate in any case: an engine takes more calls than it computes, and in its own order."""
        settings = self._gate_settings.get(name)
        return self._own_gates(name) if settings is None and "/" not in name else settings
