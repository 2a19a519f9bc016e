"""What happens in the gateway, said to the webhooks that want to hear of it."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from stellwerk.app.people import People
from stellwerk.core.call import Call
from stellwerk.core.errors import Unavailable
from stellwerk.core.outcome import Estimate, Outcome
from stellwerk.core.plan import Price
from stellwerk.http.egress import Egress
from stellwerk.ledger.budget_notices import Crossing, note_crossings
from stellwerk.ledger.budgets import Limit, limits_of
from stellwerk.ledger.charges import Hold
from stellwerk.storage.sealing import Seal
from stellwerk.webhooks.delivery import Webhooks

_LOOK_SECONDS = 1.0
_MOST_BUDGETS = 10_000


class Notices:
    """Owns the webhooks of the gateway and what has to be remembered to say something once."""

    def __init__(self, people: People, seal: Seal, allowed_origins: Callable[[], Sequence[str]], currency: str) -> None:
        self.egress = Egress(allowed_origins)
        self.webhooks = Webhooks(
            run=people.run,
            submit=people.submit,
            fetch=people.fetch,
            send=self.egress.send,
            seal=seal,
            clock=people.clock,
        )
        self._people = people
        self._currency = currency
        self._budgets: OrderedDict[str, tuple[Limit, ...]] = OrderedDict()
        """By key, of those whose calls have begun: the record of a call does not know them."""
        self._spent: set[str] = set()
        """Keys whose calls have cost something since the last look."""

    def works(self) -> list[Awaitable[None]]:
        """What runs as long as the gateway does."""
        return [self.webhooks.run(), self._watch_budgets()]

    # --- calls

    def record(self, outcome: Outcome) -> None:
        """Fills the port `Recorder`."""
        if outcome.cost and outcome.key_id in self._budgets:
            self._spent.add(outcome.key_id)
        if self.webhooks.wants("request.finished"):
            self.webhooks.publish("request.finished", _facts_of(outcome, self._currency))

    def watching(self, hold: "HoldMoney") -> "HoldMoney":
        """The same, with a note of the budgets that the call counts against."""

        async def hold_and_note(call: Call, prices: Sequence[Price], estimate: Estimate) -> Hold:
            held = await hold(call, prices, estimate)
            if limits := limits_of(call.principal):
                self._budgets[call.principal.key_id] = limits
                self._budgets.move_to_end(call.principal.key_id)
                if len(self._budgets) > _MOST_BUDGETS:
                    self._budgets.popitem(last=False)
            return held

        return hold_and_note

    def generate_requested(self, facts: Callable[[], Mapping[str, Any]]) -> None:
        """A request to Go Ollama API, in the words of its document."""
        if self.webhooks.wants("generate.requested"):
            self.webhooks.publish("generate.requested", facts())

    # --- other events

    def park_key(self, provider: str, index: int, count: int) -> None:
        """An upstream does not know one of its keys: nobody uses it again until an operator has looked at it."""
        self.webhooks.publish("key.parked", {"provider": provider, "key_index": index, "keys": count})

    def crash(self, facts: Mapping[str, Any]) -> None:
        """An engine has ended without being asked to."""
        self.webhooks.publish("engine.crashed", facts)

    # --- budgets

    async def _watch_budgets(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if not self._spent or not self.webhooks.wants("budget.reached"):
                self._spent.clear()
                continue
            keys, self._spent = self._spent, set()
            limits = {limit.subject: limit for key in keys for limit in self._budgets.get(key, ())}
            now = self._people.clock.now()

            def look(
                connection: Connection, limits: tuple[Limit, ...] = tuple(limits.values()), now: float = now
            ) -> list[Crossing]:
                return note_crossings(connection, limits, now)

            try:
                crossings = await self._people.run(look)
            except Unavailable:
                self._spent |= keys
                continue
            for crossing in crossings:
                self.webhooks.publish("budget.reached", _facts_of_budget(crossing, self._currency))


HoldMoney = Callable[[Call, Sequence[Price], Estimate], Awaitable[Hold]]


def _facts_of(outcome: Outcome, currency: str) -> dict[str, Any]:
    usage = outcome.usage
    return {
        "id": outcome.id,
        "user_id": outcome.user_id,
        "key_id": outcome.key_id,
        "operation": outcome.operation,
        "model": outcome.model,
        "provider": outcome.provider,
        "upstream_model": outcome.target,
        "stream": outcome.stream,
        "status": outcome.status,
        "error": outcome.error,
        "attempts": outcome.attempts,
        "input_tokens": usage.input_tokens if usage is not None else None,
        "output_tokens": usage.output_tokens if usage is not None else None,
        "estimated": outcome.estimated,
        "cost": None if outcome.cost is None else outcome.cost / 1_000_000,
        "currency": currency,
        "duration_seconds": round(outcome.duration, 4),
        "first_byte_seconds": None if outcome.first_byte is None else round(outcome.first_byte, 4),
    }


def _facts_of_budget(crossing: Crossing, currency: str) -> dict[str, Any]:
    return {
        "user_id": crossing.user_id,
        "key_id": crossing.key_id,
        "window": crossing.window,
        "percent": crossing.percent,
        "spent": crossing.spent / 1_000_000,
        "amount": crossing.amount / 1_000_000,
        "currency": currency,
        "began_at": crossing.beginning,
        "ends_at": crossing.end,
    }
