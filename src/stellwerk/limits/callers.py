"""The counters of everybody who has called lately: found by key, by user and by model, forgotten when at rest."""

from collections.abc import Callable
from typing import TypeVar

from stellwerk.core.principal import Principal
from stellwerk.limits.counter import Counter

_LOOKED_AT = 8
"""Entries at rest are looked for among this many, whenever a new one comes and a map is full."""

Name = TypeVar("Name")
Entry = TypeVar("Entry")


class Caller:
    """One key: its counter and its user's, and for which principal and which settings their limits are set."""

    __slots__ = ("counters", "key", "limiting", "principal", "settings", "user")

    def __init__(self, user: Counter) -> None:
        self.key = Counter("key")
        self.user = user
        self.counters = (user, self.key)
        self.limiting: tuple[Counter, ...] = ()
        """Those of them that may refuse a call."""
        self.principal: Principal | None = None
        self.settings: object = None


class Callers:
    """Maps that are bounded by `size` entries each, and beyond that by who is in use at the same time."""

    def __init__(self, size: int) -> None:
        self.by_key: dict[str, Caller] = {}
        self.by_user: dict[int, Counter] = {}
        self._by_model: dict[tuple[int, str], Counter] = {}
        self._size = size

    def enter(self, key_id: str, user_id: int, now: int) -> Caller:
        """The caller with this key, a new one when it is not known or was forgotten."""
        caller = self.by_key.get(key_id)
        if caller is None:
            self._make_room(self.by_key, lambda caller: self._let_go(caller, now))
            caller = self.by_key[key_id] = Caller(self._user(user_id, now))
            caller.user.holders += 1
        return caller

    def model(self, user_id: int, name: str, now: int) -> Counter:
        """The counter of a user's calls of one model."""
        counter = self._by_model.get((user_id, name))
        if counter is None:
            self._make_room(self._by_model, lambda counter: counter.at_rest(now))
            counter = self._by_model[user_id, name] = Counter("model")
        return counter

    def _user(self, user_id: int, now: int) -> Counter:
        counter = self.by_user.get(user_id)
        if counter is None:
            self._make_room(self.by_user, lambda counter: counter.at_rest(now))
            counter = self.by_user[user_id] = Counter("user")
        return counter

    def _let_go(self, caller: Caller, now: int) -> bool:
        if not caller.key.at_rest(now):
            return False
        caller.user.holders -= 1
        return True

    def _make_room(self, entries: dict[Name, Entry], may_go: Callable[[Entry], bool]) -> None:
        if len(entries) < self._size:
            return
        oldest = [name for name, _ in zip(entries, range(_LOOKED_AT), strict=False)]
        for name in oldest:
            entry = entries.pop(name)
            if not may_go(entry):
                # Back at the end, so that the next look begins with others.
                entries[name] = entry
