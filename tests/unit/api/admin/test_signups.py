import pytest

from stellwerk.auth.signups import ask
from stellwerk.core.principal import Tier

PATH = "/admin/api/signups"


@pytest.fixture
def asked(site):
    """The id of a waiting request."""
    site.write(lambda connection: ask(connection, "ada@example.org", Tier.SUB, "<b>Please</b>", now=1_000_000.0))
    return 1


async def test_requests_are_listed_as_they_were_written(site, asked):
    [shown] = await site.get(PATH)
    assert shown == {
        "id": asked,
        "email": "ada@example.org",
        "tier": "sub",
        "message": "<b>Please</b>",
        "status": "pending",
        "created_at": "1970-01-12 13:46:40",
        "decided_at": None,
        "decided_by": None,
        "user_id": None,
    }
    assert await site.get(PATH, query="status=rejected") == []


async def test_an_approval_makes_a_user_and_a_key_that_works(site, asked):
    headers = {b"host": b"llm.example.org"}
    approved = await site.send("POST", f"{PATH}/{asked}/approve", headers=headers)
    assert (approved["status"], approved["email"], approved["tier"]) == ("approved", "ada@example.org", "sub")
    me = await site.get("/user/api/me", key=approved["api_key"])
    assert (me["id"], me["tier"], me["balance"]) == (approved["user_id"], "sub", 0.0)
    for language, word in (("de", "Guten Tag"), ("en", "Hello")):
        body = approved["mail"][language]["body"]
        assert word in body
        assert approved["api_key"] in body
        assert "http://llm.example.org/v1" in body
    [shown] = await site.get(PATH)
    assert (shown["status"], shown["decided_by"], shown["user_id"]) == ("approved", "admin", me["id"])
    assert site.audited()[0] == ("signup.approve", f"signup:{asked}")
    assert approved["api_key"] not in str(await site.get("/admin/api/audit"))


async def test_a_rejection_says_what_to_write(site, asked):
    rejected = await site.send("POST", f"{PATH}/{asked}/reject")
    assert rejected["status"] == "rejected"
    assert set(rejected["mail"]) == {"de", "en"}
    assert (await site.get(PATH))[0]["status"] == "rejected"
    assert site.audited()[0] == ("signup.reject", f"signup:{asked}")


async def test_a_request_is_decided_once(site, asked):
    await site.send("POST", f"{PATH}/{asked}/reject")
    for verb in ("approve", "reject"):
        exchange = await site.ask("POST", f"{PATH}/{asked}/{verb}")
        assert (exchange.status, exchange.json["detail"]) == (400, "Request already processed")


async def test_a_request_that_is_not_there_is_not_decided(site):
    for verb in ("approve", "reject"):
        assert await site.refused("POST", f"{PATH}/99/{verb}") == (404, "signup_not_found")


async def test_an_address_that_is_a_user_by_now_is_not_approved(site, asked):
    site.make_user("ada@example.org")
    exchange = await site.ask("POST", f"{PATH}/{asked}/approve")
    assert (exchange.status, exchange.json["detail"]) == (400, "User already exists")
    assert (await site.get(PATH))[0]["status"] == "pending"
