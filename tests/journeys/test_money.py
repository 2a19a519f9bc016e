"""People who pay, through the whole gateway: what they are charged, what stops them, and how they come and go."""

import asyncio
import math
import time
from collections import Counter
from urllib.parse import urlencode

import pytest
import pytest_asyncio

from tests.customers import Customer, House, ask
from tests.gateway_process import away_from_midnight, best_within, running_gateway, start_gateway, wait_until
from tests.raw_http import Answer, begin, get, hello, post
from tests.scripted_upstream import ScriptedUpstream, Talk, chunk, completion

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODELS = ["each", "measured", "leaving", "broken", "cut", "vectors", "new", "plain"]
USED_TOKENS = 20
"""What an answer of `measured` has, whatever was asked for."""
DELIVERED_EVENTS = 5
"""What a stream of `leaving` sends before it waits for the client to go."""
PASSWORD = "canal boat violin 77"
CENT = 10_000


async def behave(talk: Talk) -> None:
    body = talk.request.json
    model = body["model"]
    if model == "broken":
        await talk.answer({"error": {"message": "no"}}, status=500)
    elif model == "cut":
        talk.cut()
    elif model == "vectors":
        data = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]
        usage = {"prompt_tokens": 8, "total_tokens": 8}
        await talk.answer({"object": "list", "model": model, "data": data, "usage": usage})
    elif model == "leaving":
        await talk.start_stream()
        for _ in range(DELIVERED_EVENTS):
            await talk.event(chunk("a", model=model))
        await talk.left.wait()
    else:
        # Long enough for calls to meet each other.
        await asyncio.sleep(0.005)
        usage = {"prompt_tokens": 5, "completion_tokens": USED_TOKENS, "total_tokens": 5 + USED_TOKENS}
        await talk.answer(completion(model=model, usage=usage))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream():
    server = ScriptedUpstream(behave)
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory, upstream):
    config = {
        "providers": {"up": {"base_url": upstream.url, "models": MODELS, "api_key": ""}},
        "money": {"wait_seconds": 60},
        "upstream": {"attempts": 1},
    }
    async with running_gateway(tmp_path_factory.mktemp("money"), config) as gateway:
        house = House(gateway)
        await house.set_price("up/each", per_request=0.01)
        # A hundred micro units for each token of an answer.
        for name in ("measured", "leaving"):
            await house.set_price(f"up/{name}", output_per_1m=100)
        for name in ("broken", "cut"):
            await house.set_price(f"up/{name}", per_request=0.01)
        await house.set_price("up/vectors", input_per_1m=100)
        yield house


def sent_to(upstream: ScriptedUpstream, model: str) -> int:
    return sum(request.json["model"] == model for request in upstream.requests)


async def many(house: House, who: Customer, number: int, **body) -> Counter[tuple[int, str | None]]:
    """Sends calls at once; how often each status came, with the code of errors."""
    answers = await asyncio.gather(*(post(house.port, who.key, hello(**body)) for _ in range(number)))
    return Counter((one.status, None if one.status == 200 else one.error["code"]) for one in answers)


# --- what a balance pays for


async def test_of_200_calls_at_once_on_a_balance_for_10_exactly_10_are_served(house, upstream):
    who = await house.make_customer(balance=0.1)
    outcome = await many(house, who, 200, model="up/each")
    assert outcome == {(200, None): 10, (402, "insufficient_credits"): 190}
    assert sent_to(upstream, "each") == 10
    assert await house.balance(who) == 0
    await house.check()


async def test_money_that_comes_back_pays_for_those_who_wait(house, upstream):
    # A call holds 50 tokens and uses 20. Nine that were paid and the hold of a tenth are what the balance is for.
    who = await house.make_customer(balance=(9 * 2_000 + 5_000) / 1e6)
    outcome = await many(house, who, 200, model="up/measured", max_tokens=50)
    assert outcome == {(200, None): 10, (402, "insufficient_credits"): 190}
    assert sent_to(upstream, "measured") == 10
    assert await house.balance(who) == 3_000
    await house.check()


async def test_nobody_is_asked_when_there_is_no_money(house, upstream):
    who = await house.make_customer()
    answer = await house.chat(who, "up/each")
    assert (answer.status, answer.error["code"]) == (402, "insufficient_credits")
    before = len(upstream.requests)
    assert (await house.embed(who, "up/vectors")).status == 402
    assert (await house.chat(who, "up/measured", stream=True)).status == 402
    assert len(upstream.requests) == before


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", hello("up/leaving", stream=True, max_tokens=500)),
        ("/v1/responses", {"model": "up/leaving", "input": "Hello", "stream": True, "max_output_tokens": 500}),
    ],
    ids=["chat", "response"],
)
async def test_a_stream_that_the_client_leaves_costs_what_was_delivered(house, path, body):
    who, name = await house.make_customer(balance=1), path.replace("/", "-")
    exchange = await begin(house.port, who.key, body, path, x_request_id=name)
    await exchange.read_head()
    events = 0
    async with asyncio.timeout(30):
        async for piece in exchange.pieces():
            events += piece.count(b'"content":"a"') + piece.count(b'"delta":"a"')
            if events == DELIVERED_EVENTS:
                break
    assert (await house.account(who))[1] == 500 * 100
    exchange.close()
    row = await house.gateway.call(name)
    assert (row["error"], row["estimated"], row["output_tokens"]) == ("client_closed_request", 1, DELIVERED_EVENTS)
    assert await house.balance(who) == 1_000_000 - 100 * DELIVERED_EVENTS


@pytest.mark.parametrize("model", ["up/broken", "up/cut"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_what_an_upstream_failed_to_do_costs_nothing(house, model, stream):
    who = await house.make_customer(balance=0.01)
    answer = await house.chat(who, model, stream=stream)
    assert answer.status == 502
    assert await house.balance(who) == CENT
    # It was given back, so it pays for the next one.
    assert (await house.chat(who, "up/each")).status == 200
    assert await house.balance(who) == 0


async def test_embeddings_cost_what_they_used(house):
    who = await house.make_customer(balance=1)
    assert (await house.embed(who, "up/vectors")).status == 200
    assert await house.balance(who) == 1_000_000 - 8 * 100


async def test_what_was_charged_stands_in_statement_and_usage(house):
    await away_from_midnight()
    who = await house.make_customer(balance=0.05)
    for _ in range(2):
        assert (await house.chat(who, "up/each")).status == 200
    assert await house.balance(who) == 3 * CENT
    lines = (await ask(house.port, "GET", "/user/api/ledger", key=who.key)).json
    assert sum(line["amount"] for line in lines) == pytest.approx(0.03)
    [day] = (await ask(house.port, "GET", "/user/api/usage", key=who.key)).json
    assert (day["requests"], day["tokens_out"], day["cost"]) == (2, 2 * USED_TOKENS, pytest.approx(0.02))


# --- budgets


@pytest.mark.parametrize("tier", ["payg", "sub"])
async def test_a_users_budget_is_not_exceeded(house, tier):
    await away_from_midnight()
    who = await house.make_customer(tier, balance=1, budget=0.03, budget_window="day")
    outcome = await many(house, who, 20, model="up/each")
    assert outcome == {(200, None): 3, (402, "budget_exceeded"): 17}
    answer = await house.chat(who, "up/each")
    assert answer.error["code"] == "budget_exceeded"
    assert 0 < int(answer.headers["retry-after"]) <= 86_400
    assert await house.balance(who) == 1_000_000 - (3 * CENT if tier == "payg" else 0)
    await house.check()


async def test_a_keys_budget_binds_that_key_alone(house):
    await away_from_midnight()
    who = await house.make_customer(balance=1)
    tight = Customer(who.id, who.email, await house.make_key(who.id, budget=0.02, budget_window="month"))
    outcome = await many(house, tight, 10, model="up/each")
    assert outcome == {(200, None): 2, (402, "budget_exceeded"): 8}
    answer = await house.chat(tight, "up/each")
    assert 0 < int(answer.headers["retry-after"]) <= 31 * 86_400
    assert (await house.chat(who, "up/each")).status == 200
    assert await house.balance(who) == 1_000_000 - 3 * CENT


# --- what an operator changes counts at once


async def test_a_top_up_on_the_command_line_counts_at_once(house):
    who = await house.make_customer()
    assert (await house.chat(who, "up/each")).status == 402
    booked = await house.gateway.run("ledger", "top-up", who.email, "0.01", "--note", "cash")
    assert booked.code == 0, booked.errors
    assert (await house.chat(who, "up/each")).status == 200
    assert await house.balance(who) == 0


async def test_a_new_price_counts_from_the_next_call_on(house):
    who = await house.make_customer(balance=1)
    await house.set_price("up/new", per_request=0.01)
    assert (await house.chat(who, "up/new")).status == 200
    assert await house.balance(who) == 1_000_000 - CENT
    await house.set_price("up/new", per_request=0.2)
    assert (await house.chat(who, "up/new")).status == 200
    assert await house.balance(who) == 1_000_000 - 21 * CENT


async def test_a_changed_rate_of_a_tier_counts_at_once(house):
    who = await house.make_customer(balance=1, own_limit=None)
    assert (await house.chat(who, "up/plain")).headers["x-ratelimit-limit-requests"] == "25"
    await house.do("PATCH", "/admin/api/config", {"rate_limits": {"payg": 2}})
    try:
        assert (await house.chat(who, "up/plain")).headers["x-ratelimit-remaining-requests"] == "0"
        assert (await house.chat(who, "up/plain")).status == 429
    finally:
        await house.do("PATCH", "/admin/api/config", {"rate_limits": {"payg": None}})
    answer = await house.chat(who, "up/plain")
    # What was refused has used nothing up.
    assert (answer.status, answer.headers["x-ratelimit-remaining-requests"]) == (200, "22")


# --- rates


async def test_who_pays_as_he_goes_has_25_requests_a_minute(house):
    who = await house.make_customer(balance=1, own_limit=None)
    answers = [await house.chat(who, "up/plain") for _ in range(25)]
    assert [answer.status for answer in answers] == [200] * 25
    left = [int(answer.headers["x-ratelimit-remaining-requests"]) for answer in answers]
    assert left == list(range(24, -1, -1))
    before = await house.balance(who)
    refused = await house.chat(who, "up/plain")
    assert (refused.status, refused.error["type"]) == (429, "rate_limit_error")
    assert refused.headers["x-ratelimit-limit-requests"] == "25"
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    wait, exact = int(refused.headers["retry-after"]), int(refused.headers["retry-after-ms"])
    assert 0 < exact <= 60_000
    assert wait == math.ceil(exact / 1_000)
    assert await house.balance(who) == before
    rate = (await ask(house.port, "GET", "/user/api/ratelimit", key=who.key)).json
    assert (rate["max_per_minute"], rate["remaining"]) == (25, 0)


async def test_of_many_requests_at_once_not_one_too_many_is_admitted(house):
    who = await house.make_customer(balance=1, own_limit=None)
    outcome = await many(house, who, 100, model="up/plain")
    assert outcome == {(200, None): 25, (429, "rate_limit_exceeded"): 75}


async def test_who_waits_as_long_as_he_was_told_is_admitted(house):
    who = await house.make_customer(balance=1, own_limit=600, burst=1)
    for _ in range(5):
        refused: list[Answer] = []
        while not refused:
            # At once: one after the other a slow machine would never be too quick.
            answers = await asyncio.gather(*(house.chat(who, "up/plain") for _ in range(20)))
            refused = [answer for answer in answers if answer.status == 429]
        await asyncio.sleep(max(int(answer.headers["retry-after-ms"]) for answer in refused) / 1_000)
        assert (await house.chat(who, "up/plain")).status == 200


async def test_an_administrator_has_no_limit_and_pays_nothing(house):
    answers = await asyncio.gather(*(post(house.port, house.gateway.key, hello("up/each")) for _ in range(40)))
    assert {answer.status for answer in answers} == {200}
    assert not any(name.startswith("x-ratelimit") for answer in answers for name in answer.headers)


# --- coming and going


@pytest_asyncio.fixture(loop_scope="module")
async def open_door(house):
    await house.do("PATCH", "/admin/api/config", {"signup": {"enabled": True}})
    yield
    await house.do("PATCH", "/admin/api/config", {"signup": {"enabled": None}})


def sign_up(house: House, email: str, tier: str = "payg"):
    return ask(house.port, "POST", "/api/signup", {"email": email, "tier": tier, "message": "Please"})


async def test_sign_up_is_closed_until_an_administrator_opens_it(house):
    answer = await sign_up(house, "new@example.org")
    assert (answer.status, answer.error["code"]) == (403, "signup_closed")


async def test_a_stranger_becomes_a_customer(house, open_door):
    known = await house.make_customer()
    answers = [await sign_up(house, email) for email in ("new@example.org", known.email, "new@example.org")]
    assert {(answer.status, answer.body) for answer in answers} == {(200, answers[0].body)}
    assert len({tuple(sorted(answer.headers)) for answer in answers}) == 1
    assert (await sign_up(house, "other@example.org", "admin")).status == 400

    asked = await house.do("GET", "/admin/api/signups")
    [number] = [one["id"] for one in asked if one["email"] == "new@example.org" and one["status"] == "pending"]
    approved = await house.do("POST", f"/admin/api/signups/{number}/approve")
    new = Customer(approved["user_id"], approved["email"], approved["api_key"])
    assert await house.account(new) == (0, 0)
    assert (await house.chat(new, "up/each")).status == 402
    await house.do("POST", f"/admin/api/users/{new.id}/balance", {"amount": 0.01})
    assert (await house.chat(new, "up/each")).status == 200
    assert (await ask(house.port, "GET", "/admin/api/users", key=new.key)).status == 403


async def test_a_disabled_user_is_refused_at_once(house):
    who = await house.make_customer(balance=1)
    assert (await house.chat(who, "up/each")).status == 200
    await house.do("PATCH", f"/admin/api/users/{who.id}", {"active": False})
    answer = await house.chat(who, "up/each")
    assert (answer.status, answer.error["code"]) == (403, "account_disabled")
    await house.do("PATCH", f"/admin/api/users/{who.id}", {"active": True})
    assert (await house.chat(who, "up/each")).status == 200


async def test_a_user_who_is_disabled_on_the_command_line_is_refused_within_two_seconds(house):
    async def seconds_until_refused() -> float:
        who = await house.make_customer(balance=1)
        assert (await house.gateway.run("users", "disable", who.email)).code == 0
        begun = time.monotonic()

        async def refused() -> bool:
            return (await get(house.port, who.key, "/user/api/me")).status == 403

        await wait_until(refused)
        return time.monotonic() - begun

    await best_within(2.0, seconds_until_refused)


# --- passwords


async def log_in(house: House, **fields: str):
    body = urlencode(fields).encode()
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    return await ask(house.port, "POST", "/auth/token", body, headers=kind)


async def status_of(house: House, token: str) -> int:
    return (await get(house.port, token, "/user/api/me")).status


async def test_a_refresh_token_that_comes_twice_ends_the_login(house):
    who = await house.make_customer(balance=1, password=PASSWORD)
    first = (await log_in(house, username=who.email, password=PASSWORD)).json
    assert await status_of(house, first["access_token"]) == 200
    assert (await post(house.port, first["access_token"], hello("up/each"))).status == 200
    assert await status_of(house, first["refresh_token"]) == 401

    second = await ask(house.port, "POST", "/auth/refresh", {"refresh_token": first["refresh_token"]})
    assert second.status == 200
    assert await status_of(house, second.json["access_token"]) == 200

    again = await ask(house.port, "POST", "/auth/refresh", {"refresh_token": first["refresh_token"]})
    assert (again.status, again.error["code"]) == (401, "invalid_token")
    for token in (first["access_token"], second.json["access_token"]):
        assert await status_of(house, token) == 401
    last = await log_in(house, grant_type="refresh_token", refresh_token=second.json["refresh_token"])
    assert last.status == 401
    # The key has nothing to do with it.
    assert await status_of(house, who.key) == 200


async def test_after_five_wrong_passwords_the_right_one_is_not_even_looked_at(house):
    who = await house.make_customer(password=PASSWORD)
    for number in range(5):
        answer = await log_in(house, username=who.email, password=f"wrong password {number}")
        assert (answer.status, answer.error["message"]) == (401, "Invalid credentials")
    answer = await log_in(house, username=who.email, password=PASSWORD)
    assert (answer.status, answer.error["code"]) == (429, "too_many_attempts")
    assert 0 < int(answer.headers["retry-after"]) <= 900
    # Somebody else is not kept out.
    other = await house.make_customer(password=PASSWORD)
    assert (await log_in(house, username=other.email, password=PASSWORD)).status == 200


async def test_after_all_of_this_the_accounts_add_up(house):
    report = await house.check()
    assert report["open_holds"] == 0
    proved = await house.gateway.run("ledger", "check")
    assert proved.code == 0, proved.output


async def test_another_currency_is_refused_at_the_start_in_a_sentence(tmp_path):
    async with running_gateway(tmp_path) as gateway:
        assert (await gateway.run("users", "create", "ada@example.org", "--balance", "5")).code == 0
        await gateway.stop()
    again = start_gateway(tmp_path, {"money": {"currency": "USD"}})
    assert await again.wait() == 78
    assert again.log.startswith("The ledger is kept in EUR, and the configuration says USD.")
    assert "Traceback" not in again.log
