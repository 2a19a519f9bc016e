"""The calls of LLM Gateway's administration, accounts and sign-up, as its users wrote them down: with curl."""

import asyncio
import json
import re
import shutil
import subprocess

import pytest

from tests.gateway_process import environment_for, running_gateway

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")

MOMENT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
JSON = ("-H", "Content-Type: application/json")


class Shell:
    """Runs curl; `$KEY` of the documentation is `key`."""

    def __init__(self, gateway, folder):
        self._gateway = gateway
        self._environment = environment_for(folder)
        self.key = gateway.key

    async def curl(self, path, *arguments, key=None):
        """Status and JSON of the answer."""
        process = await asyncio.create_subprocess_exec(
            "curl",
            "-s",
            "-w",
            "\n%{http_code}",
            "-H",
            f"Authorization: Bearer {key or self.key}",
            *arguments,
            f"{self._gateway.url}{path}",
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            output, _ = await process.communicate()
        body, _, status = output.decode().rpartition("\n")
        return int(status), json.loads(body)

    async def ok(self, path, *arguments, **more):
        status, body = await self.curl(path, *arguments, **more)
        assert status == 200, body
        return body


@pytest.fixture
async def shell(tmp_path):
    async with running_gateway(tmp_path / "gateway") as gateway:
        yield Shell(gateway, tmp_path)


async def test_an_administrator_makes_a_user_and_gives_him_a_key_and_a_balance(shell):
    made = await shell.ok(
        "/admin/api/users", "-X", "POST", *JSON, "-d", '{"email": "user@example.com", "tier": "payg"}'
    )
    user_id = made["id"]
    assert made["email"] == "user@example.com"
    status, refused = await shell.curl("/admin/api/users", *JSON, "-d", '{"email": "user@example.com", "tier": "payg"}')
    assert (status, refused["detail"]) == (400, "Email already exists")

    key = await shell.ok(
        f"/admin/api/users/{user_id}/apikey", "-X", "POST", *JSON, "-d", f'{{"user_id": {user_id}, "name": "default"}}'
    )
    assert key["key"].startswith(key["prefix"])
    changed = await shell.ok(
        f"/admin/api/users/{user_id}", "-X", "PATCH", *JSON, "-d", '{"balance": 10.0, "tier": "sub", "active": true}'
    )
    assert changed["status"] == "updated"

    [listed] = [user for user in await shell.ok("/admin/api/users") if user["id"] == user_id]
    assert (listed["balance"], listed["tier"], listed["active"], listed["key_count"]) == (10.0, "sub", True, 1)
    assert listed["total_usage"] is None
    assert MOMENT.fullmatch(listed["created_at"])

    me = await shell.ok("/user/api/me", key=key["key"])
    assert (me["id"], me["email"], me["balance"], me["tier"]) == (user_id, "user@example.com", 10.0, "sub")
    [own] = me["api_keys"]
    assert (own["key_prefix"], own["name"]) == (key["prefix"], "default")
    assert MOMENT.fullmatch(own["created_at"])

    assert await shell.ok(f"/admin/api/apikeys/{own['id']}", "-X", "DELETE") == {"status": "deleted"}
    status, refused = await shell.curl("/user/api/me", key=key["key"])
    assert status == 401
    assert refused["detail"]


async def test_what_curl_announces_as_a_form_is_read_as_json(shell):
    made = await shell.ok("/admin/api/users", "-d", '{"email": "user@example.com"}')
    assert made["tier"] == "payg"


async def test_people_see_their_usage_their_rate_and_their_models(shell):
    made = await shell.ok("/admin/api/users", *JSON, "-d", '{"email": "user@example.com", "tier": "payg"}')
    key = (await shell.ok(f"/admin/api/users/{made['id']}/apikey", *JSON, "-d", "{}"))["key"]
    assert await shell.ok("/user/api/usage?days=7", key=key) == []
    assert await shell.ok("/user/api/models", key=key) == []
    rate = await shell.ok("/user/api/ratelimit", key=key)
    assert (rate["tier"], rate["max_per_minute"], rate["remaining"]) == ("payg", 25, 25)
    assert (await shell.ok("/user/api/ratelimit"))["remaining"] == 999
    summary = await shell.ok("/v1/stats/summary", key=key)
    assert (summary["period"], summary["stats"]["total_requests"]) == ("24h", 0)
    status, refused = await shell.curl("/admin/api/users", key=key)
    assert status == 403
    assert refused["detail"]


async def test_the_configuration_is_read_and_changed(shell):
    shown = await shell.ok("/admin/api/config")
    assert shown["slots"] == {str(port): None for port in range(4801, 4808)}
    assert shown["rate_limits"] == {"payg": 25, "sub": 100}
    assert shown["pricing"] == {"input_per_1k": 0.0001, "output_per_1k": 0.0002}
    assert shell.key not in str(shown)
    changed = await shell.ok("/admin/api/config", "-X", "PATCH", *JSON, "-d", '{"rate_limits": {"payg": 5, "sub": 10}}')
    assert changed["status"] == "updated"
    made = await shell.ok("/admin/api/users", *JSON, "-d", '{"email": "user@example.com"}')
    key = (await shell.ok(f"/admin/api/users/{made['id']}/apikey", *JSON, "-d", "{}"))["key"]
    assert (await shell.ok("/user/api/ratelimit", key=key))["max_per_minute"] == 5


async def test_a_stranger_asks_and_an_administrator_decides(shell):
    request = '{"email": "new@example.com", "tier": "sub", "message": "Please"}'
    status, refused = await shell.curl("/api/signup", "-X", "POST", *JSON, "-d", request)
    assert status == 403, refused
    await shell.ok("/admin/api/config", "-X", "PATCH", *JSON, "-d", '{"signup": {"enabled": true}}')
    asked = await shell.ok("/api/signup", "-X", "POST", *JSON, "-d", request)
    assert asked["status"] == "pending"
    status, _ = await shell.curl("/api/signup", *JSON, "-d", '{"email": "evil@example.com", "tier": "admin"}')
    assert status == 400

    [waiting] = await shell.ok("/admin/api/signups")
    assert (waiting["email"], waiting["status"]) == ("new@example.com", "pending")
    approved = await shell.ok(f"/admin/api/signups/{waiting['id']}/approve", "-X", "POST")
    assert (approved["status"], approved["email"], approved["tier"]) == ("approved", "new@example.com", "sub")
    assert (await shell.ok("/user/api/me", key=approved["api_key"]))["id"] == approved["user_id"]

    for verb in ("approve", "reject"):
        status, refused = await shell.curl(f"/admin/api/signups/{waiting['id']}/{verb}", "-X", "POST")
        assert (status, refused["detail"]) == (400, "Request already processed")
        assert (await shell.curl(f"/admin/api/signups/99/{verb}", "-X", "POST"))[0] == 404


async def test_everybody_may_look_at_models_and_uptime(shell):
    assert await shell.ok("/api/models") == {"models": []}
    uptime = await shell.ok("/api/uptime?days=30")
    assert uptime["days"] == 30
    assert set(uptime) >= {"days", "overall_uptime_percent", "daily"}
