import pytest
from sqlalchemy import insert, select

from stellwerk.auth.keys import api_keys
from stellwerk.core.principal import Allowance, Budget, Priority, Role, Tier, Window
from stellwerk.limits.admit import RateStatus
from tests.admin_site import AdminSite


@pytest.fixture
def site(database, clock):
    return AdminSite(database, clock)


@pytest.fixture
def ada(site):
    return site.make_user("ada@example.org", name="Ada")


@pytest.fixture
def bob(site):
    return site.make_user("bob@example.org")


async def test_me_has_the_documented_shape(site, ada):
    key = site.make_key(ada.id)
    await site.send("POST", f"/admin/api/users/{ada.id}/balance", {"amount": 5})
    me = await site.get("/user/api/me", key=key)
    assert me == {
        "id": ada.id,
        "email": "ada@example.org",
        "name": "Ada",
        "role": "user",
        "tier": "payg",
        "balance": 5.0,
        "held": 0.0,
        "currency": "EUR",
        "created_at": "1970-01-12 13:46:40",
        "api_keys": [
            {
                "id": key[6:16],
                "key_prefix": key[:16],
                "name": "test",
                "created_at": "1970-01-12 13:46:40",
            }
        ],
        "budgets": [],
    }


async def test_budgets_are_shown_with_what_is_left_of_them(site):
    user = site.make_user(budget=Budget(amount=2_000_000, window=Window.MONTH))
    key = site.make_key(user.id, budget=Budget(amount=500_000, window=Window.DAY))
    site.record_call(user.id, key_id=key[6:16], cost=250_000)
    budgets = (await site.get("/user/api/me", key=key))["budgets"]
    assert budgets == [
        {
            "of": "key",
            "window": "day",
            "amount": 0.5,
            "spent": 0.25,
            "held": 0.0,
            "remaining": 0.25,
            "resets_at": "1970-01-13T00:00:00.000Z",
        },
        {
            "of": "user",
            "window": "month",
            "amount": 2.0,
            "spent": 0.25,
            "held": 0.0,
            "remaining": 1.75,
            "resets_at": "1970-02-01T00:00:00.000Z",
        },
    ]


async def test_usage_is_the_callers_own_by_day(site, ada, bob):
    key = site.make_key(ada.id)
    site.record_call(ada.id, cost=250)
    site.record_call(bob.id)
    site.record_call(ada.id, at=site.clock.at - 86_400)
    usage = await site.get("/user/api/usage", key=key)
    assert [day["date"] for day in usage] == ["1970-01-12", "1970-01-11"]
    assert usage[0] == {
        "date": "1970-01-12",
        "tokens_in": 100,
        "tokens_out": 20,
        "cost": 0.00025,
        "requests": 1,
        "avg_latency": 500.0,
    }
    assert len(await site.get("/user/api/usage", key=key, query="days=1")) == 1
    for query in ("days=0", "days=366", "days=x", "days=1&days=2", "user_id=1"):
        assert (await site.refused("GET", "/user/api/usage", key=key, query=query))[0] == 400


async def test_the_rate_limit_is_told_and_999_when_there_is_none(site, ada):
    key = site.make_key(ada.id)
    assert await site.get("/user/api/ratelimit", key=key) == {
        "tier": "payg",
        "max_per_minute": 25,
        "remaining": 24,
        "resets_in": 41,
        "unlimited": False,
    }
    site.rate = RateStatus(limit=None, remaining=None, resets_in=0.0)
    assert await site.get("/user/api/ratelimit", key=key) == {
        "tier": "payg",
        "max_per_minute": 999,
        "remaining": 999,
        "resets_in": 0,
        "unlimited": True,
    }


async def test_models_are_those_that_the_caller_may_use(site, ada):
    assert await site.get("/user/api/models", key=site.make_key(ada.id)) == [
        {
            "name": "demo",
            "type": "text",
            "port": 4801,
            "capabilities": {"text": True, "vision": False, "audio": False, "embedding": False, "tts": False},
        },
        {
            "name": "openai/gpt",
            "type": "vision",
            "port": None,
            "capabilities": {"text": True, "vision": True, "audio": False, "embedding": False, "tts": False},
        },
    ]
    limited = site.make_key(ada.id, models=frozenset({"demo"}))
    assert [model["name"] for model in await site.get("/user/api/models", key=limited)] == ["demo"]


async def test_a_statement_shows_the_own_bookings_and_not_who_made_them(site, ada, bob):
    await site.send("POST", f"/admin/api/users/{ada.id}/balance", {"amount": 5, "note": "Thanks"})
    [line] = await site.get("/user/api/ledger", key=site.make_key(ada.id))
    assert (line["amount"], line["note"], line["actor"]) == (5.0, "Thanks", "")
    assert await site.get("/user/api/ledger", key=site.make_key(bob.id)) == []


async def test_people_make_and_revoke_their_own_keys(site, ada):
    key = site.make_key(ada.id)
    made = await site.send("POST", "/user/api/keys", {"name": "second", "budget": 1, "models": ["demo"]}, key=key)
    assert (made["user_id"], made["role"], made["budget"]) == (ada.id, "user", 1.0)
    assert (await site.get("/user/api/me", key=made["key"]))["id"] == ada.id
    assert site.audited()[0] == ("key.create", f"key:{made['id']}")
    assert await site.send("DELETE", f"/user/api/keys/{made['id']}", key=key) == {"status": "deleted"}
    assert await site.refused("GET", "/user/api/me", key=made["key"]) == (401, "revoked_api_key")
    assert {k["name"]: k["state"] for k in await site.get("/user/api/keys", key=key)} == {
        "test": "active",
        "second": "revoked",
    }
    assert [k["name"] for k in (await site.get("/user/api/me", key=key))["api_keys"]] == ["test"]


async def test_a_foreign_key_is_as_absent_as_one_that_never_was(site, ada, bob):
    key, foreign = site.make_key(ada.id), site.make_key(bob.id)
    answers = {
        (await site.ask("DELETE", f"/user/api/keys/{key_id}", key=key)).written
        for key_id in (foreign[6:16], site.admin[6:16], "aaaaaaaaaa")
    }
    assert len(answers) == 1
    assert (await site.get("/user/api/me", key=foreign))["id"] == bob.id
    assert (await site.refused("POST", "/user/api/keys", {"user_id": bob.id}, key=key))[0] == 400


@pytest.mark.parametrize(
    "limits",
    [
        {"expires_at": 2_000_000.0},
        {"models": frozenset({"demo"})},
        {"networks": ("192.0.2.0/24",)},
        {"priority": Priority.LOW},
        {"budget": Budget(amount=1, window=Window.DAY)},
        {"allowance": Allowance(requests_per_minute=1)},
    ],
    ids=str,
)
async def test_a_key_with_limits_makes_no_key_without(site, ada, limits):
    key = site.make_key(ada.id, **limits)
    assert await site.refused("POST", "/user/api/keys", {}, key=key) == (403, "limited_key")


@pytest.mark.parametrize(
    ("usual", "limit", "status"), [(0, 0, 400), (0, 5, 200), (4, 0, 400), (4, 5, 400), (4, 4, 200), (4, None, 200)]
)
@pytest.mark.parametrize("name", Allowance.__struct_fields__)
async def test_an_own_key_may_only_tighten_what_is_usual(site, ada, name, usual, limit, status):
    site.usual = Allowance(**{name: usual})
    exchange = await site.ask("POST", "/user/api/keys", {name: limit}, key=site.make_key(ada.id))
    assert exchange.status == status
    if status == 400:
        assert exchange.json["error"]["param"] == name


async def test_an_administrator_chooses_the_limits_of_his_own_keys(site):
    site.usual = Allowance(requests_per_minute=4)
    made = await site.send("POST", "/user/api/keys", {"requests_per_minute": 0}, key=site.admin)
    assert made["requests_per_minute"] == 0


async def test_no_key_reaches_further_than_the_one_that_makes_it(site):
    user = site.make_user("root@example.org", role=Role.ADMIN, tier=Tier.ADMIN)
    key = site.make_key(user.id, Role.USER)
    assert (await site.refused("POST", "/user/api/keys", {"role": "admin"}, key=key))[0] == 400
    made = await site.send("POST", "/user/api/keys", {}, key=key)
    assert (await site.refused("GET", "/admin/api/users", key=made["key"]))[0] == 403


async def test_a_lesser_key_cannot_end_a_better_one(site):
    user = site.make_user("root@example.org", role=Role.ADMIN, tier=Tier.ADMIN)
    admin, lesser = site.make_key(user.id, Role.ADMIN), site.make_key(user.id, Role.USER)
    assert await site.refused("DELETE", f"/user/api/keys/{admin[6:16]}", key=lesser) == (403, "permission_denied")
    assert (await site.get("/user/api/me", key=admin))["role"] == "admin"
    assert await site.send("DELETE", f"/user/api/keys/{lesser[6:16]}", key=admin) == {"status": "deleted"}
    assert await site.send("DELETE", f"/user/api/keys/{admin[6:16]}", key=admin) == {"status": "deleted"}


async def test_a_key_whose_ceiling_its_user_does_not_reach_is_like_any_other(site, ada):
    ceiling, plain = site.make_key(ada.id, Role.ADMIN), site.make_key(ada.id)
    assert await site.send("DELETE", f"/user/api/keys/{ceiling[6:16]}", key=plain) == {"status": "deleted"}


async def test_a_viewer_changes_nothing_of_his_own_either(site):
    viewer = site.make_key(None, Role.VIEWER)
    assert (await site.get("/user/api/me", key=viewer))["role"] == "viewer"
    assert (await site.refused("POST", "/user/api/keys", {}, key=viewer))[0] == 403
    assert (await site.refused("DELETE", "/user/api/keys/aaaaaaaaaa", key=viewer))[0] == 403


async def test_keys_that_belong_to_no_user_do_not_reach_each_other(site):
    one, other = site.make_key(None), site.make_key(None)
    assert [key["id"] for key in (await site.get("/user/api/me", key=one))["api_keys"]] == [one[6:16]]
    assert [key["id"] for key in await site.get("/user/api/keys", key=one)] == [one[6:16]]
    assert await site.refused("DELETE", f"/user/api/keys/{other[6:16]}", key=one) == (404, "key_not_found")
    assert await site.refused("POST", "/user/api/keys", {}, key=one) == (403, "shared_account")
    assert await site.send("DELETE", f"/user/api/keys/{one[6:16]}", key=one) == {"status": "deleted"}
    assert (await site.get("/user/api/me", key=other))["email"] == "local"


async def test_one_user_cannot_fill_the_table_of_keys(site, ada):
    key = site.make_key(ada.id)

    def fill(connection):
        row = dict(connection.execute(select(api_keys).where(api_keys.c.user_id == ada.id)).mappings().one())
        rows = [
            row | {"id": f"{n:010}", "digest": n.to_bytes(32), "revision": 100 + n, "revoked_at": 1.0}
            for n in range(1000)
        ]
        connection.execute(insert(api_keys), rows)

    site.write(fill)
    assert await site.refused("POST", "/user/api/keys", {}, key=key) == (409, "too_many_keys")
