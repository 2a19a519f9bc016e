"""The ledger against a model of it in plain Python, over processes that come, die and are followed by others."""

import asyncio
import shutil
import tempfile
from concurrent.futures import Future
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from stellwerk.core.call import Call, Operation, Wire
from stellwerk.core.errors import BadRequest, InsufficientCredit
from stellwerk.core.outcome import Estimate
from stellwerk.core.plan import Price
from stellwerk.core.principal import Budget, Principal, Role, Tier, Window
from stellwerk.ledger.accounts import balances, correct, set_balance, top_up
from stellwerk.ledger.budgets import Limit, read_spending, window_bounds
from stellwerk.ledger.charges import Charges, ChargeSettings
from stellwerk.ledger.check import check
from stellwerk.storage.database import FILE_NAME, open_database

USERS = (3, 4, 5)
SUBSCRIBER = 5
KEYS = ("first", "second")
AMOUNTS = st.integers(-5, 60)
BUDGETS = st.none() | st.builds(Budget, amount=st.integers(0, 80), window=st.sampled_from(Window))
DETAILS = {"note": "", "actor": "admin", "currency": "EUR"}


class StandingClock:
    at = 1_700_000_000.0

    def now(self):
        return self.at

    def monotonic(self):
        return self.at


class Running:
    """What the model knows of an open hold."""

    def __init__(self, hold, user, amount, prompt, windows):
        self.hold, self.user, self.amount, self.prompt, self.windows = hold, user, amount, prompt, windows


class LedgerMachine(RuleBasedStateMachine):
    made_once: Path

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="ledger"))
        shutil.copy(self.made_once, self.folder / FILE_NAME)
        self.database = open_database(self.folder)
        self.connection = self.database.writing.connect()
        # Nothing here survives a power cut anyway, and waiting for the disk is most of the time that this takes.
        self.connection.connection.execute("PRAGMA synchronous=OFF")
        self.runner = asyncio.Runner()
        self.clock = StandingClock()
        self.charges = self.new_charges()
        self.available = dict.fromkeys(USERS, 0)
        self.running = []
        self.spent = {}
        self.income = self.written_off = self.outside = 0
        self.budgets = {}
        for user in USERS:
            self.tops_up(user, 40)

    def teardown(self):
        self.runner.run(self.charges.stop())
        self.runner.close()
        self.connection.close()
        self.database.close()
        shutil.rmtree(self.folder)

    def new_charges(self):
        def submit(work):
            future = Future()
            future.set_result(self.in_transaction(work))
            return future

        async def run(work):
            return self.in_transaction(work)

        return Charges(run, submit, self.clock, ChargeSettings(wait_seconds=0, assumed_output_tokens=10))

    def held(self, user):
        return sum(one.amount for one in self.running if one.user == user and user != SUBSCRIBER)

    def held_in(self, window):
        return sum(one.amount for one in self.running if window in one.windows)

    def in_transaction(self, work):
        with self.connection.begin():
            return work(self.connection)

    def write(self, work, *arguments):
        return self.in_transaction(lambda c: work(c, *arguments, now=self.clock.at, **DETAILS))

    def come_in(self, user, amount):
        self.available[user] += amount
        self.outside -= amount

    def pay(self, one, cost):
        """The model's settlement."""
        self.running.remove(one)
        self.income += cost
        for window in one.windows:
            self.spent[window] += cost
        if one.user == SUBSCRIBER:
            self.income -= cost
            return
        paid = min(cost, one.amount + self.available[one.user])
        self.available[one.user] += one.amount - paid
        self.written_off -= cost - paid

    @rule(user=st.sampled_from(USERS), amount=AMOUNTS)
    def tops_up(self, user, amount):
        if amount > 0:
            self.write(top_up, user, amount)
            self.come_in(user, amount)
        else:
            with pytest.raises(BadRequest):
                self.write(top_up, user, amount)

    @rule(user=st.sampled_from(USERS), amount=AMOUNTS)
    def corrects(self, user, amount):
        if amount and self.available[user] + amount >= 0:
            self.write(correct, user, amount)
            self.come_in(user, amount)
        else:
            with pytest.raises(BadRequest):
                self.write(correct, user, amount)

    @rule(user=st.sampled_from(USERS), wanted=st.integers(0, 60))
    def sets_the_balance(self, user, wanted):
        difference = self.write(set_balance, user, wanted)
        assert difference == wanted - self.available[user]
        self.come_in(user, difference)

    @rule(user=st.sampled_from(USERS), key=st.sampled_from(KEYS), of_user=BUDGETS, of_key=BUDGETS)
    def gives_budgets(self, user, key, of_user, of_key):
        self.budgets[user] = of_user
        self.budgets[user, key] = of_key

    @rule(
        user=st.sampled_from(USERS),
        key=st.sampled_from(KEYS),
        price=st.sampled_from([0, 1, 3]),
        prompt=st.integers(0, 15),
        sure=st.integers(0, 15),
        output=st.none() | st.integers(0, 10),
    )
    def calls(self, user, key, price, prompt, sure, output):
        call = self.make_call(user, key)
        sure = min(sure, prompt)
        expected = price * (prompt + (10 if output is None else output))
        least = min(expected, max(1, price * (sure + (1 if output is None else output))))
        windows, free = self.rooms(call.principal)
        estimate = Estimate(input_tokens=prompt, least_input_tokens=sure, output_tokens=output)
        asked = self.charges.hold(call, [Price(input=price * 10**6, output=price * 10**6)], estimate)
        charged = call.principal.is_charged and expected > 0
        if charged and min(free, default=expected) < least:
            with pytest.raises(InsufficientCredit):
                self.runner.run(asked)
            return
        hold = self.runner.run(asked)
        amount = min([expected, *free]) if charged else 0
        assert hold.amount == amount
        if amount:
            if user != SUBSCRIBER:
                self.available[user] -= amount
            self.running.append(Running(hold, user, amount, min(price * prompt, amount), windows))

    def make_call(self, user, key):
        principal = Principal(
            key_id=f"{key} of {user}",
            name=key,
            role=Role.USER,
            user_id=user,
            tier=Tier.SUB if user == SUBSCRIBER else Tier.PAYG,
            budget=self.budgets.get((user, key)),
            user_budget=self.budgets.get(user),
        )
        return Call(
            id="req_1",
            operation=Operation.CHAT,
            wire=Wire.OPENAI_CHAT,
            model="m",
            fields={},
            principal=principal,
            received=0.0,
            deadline=self.clock.at + 60,
        )

    def rooms(self, principal):
        """The windows that a call counts in, and what is free of balance and budgets."""
        free = [self.available[principal.user_id]] if principal.tier is Tier.PAYG else []
        windows = []
        for subject, budget in (
            (f"key:{principal.key_id}", principal.budget),
            (f"user:{principal.user_id}", principal.user_budget),
        ):
            if budget is not None:
                window = (f"{subject}:{budget.window}", window_bounds(budget.window, self.clock.at)[0])
                spent = self.spent.setdefault(window, 0)
                windows.append(window)
                free.append(budget.amount - spent - self.held_in(window))
        return windows, free

    @precondition(lambda self: self.running)
    @rule(data=st.data(), cost=st.integers(0, 70))
    def settles(self, data, cost):
        one = data.draw(st.sampled_from(self.running))
        one.hold.settle(cost)
        one.hold.release()
        self.pay(one, cost)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def releases(self, data):
        one = data.draw(st.sampled_from(self.running))
        one.hold.release()
        one.hold.settle(5)
        self.pay(one, 0)

    @rule()
    def dies_and_is_followed(self):
        ended = [one.hold for one in self.running]
        self.charges = self.new_charges()
        recovered = self.runner.run(self.charges.recover())
        assert sorted(one.cost for one in recovered) == sorted(one.prompt for one in self.running)
        recovered_of = {user: [one.cost for one in recovered if one.user_id == user] for user in USERS}
        for one in list(self.running):
            assert one.prompt in recovered_of[one.user]
            self.pay(one, one.prompt)
        # A voice from the grave changes nothing.
        for hold in ended:
            hold.settle(50)

    @rule(hours=st.sampled_from([0.5, 7, 24, 24 * 8, 24 * 40]))
    def time_passes(self, hours):
        self.clock.at += hours * 3_600

    @invariant()
    def the_ledger_adds_up_and_equals_the_model(self):
        report = self.in_transaction(check)
        assert report.problems == []
        assert report.open_holds == len(self.running)
        found = self.in_transaction(balances)
        for user in USERS:
            balance = found.get(user)
            expected = (self.available[user], self.held(user))
            assert ((balance.available, balance.held) if balance else (0, 0)) == expected
        sums = [report.sums.get(kind, 0) for kind in ("outside", "income", "written_off")]
        assert sums == [self.outside, self.income, self.written_off]

    @invariant()
    def budgets_equal_the_model(self):
        for user in USERS:
            budget = self.budgets.get(user)
            if budget is not None:
                limit = Limit(user_id=user, key_id=None, budget=budget)
                found = self.in_transaction(lambda c, one=limit: read_spending(c, [one], self.clock.at))[0]
                window = (found.subject, found.beginning)
                assert (found.spent, found.held) == (self.spent.get(window, 0), self.held_in(window))


def run_machine(made_once, examples, steps):
    machine = type("Machine", (LedgerMachine,), {"made_once": made_once})
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, suppress_health_check=checks, database=None
        ),
    )


def test_the_ledger_equals_its_model(made_once):
    run_machine(made_once, examples=12, steps=30)


@pytest.mark.slow
def test_the_ledger_equals_its_model_in_a_long_campaign(made_once):
    run_machine(made_once, examples=300, steps=60)
