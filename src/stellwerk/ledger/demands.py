"""What a call may cost before it has run, and how a refusal is said. Pure."""

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from stellwerk.core.call import Call
from stellwerk.core.errors import InsufficientCredit
from stellwerk.core.outcome import Estimate, Usage
from stellwerk.core.plan import Price
from stellwerk.core.principal import Tier
from stellwerk.ledger.budgets import Limit, limits_of
from stellwerk.ledger.holds import Demand, Room
from stellwerk.ledger.prices import cost

_MICRO = 1_000_000


def make_demand(
    call: Call, prices: Sequence[Price], estimate: Estimate, owner: str, assumed_output_tokens: int
) -> Demand | None:
    """What has to be held for `call` at the dearest of `prices`; None when it costs nothing or is not charged."""
    principal = call.principal
    if not principal.is_charged:
        return None
    output, answers = estimate.output_tokens, estimate.answers
    pages = estimate.pages
    expected = _dearest(
        prices, estimate.input_tokens, assumed_output_tokens * answers if output is None else output, pages
    )
    if expected <= 0:
        return None
    # Who has nothing at all must not be served because the least rounds to nothing.
    least = max(1, _dearest(prices, estimate.least_input_tokens, answers if output is None else output, pages))
    return Demand(
        hold_id=secrets.token_hex(16),
        owner=owner,
        call_id=call.id,
        user_id=principal.user_id,
        key_id=principal.key_id,
        from_balance=principal.tier is Tier.PAYG,
        limits=limits_of(principal),
        expected=expected,
        least=min(least, expected),
        input_amount=_dearest(prices, estimate.input_tokens, 0),
    )


def refusal(demand: Demand, room: Room, now: float, currency: str) -> InsufficientCredit:
    """Says what is missing and what helps; only about the balance or budget that the call itself counts against."""
    metadata = {"available": max(0, room.free) / _MICRO, "required": demand.least / _MICRO, "currency": currency}
    if room.limit is not None:
        return _over_budget(room.limit, room, metadata, now)
    if room.held:
        return InsufficientCredit(
            "Insufficient balance: a part of it is set aside for your calls that are still running. "
            "Try again when they have ended, or top up the account.",
            retry_after=1.0,
            metadata=metadata,
        )
    return InsufficientCredit(
        "Insufficient balance. Top up the account, or ask for fewer output tokens.", metadata=metadata
    )


def _over_budget(limit: Limit, room: Room, metadata: dict[str, object], now: float) -> InsufficientCredit:
    begins = datetime.fromtimestamp(room.end, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return InsufficientCredit(
        f"The {limit.name} does not suffice for this request. It begins anew at {begins}.",
        code="budget_exceeded",
        retry_after=max(0.0, room.end - now),
        metadata=metadata,
    )


def _dearest(prices: Sequence[Price], input_tokens: int, output_tokens: int, pages: int = 0) -> int:
    usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens, pages=pages)
    return max((cost(price, usage) for price in prices), default=0)
