import pytest

from stellwerk.auth.users import read_password
from stellwerk.core.principal import Role, Tier

PATH = "/admin/api/users"


async def test_a_new_user_has_the_documented_shape(site):
    made = await site.send("POST", PATH, {"email": "Ada@Example.org"})
    assert (made["email"], made["tier"], made["role"]) == ("ada@example.org", "payg", "user")
    [listed, *_] = await site.get(PATH)
    assert listed == made
    assert listed["created_at"] == "1970-01-12 13:46:40"
    assert (listed["active"], listed["balance"], listed["key_count"], listed["total_usage"]) == (True, 0.0, 0, None)


async def test_the_list_shows_the_newest_first_with_keys_usage_and_balance(site):
    first = site.make_user("first@example.org")
    second = site.make_user("second@example.org")
    site.make_key(first.id)
    site.record_call(first.id)
    await site.send("POST", f"{PATH}/{first.id}/balance", {"amount": 2.5})
    users = await site.get(PATH)
    assert [user["id"] for user in users[:2]] == [second.id, first.id]
    assert (users[1]["key_count"], users[1]["total_usage"], users[1]["balance"]) == (1, 120, 2.5)
    assert [user["id"] for user in await site.get(PATH, query="search=FIRST")] == [first.id]
    assert [user["id"] for user in await site.get(PATH, query="limit=1&offset=1")] == [first.id]


async def test_an_address_is_taken_once_and_whatever_its_case(site):
    site.make_user("ada@example.org")
    exchange = await site.ask("POST", PATH, {"email": "ADA@example.org"})
    assert (exchange.status, exchange.json["detail"]) == (400, "Email already exists")


async def test_a_user_is_made_with_everything_at_once(site):
    body = {
        "email": "ada@example.org",
        "tier": "sub",
        "name": "Ada",
        "role": "viewer",
        "password": "wide purple sailing boats",
        "balance": 12.345678,
        "models": ["demo"],
        "requests_per_minute": 5,
        "burst": 2,
        "tokens_per_minute": 1000,
        "concurrent_requests": 1,
        "budget": 1.5,
        "budget_window": "day",
    }
    made = await site.send("POST", PATH, body)
    del body["password"]
    assert made["has_password"] is True
    assert made == {**made, **body}
    assert await site.get(f"{PATH}/{made['id']}") == made
    assert site.audited()[:2] == [("balance.top_up", f"user:{made['id']}"), ("user.create", f"user:{made['id']}")]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "email"),
        ({"email": "nobody"}, "email"),
        ({"email": "a@b.c", "tier": "gold"}, "tier"),
        ({"email": "a@b.c", "id": 7}, "id"),
        ({"email": "a@b.c", "has_password": True}, "has_password"),
        ({"email": "a@b.c", "password": "short"}, "password"),
        ({"email": "a@b.c", "password": "aaaaaaaaaaaaaaaa"}, "password"),
        ({"email": "a@b.c", "balance": -1}, "balance"),
        ({"email": "a@b.c", "balance": 0.0000001}, "balance"),
        ({"email": "a@b.c", "budget_window": "day"}, "budget_window"),
        ({"email": "a@b.c", "requests_per_minute": -1}, "requests_per_minute"),
        ({"email": "a@b.c", "name": "a\nb"}, "name"),
    ],
    ids=str,
)
async def test_a_user_who_cannot_be_is_refused_by_the_name_of_the_field(site, body, param):
    exchange = await site.ask("POST", PATH, body)
    assert (exchange.status, exchange.json["error"]["param"]) == (400, param)
    assert len(await site.get(PATH)) == 1


async def test_a_patch_changes_what_it_names_and_nothing_else(site):
    user = site.make_user()
    answer = await site.send("PATCH", f"{PATH}/{user.id}", {"tier": "sub", "requests_per_minute": 9})
    assert answer["status"] == "updated"
    assert (answer["user"]["tier"], answer["user"]["requests_per_minute"]) == ("sub", 9)
    answer = await site.send("PATCH", f"{PATH}/{user.id}", {"burst": 3, "budget": 4})
    assert (answer["user"]["requests_per_minute"], answer["user"]["burst"]) == (9, 3)
    assert (answer["user"]["budget"], answer["user"]["budget_window"]) == (4.0, "month")
    answer = await site.send("PATCH", f"{PATH}/{user.id}", {"budget_window": "week", "requests_per_minute": None})
    assert (answer["user"]["budget"], answer["user"]["budget_window"]) == (4.0, "week")
    assert answer["user"]["requests_per_minute"] is None
    answer = await site.send("PATCH", f"{PATH}/{user.id}", {"budget": None})
    assert (answer["user"]["budget"], answer["user"]["budget_window"]) == (None, None)


async def test_a_balance_that_is_set_is_booked_as_the_difference(site):
    user = site.make_user()
    await site.send("PATCH", f"{PATH}/{user.id}", {"balance": 10})
    answer = await site.send("PATCH", f"{PATH}/{user.id}", {"balance": 7.5})
    assert answer["user"]["balance"] == 7.5
    lines = await site.get(f"{PATH}/{user.id}/ledger")
    assert [(line["kind"], line["amount"], line["actor"]) for line in lines] == [
        ("correction", -2.5, "admin"),
        ("correction", 10.0, "admin"),
    ]


async def test_a_change_that_changes_nothing_leaves_no_record(site):
    user = site.make_user()
    before = site.audited()
    await site.send("PATCH", f"{PATH}/{user.id}", {"tier": "payg", "active": True, "balance": 0})
    await site.send("PATCH", f"{PATH}/{user.id}", {})
    assert site.audited() == before


async def test_the_tier_admin_makes_an_administrator_unless_the_role_is_named(site):
    user = site.make_user()
    path = f"{PATH}/{user.id}"
    assert (await site.send("PATCH", path, {"tier": "admin"}))["user"]["role"] == "admin"
    assert (await site.send("PATCH", path, {"tier": "payg"}))["user"]["role"] == "user"
    assert (await site.send("PATCH", path, {"tier": "admin", "role": "viewer"}))["user"]["role"] == "viewer"
    assert (await site.send("POST", PATH, {"email": "b@example.org", "tier": "admin"}))["role"] == "admin"


async def test_a_disabled_user_is_shut_out_at_once(site):
    user = site.make_user()
    key = site.make_key(user.id)
    assert (await site.get("/user/api/me", key=key))["id"] == user.id
    await site.send("PATCH", f"{PATH}/{user.id}", {"active": False})
    assert await site.refused("GET", "/user/api/me", key=key) == (403, "account_disabled")
    await site.send("PATCH", f"{PATH}/{user.id}", {"active": True})
    assert (await site.get("/user/api/me", key=key))["id"] == user.id


async def test_an_administrator_cannot_lock_himself_out(site):
    user = site.make_user(role=Role.ADMIN, tier=Tier.ADMIN)
    key = site.make_key(user.id, Role.ADMIN)
    for body in ({"active": False}, {"role": "user"}, {"tier": "payg"}):
        assert await site.refused("PATCH", f"{PATH}/{user.id}", body, key=key) == (409, "last_admin")
    assert (await site.get(f"{PATH}/{user.id}"))["role"] == "admin"
    assert (await site.send("PATCH", f"{PATH}/{user.id}", {"active": False}))["user"]["active"] is False


async def test_the_built_in_account_stays_what_it_is(site):
    for body in ({"active": False}, {"role": "user"}, {"email": "a@b.c"}):
        assert await site.refused("PATCH", f"{PATH}/1", body) == (400, "built_in_account")


async def test_a_change_is_undone_whole_when_a_part_of_it_cannot_be(site):
    user = site.make_user()
    site.make_user("other@example.org")
    assert (await site.refused("PATCH", f"{PATH}/{user.id}", {"balance": 5, "email": "other@example.org"}))[0] == 400
    shown = await site.get(f"{PATH}/{user.id}")
    assert (shown["email"], shown["balance"]) == ("ada@example.org", 0.0)


@pytest.mark.parametrize(
    ("method", "tail", "body"),
    [
        ("GET", "", None),
        ("PATCH", "", {"tier": "sub"}),
        ("PUT", "/password", {"password": None}),
        ("POST", "/balance", {"amount": 1}),
        ("GET", "/ledger", None),
        ("GET", "/keys", None),
        ("POST", "/apikey", {}),
    ],
)
async def test_nobody_is_found_under_a_number_that_nobody_has(site, method, tail, body):
    for number in ("999", "0", "-1", "abc", "9" * 400, "1.5", "%31%32%33", "%ff"):
        assert (await site.refused(method, f"{PATH}/{number}{tail}", body))[0] == 404


async def test_a_password_is_stored_encoded_and_can_be_taken_away(site, database):
    user = site.make_user()
    path = f"{PATH}/{user.id}/password"
    assert await site.send("PUT", path, {"password": "wide purple sailing boats"}) == {"status": "updated"}
    assert database.read(lambda c: read_password(c, user.email))[1] == "encoded:25"
    assert await site.send("PUT", path, {"password": None}) == {"status": "updated"}
    assert database.read(lambda c: read_password(c, user.email))[1] is None
    assert site.audited()[:2] == [("user.password", f"user:{user.id}")] * 2


async def test_a_password_appears_in_no_answer_and_no_record(site, database):
    await site.send("POST", PATH, {"email": "a@example.org", "password": "wide purple sailing boats"})
    exchange = await site.ask("POST", PATH, {"email": "b@example.org", "password": "purple purple"})
    assert b"purple" not in exchange.written
    assert b"purple" not in database.path.read_bytes()
    assert "purple" not in str(await site.get("/admin/api/audit"))


async def test_viewers_see_and_change_nothing_and_users_see_nothing(site):
    viewer = site.make_key(None, Role.VIEWER)
    user = site.make_user()
    key = site.make_key(user.id)
    assert len(await site.get(PATH, key=viewer)) >= 2
    assert (await site.refused("POST", PATH, {"email": "b@example.org"}, key=viewer))[0] == 403
    assert (await site.refused("PATCH", f"{PATH}/{user.id}", {"balance": 5}, key=viewer))[0] == 403
    for path in (PATH, f"{PATH}/{user.id}"):
        assert (await site.refused("GET", path, key=key))[0] == 403


async def test_each_change_is_taken_over_at_once(site):
    await site.send("POST", PATH, {"email": "ada@example.org"})
    assert site.changes == 1
    await site.get(PATH)
    assert site.changes == 1
