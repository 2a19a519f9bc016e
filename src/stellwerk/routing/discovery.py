"""Keeps the catalogue up to date: asks every provider what it offers, and remembers what it last said."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Protocol

import msgspec

from stellwerk.core.clock import Clock
from stellwerk.core.errors import GatewayError, UpstreamError, UpstreamTimeout
from stellwerk.core.plan import Model
from stellwerk.routing.catalogue import Alias, Catalogue, PriceOf, Snapshot, alias_order, no_price

_MAX_MODELS_OF_A_SOURCE = 20_000


class Lister(Protocol):
    """Whoever can say what a provider offers."""

    name: str

    async def models(self) -> Sequence[Model]: ...


class LocalModels(Protocol):
    """Models that we run ourselves; the list is in memory."""

    def models(self) -> Sequence[Model]: ...


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A provider that is asked for its models."""

    lister: Lister
    open: bool = False
    """Names after its slash lead to it even when its list does not contain them."""
    listed: bool = True
    """It can be asked at all; otherwise its models are only known by being asked for."""
    known: tuple[Model, ...] = ()
    """What it offers as far as that is known without asking."""
    registered: tuple[Model, ...] = ()
    """What it offers whether it lists it or not; of what it does list, these facts go before its own."""
    changes_often: bool = False
    """People add models while they wait for them, and asking costs little."""


class SourceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How the last question to a provider went, for health."""

    name: str
    models: int
    """How many of its models the catalogue holds, also when they were learned earlier."""
    asked: float | None = None
    """Unix seconds of the last question; None before the first."""
    error: str | None = None
    """Why it could not be answered; None when it could."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    refresh_seconds: float = 60.0
    often_seconds: float = 5.0
    """For the sources that change often, and those at whose address nobody is: servers are started after us too."""
    answer_seconds: float = 10.0
    """A provider that has not answered by then keeps its last list."""
    prefixes: bool = False
    """The beginning of a model's name is enough where it is clear."""


class Discovery:
    """Owns the contents of a catalogue.

    Local models and aliases are there as soon as it is made; providers follow once `run()` has asked them.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        clock: Clock,
        sources: Iterable[Source] = (),
        local: LocalModels | None = None,
        aliases: Mapping[str, Alias] | None = None,
        price: PriceOf = no_price,
        settings: Settings | None = None,
    ) -> None:
        """`price` is called in a thread for listed models. Raises AliasCycleError."""
        self._catalogue = catalogue
        self._clock = clock
        self._local = local
        self._price = price
        self.settings = settings or Settings()
        self._lists: dict[str, tuple[Model, ...]] = {}
        self._statuses: dict[str, SourceStatus] = {}
        self._answered: set[str] = set()
        """Sources that have told their models since the start."""
        self._absent: set[str] = set()
        """Sources at whose address nobody was."""
        self._published_local: tuple[Model, ...] = ()
        self._edition = 0
        self._turn = asyncio.Lock()
        self._wake = asyncio.Event()
        self._sources: dict[str, Source] = {}
        self._aliases: Mapping[str, Alias] = {}
        self.configure(sources=sources, aliases=aliases or {})

    def configure(self, *, sources: Iterable[Source], aliases: Mapping[str, Alias]) -> None:
        """Takes new sources and aliases; what is already known is in the catalogue when this returns.

        Raises AliasCycleError and changes nothing then.
        """
        alias_order(aliases)
        self._sources = {source.lister.name: source for source in sources}
        self._aliases = dict(aliases)
        self._lists = {name: source.known or self._lists.get(name, ()) for name, source in self._sources.items()}
        self._statuses = {
            name: self._statuses.get(name, SourceStatus(name=name, models=0))
            for name, source in self._sources.items()
            if source.listed
        }
        self._absent &= self._sources.keys()
        self._answered &= self._sources.keys()
        self.publish()
        self._wake.set()

    def publish(self) -> None:
        """Local models or prices have changed; the catalogue knows when this returns."""
        self._edition += 1
        self._catalogue.swap(self._builder()())

    async def run(self) -> None:
        """Refreshes for ever, at once and then every `refresh_seconds`, what changes often every `often_seconds`."""
        while True:
            self._wake.clear()
            await self.refresh_now()
            left = self.settings.refresh_seconds
            while left > 0 and not await self._woken(min(left, self.settings.often_seconds)):
                left -= self.settings.often_seconds
                if left > 0:
                    await self._refresh(lambda source: source.changes_often or source.lister.name in self._absent)

    async def _woken(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._wake.wait()
        except TimeoutError:
            return False

    async def refresh_now(self) -> None:
        """Asks every provider; each answer is in the catalogue as soon as it came. Never raises for a provider."""
        await self._refresh(lambda _source: True)

    async def refresh(self, name: str) -> None:
        """Asks one provider. Never raises for it."""
        await self._refresh(lambda source: source.lister.name == name)

    async def _refresh(self, chosen: Callable[[Source], bool]) -> None:
        async with self._turn:
            asked = [source for source in self._sources.values() if source.listed and chosen(source)]
            waiting = {asyncio.create_task(self._ask(source)) for source in asked}
            try:
                if self._local_models() != self._published_local:
                    await self._publish()
                while waiting:
                    done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                    if any(task.result() for task in done):
                        await self._publish()
            finally:
                for task in waiting:
                    task.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)

    def status(self) -> tuple[SourceStatus, ...]:
        return tuple(self._statuses.values())

    def is_complete(self) -> bool:
        """Whether every source that can be asked has told its models since the start."""
        return self._answered >= self._statuses.keys()

    async def _ask(self, source: Source) -> bool:
        """Whether the provider's list has changed."""
        name = source.lister.name
        models, error = await self._answer(source.lister)
        if self._sources.get(name) is not source:
            return False
        if error is None:
            self._answered.add(name)
        if error is not None and error.code == "upstream_unreachable":
            self._absent.add(name)
        else:
            self._absent.discard(name)
        last = self._lists.get(name, ())
        now = last if models is None else tuple(models[:_MAX_MODELS_OF_A_SOURCE])
        self._lists[name] = now
        held = len(with_registered(now, source.registered))
        reason = None if error is None else error.message
        self._statuses[name] = SourceStatus(name=name, models=held, asked=self._clock.now(), error=reason)
        return now != last

    async def _answer(self, lister: Lister) -> tuple[Sequence[Model] | None, GatewayError | None]:
        try:
            async with asyncio.timeout(self.settings.answer_seconds):
                return await lister.models(), None
        except GatewayError as error:
            return None, error
        except TimeoutError:
            return None, UpstreamTimeout(f"No answer within {self.settings.answer_seconds:g} s.")
        except Exception as error:  # noqa: BLE001  # one provider's fault must not end the refreshing of the others
            return None, UpstreamError(f"Its answer could not be used ({type(error).__name__}).")

    async def _publish(self) -> None:
        edition = self._edition
        # Thousands of models take long enough to sort in that running streams would feel it.
        snapshot = await asyncio.to_thread(self._builder())
        # What was published meanwhile was made from the same lists, and from newer settings.
        if edition == self._edition:
            self._catalogue.swap(snapshot)

    def _local_models(self) -> tuple[Model, ...]:
        return tuple(self._local.models()) if self._local is not None else ()

    def _builder(self) -> Callable[[], Snapshot]:
        """Everything that a snapshot is made of, taken at this moment so that a thread can make it."""
        self._published_local = self._local_models()
        known = [
            with_registered(self._lists.get(name, ()), source.registered) for name, source in self._sources.items()
        ]
        open_providers = [name for name, source in self._sources.items() if source.open]
        return partial(
            _build,
            [*self._published_local, *chain(*known)],
            self._aliases,
            open_providers,
            self._price,
            prefixes=self.settings.prefixes,
        )


def with_registered(listed: Sequence[Model], registered: Sequence[Model]) -> Sequence[Model]:
    """The listed models with the facts of the registered ones, and after them those that are not listed.

    A name that is listed in another case only is the same model, and spelled as it is listed.
    """
    if not registered:
        return listed
    by_name = {model.name: model for model in registered}
    names = {model.name for model in listed}
    by_folded = {name.casefold(): model for name, model in by_name.items() if name not in names}
    merged = []
    for model in listed:
        facts = by_name.pop(model.name, None) or by_folded.pop(model.name.casefold(), None)
        if facts is not None:
            by_name.pop(facts.name, None)
        merged.append(model if facts is None else _with_facts(model, facts))
    return [*merged, *by_name.values()]


def _with_facts(model: Model, facts: Model) -> Model:
    return msgspec.structs.replace(
        model,
        context_length=facts.context_length or model.context_length,
        max_output_tokens=facts.max_output_tokens or model.max_output_tokens,
        operations=facts.operations,
        shortcode=facts.shortcode,
        temperature=facts.temperature,
        completion_tokens=facts.completion_tokens,
    )


def _build(
    models: Sequence[Model],
    aliases: Mapping[str, Alias],
    open_providers: Sequence[str],
    price: PriceOf,
    *,
    prefixes: bool,
) -> Snapshot:
    priced = (_with_price(model, price) for model in models)
    return Snapshot(priced, aliases=aliases, open_providers=open_providers, price=price, prefixes=prefixes)


def _with_price(model: Model, price: PriceOf) -> Model:
    if model.local or model.price is not None:
        return model
    return msgspec.structs.replace(model, price=price(model.provider, model.name))
