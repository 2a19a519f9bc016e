import asyncio
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.api._endpoints import Registry
from stellwerk.api._guard import Routes
from stellwerk.api.public import PublicAPI, SignupBody
from stellwerk.auth.signups import list_signups
from stellwerk.auth.users import NewUser, check_email, create_user, list_users
from stellwerk.core.call import Operation
from stellwerk.core.plan import Model
from stellwerk.http.router import Router
from stellwerk.records.uptime import UptimeStatus, record
from stellwerk.storage.writer import Writer, WriterSettings
from tests.port_fakes import RecordedExchange, StillClock

DAY = 86_400


class NobodysKeys:
    def authenticate(self, token):
        raise AssertionError("an open route looks at no key")


class Watch:
    def refused(self, code): ...


class Site:
    def __init__(self, database, writer):
        self.database = database
        self.open = True
        self.models, self.aliases = [], set()
        self.clock = StillClock()
        self.fetches = 0
        self.router = Router()
        self.registry = Registry(Routes(self.router, NobodysKeys(), Watch()))
        api = PublicAPI(
            run=writer.run,
            fetch=self._fetch,
            models=lambda: self.models,
            aliases=lambda: self.aliases,
            signup_enabled=lambda: self.open,
            clock=self.clock,
        )
        api.register(self.registry)

    async def _fetch(self, work):
        self.fetches += 1
        return await self.database.fetch(work)

    async def get(self, path, query=b""):
        exchange = RecordedExchange(method="GET", path=path, query=query)
        await self.router.find(path)["GET"](exchange)
        return exchange

    async def sign_up(self, email="ada@example.org", *, peer="192.0.2.1", **fields):
        body = json.dumps({"email": email, **fields}).encode()
        exchange = RecordedExchange(path="/api/signup", body=body, peer=peer)
        await self.router.find("/api/signup")["POST"](exchange)
        return exchange

    @property
    def signups(self):
        return self.database.read(list_signups)

    def check(self, at, status=UptimeStatus.UP):
        self.database.write(lambda connection: record(connection, status, 2, 1.5, at=at))


@pytest.fixture
def writer(database):
    writer = Writer(database.writing, WriterSettings(gather_seconds=0.001))
    yield writer
    writer.close(within=2)


@pytest.fixture
def site(database, writer):
    return Site(database, writer)


def test_every_route_is_open_and_documented(site):
    assert [(endpoint.method, endpoint.path) for endpoint in site.registry.endpoints] == [
        ("GET", "/api/uptime"),
        ("GET", "/api/models"),
        ("POST", "/api/signup"),
    ]
    for endpoint in site.registry.endpoints:
        assert not endpoint.access
        assert endpoint.summary
        assert endpoint.example is not None


# --- uptime


async def test_the_uptime_is_shown_as_documented(site):
    now = site.clock.now()
    site.check(now - 600)
    site.check(now - 300, UptimeStatus.DEGRADED)
    exchange = await site.get("/api/uptime")
    assert exchange.status == 200
    assert exchange.json == {
        "days": 30,
        "overall_uptime_percent": 100.0,
        "daily": [
            {
                "date": "2023-11-14",
                "status": "degraded",
                "uptime_percent": 100.0,
                "avg_latency_ms": 1.5,
                "avg_models": 2.0,
            }
        ],
    }


async def test_as_many_days_are_shown_as_are_asked_for(site):
    site.check(site.clock.now() - 100 * DAY)
    for days in (1, 7, 30, 31, 90):
        answer = (await site.get("/api/uptime", b"days=%d" % days)).json
        assert (answer["days"], len(answer["daily"])) == (days, days)
    assert len((await site.get("/api/uptime", b"days=365")).json["daily"]) == 101


@pytest.mark.parametrize(
    "query", [b"days=0", b"days=366", b"days=x", b"days=", b"days=1.5", b"days=1&days=2", b"weeks=2"]
)
async def test_other_queries_are_refused_by_name(site, query):
    exchange = await site.get("/api/uptime", query)
    assert (exchange.status, exchange.json["error"]["param"]) == (400, query.partition(b"=")[0].decode())


async def test_the_history_is_read_once_a_minute_however_often_it_is_asked_for(site):
    await asyncio.gather(*(site.get("/api/uptime", b"days=%d" % days) for days in range(1, 61)))
    assert site.fetches == 2
    site.check(site.clock.now())
    site.clock.seconds += 59
    assert (await site.get("/api/uptime")).json["daily"] == []
    site.clock.seconds += 1
    assert len((await site.get("/api/uptime")).json["daily"]) == 1
    assert site.fetches == 3


# --- models


async def test_strangers_see_the_machines_own_models_and_the_names_of_the_config(site):
    site.models = [
        Model(provider="local", name="demo", id="demo", local=True),
        Model(provider="local", name="e", id="embed", local=True, operations=frozenset({Operation.EMBEDDING})),
        Model(provider="openai", name="gpt", id="openai/gpt"),
        Model(provider="openai", name="gpt", id="fast", input_modalities=("text", "image")),
    ]
    site.aliases = {"fast", "leads-nowhere"}
    exchange = await site.get("/api/models")
    assert (exchange.status, exchange.json) == (
        200,
        {
            "models": [
                {"id": "demo", "type": "text", "status": "online"},
                {"id": "embed", "type": "embedding", "status": "online"},
                {"id": "fast", "type": "vision", "status": "online"},
            ]
        },
    )


# --- sign-up


async def test_sign_up_is_refused_while_it_is_closed_and_nothing_is_stored(site):
    site.open = False
    exchange = await site.sign_up()
    assert (exchange.status, exchange.json["error"]["code"]) == (403, "signup_closed")
    assert exchange.json["detail"] == "Sign-up is closed. Ask the operator for an account."
    assert site.signups == []
    site.open = True
    assert (await site.sign_up()).status == 200


async def test_a_request_waits_for_an_admin(site):
    exchange = await site.sign_up("Ada@Example.org", tier="sub", message="Hello")
    assert (exchange.status, exchange.json["status"]) == (200, "pending")
    (signup,) = site.signups
    assert (signup.email, signup.tier, signup.message, signup.created_at) == (
        "ada@example.org",
        "sub",
        "Hello",
        site.clock.now(),
    )
    assert site.database.read(list_users) == []


async def test_the_answer_is_the_same_for_new_repeated_and_known_addresses(site, database):
    database.write(lambda connection: create_user(connection, NewUser(email="user@example.org"), now=1.0))
    answers = [await site.sign_up(email) for email in ("ada@example.org", "ada@example.org", "user@example.org")]
    assert len({(answer.status, answer.written) for answer in answers}) == 1
    assert {tuple(name for name, _ in answer.sent_headers) for answer in answers} == {
        tuple(name for name, _ in answers[0].sent_headers)
    }
    assert [signup.email for signup in site.signups] == ["ada@example.org"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tier": "admin"}, "tier"),
        ({"tier": None}, "tier"),
        ({"tier": "PAYG"}, "tier"),
        ({"email": "nobody"}, "email"),
        ({"email": "admin"}, "email"),
        ({"email": "a@b\nBcc: c@d"}, "email"),
        ({"email": "\u0430da@example.org"}, "email"),
        ({"email": "ada@ex\u0430mple.org"}, "email"),
        ({"email": 5}, "email"),
        ({"email": "a" * 255}, "email"),
        ({"message": "x" * 2001}, "message"),
        ({"message": ["x"]}, "message"),
        ({"role": "admin"}, "role"),
        ({"balance": 100}, "balance"),
    ],
)
async def test_whatever_else_is_asked_for_is_refused_by_name(site, fields, param):
    exchange = await site.sign_up(**{"email": "ada@example.org", **fields})
    assert (exchange.status, exchange.json["error"]["param"]) == (400, param)
    assert site.signups == []


async def test_one_sender_may_ask_five_times_an_hour(site):
    for number in range(5):
        assert (await site.sign_up(f"u{number}@example.org")).status == 200
    exchange = await site.sign_up("u5@example.org")
    assert (exchange.status, exchange.header("retry-after")) == (429, "3600")
    assert (await site.sign_up("u5@example.org", peer="192.0.2.2")).status == 200
    site.clock.seconds += 3600
    assert (await site.sign_up("u6@example.org")).status == 200
    assert len(site.signups) == 7


@pytest.mark.parametrize(
    ("peers", "refused"),
    [
        ([f"2001:db8:1:2::{n}" for n in range(6)], True),
        ([f"2001:db8:1:{n}::1" for n in range(6)], False),
        (["::ffff:192.0.2.1", "192.0.2.1"] * 3, True),
        (["fe80::1%eth0", "fe80::2%eth1"] * 3, True),
        (["", ""] * 3, True),
    ],
)
async def test_a_network_of_one_household_is_one_sender(site, peers, refused):
    statuses = [(await site.sign_up(f"u{n}@example.org", peer=peer)).status for n, peer in enumerate(peers)]
    assert statuses == [200] * 5 + [429 if refused else 200]


async def test_more_than_three_requests_for_one_address_are_forgotten_silently(site):
    for number in range(3):
        await site.sign_up(peer=f"192.0.2.{number}")
    site.database.write(lambda connection: connection.exec_driver_sql("DELETE FROM signup_requests"))
    fourth = await site.sign_up(peer="192.0.2.9")
    assert (fourth.status, fourth.json["status"], site.signups) == (200, "pending", [])
    site.clock.seconds += 3600
    await site.sign_up(peer="192.0.2.9")
    assert len(site.signups) == 1


async def test_all_together_may_ask_a_hundred_times_an_hour(site):
    asked = (site.sign_up(f"u{n}@example.org", peer=f"10.0.{n}.1") for n in range(110))
    statuses = [exchange.status for exchange in await asyncio.gather(*asked)]
    assert (statuses.count(200), statuses.count(429), len(site.signups)) == (100, 10, 100)


async def test_a_refused_request_uses_nothing_up(site):
    for number in range(30):
        await site.sign_up(f"u{number}@example.org")
    statuses = [(await site.sign_up(f"v{n}@example.org", peer=f"10.0.{n}.1")).status for n in range(95)]
    assert statuses == [200] * 95


PATTERN = SignupBody.__annotations__["email"].__metadata__[0].extra_json_schema["pattern"]


@given(st.from_regex(PATTERN).filter(lambda text: 3 <= len(text) <= 200))
def test_what_the_document_calls_an_address_is_taken_for_one(text):
    assert "@" in check_email(text)


@pytest.mark.parametrize("text", ["ada@example.org", "a.b+c@müller.example", "o'neil_9@x-y.z"])
def test_usual_addresses_fit_the_document(text):
    assert re.search(PATTERN, text)
    assert check_email(text) == text
