import asyncio
import json
from urllib.parse import urlencode

import pytest
from sqlalchemy import func, select

from stellwerk.api._endpoints import Registry
from stellwerk.api._guard import Routes
from stellwerk.api.login import LoginAPI
from stellwerk.auth.access_tokens import TokenMint
from stellwerk.auth.keys import NewKey, create_key
from stellwerk.auth.logins import logins
from stellwerk.auth.ring import KeyRing, load_changes
from stellwerk.auth.tokens import make_digest
from stellwerk.auth.users import NewUser, UserChanges, change_user, create_user, read_password, store_password
from stellwerk.core.errors import Unavailable
from stellwerk.core.principal import Role
from stellwerk.core.secrets import Secret
from stellwerk.http.router import Router
from stellwerk.limits.attempts import attempts
from stellwerk.records import audit
from stellwerk.storage.failures import storage_unavailable
from stellwerk.storage.writer import Writer
from tests.port_fakes import RecordedExchange

ADA, PASSWORD = "ada@example.com", "drei Aepfel im Gueterwagen"
NEW = "vier Birnen auf dem Bahnsteig"
FORM = "application/x-www-form-urlencoded"
WRONG = (401, "invalid_credentials", "Invalid credentials")


class PlainPasswords:
    """Stands in for argon2: a stored password is the text after `plain:`, and every check is noted."""

    def __init__(self):
        self.checked, self.full = [], False
        self.open = asyncio.Event()
        self.open.set()

    def check_free(self):
        if self.full:
            raise Unavailable("Too many.", retry_after=2.0)

    async def hash(self, password):
        return f"plain:{password.reveal()}"

    async def verify(self, encoded, password):
        self.checked.append(encoded)
        await self.open.wait()
        return encoded == f"plain:{password.reveal()}"


class Unwatched:
    def refused(self, code): ...


class Site:
    """The login API behind the real guard, key ring, database and writer."""

    def __init__(self, database, writer, clock):
        self.database, self.clock = database, clock
        self.digest = make_digest(Secret("ab" * 32))
        self.passwords = PlainPasswords()
        self.mint = TokenMint(bytes(range(32)), clock)
        self.ring = KeyRing(
            lambda since: database.fetch(lambda connection: load_changes(connection, since)),
            self.digest,
            clock,
            verify_login=self.mint.verify_access,
        )
        self.changes, self.on_change = 0, self.ring.refresh
        self.router = Router()
        self.registry = Registry(Routes(self.router, self.ring, Unwatched()))
        LoginAPI(
            run=writer.run,
            fetch=database.fetch,
            passwords=self.passwords,
            mint=self.mint,
            digest=self.digest,
            clock=clock,
            on_change=self._changed,
        ).register(self.registry)

    async def _changed(self):
        self.changes += 1
        await self.on_change()

    # --- what is stored

    def user(self, email=ADA, password=PASSWORD, **fields):
        def make(connection):
            user = create_user(connection, NewUser(email=email, **fields), now=self.clock.now())
            if password is not None:
                store_password(connection, user.id, f"plain:{password}", now=self.clock.now())
            return user.id

        return self.database.write(make)

    def change(self, user_id, **changes):
        self.database.write(lambda connection: change_user(connection, user_id, UserChanges(**changes)))

    def key(self, user_id, role=Role.USER):
        new = NewKey(name="ci", user_id=user_id, role=role)
        make = lambda connection: create_key(connection, new, self.digest, now=self.clock.now())  # noqa: E731
        return self.database.write(make)[1].reveal()

    def stored_password(self, email=ADA):
        return self.database.read(lambda connection: read_password(connection, email))[1]

    def login_reasons(self):
        query = select(logins.c.end_reason).order_by(logins.c.created_at, logins.c.id)
        return sorted(self.database.read(lambda connection: list(connection.scalars(query))), key=str)

    def audit(self):
        records = self.database.read(lambda connection: audit.read(connection, limit=100))
        return [(each.action, each.subject, each.details) for each in reversed(records)]

    def attempts(self):
        return self.database.read(lambda connection: connection.scalar(select(func.count()).select_from(attempts)))

    # --- what is asked

    async def ask(self, method, path, body=b"", *, token=None, query=b"", kind=None, peer="192.0.2.1"):
        headers = {} if token is None else {b"authorization": f"Bearer {token}".encode()}
        if kind is not None:
            headers[b"content-type"] = kind.encode()
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        exchange = RecordedExchange(method=method, path=path, query=query, headers=headers, body=data, peer=peer)
        await self.router.find(path)[method](exchange)
        return exchange

    async def log_in(self, username=ADA, password=PASSWORD, **more):
        return await self.ask("POST", "/auth/token", {"username": username, "password": password}, **more)

    async def pair(self, **more):
        exchange = await self.log_in(**more)
        assert exchange.status == 200, exchange.written
        return exchange.json["access_token"], exchange.json["refresh_token"]

    async def refresh(self, token, **more):
        return await self.ask("POST", "/auth/refresh", {"refresh_token": token}, **more)

    async def log_out(self, token, body=b""):
        return await self.ask("POST", "/auth/logout", body, token=token)

    async def change_password(self, token, old=PASSWORD, new=NEW, **more):
        body = {"old_password": old, "new_password": new}
        return await self.ask("PUT", "/user/api/password", body, token=token, **more)

    async def knows(self, token):
        """Whether the ring, as it is now, lets this token in: asked through a route that every role may use."""
        exchange = await self.change_password(token, new="short")
        return exchange.status == 400


@pytest.fixture
async def site(database, clock):
    writer = Writer(database.writing)
    yield Site(database, writer, clock)
    await asyncio.to_thread(writer.close)


@pytest.fixture
def ada(site):
    return site.user()


def answer(exchange):
    error = exchange.json["error"]
    return exchange.status, error["code"], error["message"]


# --- tokens


async def test_the_right_password_gives_a_pair_of_tokens(site, ada):
    exchange = await site.log_in()
    assert exchange.status == 200
    assert exchange.header("cache-control") == "no-store"
    body = exchange.json
    assert set(body) == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert (body["token_type"], body["expires_in"]) == ("bearer", 900)
    assert site.mint.verify_access(body["access_token"]).user_id == ada
    assert site.mint.verify_refresh(body["refresh_token"]).generation == 0
    assert await site.knows(body["access_token"])
    assert site.audit() == []


FIELDS = {"username": ADA, "password": PASSWORD}


@pytest.mark.parametrize(
    ("body", "kind", "query"),
    [
        (urlencode(FIELDS).encode(), FORM, b""),
        (urlencode(FIELDS).encode(), FORM + "; charset=utf-8", b""),
        (urlencode(FIELDS).encode(), None, b""),
        (urlencode(FIELDS | {"grant_type": "password", "scope": "", "client_id": "x"}).encode(), FORM, b""),
        (json.dumps(FIELDS).encode(), "application/json", b""),
        (json.dumps(FIELDS).encode(), FORM, b""),
        (b"\r\n " + json.dumps(FIELDS).encode(), None, b""),
        (json.dumps(FIELDS | {"grant_type": "password"}).encode(), "text/plain", b""),
        (b"", None, urlencode(FIELDS).encode()),
        (b"", FORM, urlencode(FIELDS).encode()),
        (b"\n", "application/json", urlencode(FIELDS).encode()),
        (json.dumps(FIELDS).encode(), None, b"username=other&password=other"),
        (urlencode(FIELDS | {"username": "  ADA@Example.com "}).encode(), FORM, b""),
    ],
)
async def test_form_json_and_query_are_all_understood(site, ada, body, kind, query):
    assert (await site.ask("POST", "/auth/token", body, kind=kind, query=query)).status == 200


@pytest.mark.parametrize(
    ("body", "kind", "query", "status", "param"),
    [
        (b"", None, b"", 400, "username"),
        (b"{}", None, b"", 400, "username"),
        (b'{"username": "a"}', None, b"", 400, "password"),
        (b'{"username": null, "password": "x"}', None, b"", 400, "username"),
        (b'{"username": "", "password": "x"}', None, b"", 400, "username"),
        (b'{"username": ["a"], "password": "x"}', None, b"", 400, "username"),
        (b'{"username": "a", "password": 1}', None, b"", 400, "password"),
        (b"username=a", FORM, b"", 400, "password"),
        (b"username=+&password=x", FORM, b"", 400, "username"),
        (b"username=a&password=x&username=b", FORM, b"", 400, "username"),
        (b"", None, b"username=a", 400, "password"),
        (b"grant_type=client_credentials&client_id=x", FORM, b"", 400, "grant_type"),
        (b"grant_type=refresh_token", FORM, b"", 400, "refresh_token"),
        (b'{"username": "a", ', None, b"", 400, None),
        (b'["a"]', "application/json", b"", 400, None),
        (b"username=%ff&password=x", FORM, b"", 400, None),
        (b"username=\xff&password=x", FORM, b"", 400, None),
        (b"&".join([b"a=b"] * 40), FORM, b"", 400, None),
        (b"--x\r\n", "multipart/form-data; boundary=x", b"", 415, None),
        (b"a" * 20_000, FORM, b"", 413, None),
        (b"", None, b"a" * 20_000, 413, None),
    ],
)
async def test_a_request_that_cannot_be_understood_names_the_field_and_counts_as_no_attempt(
    site, body, kind, query, status, param
):
    exchange = await site.ask("POST", "/auth/token", body, kind=kind, query=query)
    assert (exchange.status, exchange.json["error"]["param"]) == (status, param)
    assert site.attempts() == 0


async def test_who_guesses_cannot_tell_an_unknown_address_from_a_wrong_password(site, ada):
    site.change(site.user("off@example.com"), active=False)
    site.user("bare@example.com", password=None)
    seen = []
    for username in (ADA, "nobody@example.com", "off@example.com", "bare@example.com", "\x00", "x" * 5000):
        for password in ("wrong", PASSWORD):
            if (username, password) == (ADA, PASSWORD):
                continue
            exchange = await site.log_in(username, password, peer=f"198.51.100.{len(seen)}")
            assert answer(exchange) == WRONG
            seen.append((exchange.written, exchange.sent_headers[:-1]))
    assert len(set(seen)) == 1
    # The slow work is done every time, also where there is nothing to compare with.
    assert len(site.passwords.checked) == len(seen)
    assert None in site.passwords.checked
    assert site.login_reasons() == []


async def test_a_user_who_is_disabled_while_his_password_is_checked_does_not_come_in(site, ada):
    site.passwords.open.clear()
    asking = asyncio.ensure_future(site.log_in())
    async with asyncio.timeout(30):
        while not site.passwords.checked:  # noqa: ASYNC110  # the fake has no event of its own
            await asyncio.sleep(0)
    site.change(ada, active=False)
    site.passwords.open.set()
    assert answer(await asking) == WRONG
    assert site.login_reasons() == []


# --- refresh


@pytest.mark.parametrize("path", ["/auth/refresh", "/auth/token"])
async def test_a_refresh_token_buys_the_next_pair(site, ada, path):
    _, token = await site.pair()
    site.clock.at += 3600
    more = {"grant_type": "refresh_token"} if path == "/auth/token" else {}
    exchange = await site.ask("POST", path, {"refresh_token": token, **more})
    assert (exchange.status, exchange.json["expires_in"]) == (200, 900)
    assert await site.knows(exchange.json["access_token"])
    assert site.mint.verify_refresh(exchange.json["refresh_token"]).generation == 1


async def test_a_refresh_token_that_comes_twice_ends_the_login_at_once_and_is_recorded(site, ada):
    access, first = await site.pair()
    second = (await site.refresh(first)).json["refresh_token"]
    assert answer(await site.refresh(first, peer="203.0.113.9")) == (401, "invalid_token", "Invalid token")
    assert answer(await site.refresh(second)) == (401, "invalid_token", "Invalid token")
    assert not await site.knows(access)
    assert site.login_reasons() == ["reuse"]
    login_id = site.mint.verify_access(access).login_id
    assert site.audit() == [("login.reuse", f"user:{ada}", {"login": login_id})]


async def test_of_two_refreshes_at_once_one_is_served_and_the_login_ends(site, ada):
    _, token = await site.pair()
    statuses = [each.status for each in await asyncio.gather(*(site.refresh(token) for _ in range(5)))]
    assert sorted(statuses) == [200, 401, 401, 401, 401]
    assert site.login_reasons() == ["reuse"]
    assert len(site.audit()) == 1


async def test_a_disabled_user_cannot_refresh(site, ada):
    _, token = await site.pair()
    site.change(ada, active=False)
    assert answer(await site.refresh(token)) == (401, "invalid_token", "Invalid token")


async def test_an_old_refresh_token_has_expired(site, ada):
    _, token = await site.pair()
    site.clock.at += 7 * 86_400
    assert answer(await site.refresh(token)) == (401, "expired_token", "Token has expired")


async def test_an_access_token_is_no_refresh_token(site, ada):
    access, _ = await site.pair()
    assert answer(await site.refresh(access)) == (401, "invalid_token", "Invalid token")
    assert answer(await site.refresh("x.y.z")) == (401, "invalid_token", "Invalid token")
    assert site.login_reasons() == [None]


async def test_near_its_end_a_login_gives_tokens_that_end_with_it(site, ada):
    _, token = await site.pair()
    for days in (6.99, 6.99, 6.99, 6.99):
        site.clock.at += days * 86_400
        token = (await site.refresh(token)).json["refresh_token"]
    site.clock.at += 2.04 * 86_400 - 600
    exchange = await site.refresh(token)
    assert exchange.json["expires_in"] == 600
    site.clock.at += 600
    assert (await site.log_out(exchange.json["access_token"])).status == 401


# --- logout


async def test_who_logs_out_is_out_at_once(site, ada):
    access, refresh = await site.pair()
    other, _ = await site.pair()
    exchange = await site.log_out(access)
    assert (exchange.status, exchange.json) == (200, {"status": "logged_out"})
    assert not await site.knows(access)
    assert await site.knows(other)
    assert (await site.refresh(refresh)).status == 401
    assert site.login_reasons() == ["logout", None] or site.login_reasons() == [None, "logout"]


async def test_an_api_key_ends_a_login_of_its_own_user_by_its_refresh_token(site, ada):
    eve, key = site.user("eve@example.com"), site.key(ada)
    _, mine = await site.pair()
    _, foreign = await site.pair(username="eve@example.com")
    assert answer(await site.log_out(key))[:2] == (400, "not_a_login")
    for token in (foreign, "x.y.z", "nonsense"):
        exchange = await site.log_out(key, {"refresh_token": token})
        assert answer(exchange)[:2] == (400, "invalid_token")
        assert exchange.json["error"]["param"] == "refresh_token"
    assert (await site.refresh(foreign)).status == 200
    assert (await site.log_out(key, {"refresh_token": mine})).status == 200
    assert (await site.refresh(mine)).status == 401
    assert eve != ada


async def test_a_dead_refresh_token_does_not_keep_a_login_alive(site, ada):
    access, _ = await site.pair()
    assert (await site.log_out(access, {"refresh_token": "x.y.z"})).status == 200
    assert not await site.knows(access)


async def test_nobody_logs_out_without_a_token_and_unknown_fields_are_refused(site, ada):
    assert (await site.ask("POST", "/auth/logout")).status == 401
    access, _ = await site.pair()
    exchange = await site.log_out(access, {"all": True})
    assert (exchange.status, exchange.json["error"]["param"]) == (400, "all")


async def test_a_logout_that_is_stored_succeeds_even_when_the_ring_cannot_look(site, ada):
    async def fail():
        raise storage_unavailable()

    access, refresh = await site.pair()
    site.on_change = fail
    assert (await site.log_out(access)).status == 200
    assert (await site.refresh(refresh)).status == 401


# --- one's own password


@pytest.mark.parametrize("role", [Role.USER, Role.VIEWER, Role.ADMIN])
async def test_a_new_password_ends_all_other_logins_and_no_key(site, role):
    ada = site.user(role=role)
    key = site.key(ada, role)
    access, _ = await site.pair()
    other, refresh = await site.pair()
    exchange = await site.change_password(access)
    assert (exchange.status, exchange.json) == (200, {"status": "changed", "ended_logins": 1})
    assert site.stored_password() == f"plain:{NEW}"
    assert not await site.knows(other)
    assert (await site.refresh(refresh)).status == 401
    assert await site.knows(access)
    assert await site.knows(key)
    assert answer(await site.log_in()) == WRONG
    assert (await site.log_in(password=NEW)).status == 200
    assert site.audit() == [("user.password", f"user:{ada}", {"own": True, "ended_logins": 1})]


async def test_a_change_with_a_key_ends_every_login(site, ada):
    access, _ = await site.pair()
    exchange = await site.change_password(site.key(ada))
    assert exchange.json == {"status": "changed", "ended_logins": 1}
    assert not await site.knows(access)


@pytest.mark.parametrize(
    ("old", "new", "status", "param", "code"),
    [
        ("wrong", NEW, 403, "old_password", "invalid_credentials"),
        (PASSWORD, PASSWORD, 400, "new_password", "same_password"),
        (PASSWORD, "short", 400, "new_password", "weak_password"),
        (PASSWORD, "password1234", 400, "new_password", "weak_password"),
        (PASSWORD, "ada@example.com", 400, "new_password", "weak_password"),
    ],
)
async def test_a_password_stays_when_the_old_one_is_wrong_or_the_new_one_is_bad(
    site, ada, old, new, status, param, code
):
    access, _ = await site.pair()
    other, _ = await site.pair()
    exchange = await site.change_password(access, old, new)
    error = exchange.json["error"]
    assert (exchange.status, error["param"], error["code"]) == (status, param, code)
    assert site.stored_password() == f"plain:{PASSWORD}"
    assert await site.knows(other)
    assert site.audit() == []


async def test_only_an_administrator_sets_the_first_password(site):
    key = site.key(site.user(password=None))
    exchange = await site.change_password(key)
    assert answer(exchange)[:2] == (409, "no_password")
    assert site.passwords.checked == []


async def test_whoever_has_a_key_cannot_guess_the_password_with_it(site, ada):
    key = site.key(ada)
    statuses = [(await site.change_password(key, f"guess {n}")).status for n in range(7)]
    assert statuses == [403] * 5 + [429] * 2
    assert (await site.log_in()).status == 429


# --- lock-out


async def test_after_five_wrong_passwords_even_the_right_one_must_wait(site, ada):
    for _ in range(5):
        assert answer(await site.log_in(password="wrong")) == WRONG
    exchange = await site.log_in()
    assert answer(exchange)[:2] == (429, "too_many_attempts")
    assert exchange.header("retry-after") == "900"
    assert len(site.passwords.checked) == 5
    site.clock.at += 899
    assert (await site.log_in()).header("retry-after") == "1"
    site.clock.at += 1
    assert (await site.log_in()).status == 200


async def test_an_unknown_address_is_locked_out_in_the_same_words(site, ada):
    answers = [
        answer(await site.log_in(username, "wrong", peer="198.51.100.1"))
        for username in (ADA, "nobody@example.com")
        for _ in range(6)
    ]
    assert answers[:6] == answers[6:]


async def test_parallel_guesses_are_counted_before_they_are_checked(site, ada):
    site.passwords.open.clear()
    asking = [asyncio.ensure_future(site.log_in(password=f"guess {n}")) for n in range(30)]
    async with asyncio.timeout(30):
        while sum(each.done() for each in asking) < 25:  # noqa: ASYNC110  # until all but the five that hash are refused
            await asyncio.sleep(0.001)
    site.passwords.open.set()
    statuses = [each.status for each in await asyncio.gather(*asking)]
    assert (statuses.count(401), statuses.count(429)) == (5, 25)
    assert len(site.passwords.checked) == 5


async def test_a_good_password_forgets_the_bad_ones_before_it(site, ada):
    for _ in range(2):
        for _ in range(4):
            await site.log_in(password="wrong")
        assert (await site.log_in()).status == 200


async def test_one_peer_may_try_twenty_accounts(site, ada):
    for n in range(20):
        assert answer(await site.log_in(f"user{n}@example.com", "wrong")) == WRONG
    assert (await site.log_in()).status == 429
    assert (await site.log_in(peer="198.51.100.7")).status == 200


async def test_one_account_may_be_tried_thirty_times_from_anywhere(site, ada):
    for n in range(30):
        assert answer(await site.log_in(password="wrong", peer=f"198.51.100.{n}")) == WRONG
    assert (await site.log_in(peer="198.51.100.99")).status == 429


async def test_the_addresses_of_one_ipv6_network_are_one_peer_and_mapped_ones_are_ipv4(site, ada):
    for n in range(5):
        await site.log_in(password="wrong", peer=f"2001:db8::{n:x}")
    assert (await site.log_in(peer="2001:db8::ffff:1")).status == 429
    assert (await site.log_in(peer="2001:db8:0:1::1")).status == 200
    for _ in range(5):
        await site.log_in(password="wrong", peer="192.0.2.5")
    assert (await site.log_in(peer="::ffff:192.0.2.5")).status == 429


async def test_reaching_the_limit_is_recorded_once_and_knocking_on_is_not(site, ada):
    for _ in range(12):
        await site.log_in(password="wrong")
    for _ in range(12):
        await site.log_in("nobody@example.com", "wrong", peer="198.51.100.1")
    assert site.audit() == [
        ("login.locked", f"user:{ada}", {"seconds": 900}),
        ("login.locked", "peer:198.51.100.1", {"seconds": 900}),
    ]


async def test_a_full_queue_refuses_before_it_counts(site, ada):
    site.passwords.full = True
    for _ in range(10):
        exchange = await site.log_in()
        assert (exchange.status, exchange.header("retry-after")) == (503, "2")
    site.passwords.full = False
    assert (await site.log_in()).status == 200


async def test_no_password_and_no_typed_name_is_stored_in_clear(site, ada, folder):
    await site.log_in("my-Secret-typed-as-name", "my-Secret-canary")
    access, refresh = await site.pair()
    await site.change_password(access, "my-Secret-old")
    stored = b"".join(path.read_bytes() for path in folder.glob("stellwerk.db*"))
    for canary in ("my-secret", "my-Secret", access, refresh, access.split(".")[2], refresh.split(".")[2]):
        assert canary.encode() not in stored


def test_every_endpoint_is_registered_with_its_types(site):
    found = {(each.method, each.path): each for each in site.registry.endpoints}
    assert set(found) == {
        ("POST", "/auth/token"),
        ("POST", "/auth/refresh"),
        ("POST", "/auth/logout"),
        ("PUT", "/user/api/password"),
    }
    assert all(each.summary and each.body and each.answer and each.example for each in found.values())
