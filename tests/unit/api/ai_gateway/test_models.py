"""The state of models in AI Gateway's words, and what starts and stops them."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from stellwerk.api.ai_gateway.models import Models
from stellwerk.api.ai_gateway.names import READER, ModelNames, ShortName
from stellwerk.api.ai_gateway.resolution import Resolution
from stellwerk.core.errors import GatewayError, Unavailable
from stellwerk.core.plan import Model
from stellwerk.engines.slot import SlotStatus

OWN = Model(provider="local", name="gemma-3-4b-it", id="gemma-3-4b-it", local=True)
REMOTE = Model(provider="up", name="big", id="up/big")
SHORTS = {
    "gemma": ShortName(short="gemma", name="google/gemma-3-4b-it"),
    "deepseek": ShortName(short="deepseek", name="deepseek-ai/DeepSeek-OCR", port=8001),
    "big": ShortName(short="big", name="up/big", port=8002),
}


@dataclass
class Engines:
    slots: tuple[SlotStatus, ...] = ()
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    fails: bool = False

    def models(self) -> list[Model]:
        return [OWN]

    def status(self) -> tuple[SlotStatus, ...]:
        return self.slots

    async def load(self, model: str, *, wait_until: float | None = None) -> None:
        self.asked.append(("load", model))
        if self.fails:
            raise Unavailable("It did not fit.")

    async def unload(self, *, model: str | None = None, drain_seconds: float = 30.0) -> None:
        self.asked.append(("unload", model, drain_seconds))


@dataclass
class Reader:
    ready: bool = True

    def is_ready(self) -> bool:
        return self.ready

    drained: list[float] = field(default_factory=list)

    async def load(self) -> None:
        self.ready = True

    async def unload(self, drain_seconds: float) -> None:
        self.ready = False
        self.drained.append(drain_seconds)


def make(clock: Any, engines: Engines, reader: Reader | None = None, *, broken: bool = False) -> Models:
    known = {model.id: model for model in (OWN, REMOTE)}
    return Models(
        names=ModelNames(SHORTS, known.__contains__, lambda: READER if reader else None),
        engines=engines,
        reader=reader,
        find=known.get,
        is_broken=lambda _: broken,
        resolution=Resolution("large"),
        clock=clock,
    )


@pytest.mark.parametrize(
    ("state", "word"),
    [
        ("ready", "running"), ("loading", "starting"), ("restarting", "starting"), ("draining", "stopping"),
        ("failed", "error"),
    ],
)  # fmt: skip
def test_a_slot_is_shown_in_their_words(clock, state, word):
    slot = SlotStatus(port=4801, state=state, model="gemma-3-4b-it", loaded_at=clock.now() - 90)
    shown = make(clock, Engines((slot,))).show_all()["gemma"]
    assert (shown.status, shown.port, shown.uptime_seconds) == (word, 4801, 90)
    assert shown.is_healthy is (word == "running")
    assert shown.started_at is not None
    assert len(shown.started_at) == len("2026-01-15T16:00:00.000000")


def test_what_is_not_loaded_is_stopped_and_has_no_uptime(clock):
    shown = make(clock, Engines()).show_all()["gemma"]
    assert (shown.status, shown.started_at, shown.uptime_seconds, shown.is_healthy) == ("stopped", None, None, False)


def test_a_model_elsewhere_is_as_its_provider_is(clock):
    assert make(clock, Engines()).show_all()["big"].status == "running"
    assert make(clock, Engines(), broken=True).show_all()["big"].status == "error"
    assert make(clock, Engines()).show_all()["deepseek"].status == "stopped"


def test_models_with_a_short_name_are_shown_once(clock):
    assert list(make(clock, Engines(), Reader()).show_all()) == ["gemma", "deepseek", "big"]


def test_only_what_reads_pages_has_a_resolution(clock):
    shown = make(clock, Engines(), Reader()).show_all()
    assert (shown["gemma"].resolution, shown["deepseek"].resolution) == (None, "large")


async def test_start_and_stop_reach_the_engine(clock):
    engines = Engines()
    models = make(clock, engines)
    await models.start("gemma")
    await models.stop("gemma", graceful=True)
    await models.stop("gemma-3-4b-it", graceful=False)
    name = "gemma-3-4b-it"
    assert engines.asked == [("load", name), ("unload", name, 60.0), ("unload", name, 0.0)]


async def test_the_reader_of_pages_is_started_and_stopped(clock):
    reader = Reader()
    models = make(clock, Engines(), reader)
    await models.stop("deepseek", graceful=True)
    assert models.show_all()["deepseek"].status == "stopped"
    await models.start("deepseek")
    assert models.show_all()["deepseek"].is_healthy
    await models.stop("deepseek", graceful=False)
    assert reader.drained == [60.0, 0.0]


async def test_a_model_elsewhere_that_answers_has_been_started(clock):
    engines = Engines()
    await make(clock, engines).start("big")
    assert engines.asked == []


@pytest.mark.parametrize("name", ["big", "deepseek", "nothing"])
async def test_what_is_not_ours_can_neither_be_started_nor_stopped(clock, name):
    engines = Engines()
    models = make(clock, engines, broken=True)
    with pytest.raises(GatewayError, match=r"^Failed to start model$"):
        await models.start(name)
    with pytest.raises(GatewayError, match=r"^Failed to stop model$") as caught:
        await models.stop(name, graceful=True)
    assert (caught.value.status, engines.asked) == (500, [])


async def test_a_model_that_does_not_start_is_a_failure_in_their_words(clock):
    with pytest.raises(GatewayError, match=r"^Failed to start model$"):
        await make(clock, Engines(fails=True)).start("gemma")
