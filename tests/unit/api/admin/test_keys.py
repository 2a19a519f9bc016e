import re

import pytest

from stellwerk.core.principal import Role


async def test_a_key_is_shown_once_and_works_at_once(site):
    user = site.make_user()
    made = await site.send("POST", f"/admin/api/users/{user.id}/apikey", {"user_id": user.id, "name": "laptop"})
    assert re.fullmatch(r"sk-sw-[a-z2-7]{10}-[\w-]{43}", made["key"])
    assert made["prefix"] == f"sk-sw-{made['id']}" == made["key"][:16]
    assert (await site.get("/user/api/me", key=made["key"]))["id"] == user.id
    [listed] = await site.get(f"/admin/api/users/{user.id}/keys")
    assert listed["key_prefix"] == made["prefix"]
    assert listed["last_four"] == made["key"][-4:]
    assert listed["state"] == "active"
    secret = made["key"][17:]
    assert secret not in str(listed)
    assert secret not in str(await site.get("/admin/api/audit"))
    assert secret.encode() not in site.database.path.read_bytes()


async def test_a_key_may_be_narrowed_in_every_way(site):
    user = site.make_user()
    body = {
        "name": "robot",
        "expires_at": "2030-01-01T00:00:00Z",
        "models": ["demo"],
        "networks": ["192.0.2.7", "2001:db8::/32"],
        "priority": "low",
        "requests_per_minute": 3,
        "burst": 1,
        "tokens_per_minute": 1000,
        "concurrent_requests": 1,
        "budget": 0.25,
        "budget_window": "day",
    }
    made = await site.send("POST", f"/admin/api/users/{user.id}/apikey", body)
    body |= {"expires_at": "2030-01-01T00:00:00.000Z", "networks": ["192.0.2.7/32", "2001:db8::/32"]}
    assert made == {**made, **body}


async def test_days_to_live_are_counted_from_now(site):
    user = site.make_user()
    made = await site.send("POST", f"/admin/api/users/{user.id}/apikey", {"expires_in_days": 1})
    assert made["expires_at"] == "1970-01-13T13:46:40.000Z"
    site.clock.at += 86_400
    assert await site.refused("GET", "/user/api/me", key=made["key"]) == (401, "expired_api_key")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"user_id": 1}, "user_id"),
        ({"name": ""}, "name"),
        ({"name": "  "}, "name"),
        ({"role": "admin"}, "role"),
        ({"role": "viewer"}, "role"),
        ({"expires_at": "1969-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2030-01-01T00:00:00"}, "expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-12:00"}, "expires_at"),
        ({"expires_at": "2030-01-01T00:00:00Z", "expires_in_days": 3}, "expires_in_days"),
        ({"networks": ["everywhere"]}, "networks"),
        ({"priority": "highest"}, "priority"),
        ({"digest": "AAAA"}, "digest"),
    ],
    ids=str,
)
async def test_a_key_that_cannot_be_is_refused_by_the_name_of_the_field(site, body, param):
    user = site.make_user()
    exchange = await site.ask("POST", f"/admin/api/users/{user.id}/apikey", body)
    assert (exchange.status, exchange.json["error"]["param"]) == (400, param)


async def test_a_key_cannot_be_changed_to_expire_when_no_calendar_reaches(site):
    made = await site.send("POST", f"/admin/api/users/{site.make_user().id}/apikey", {})
    path = f"/admin/api/apikeys/{made['id']}"
    exchange = await site.ask("PATCH", path, {"expires_at": "9999-12-31T23:59:59-12:00"})
    assert (exchange.status, exchange.json["error"]["param"]) == (400, "expires_at")
    answer = await site.send("PATCH", path, {"expires_at": "9999-12-31T23:59:59Z"})
    assert answer["key"]["expires_at"] == "9999-12-31T23:59:59.000Z"
    assert (await site.get("/admin/api/keys"))["total"] >= 1


async def test_a_key_is_at_first_what_its_user_is(site):
    for email, role in (("a@example.org", "user"), ("v@example.org", "viewer"), ("c@example.org", "admin")):
        user = site.make_user(email, role=Role(role))
        made = await site.send("POST", f"/admin/api/users/{user.id}/apikey", {})
        assert (made["role"], made["name"]) == (role, "default")


async def test_a_disabled_user_gets_no_key(site):
    user = site.make_user()
    await site.send("PATCH", f"/admin/api/users/{user.id}", {"active": False})
    assert (await site.refused("POST", f"/admin/api/users/{user.id}/apikey", {}))[0] == 404


async def test_a_key_is_changed_in_what_is_named(site):
    user = site.make_user()
    made = await site.send("POST", f"/admin/api/users/{user.id}/apikey", {"burst": 4, "expires_in_days": 1})
    body = {"name": "new", "requests_per_minute": 5, "budget": 2, "networks": ["192.0.2.0/24"], "models": ["demo"]}
    answer = await site.send("PATCH", f"/admin/api/apikeys/{made['id']}", body)
    assert answer["status"] == "updated"
    assert answer["key"] == {**answer["key"], **body, "burst": 4, "budget_window": "month"}
    assert answer["key"]["expires_at"] == made["expires_at"]
    answer = await site.send("PATCH", f"/admin/api/apikeys/{made['id']}", {"expires_at": None, "networks": None})
    assert (answer["key"]["expires_at"], answer["key"]["networks"]) == (None, None)
    assert site.audited()[:3] == [
        ("key.change", f"key:{made['id']}"),
        ("key.change", f"key:{made['id']}"),
        ("key.create", f"key:{made['id']}"),
    ]


async def test_a_revoked_key_opens_nothing_and_stays_listed(site):
    user = site.make_user()
    made = await site.send("POST", f"/admin/api/users/{user.id}/apikey", {})
    path = f"/admin/api/apikeys/{made['id']}"
    assert await site.send("DELETE", path) == {"status": "deleted"}
    assert await site.refused("GET", "/user/api/me", key=made["key"]) == (401, "revoked_api_key")
    assert await site.send("DELETE", path) == {"status": "deleted"}
    assert [action for action, _ in site.audited()].count("key.revoke") == 1
    [listed] = await site.get(f"/admin/api/users/{user.id}/keys")
    assert listed["state"] == "revoked"
    assert (await site.get(f"/admin/api/users/{user.id}"))["key_count"] == 0


@pytest.mark.parametrize("key_id", ["aaaaaaaaaa", "1", "A" * 10, "a" * 11, "%61", "login-1"])
async def test_no_key_is_found_under_an_id_that_none_has(site, key_id):
    for method, body in (("DELETE", None), ("PATCH", {"name": "x"})):
        assert (await site.refused(method, f"/admin/api/apikeys/{key_id}", body))[0] == 404


async def test_all_keys_are_listed_in_pages_with_their_last_use(site):
    user = site.make_user()
    for n in range(3):
        site.clock.at += 1
        await site.send("POST", f"/admin/api/users/{user.id}/apikey", {"name": f"key-{n}"})
    page = await site.get("/admin/api/keys", query="limit=2")
    assert ([key["name"] for key in page["keys"]], page["total"]) == (["key-2", "key-1"], 4)
    page = await site.get("/admin/api/keys", query="limit=2&offset=2")
    assert [key["name"] for key in page["keys"]] == ["key-0", "test"]
    newest = (await site.get("/admin/api/keys", query="limit=1"))["keys"][0]
    assert newest["last_used_at"] is None
    site.record_call(user.id, key_id=newest["id"], at=1_000_100.0)
    assert (await site.get("/admin/api/keys", query="limit=1"))["keys"][0]["last_used_at"] == "1970-01-12T13:48:20.000Z"
    await site.send("DELETE", f"/admin/api/apikeys/{newest['id']}")
    page = await site.get("/admin/api/keys", query="state=revoked")
    assert ([key["name"] for key in page["keys"]], page["total"]) == (["key-2"], 1)
