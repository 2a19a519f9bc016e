"""Which models there are and where each name leads.

A snapshot is built whole and never changed; the catalogue holds the current one. Every name that leads somewhere
stands in a table before the first request asks for it, so that planning is a lookup whatever the number of models.
"""

import difflib
import heapq
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from graphlib import CycleError, TopologicalSorter
from itertools import chain, islice
from typing import TypeAlias

import msgspec

from stellwerk.core.call import UNKNOWN_OPERATIONS, Operation
from stellwerk.core.plan import Model, Plan, Price, Target

PriceOf: TypeAlias = Callable[[str, str], Price | None]
"""Provider and upstream name to price; called for names that no list contains, so it must be a lookup in memory."""

_LONGEST_NAME = 512
_SHORTEST_PREFIX = 3
_SUGGESTIONS = 3
_COMPARED_NAMES = 200
_COMPARED_CHARACTERS = 128


class AliasCycleError(ValueError):
    """An alias leads back to itself."""


class Alias(msgspec.Struct, frozen=True, kw_only=True):
    """A public name for models that stand under other names."""

    targets: tuple[str, ...]
    """Names of models or of other aliases, in the order in which they are tried."""
    description: str = ""


def alias_order(aliases: Mapping[str, Alias]) -> list[str]:
    """The aliases, each after those that it leads to. Raises AliasCycleError."""
    graph = {name: [target for target in alias.targets if target in aliases] for name, alias in aliases.items()}
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        path = " → ".join(reversed(error.args[1]))
        raise AliasCycleError(f"The alias leads back to itself: {path}") from None


def no_price(_provider: str, _model: str) -> Price | None:
    return None


class Snapshot:
    """All models and names of one moment. Raises AliasCycleError when an alias leads back to itself."""

    def __init__(
        self,
        models: Iterable[Model] = (),
        *,
        aliases: Mapping[str, Alias] | None = None,
        open_providers: Iterable[str] = (),
        price: PriceOf = no_price,
        prefixes: bool = False,
    ) -> None:
        """`open_providers` take every name after their slash, listed or not. With `prefixes` the beginning of a name
        is enough when all names that begin so lead to one model."""
        order = alias_order(aliases or {})
        self._price = price
        self._sorted: list[str] = []
        self._by_id = _with_own_shortcodes(models)
        self._by_target = {(model.provider, model.name): model for model in self._by_id.values()}
        self._open = {name.casefold(): name for name in open_providers}
        self._providers = {model.provider.casefold() for model in self._by_id.values()} | self._open.keys()
        self._plans = _model_plans(self._by_id.values())
        self._ambiguous = _add_bare_names(self._plans, self._by_id.values(), self._providers)
        self._folded = _folded(self._plans)
        _add_folded_shortcodes(self._folded, self._plans, self._by_id.values())
        self._shortcodes = {model.shortcode: model for model in self._by_id.values() if model.shortcode}
        self.unresolved = self._add_aliases(order, aliases or {})
        """Alias and target for every target that leads nowhere at this moment."""
        shortcodes = (model.shortcode for model in self._by_id.values() if model.shortcode)
        self._names = [(name.casefold(), name) for name in dict.fromkeys(chain(self._by_id, shortcodes))]
        if prefixes:
            self._sorted = sorted(self._folded)

    def models(self) -> Sequence[Model]:
        """Local models first, then the providers' in their order, aliases last."""
        return tuple(self._by_id.values())

    def get(self, name: str) -> Model | None:
        """The model or alias that `name` leads to; None when no list contains it."""
        model = self._by_id.get(name)
        if model is None and (plan := self.plan(name)) is not None:
            model = self._by_id.get(plan.name)
        return model

    def plan(self, name: str) -> Plan | None:
        """Where `name` leads; None when it leads nowhere or to more than one model."""
        plan = self._plans.get(name)
        if plan is not None or len(name) > _LONGEST_NAME:
            return plan
        plan = self._folded.get(name.casefold())
        if plan is not None:
            return plan
        provider, separator, model = name.partition("/")
        if separator and (known := self._open.get(provider.casefold())):
            return self._passed_through(known, model)
        provider, separator, model = name.partition(":")
        # Tags of Ollama have colons too: only a provider's name before it makes it a separator.
        if separator and "/" not in provider and provider.casefold() in self._providers:
            return self.plan(f"{provider}/{model}")
        return self._plan_of_prefix(name.casefold())

    def _plan_of_prefix(self, prefix: str) -> Plan | None:
        """Where all names lead that begin so; None when they do not agree."""
        if len(prefix) < _SHORTEST_PREFIX or not self._sorted:
            return None
        first = bisect_left(self._sorted, prefix)
        found: Plan | None = None
        for name in islice(self._sorted, first, None):
            if not name.startswith(prefix):
                break
            plan = self._folded[name]
            if found is not None and plan is not found:
                return None
            found = plan
        return found

    def model_of(self, target: Target) -> Model | None:
        """What is known of a target; None when no list contains it."""
        return self._by_target.get((target.provider, target.model))

    def supports(self, target: Target, operation: Operation) -> bool:
        """Whether the target is not known to be unable to do it."""
        model = self._by_target.get((target.provider, target.model))
        return model is None or operation in model.operations

    def suggest(self, name: str) -> list[str]:
        """Names that may have been meant, the likeliest first, at most three."""
        asked = name[:_COMPARED_CHARACTERS].casefold()
        if asked in self._ambiguous:
            return self._ambiguous[asked][:_SUGGESTIONS]
        parts = {part[:3] for part in re.split(r"[^a-z0-9]+", asked) if part}
        scored = ((sum(part in folded for part in parts), folded, known) for folded, known in self._names)
        # Comparing two names costs microseconds: a catalogue of thousands is first cut down by shared parts.
        likely = heapq.nlargest(_COMPARED_NAMES, scored, key=lambda entry: entry[0])
        comparable: dict[str, list[str]] = {}
        for _, folded, known in likely:
            for form in {folded, folded.rpartition("/")[2]}:
                comparable.setdefault(form, []).append(known)
        close = difflib.get_close_matches(asked, comparable, n=2 * _SUGGESTIONS, cutoff=0.6)
        return list(dict.fromkeys(known for form in close for known in comparable[form]))[:_SUGGESTIONS]

    def _passed_through(self, provider: str, model: str) -> Plan | None:
        if not model:
            return None
        target = Target(provider=provider, model=model, price=self._price(provider, model))
        return Plan(name=f"{provider}/{model}", targets=(target,))

    def _add_aliases(self, order: Iterable[str], aliases: Mapping[str, Alias]) -> tuple[tuple[str, str], ...]:
        plans: dict[str, Plan] = {}
        facts: dict[str, Model] = {}
        unresolved = []
        for name in order:
            targets: dict[Target, None] = {}
            stands_for: str | None = None
            for wanted in aliases[name].targets:
                plan = plans.get(wanted) or self.plan(wanted)
                if plan is None:
                    unresolved.append((name, wanted))
                else:
                    stands_for = stands_for or plan.stands_for or plan.name
                    targets.update(dict.fromkeys(plan.targets))
            if targets:
                plans[name] = Plan(name=name, targets=tuple(targets), stands_for=stands_for)
                facts[name] = self._alias_model(name, aliases[name], next(iter(targets)))
        # An alias hides a model of the same name, and its own targets were looked up before it did.
        self._plans.update(plans)
        self._folded.update(_folded(plans))
        for name in aliases.keys() & facts.keys():
            self._by_id.pop(name, None)
            hidden = self._shortcodes.get(name)
            if hidden is not None and hidden.id in self._by_id:
                self._by_id[hidden.id] = msgspec.structs.replace(hidden, shortcode=None)
        self._by_id.update({name: facts[name] for name in aliases if name in facts})
        return tuple(unresolved)

    def _alias_model(self, name: str, alias: Alias, first: Target) -> Model:
        model = self._by_target.get((first.provider, first.model))
        if model is None:
            # A name that was passed through: nothing is known about it, so nothing is ruled out.
            model = Model(
                provider=first.provider,
                name=first.model,
                id=name,
                owned_by=first.provider,
                operations=UNKNOWN_OPERATIONS,
                price=first.price,
            )
        # Whoever lists what has a shortcode lists the alias that took the place of one.
        shortcode = name if name in self._shortcodes else None
        description = alias.description or model.description
        return msgspec.structs.replace(model, id=name, description=description, shortcode=shortcode)


def _with_own_shortcodes(models: Iterable[Model]) -> dict[str, Model]:
    """Models by id, the first of each; so that a shortcode means one model, only the first keeps it."""
    by_id: dict[str, Model] = {}
    for model in models:
        by_id.setdefault(model.id, model)
    taken = set()
    for model in list(by_id.values()):
        if model.shortcode is not None:
            folded = model.shortcode.casefold()
            if folded in taken or by_id.get(model.shortcode, model) is not model:
                by_id[model.id] = msgspec.structs.replace(model, shortcode=None)
            taken.add(folded)
    return by_id


def _model_plans(models: Iterable[Model]) -> dict[str, Plan]:
    plans = {}
    for model in models:
        target = Target(provider=model.provider, model=model.name, price=model.price)
        plans[model.id] = Plan(name=model.id, targets=(target,))
    for model in models:
        plans.setdefault(f"{model.provider}/{model.name}", plans[model.id])
    for model in models:
        if model.shortcode is not None:
            plans.setdefault(model.shortcode, plans[model.id])
    return plans


def _add_bare_names(
    plans: dict[str, Plan], models: Iterable[Model], providers: AbstractSet[str]
) -> dict[str, list[str]]:
    """Adds the upstream names that lead to one model only, or to one that goes before the others.

    Local models do, and after them those that have a shortcode. Returns the others, case folded, with the ids that
    they could mean.
    """
    meanings: dict[str, list[Model]] = {}
    for model in models:
        head, slash, _ = model.name.partition("/")
        # `openai/x` at a reseller must not take the place of `x` at the provider `openai`.
        if not (slash and head.casefold() in providers):
            meanings.setdefault(model.name, []).append(model)
    ambiguous: dict[str, list[str]] = {}
    for name, found in meanings.items():
        chosen = found
        if len(found) > 1:
            chosen = [model for model in found if model.local] or [model for model in found if model.shortcode]
        if len(chosen) == 1:
            plans.setdefault(name, plans[chosen[0].id])
        elif name not in plans:
            ambiguous[name.casefold()] = [model.id for model in found]
    return ambiguous


def _folded(plans: Mapping[str, Plan]) -> dict[str, Plan]:
    """Plans by name without regard to case, without the names that then lead to different models."""
    folded: dict[str, Plan] = {}
    clashes = set()
    for name, plan in plans.items():
        key = name.casefold()
        if folded.setdefault(key, plan) is not plan:
            clashes.add(key)
    return {key: plan for key, plan in folded.items() if key not in clashes}


def _add_folded_shortcodes(folded: dict[str, Plan], plans: Mapping[str, Plan], models: Iterable[Model]) -> None:
    """Shortcodes, and the names they stand for, are found in any case, also where others differ in case only."""
    for model in models:
        if model.shortcode is not None:
            for name in (model.shortcode, model.name):
                if plans.get(name) is plans[model.id]:
                    folded.setdefault(name.casefold(), plans[model.id])


class Catalogue:
    """The current snapshot; whoever refreshes it puts a new one in."""

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        self._snapshot = snapshot or Snapshot()

    def swap(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def models(self) -> Sequence[Model]:
        return self._snapshot.models()

    def get(self, name: str) -> Model | None:
        return self._snapshot.get(name)

    def plan(self, name: str) -> Plan | None:
        return self._snapshot.plan(name)

    def model_of(self, target: Target) -> Model | None:
        return self._snapshot.model_of(target)

    def supports(self, target: Target, operation: Operation) -> bool:
        return self._snapshot.supports(target, operation)

    def suggest(self, name: str) -> list[str]:
        return self._snapshot.suggest(name)

    @property
    def unresolved(self) -> tuple[tuple[str, str], ...]:
        """Alias and target for every target that leads nowhere at this moment."""
        return self._snapshot.unresolved
