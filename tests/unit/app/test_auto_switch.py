from dataclasses import dataclass, field

import pytest
from sqlalchemy import insert

from stellwerk.app.auto_switch import AutoSwitch
from stellwerk.config.jobs import AutoSwitch as Settings
from stellwerk.config.settings import Config
from stellwerk.core.errors import Unavailable
from stellwerk.core.plan import Model
from stellwerk.engines.slot import SlotStatus
from stellwerk.ledger.calls import calls

NOW = 1_000_000.0


@dataclass
class Engines:
    """Two models, one slot."""

    loaded: str | None = "old"
    busy: bool = False
    done: list = field(default_factory=list)
    refuses: bool = False

    def models(self):
        return [Model(provider="local", name=name, id=name) for name in ("old", "new")]

    def status(self):
        state = "empty" if self.loaded is None else "ready"
        return (SlotStatus(port=4801, state=state, model=self.loaded, leases=int(self.busy)),)

    async def unload(self, *, model):
        self.done.append(("unload", model))
        self.loaded = None

    async def load(self, model, *, wait_until):
        self.done.append(("load", model))
        if self.refuses:
            raise Unavailable("No memory.", code="memory_short")
        self.loaded = model


class People:
    def __init__(self, database, clock):
        self.clock = clock
        self._database = database

    async def fetch(self, query):
        return self._database.read(query)


@pytest.fixture
def make(database, clock):
    def make(engines, **settings):
        return AutoSwitch(People(database, clock), engines, lambda: Config(auto_switch=Settings(**settings)))

    return make


@pytest.fixture
def ask(database, clock):
    def ask(model, count, provider="local", ago=60.0):
        row = dict.fromkeys(("operation", "model", "id", "key_id"), "x")
        row |= {"stream": False, "status": 200, "attempts": 1, "user_id": 1, "estimated": False, "duration": 0.1}
        row |= {"at": clock.at - ago, "provider": provider, "target": model}
        database.write(lambda connection: connection.execute(insert(calls), [row] * count))

    return ask


async def test_it_loads_what_was_asked_for_most_and_then_rests(make, ask, clock):
    ask("new", 60)
    ask("old", 40)
    engines = Engines()
    switch = make(engines, enabled=True)
    await switch.look()
    assert engines.done == [("unload", "old"), ("load", "new")]
    engines.loaded = "old"
    await switch.look()
    assert len(engines.done) == 2
    clock.at += 301
    await switch.look()
    assert len(engines.done) == 4


async def test_switched_off_it_recommends_and_does_nothing(make, ask):
    ask("new", 60)
    engines = Engines()
    found = await make(engines).look()
    assert (found.model, found.replaces, found.act, engines.done) == ("new", "old", False, [])


async def test_other_providers_and_older_requests_do_not_count(make, ask):
    ask("new", 60, provider="vendor")
    ask("new", 60, ago=8 * 86_400)
    found = await make(Engines(), enabled=True).look()
    assert found.model is None


async def test_a_model_whose_file_is_gone_does_not_count(make, ask):
    ask("deleted", 60)
    found = await make(Engines(), enabled=True).look()
    assert found.model is None


async def test_a_model_that_cannot_be_loaded_is_reported_and_ends_nothing(make, ask):
    ask("new", 60)
    engines = Engines(refuses=True)
    await make(engines, enabled=True).look()
    assert engines.done == [("unload", "old"), ("load", "new")]


async def test_work_on_the_model_that_would_go_holds_it_up(make, ask):
    ask("new", 60)
    engines = Engines(busy=True)
    found = await make(engines, enabled=True).look()
    assert (found.act, engines.done) == (False, [])
