import asyncio
import threading
from concurrent.futures import Future

import pytest
from sqlalchemy import event, select

from stellwerk.core.errors import InsufficientCredit, Unavailable
from stellwerk.core.outcome import Estimate
from stellwerk.core.plan import Price
from stellwerk.core.principal import Budget, Tier, Window
from stellwerk.ledger.holds import OPEN, holds
from stellwerk.storage.failures import storage_unavailable

A_TOKEN = [Price(input=1_000_000)]
"""One micro unit."""


def tokens(expected, least=None):
    return Estimate(input_tokens=expected, least_input_tokens=expected if least is None else least, output_tokens=0)


@pytest.fixture
def stored(writer):
    """Waits until everything that was submitted so far is in the database."""
    return lambda: writer.run(lambda connection: None)


@pytest.fixture
def states(database):
    return lambda: database.read(lambda c: c.execute(select(holds.c.state)).scalars().all())


async def soon(condition):
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # what is waited for happens in threads
            await asyncio.sleep(0.001)


class FailingFirst:
    """A writer whose disk is full for its first works."""

    def __init__(self, submit, failures=0):
        self.submit, self.failures, self.refused = submit, failures, 0

    def __call__(self, work):
        if self.refused < self.failures:
            self.refused += 1
            future = Future()
            future.set_exception(storage_unavailable())
            return future
        return self.submit(work)


async def test_a_call_holds_and_pays(charges, call, pay_in, balance_of, stored):
    pay_in(100)
    hold = await charges.hold(call(), A_TOKEN, tokens(30))
    assert hold.amount == 30
    assert balance_of() == (70, 30)
    hold.settle(12)
    await stored()
    assert balance_of() == (88, 0)


async def test_a_call_that_failed_costs_nothing(charges, call, pay_in, balance_of, stored):
    pay_in(100)
    hold = await charges.hold(call(), A_TOKEN, tokens(30))
    hold.release()
    await stored()
    assert balance_of() == (100, 0)


async def test_a_hold_ends_once(charges, call, pay_in, balance_of, stored):
    pay_in(100)
    hold = await charges.hold(call(), A_TOKEN, tokens(30))
    hold.settle(10, estimated=True)
    hold.settle(20)
    hold.release()
    await stored()
    assert balance_of() == (90, 0)


async def test_a_free_model_can_be_used_without_money(charges, call, states, stored):
    hold = await charges.hold(call(), [Price()], tokens(30))
    assert hold.amount == 0
    hold.settle(0)
    await stored()
    assert states() == []


async def test_who_is_not_charged_holds_nothing(charges, call, states, stored):
    (await charges.hold(call(tier=Tier.ADMIN), A_TOKEN, tokens(30))).settle(5)
    await stored()
    assert states() == []


async def test_who_has_no_money_is_refused_at_once(charges, call, states):
    with pytest.raises(InsufficientCredit) as refused:
        await charges.hold(call(), A_TOKEN, tokens(30))
    assert refused.value.code == "insufficient_credits"
    assert states() == []


async def test_a_budget_that_is_used_up_says_when_it_begins_anew(charges, call, clock, stored):
    spender = call(tier=Tier.SUB, budget=Budget(amount=10, window=Window.DAY))
    (await charges.hold(spender, A_TOKEN, tokens(10))).settle(10)
    with pytest.raises(InsufficientCredit) as refused:
        await charges.hold(spender, A_TOKEN, tokens(1))
    assert refused.value.code == "budget_exceeded"
    clock.at += refused.value.retry_after
    (await charges.hold(spender, A_TOKEN, tokens(1))).settle(1)


async def test_of_200_calls_exactly_as_many_are_served_as_the_balance_pays(charges, call, pay_in, balance_of, stored):
    pay_in(10_000)

    async def served(n):
        try:
            hold = await charges.hold(call(call_id=f"req_{n}"), A_TOKEN, tokens(1_300, 500))
        except InsufficientCredit:
            return False
        await asyncio.sleep(0)
        hold.settle(1_000)
        return True

    results = await asyncio.gather(*map(served, range(200)))
    await stored()
    assert sum(results) == 10
    assert balance_of() == (0, 0)


async def test_a_call_waits_for_money_that_another_gives_back(charges, call, pay_in, balance_of, stored):
    pay_in(10)
    first = await charges.hold(call(), A_TOKEN, tokens(8))
    waiting = asyncio.create_task(charges.hold(call(call_id="req_2"), A_TOKEN, tokens(9)))
    await soon(lambda: charges.waiting == 1)
    assert not waiting.done()
    first.settle(1)
    async with asyncio.timeout(30):
        second = await waiting
    assert second.amount == 9
    second.release()
    await stored()
    assert balance_of() == (9, 0)


async def test_a_small_call_does_not_wait_behind_a_large_one(charges, call, pay_in):
    pay_in(10)
    first = await charges.hold(call(), A_TOKEN, tokens(8))
    large = asyncio.create_task(charges.hold(call(), A_TOKEN, tokens(10)))
    await soon(lambda: charges.waiting == 1)
    assert (await charges.hold(call(), A_TOKEN, tokens(2))).amount == 2
    small = asyncio.create_task(charges.hold(call(), A_TOKEN, tokens(3)))
    await soon(lambda: charges.waiting == 2)
    first.release()
    assert (await asyncio.wait_for(small, 30)).amount == 3
    assert not large.done()
    large.cancel()


async def test_what_another_process_gives_back_is_seen(charging, call, pay_in):
    pay_in(10)
    here, there = charging(), charging()
    first = await there.hold(call(), A_TOKEN, tokens(10))
    waiting = asyncio.create_task(here.hold(call(), A_TOKEN, tokens(10)))
    await soon(lambda: here.waiting == 1)
    first.release()
    assert (await asyncio.wait_for(waiting, 30)).amount == 10


async def test_who_has_waited_enough_takes_what_there_is_or_is_refused(charging, call, pay_in, clock):
    pay_in(10)
    charges = charging(wait_seconds=5)
    await charges.hold(call(), A_TOKEN, tokens(6))
    modest = asyncio.create_task(charges.hold(call(), A_TOKEN, tokens(8, 3)))
    greedy = asyncio.create_task(charges.hold(call(), A_TOKEN, tokens(8, 5)))
    await soon(lambda: charges.waiting == 2)
    clock.at += 6
    assert (await asyncio.wait_for(modest, 30)).amount == 4
    with pytest.raises(InsufficientCredit, match="still running"):
        await asyncio.wait_for(greedy, 30)


async def test_nobody_waits_longer_than_the_call_may_take(charges, call, pay_in, clock):
    pay_in(10)
    await charges.hold(call(), A_TOKEN, tokens(6))
    with pytest.raises(InsufficientCredit):
        await charges.hold(call(deadline=clock.at), A_TOKEN, tokens(8))


async def test_a_line_has_its_length(charging, call, pay_in):
    pay_in(10)
    charges = charging(waiting_calls=1)
    first = await charges.hold(call(), A_TOKEN, tokens(6))
    waiting = asyncio.create_task(charges.hold(call(), A_TOKEN, tokens(8)))
    await soon(lambda: charges.waiting == 1)
    with pytest.raises(InsufficientCredit):
        await charges.hold(call(), A_TOKEN, tokens(8))
    first.release()
    await waiting


async def test_users_do_not_wait_for_each_other(charges, call, pay_in):
    pay_in(10)
    pay_in(10, user_id=8)
    await charges.hold(call(), A_TOKEN, tokens(10))
    waiting = asyncio.create_task(charges.hold(call(), A_TOKEN, tokens(10)))
    await soon(lambda: charges.waiting == 1)
    assert (await charges.hold(call(user_id=8), A_TOKEN, tokens(10))).amount == 10
    waiting.cancel()


async def test_a_client_that_left_in_line_holds_nothing(charges, call, pay_in, balance_of, stored):
    pay_in(10)
    first = await charges.hold(call(), A_TOKEN, tokens(10))
    waiting = asyncio.create_task(charges.hold(call(), A_TOKEN, tokens(5)))
    await soon(lambda: charges.waiting == 1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    first.release()
    await stored()
    assert charges.waiting == 0
    assert balance_of() == (10, 0)


@pytest.fixture
def busy(writer):
    """Keeps the writer in a transaction until the returned event is set."""
    entered, let_go = threading.Event(), threading.Event()

    def work(connection):
        entered.set()
        assert let_go.wait(30)

    def begin():
        writer.submit(work)
        assert entered.wait(30)
        return let_go

    yield begin
    let_go.set()


async def test_a_client_that_left_before_its_hold_was_begun_holds_nothing(charges, call, pay_in, busy, states, stored):
    pay_in(10)
    let_go = busy()
    leaving = asyncio.create_task(charges.hold(call(), A_TOKEN, tokens(10)))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    let_go.set()
    await stored()
    assert states() == []


async def test_a_client_that_left_during_the_commit_gets_its_money_back(charges, call, pay_in, database, states):
    pay_in(10)
    committing, go_on = threading.Event(), threading.Event()

    def slow_commit(connection):
        if not committing.is_set():
            committing.set()
            assert go_on.wait(30)

    event.listen(database.writing, "commit", slow_commit)
    leaving = asyncio.create_task(charges.hold(call(), A_TOKEN, tokens(10)))
    await asyncio.to_thread(committing.wait, 30)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    go_on.set()
    await soon(lambda: states() == ["released"])


async def test_a_client_that_leaves_in_the_moment_of_the_commit_gets_its_money_back(
    charging, call, pay_in, database, states
):
    pay_in(10)
    leaving = None

    def at_once(work):
        # The commit is through and the client leaves before the call has heard of it.
        future = Future()
        future.set_result(database.write(work))
        if leaving is not None and not leaving.done():
            asyncio.get_running_loop().call_soon(leaving.cancel)
        return future

    charges = charging(at_once)
    leaving = asyncio.create_task(charges.hold(call(), A_TOKEN, tokens(10)))
    with pytest.raises(asyncio.CancelledError):
        await leaving
    await soon(lambda: states() == ["released"])


@pytest.mark.parametrize("steps", range(8))
async def test_a_client_that_leaves_the_line_while_it_is_served_gets_its_money_back(
    charging, call, pay_in, database, balance_of, steps
):
    pay_in(10)
    loop, armed, leaving = asyncio.get_running_loop(), False, None

    def leave_after(steps):
        loop.call_soon(leave_after, steps - 1) if steps else leaving.cancel()

    def at_once(work):
        future = Future()
        future.set_result(database.write(work))
        nonlocal armed
        if armed:
            armed = False
            leave_after(steps)
        return future

    charges = charging(at_once)
    first = await charges.hold(call(), A_TOKEN, tokens(10))
    leaving = asyncio.create_task(charges.hold(call(), A_TOKEN, tokens(10)))
    await soon(lambda: charges.waiting == 1)
    first.release()
    armed = True
    try:
        (await leaving).release()
    except asyncio.CancelledError:
        assert not armed
    await soon(lambda: charges.waiting == 0 and balance_of() == (10, 0))


async def test_clients_that_leave_at_any_moment_leave_nothing_on_hold(charges, call, pay_in, balance_of, stored):
    pay_in(1_000)

    async def visit(n):
        asking = asyncio.create_task(charges.hold(call(), A_TOKEN, tokens(300)))
        for _ in range(n % 25):
            await asyncio.sleep(0)
        if n % 3:
            asking.cancel()
        try:
            (await asking).settle(1)
        except asyncio.CancelledError:
            return 0
        return 1

    paid = sum(await asyncio.gather(*map(visit, range(150))))
    await soon(lambda: charges.waiting == 0)
    # What was given back in the writer's thread comes through the loop.
    await stored()
    await asyncio.sleep(0)
    await stored()
    assert balance_of() == (1_000 - paid, 0)


async def test_a_full_disk_refuses_a_hold(charging, writer, call, pay_in, balance_of):
    pay_in(10)
    charges = charging(FailingFirst(writer.submit, failures=1))
    with pytest.raises(Unavailable):
        await charges.hold(call(), A_TOKEN, tokens(5))
    assert (await charges.hold(call(), A_TOKEN, tokens(5))).amount == 5


async def test_what_a_full_disk_did_not_take_is_stored_later(charging, writer, call, pay_in, balance_of):
    pay_in(10)
    disk = FailingFirst(writer.submit)
    charges = charging(disk)
    first, second = [await charges.hold(call(), A_TOKEN, tokens(5)) for _ in range(2)]
    disk.failures = 7
    first.settle(3)
    second.release()
    await soon(lambda: charges.unstored == 2)
    await soon(lambda: charges.unstored == 0)
    assert disk.refused == 7
    assert balance_of() == (7, 0)


async def test_a_line_hears_when_the_disk_is_full(charging, writer, call, pay_in):
    pay_in(10)
    disk = FailingFirst(writer.submit)
    charges = charging(disk)
    await charges.hold(call(), A_TOKEN, tokens(5))
    waiting = asyncio.create_task(charges.hold(call(), A_TOKEN, tokens(8)))
    await soon(lambda: charges.waiting == 1)
    disk.failures = 1
    with pytest.raises(Unavailable):
        await asyncio.wait_for(waiting, 30)
    assert charges.waiting == 0


async def test_memory_for_what_is_not_stored_is_bounded(charging, writer, call, pay_in, balance_of, states):
    pay_in(10)
    disk = FailingFirst(writer.submit)
    charges = charging(disk, unstored=2)
    held = [await charges.hold(call(), A_TOKEN, tokens(2)) for _ in range(4)]
    disk.failures = 8
    for hold in held:
        hold.settle(1)
    await soon(lambda: charges.lost == 2)
    await soon(lambda: charges.unstored == 0)
    assert sorted(states()) == ["open", "open", "settled", "settled"]
    recovered = await charging().recover()
    assert [one.cost for one in recovered] == [2, 2]
    assert balance_of() == (4, 0)


async def test_stopping_hands_everything_to_the_writer(charging, writer, call, pay_in, balance_of, stored):
    pay_in(10)
    disk = FailingFirst(writer.submit)
    charges = charging(disk, longest_retry_seconds=60)
    hold = await charges.hold(call(), A_TOKEN, tokens(6))
    waiting = asyncio.create_task(charges.hold(call(), A_TOKEN, tokens(8)))
    await soon(lambda: charges.waiting == 1)
    disk.failures = 1
    hold.settle(3)
    await soon(lambda: charges.unstored == 1)
    await charges.stop()
    with pytest.raises(Unavailable):
        await waiting
    await stored()
    assert balance_of() == (7, 0)


async def test_a_start_closes_what_a_dead_process_left_open(charging, call, pay_in, balance_of, states):
    pay_in(10)
    dead = charging()
    await dead.hold(call(), A_TOKEN, tokens(4))
    alive = charging()
    mine = await alive.hold(call(), A_TOKEN, tokens(3))
    assert [(one.user_id, one.cost) for one in await alive.recover()] == [(7, 4)]
    assert balance_of() == (3, 3)
    assert sorted(states()) == ["estimated", OPEN]
    mine.release()
    assert await alive.recover() == []
