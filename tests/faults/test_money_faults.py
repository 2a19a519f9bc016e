"""Paid calls while the gateway is killed or its disk is full, against what the upstream itself has written down."""

import asyncio
import random
import signal
import sqlite3
from collections import Counter
from contextlib import closing, suppress

import pytest

from tests.customers import Customer, House
from tests.gateway_process import ADMIN_KEY, GatewayProcess, running_gateway, wait_until
from tests.raw_http import begin, get, hello, post
from tests.scripted_upstream import ScriptedUpstream, Talk, chunk, completion, usage_chunk

PER_CALL, PER_TOKEN = 1_000, 100
"""Micro units."""
MOST_TOKENS = 10
SERVED_BEFORE_A_KILL = 20


def at(upstream: ScriptedUpstream) -> dict:
    provider = {"base_url": upstream.url, "models": ["up"], "api_key": ""}
    return {"providers": {"up": provider}, "upstream": {"attempts": 1}}


async def set_price(house: House) -> None:
    await house.set_price("up/up", per_request=PER_CALL / 1e6, output_per_1m=PER_TOKEN)


def holds_of(gateway: GatewayProcess) -> list[sqlite3.Row]:
    with closing(sqlite3.connect(f"file:{gateway.data / 'stellwerk.db'}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute("SELECT * FROM ledger_holds").fetchall()


# --- a gateway that is killed


class Paused:
    """Answers when it is told to go on, and whoever comes after that at once."""

    def __init__(self) -> None:
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    async def __call__(self, talk: Talk) -> None:
        self.reached.set()
        await self.go_on.wait()
        await talk.answer(completion())


class Journal:
    """An upstream that takes its time and writes down, by the id in each prompt, what it has answered in full."""

    def __init__(self) -> None:
        self.completed: Counter[str] = Counter()
        self.used: dict[str, int] = {}

    async def __call__(self, talk: Talk) -> None:
        body = talk.request.json
        call = body["messages"][0]["content"]
        tokens = self.used[call] = random.randint(1, MOST_TOKENS)
        await asyncio.sleep(random.random() * 0.02)
        if body.get("stream"):
            await talk.start_stream()
            for _ in range(tokens):
                await talk.event(chunk("a"))
            await talk.event(usage_chunk(output=tokens))
            await talk.finish_stream()
        else:
            usage = {"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": 5 + tokens}
            await talk.answer(completion(usage=usage))
        self.completed[call] += 1


class Crowd:
    """Customers who go on calling until the gateway is gone or their money is; each call has an id of its own."""

    def __init__(self) -> None:
        self.paid_in: dict[int, int] = {}
        self.served: set[str] = set()
        self._customers: list[Customer] = []
        self._number = 0

    async def join(self, house: House, paid_in: int) -> None:
        who = await house.make_customer(balance=paid_in / 1e6)
        self.paid_in[who.id] = paid_in
        self._customers.append(who)

    async def go_on(self, port: int) -> None:
        await asyncio.gather(*(self._go_on(port, who) for who in self._customers for _ in range(4)))

    async def _go_on(self, port: int, who: Customer) -> None:
        status = 200
        with suppress(OSError, EOFError):
            while status == 200:
                self._number += 1
                call = f"call-{self._number}"
                body = hello(max_tokens=MOST_TOKENS, stream=self._number % 2 == 0)
                body["messages"][0]["content"] = call
                answer = await post(port, who.key, body, x_request_id=call)
                status = answer.status
                assert status in (200, 402), answer.body
                if status == 200:
                    self.served.add(call)

    async def call_until_killed(self, gateway: GatewayProcess) -> None:
        calling = asyncio.ensure_future(self.go_on(gateway.port))
        enough = len(self.served) + SERVED_BEFORE_A_KILL
        await wait_until(lambda: calling.done() or len(self.served) >= enough)
        # Anywhere between two steps of a call.
        await asyncio.sleep(random.random() * 0.02)
        gateway.signal(signal.SIGKILL)
        await gateway.wait()
        await calling


async def compare(house: House, journal: Journal, crowd: Crowd) -> Counter[str]:
    """The accounts against the journal; how many holds are in which state."""
    report = await house.check()
    assert (report["open_holds"], report["sums"].get("held", 0)) == (0, 0)
    holds = holds_of(house.gateway)
    of_call = {hold["call_id"]: hold for hold in holds}
    assert len(of_call) == len(holds), "a call was billed twice"
    assert set(journal.completed.values()) <= {1}, "a call was sent twice"
    for call in journal.completed.keys() | crowd.served:
        hold = of_call[call]
        if hold["state"] == "settled":
            assert hold["cost"] == PER_CALL + PER_TOKEN * journal.used[call]
        else:
            assert hold["state"] == "estimated"
            assert PER_CALL <= hold["cost"] <= hold["amount"]
    costs: Counter[int] = Counter()
    for hold in holds:
        costs[hold["user_id"]] += hold["cost"]
    for user_id, paid_in in crowd.paid_in.items():
        user = await house.do("GET", f"/admin/api/users/{user_id}")
        assert round(user["balance"] * 1_000_000) == paid_in - costs[user_id] >= 0
    return Counter(hold["state"] for hold in holds)


@pytest.mark.parametrize("kills", [10, pytest.param(200, marks=pytest.mark.slow)])
async def test_a_gateway_that_is_killed_bills_each_completed_call_once(tmp_path, upstream, kills):
    upstream.script = journal = Journal()
    crowd = Crowd()
    async with running_gateway(tmp_path, at(upstream)) as gateway:
        house = House(gateway)
        await set_price(house)
        # The last of them has spent everything before the end.
        for paid_in in (100_000_000, 100_000_000, 40_000):
            await crowd.join(house, paid_in)
        await crowd.call_until_killed(gateway)
    states: Counter[str] = Counter()
    for kill in range(1, kills + 1):
        async with running_gateway(tmp_path, at(upstream)) as gateway:
            states = await compare(House(gateway), journal, crowd)
            if kill < kills:
                await crowd.call_until_killed(gateway)
            else:
                proved = await gateway.run("ledger", "check")
                assert proved.code == 0, proved.output
    assert states["settled"] >= SERVED_BEFORE_A_KILL * kills / 2
    assert states["estimated"], "no call was cut"


async def test_calls_of_the_last_minute_count_for_the_gateway_that_starts_after_a_kill(tmp_path, upstream):
    async with running_gateway(tmp_path, at(upstream)) as gateway:
        house = House(gateway)
        who = await house.make_customer(balance=1, own_limit=None)
        for _ in range(15):
            assert (await house.chat(who, "up/up")).status == 200
        await wait_until(lambda: len(gateway.calls()) == 15)
        upstream.script = script = Paused()
        running = [await begin(gateway.port, who.key, hello()) for _ in range(5)]
        await wait_until(lambda: len(upstream.requests) == 20)
        gateway.signal(signal.SIGKILL)
        await gateway.wait()
        script.go_on.set()
        for exchange in running:
            exchange.close()
    async with running_gateway(tmp_path, at(upstream)) as gateway:
        answers = await asyncio.gather(*(House(gateway).chat(who, "up/up") for _ in range(20)))
        assert Counter(answer.status for answer in answers) == {200: 5, 429: 15}


# --- a disk that is full


async def becomes_ready(gateway: GatewayProcess) -> None:
    async def ready() -> bool:
        return (await get(gateway.port, None, "/health/readiness")).status == 200

    await wait_until(ready)


async def test_a_full_disk_stops_paid_calls_only_and_loses_no_money(tmp_path, upstream):
    upstream.script = script = Paused()
    async with running_gateway(tmp_path, at(upstream)) as gateway:
        house = House(gateway)
        await set_price(house)
        who = await house.make_customer(balance=1)
        unpaid = await house.make_customer("sub")
        running = await begin(gateway.port, who.key, hello(max_tokens=MOST_TOKENS), x_request_id="running")
        async with asyncio.timeout(30):
            await script.reached.wait()
        with gateway.full_disk():
            script.go_on.set()
            assert (await running.read()).status == 200
            for _ in range(3):
                refused = await house.chat(who, "up/up")
                assert (refused.status, refused.error["code"]) == (503, "storage_unavailable")
            assert int(refused.headers["retry-after"]) > 0
            for number, key in enumerate((ADMIN_KEY, unpaid.key)):
                answer = await post(gateway.port, key, hello(), x_request_id=f"unpaid-{number}")
                assert answer.status == 200
            top_up = await post(gateway.port, ADMIN_KEY, {"amount": 1}, f"/admin/api/users/{who.id}/balance")
            assert top_up.status == 503
        await becomes_ready(gateway)
        # What could not be stored while the disk was full is stored now: once.
        assert await house.balance(who) == 1_000_000 - PER_CALL - 2 * PER_TOKEN
        for call in ("running", "unpaid-0", "unpaid-1"):
            assert (await gateway.call(call))["status"] == 200
        assert (await house.chat(who, "up/up", max_tokens=MOST_TOKENS)).status == 200
        report = await house.check()
        assert report["problems"] == []
        assert [hold["state"] for hold in holds_of(gateway) if hold["call_id"] == "running"] == ["settled"]
