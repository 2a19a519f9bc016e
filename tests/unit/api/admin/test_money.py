import pytest


async def test_money_that_comes_in_is_booked_with_its_note(site):
    user = site.make_user()
    path = f"/admin/api/users/{user.id}/balance"
    booked = await site.send("POST", path, {"amount": 25, "note": "Bank transfer 4711"})
    assert booked == {"status": "booked", "user_id": user.id, "balance": 25.0, "held": 0.0, "currency": "EUR"}
    assert (await site.send("POST", path, {"amount": -0.000001}))["balance"] == 24.999999
    lines = await site.get(f"/admin/api/users/{user.id}/ledger")
    assert [(line["kind"], line["amount"], line["note"], line["actor"]) for line in lines] == [
        ("correction", -0.000001, "", "admin"),
        ("top_up", 25.0, "Bank transfer 4711", "admin"),
    ]
    assert site.audited()[:2] == [("balance.correct", f"user:{user.id}"), ("balance.top_up", f"user:{user.id}")]
    [line] = await site.get(f"/admin/api/users/{user.id}/ledger", query=f"before={lines[0]['id']}&limit=1")
    assert line == lines[1]


@pytest.mark.parametrize("amount", [0, 0.0000001, 1e9, -1e9, "25", None, True, 1e300])
async def test_an_amount_that_cannot_be_is_refused(site, amount):
    user = site.make_user()
    exchange = await site.ask("POST", f"/admin/api/users/{user.id}/balance", {"amount": amount})
    assert (exchange.status, exchange.json["error"]["param"]) == (400, "amount")


async def test_no_more_is_taken_than_there_is(site):
    user = site.make_user()
    refused = await site.refused("POST", f"/admin/api/users/{user.id}/balance", {"amount": -1})
    assert refused == (400, "balance_below_zero")
    assert ("balance.correct", f"user:{user.id}") not in site.audited()


async def test_amounts_are_exact_to_the_last_decimal(site):
    user = site.make_user()
    for amount in (0.1, 0.2, 99_999_999.123457, 0.000003):
        after = await site.send("POST", f"/admin/api/users/{user.id}/balance", {"amount": amount})
    assert after["balance"] == 99_999_999.42346


async def test_the_ledger_adds_up(site):
    user = site.make_user()
    await site.send("POST", f"/admin/api/users/{user.id}/balance", {"amount": 3})
    checked = await site.get("/admin/api/ledger/check")
    assert (checked["ok"], checked["problems"], checked["transactions"], checked["entries"]) == (True, [], 1, 2)
    assert (checked["sums"]["available"], checked["sums"]["outside"]) == (3.0, -3.0)


async def test_prices_are_added_and_withdrawn_and_never_changed(site):
    body = {"model": "openai/gpt*", "input_per_1m": 1.25, "output_per_1k": 0.01, "currency": "USD", "note": "list"}
    first = await site.send("POST", "/admin/api/prices", body)
    assert first["prices"] == {"input_per_1m": 1.25, "output_per_1m": 10.0}
    assert (first["currency"], first["in_force"], first["created_by"]) == ("USD", True, "admin")
    site.clock.at += 1
    withdrawn = await site.send("POST", "/admin/api/prices", {"model": "openai/gpt*", "withdrawn": True})
    later = await site.send(
        "POST", "/admin/api/prices", {"model": "demo", "per_request": 0.5, "valid_from": "2030-01-01T00:00:00+01:00"}
    )
    assert (later["valid_from"], later["in_force"], later["currency"]) == ("2029-12-31T23:00:00.000Z", False, "EUR")
    listed = await site.get("/admin/api/prices")
    assert {row["id"] for row in listed} == {first["id"], withdrawn["id"], later["id"]}
    assert not any(row["in_force"] for row in listed)
    assert site.audited()[0] == ("price.add", "price:demo")


@pytest.mark.parametrize(
    "body",
    [
        {"model": "demo"},
        {"model": "", "per_page": 1},
        {"model": "demo", "per_page": -1},
        {"model": "demo", "per_page": 1, "currency": "GBP"},
        {"model": "demo", "per_page": 1, "withdrawn": True},
        {"model": "demo", "input_per_1k": 1, "input_per_1m": 1},
        {"model": "demo", "per_page": 1, "per_word": 1},
        {"per_page": 1},
    ],
    ids=str,
)
async def test_a_price_that_cannot_be_is_refused(site, body):
    assert (await site.refused("POST", "/admin/api/prices", body))[0] == 400
    assert await site.get("/admin/api/prices") == []
