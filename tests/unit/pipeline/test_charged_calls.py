"""Calls that somebody pays for: held before, settled or given back after."""

import asyncio

import msgspec
import pytest

from stellwerk.core.errors import InsufficientCredit, UpstreamBroken, UpstreamError
from stellwerk.core.plan import Price
from stellwerk.core.principal import Budget, Tier, Window
from tests.port_fakes import ALICE, Pause

PAYS = msgspec.structs.replace(ALICE, tier=Tier.PAYG)
DEAD = UpstreamError("Dead.", may_fall_back=True)


async def test_a_call_of_the_house_is_not_held(line, answer):
    line.play(a=answer(b"one"))
    await line.run()
    assert line.holds == []
    assert line.outcome.cost == 80


@pytest.mark.parametrize(
    "principal",
    [
        PAYS,
        msgspec.structs.replace(ALICE, budget=Budget(amount=5, window=Window.DAY)),
        msgspec.structs.replace(ALICE, tier=Tier.SUB, user_budget=Budget(amount=5, window=Window.MONTH)),
    ],
)
async def test_who_pays_or_has_a_budget_is_held_at_the_price_of_every_target_and_settled(line, answer, principal):
    line.play(a=answer(b"one"))
    await line.run(line.client(principal=principal))
    (hold,) = line.holds
    assert hold.prices == (line.price, line.price)
    assert (hold.settled, hold.released) == ([(80, False)], 0)
    assert (line.outcome.cost, line.outcome.estimated) == (80, False)
    assert line.permits[0].tokens == 30


async def test_a_call_without_money_reaches_nobody_and_uses_up_no_rate(line, answer):
    line.hold_play = InsufficientCredit("Insufficient balance.")
    with pytest.raises(InsufficientCredit):
        await line.run(line.client(principal=PAYS))
    assert (line.permits[0].refunded, line.permits[0].released) == (1, 0)
    assert (line.outcomes, line.gateway.in_flight) == ([], 0)
    assert not any(house.sent for house in line.houses.values())


async def test_a_client_that_leaves_while_money_is_held_uses_up_no_rate(line):
    line.hold_play = Pause()
    going = asyncio.ensure_future(line.run(line.client(principal=PAYS)))
    async with asyncio.timeout(30):
        await line.hold_play.reached.wait()
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going
    assert (line.permits[0].refunded, line.permits[0].released, line.outcomes) == (1, 0, [])


async def test_who_is_shut_out_while_money_is_held_does_not_begin(line):
    line.hold_play = Pause()
    going = asyncio.ensure_future(line.run(line.client(principal=PAYS)))
    async with asyncio.timeout(30):
        await line.hold_play.reached.wait()
    assert line.gateway.cut(lambda _principal: False) == 1
    with pytest.raises(asyncio.CancelledError):
        await going
    assert (line.permits[0].refunded, line.outcomes, line.gateway.in_flight) == (1, [], 0)
    assert not any(house.sent for house in line.houses.values())


async def test_a_call_that_failed_before_it_delivered_anything_is_given_back(line):
    # Chance says which of the two is tried again.
    line.play(a=[DEAD, DEAD], b=[DEAD, DEAD])
    with pytest.raises(UpstreamError):
        await line.run(line.client(principal=PAYS))
    (hold,) = line.holds
    assert (hold.settled, hold.released) == ([], 1)
    assert (line.outcome.usage, line.outcome.cost, line.permits[0].tokens) == (None, None, 0)


async def test_a_stream_that_broke_off_is_paid_by_our_own_count(line, answer):
    line.play(a=answer(b"a" * 40, b"b" * 40, UpstreamBroken("Broke off.")))
    await line.run(line.client(stream=True, principal=PAYS))
    (hold,) = line.holds
    usage = line.outcome.usage
    assert line.outcome.estimated
    assert usage.output_tokens == 20
    assert usage.input_tokens > 0
    assert hold.settled == [(line.outcome.cost, True)]


async def test_an_answer_that_nobody_counted_is_not_free(line, answer):
    line.play(a=answer(b"x"))
    client = line.client(principal=PAYS)
    client.uncounted = True
    await line.run(client)
    assert line.outcome.usage.output_tokens == 1
    assert line.outcome.estimated
    assert line.holds[0].settled[0][0] > 0


async def test_a_model_without_a_price_has_the_price_that_the_operator_set_for_such(line, answer):
    line.price, line.gateway.default_price = None, Price(input=1_000_000, output=1_000_000)
    line.play(a=answer(b"one"))
    await line.run(line.client(principal=PAYS))
    assert line.holds[0].prices == (line.gateway.default_price,) * 2
    assert line.outcome.cost == 30


async def test_for_the_house_a_model_without_a_price_has_no_cost(line, answer):
    line.price, line.gateway.default_price = None, Price(input=1_000_000)
    line.play(a=answer(b"one"))
    await line.run()
    assert line.outcome.cost is None


async def test_the_price_of_a_running_call_stays_what_it_was(line, answer):
    line.price, line.gateway.default_price = None, Price(input=1_000_000, output=1_000_000)
    pause = Pause()
    line.play(a=answer(pause, b"one"))
    going = asyncio.ensure_future(line.run(line.client(principal=PAYS)))
    async with asyncio.timeout(30):
        await pause.reached.wait()
        line.gateway.default_price = Price(input=9_000_000)
        pause.go_on.set()
        await going
    assert line.outcome.cost == 30


async def test_who_pays_enters_a_call_without_a_price_with_something_left_and_keeps_it(line):
    permit = await line.gateway.enter(line.client(principal=PAYS).call, "house/up")
    (hold,) = line.holds
    assert (hold.settled, hold.released) == ([], 1)
    assert (permit.refunded, permit.released) == (0, 0)


async def test_who_has_nothing_left_enters_no_call_and_uses_up_no_rate(line):
    line.hold_play = InsufficientCredit("Insufficient balance.")
    with pytest.raises(InsufficientCredit):
        await line.gateway.enter(line.client(principal=PAYS).call, "house/up")
    assert (line.permits[0].refunded, line.permits[0].released) == (1, 0)


async def test_who_does_not_pay_enters_without_a_hold(line):
    await line.gateway.enter(line.client().call, "house/up")
    assert (line.holds, line.permits[0].refunded) == ([], 0)
