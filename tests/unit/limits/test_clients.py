"""How many requests a client may queue: a burst, then a steady pace, and each client by itself."""

import pytest

from stellwerk.core.errors import RateLimited
from stellwerk.limits.clients import ClientLimits


def take(limits: ClientLimits, count: int, client: str = "a") -> int:
    """How many of so many are let through."""
    taken = 0
    for _ in range(count):
        try:
            limits.take(client)
        except RateLimited:
            continue
        taken += 1
    return taken


def test_a_burst_is_let_through_and_then_one_each_second(clock):
    limits = ClientLimits(60, 10, clock)
    assert take(limits, 15) == 10
    clock.at += 3
    assert take(limits, 15) == 3


def test_who_is_refused_is_told_when_to_come_back(clock):
    limits = ClientLimits(60, 1, clock)
    limits.take("a")
    with pytest.raises(RateLimited) as caught:
        limits.take("a")
    assert caught.value.retry_after == pytest.approx(1)


def test_clients_do_not_share_a_limit(clock):
    limits = ClientLimits(60, 2, clock)
    assert (take(limits, 3, "a"), take(limits, 3, "b")) == (2, 2)


def test_what_is_given_back_can_be_taken_again(clock):
    limits = ClientLimits(60, 2, clock)
    limits.give_back(limits.take("a"))
    assert take(limits, 3) == 2


def test_zero_is_unlimited(clock):
    limits = ClientLimits(0, 1, clock)
    assert take(limits, 1000) == 1000
    limits.give_back(limits.take("a"))
