"""Closes a call: once, whatever happened, and without waiting for anything."""

from collections.abc import Callable, Sequence

from stellwerk.core.outcome import Outcome, Usage
from stellwerk.core.plan import Price
from stellwerk.core.ports import Recorder
from stellwerk.pipeline.meter import CallMeter

Cost = Callable[[Price, Usage], int]
"""Price and usage to micro units."""


class Settle:
    """Turns what the meter saw into the record that ledger, metrics and logs receive, and pays for it."""

    def __init__(self, recorders: Sequence[Recorder], cost: Cost) -> None:
        self._recorders = tuple(recorders)
        self._cost = cost

    def __call__(self, meter: CallMeter) -> Outcome:
        usage, estimated = meter.usage, False
        if (usage is None or meter.was_cut_uncounted) and (own := meter.own_count()) is not None:
            usage, estimated = own, True
        price = meter.price
        cost = self._cost(price, usage) if price is not None and usage is not None else None
        if meter.hold is not None:
            if cost is None:
                meter.hold.release()
            else:
                meter.hold.settle(cost, estimated=estimated)
        outcome = meter.outcome(usage, cost, estimated=estimated)
        for record in self._recorders:
            record(outcome)
        return outcome
