import base64
import hashlib
import hmac
import re

import pytest

from stellwerk.core.principal import Role
from tests.admin_site import ALLOWED_ORIGIN

PATH = "/admin/api/webhooks"
URL = "https://example.org/hook?token=Canary77"


@pytest.fixture
def add(site):
    async def add(**fields):
        return await site.send("POST", PATH, {"url": URL, "events": ["request.finished"], **fields})

    return add


async def test_a_webhook_is_added_and_its_secret_shown_once(site, add):
    made = await add(events=["key.parked", "request.finished", "key.parked"], description="pager")
    assert re.fullmatch(r"whsec_[\w+/]{43}=", made.pop("secret"))
    assert made == {
        "id": 1,
        "url": URL,
        "events": ["request.finished", "key.parked"],
        "description": "pager",
        "active": True,
        "disabled_reason": None,
        "with_images": False,
        "with_key": False,
        "failing_since": None,
        "created_at": "1970-01-12T13:46:40.000Z",
    }
    assert await site.get(PATH) == [made]
    assert await site.get(f"{PATH}/1") == made
    assert site.webhooks.wants("key.parked")


async def test_neither_the_secret_nor_the_rest_of_the_url_is_kept_in_clear_where_it_is_not_needed(site, add):
    secret = (await add())["secret"]
    await site.send("PATCH", f"{PATH}/1", {"url": "https://example.org/other?token=Canary78"})
    assert "Canary" not in str(await site.get("/admin/api/audit"))
    assert secret[6:].encode() not in b"".join(path.read_bytes() for path in site.database.path.parent.glob("*.db*"))
    assert site.audited()[:2] == [("webhook.change", "webhook:1"), ("webhook.create", "webhook:1")]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"url": "http://127.0.0.1/"}, "url"),
        ({"url": "http://127.0.0.1:9001/"}, "url"),
        ({"url": "http://10.1.2.3/"}, "url"),
        ({"url": "https://localhost/"}, "url"),
        ({"url": "file:///etc/passwd"}, "url"),
        ({"url": "https://user:Kanari@example.org/"}, "url"),
        ({"url": ""}, "url"),
        ({"events": []}, "events"),
        ({"events": ["test"]}, "events[0]"),
        ({"description": "x" * 201}, "description"),
        ({"description": "a\nb"}, "description"),
        ({"secret": "whsec_x"}, "secret"),
        ({"active": False}, "active"),
    ],
    ids=str,
)
async def test_what_cannot_be_a_webhook_is_refused_by_the_name_of_the_field(site, body, param):
    exchange = await site.ask("POST", PATH, {"url": URL, "events": ["request.finished"], **body})
    assert (exchange.status, exchange.json["error"]["param"]) == (400, param)
    assert "Kanari" not in exchange.json["detail"]
    assert await site.get(PATH) == []


async def test_an_origin_that_the_operator_allowed_may_be_private(add):
    assert (await add(url=f"{ALLOWED_ORIGIN}/hook"))["url"] == f"{ALLOWED_ORIGIN}/hook"


async def test_a_name_without_an_address_may_have_one_later(add):
    assert (await add(url="https://nowhere.example.org/"))["active"] is True


async def test_a_webhook_is_changed_in_what_is_named(site, add):
    await add(with_images=True)
    changed = await site.send("PATCH", f"{PATH}/1", {"events": ["budget.reached"], "active": False, "with_key": True})
    assert changed["events"] == ["budget.reached"]
    assert (changed["active"], changed["with_images"], changed["with_key"]) == (False, True, True)
    assert not site.webhooks.wants("request.finished")
    assert await site.refused("PATCH", f"{PATH}/1", {"url": "http://192.168.0.1/"}) == (400, "url_refused")
    assert (await site.get(f"{PATH}/1"))["url"] == URL
    await site.send("PATCH", f"{PATH}/1", {"active": False})
    assert [action for action, _ in site.audited()].count("webhook.change") == 1


async def test_a_test_message_is_signed_and_what_came_of_it_is_shown(site, add):
    secret = (await add())["secret"]
    shown = await site.send("POST", f"{PATH}/1/test")
    assert (shown["event"], shown["state"], shown["attempts"]) == ("test", "delivered", 1)
    [(method, url, headers, body)] = site.sent
    assert (method, url, headers["webhook-id"]) == ("POST", URL, shown["id"])
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{body.decode()}".encode()
    digest = hmac.digest(base64.b64decode(secret.removeprefix("whsec_")), signed, hashlib.sha256)
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"
    assert await site.get(f"{PATH}/1/deliveries") == [shown]
    assert site.audited()[0] == ("webhook.test", "webhook:1")


async def test_a_new_secret_signs_beside_the_old_one(site, add):
    old = (await add())["secret"]
    new = (await site.send("POST", f"{PATH}/1/secret"))["secret"]
    assert new != old
    await site.send("POST", f"{PATH}/1/test")
    [(*_, headers, _)] = site.sent
    assert len(headers["webhook-signature"].split()) == 2
    assert site.audited()[1] == ("webhook.secret", "webhook:1")


async def test_a_failed_message_is_sent_again_under_its_id(site, add):
    await add()
    site.receiver_answers = 500
    failed = await site.send("POST", f"{PATH}/1/test")
    assert (failed["state"], failed["log"][0]["status"]) == ("failed", 500)
    assert (await site.get(f"{PATH}/1"))["failing_since"] is not None
    again = await site.send("POST", f"{PATH}/deliveries/{failed['id']}/retry")
    assert (again["id"], again["state"]) == (failed["id"], "pending")
    assert site.audited()[0] == ("webhook.retry", "webhook:1")
    site.receiver_answers = 204
    site.clock.at += 60
    await site.webhooks.deliver_due()
    assert (await site.get(f"{PATH}/1/deliveries", query="limit=1"))[0]["state"] == "delivered"
    assert await site.refused("POST", f"{PATH}/deliveries/{failed['id']}/retry") == (409, "delivery_gone")


async def test_a_webhook_that_is_off_is_not_tested(site, add):
    await add()
    await site.send("PATCH", f"{PATH}/1", {"active": False})
    assert await site.refused("POST", f"{PATH}/1/test") == (409, "webhook_disabled")
    assert site.sent == []


async def test_a_deleted_webhook_is_told_nothing_and_its_number_is_not_given_again(site, add):
    await add()
    await site.send("POST", f"{PATH}/1/test")
    assert await site.send("DELETE", f"{PATH}/1") == {"status": "deleted"}
    assert site.audited()[0] == ("webhook.delete", "webhook:1")
    assert not site.webhooks.wants("request.finished")
    assert (await add())["id"] == 2


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "9", None),
        ("PATCH", "9", {"active": True}),
        ("DELETE", "9", None),
        ("POST", "9/secret", None),
        ("POST", "9/test", None),
        ("GET", "9/deliveries", None),
        ("POST", f"deliveries/msg_{'0' * 32}/retry", None),
        ("GET", "nine", None),
        ("POST", "deliveries/nine/retry", None),
    ],
)
async def test_what_is_not_there_is_not_found(site, method, path, body):
    assert (await site.refused(method, f"{PATH}/{path}", body))[0] == 404


async def test_only_administrators_see_webhooks(site, add):
    await add()
    viewer = site.make_key(site.make_user("viewer@example.org", role=Role.VIEWER).id, Role.VIEWER)
    for path in (PATH, f"{PATH}/1", f"{PATH}/1/deliveries"):
        assert await site.refused("GET", path, key=viewer) == (403, "permission_denied")
