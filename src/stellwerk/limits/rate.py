"""The generic cell rate algorithm on whole nanoseconds: pure decisions, no clock and no state.

A rate allows `burst` requests at once and then one every `interval`. Its whole state is one number, the *theoretical
arrival time*: when the bucket is full again. Any window of `w` nanoseconds admits at most
`burst + w // interval` requests.
"""

from collections.abc import Iterable

import msgspec

_MINUTE = 60_000_000_000


class Rate(msgspec.Struct, frozen=True):
    per_minute: int
    burst: int
    interval: int
    """Nanoseconds between two requests at a steady pace, rounded up: never more than `per_minute` a minute."""
    tolerance: int
    """How far the arrival time may lie ahead of now when a request comes."""


def make_rate(per_minute: int, burst: int) -> Rate:
    """`per_minute` ≥ 1. A burst that is larger than the rate is cut to it: never more than a minute's share at once."""
    interval = -(-_MINUTE // per_minute)
    burst = max(1, min(burst, per_minute))
    return Rate(per_minute, burst, interval, (burst - 1) * interval)


def wait(rate: Rate, arrival: int, now: int) -> int:
    """Nanoseconds until a request is admitted; 0 or less when it is now."""
    return arrival - rate.tolerance - now


def advance(rate: Rate, arrival: int, now: int) -> int:
    """The new arrival time after a request was admitted at `now`."""
    return (max(now, arrival)) + rate.interval


def give_back(rate: Rate, arrival: int, own: int, now: int) -> int:
    """The arrival time without a request that was admitted and did not run; `own` is what `advance` returned for it.

    Only what the bucket has not regained since by itself comes back: a full bucket holds no more than its burst.
    """
    return arrival - max(0, min(rate.interval, own - now))


def replay(rate: Rate, history: Iterable[tuple[int, int]], now: int) -> int:
    """The arrival time after requests that were admitted without this rate; the bucket is at worst empty."""
    arrival = 0
    for at, count in history:
        arrival = max(at, arrival) + count * rate.interval
    return min(arrival, now + rate.burst * rate.interval)


def remaining(rate: Rate, arrival: int, now: int) -> int:
    """Requests that would be admitted at `now`, one after the other."""
    if arrival <= now:
        return rate.burst
    return max(0, (rate.tolerance + rate.interval - (arrival - now)) // rate.interval)
