import asyncio
import logging
import re

import pytest

from stellwerk.api._guard import Request, Routes
from stellwerk.auth.networks import read_networks
from stellwerk.core.errors import Forbidden, RateLimited, Unauthenticated, UpstreamBroken
from stellwerk.core.principal import ADMINS, CALLERS, OBSERVERS, OPEN, READERS, Principal, Role
from stellwerk.http.router import Router
from tests.port_fakes import ALICE, RecordedExchange

VIEWER = Principal(key_id="key_viewer", name="eve", role=Role.VIEWER)
ADMIN = Principal(key_id="key_admin", name="ada", role=Role.ADMIN)
AT_HOME = Principal(
    key_id="key_home", name="hal", role=Role.ADMIN, networks=read_networks(["192.0.2.0/24", "2001:db8::/32"])
)


class Keys:
    def __init__(self) -> None:
        self.known = {"sw-alice": ALICE, "sw-viewer": VIEWER, "sw-admin": ADMIN, "sw-home": AT_HOME}
        self.new = {}
        self.refreshed = 0

    def authenticate(self, token):
        if token == "sw-disabled":
            raise Forbidden("User account disabled.", code="account_disabled")
        if token not in self.known:
            raise Unauthenticated("This API key is not valid.")
        return self.known[token]

    async def authenticate_or_refresh(self, token):
        self.refreshed += 1
        await asyncio.sleep(0)
        self.known |= self.new
        return self.authenticate(token)


class Watch:
    def __init__(self) -> None:
        self.codes = []

    def refused(self, code):
        self.codes.append(code)


class Site:
    """A router with one guarded route, whose handler is `self.handle`."""

    def __init__(self, access=CALLERS) -> None:
        self.keys, self.watch, self.router, self.seen = Keys(), Watch(), Router(), []
        self.routes = Routes(self.router, self.keys, self.watch)
        self.routes.add("POST", "/do", access, self._pass_on)

    async def _pass_on(self, request):
        self.seen.append(request)
        await self.handle(request)

    async def handle(self, request):
        request.exchange.respond(200, (), b"done")

    async def ask(self, peer="192.0.2.1", **headers):
        exchange = RecordedExchange(
            path="/do", peer=peer, headers={name.replace("_", "-").encode(): value for name, value in headers.items()}
        )
        await self.router.find("/do")["POST"](exchange)
        return exchange


@pytest.fixture
def site():
    return Site()


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": b"Bearer sw-alice"},
        {"authorization": b"bearer   sw-alice "},
        {"x_api_key": b"sw-alice"},
        {"api_key": b" sw-alice"},
        {"authorization": b"Basic dXNlcjpwdw==", "x_api_key": b"sw-alice"},
        {"authorization": b"Bearer ", "api_key": b"sw-alice"},
    ],
    ids="+".join,
)
async def test_a_key_is_found_in_every_usual_header(site, headers):
    exchange = await site.ask(**headers)
    assert exchange.status == 200
    assert site.seen[0].caller is ALICE
    assert site.keys.refreshed == 0


MISSING, MALFORMED = "Missing Authorization header. ", "Invalid Authorization format. "


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ({}, MISSING),
        ({"authorization": b""}, MISSING),
        ({"x_api_key": b" "}, MISSING),
        ({"authorization": b"Basic eA=="}, MALFORMED),
        ({"authorization": b"Bearer "}, MALFORMED),
        ({"authorization": b"sw-alice"}, MALFORMED),
        ({"authorization": b"Bearer\tsw-alice"}, MALFORMED),
        ({"authorization": b"Token sw-alice", "x_api_key": b" "}, MALFORMED),
    ],
)
async def test_no_key_is_refused_with_a_sentence_that_helps(site, headers, problem):
    exchange = await site.ask(**headers)
    assert (exchange.status, exchange.json["error"]["code"]) == (401, "missing_api_key")
    assert exchange.json["error"]["message"].startswith(problem)
    assert "Authorization: Bearer" in exchange.json["error"]["message"]
    assert exchange.header("www-authenticate") == "Bearer"
    assert site.watch.codes == ["missing_api_key"]
    assert site.seen == []


async def test_the_query_is_no_place_for_a_key(site):
    exchange = RecordedExchange(path="/do", query=b"api_key=sw-alice&key=sw-alice")
    await site.router.find("/do")["POST"](exchange)
    assert exchange.status == 401


async def test_an_unknown_key_is_looked_up_once_more_before_it_is_refused(site):
    exchange = await site.ask(authorization=b"Bearer sw-unknown")
    assert (exchange.status, exchange.json["error"]["code"]) == (401, "invalid_api_key")
    assert b"sw-unknown" not in exchange.written
    assert site.keys.refreshed == 1


async def test_a_key_that_another_process_has_just_made_is_accepted(site):
    site.keys.new["sw-new"] = ALICE
    assert (await site.ask(authorization=b"Bearer sw-new")).status == 200
    assert (await site.ask(authorization=b"Bearer sw-new")).status == 200
    assert site.keys.refreshed == 1


@pytest.mark.parametrize("access", [ADMINS, OBSERVERS])
async def test_who_may_not_administer_is_told_so_in_the_documented_words(access):
    exchange = await Site(access).ask(authorization=b"Bearer sw-alice")
    assert (exchange.status, exchange.json["error"]["code"]) == (403, "permission_denied")
    assert exchange.json["error"]["message"] == exchange.json["detail"] == "Admin access required"


async def test_a_role_that_may_not_is_refused(site):
    exchange = await site.ask(authorization=b"Bearer sw-viewer")
    assert (exchange.status, exchange.json["error"]["code"]) == (403, "permission_denied")
    assert "viewer" in exchange.json["error"]["message"]
    assert site.seen == []


@pytest.mark.parametrize(
    ("access", "allowed"),
    [
        (CALLERS, ["alice", "admin"]),
        (READERS, ["alice", "viewer", "admin"]),
        (OBSERVERS, ["viewer", "admin"]),
        (ADMINS, ["admin"]),
    ],
)
async def test_each_route_lets_in_the_roles_that_it_names(access, allowed):
    site = Site(access)
    asked = {name: await site.ask(x_api_key=f"sw-{name}".encode()) for name in ("alice", "viewer", "admin")}
    assert [name for name, exchange in asked.items() if exchange.status == 200] == allowed


async def test_a_disabled_account_is_refused_without_another_look(site):
    exchange = await site.ask(authorization=b"Bearer sw-disabled")
    assert (exchange.status, exchange.json["error"]["code"]) == (403, "account_disabled")
    assert (site.keys.refreshed, site.seen, site.watch.codes) == (0, [], ["account_disabled"])


@pytest.mark.parametrize("access", [CALLERS, READERS, OBSERVERS, ADMINS])
async def test_a_key_is_good_only_from_its_networks_on_every_route(access):
    site = Site(access)
    for peer in ("192.0.2.77", "::ffff:192.0.2.77", "2001:db8::1"):
        assert (await site.ask(peer, x_api_key=b"sw-home")).status == 200
    for peer in ("192.0.3.1", "::1", "127.0.0.1", ""):
        exchange = await site.ask(peer, x_api_key=b"sw-home")
        assert (exchange.status, exchange.json["error"]["code"]) == (403, "ip_not_allowed")
        assert (await site.ask(peer, x_api_key=b"sw-admin")).status == 200
    assert [request.principal for request in site.seen].count(AT_HOME) == 3


@pytest.mark.parametrize("name", ["x_forwarded_for", "forwarded", "x_real_ip", "cf_connecting_ip", "true_client_ip"])
async def test_no_header_says_where_a_request_comes_from(name):
    site = Site(ADMINS)
    headers = {"x_api_key": b"sw-home", name: b"192.0.2.1"}
    assert (await site.ask("198.51.100.1", **headers)).status == 403
    assert (await site.ask("192.0.2.1", **headers | {name: b"198.51.100.1"})).status == 200


async def test_an_open_route_asks_for_no_key_and_knows_nobody():
    site = Site(OPEN)
    assert (await site.ask()).status == 200
    assert site.seen[0].principal is None
    with pytest.raises(Unauthenticated):
        _ = site.seen[0].caller


@pytest.mark.parametrize("given", [b"trace-1", b"a", b"x" * 128, b"00-4bf92f3577b34da6a3ce929d0e0e4736-01"])
async def test_a_sane_request_id_is_taken_over(site, given):
    site.handle = refuse_with(RateLimited("Later.", retry_after=2))
    exchange = await site.ask(authorization=b"Bearer sw-alice", x_request_id=given)
    assert site.seen[0].id == given.decode()
    assert exchange.header("x-request-id") == given.decode()


@pytest.mark.parametrize(
    "given", [b"", b"two words", b"x" * 129, b"tab\t", b"\xff", b"a\r\nset-cookie: b", b"a, b", None]
)
async def test_any_other_request_id_is_replaced(site, given):
    await site.ask(authorization=b"Bearer sw-alice", **({} if given is None else {"x_request_id": given}))
    assert re.fullmatch(r"req_[0-9a-f]{24}", site.seen[0].id)


async def test_no_two_requests_share_an_id(site):
    for _ in range(50):
        await site.ask(authorization=b"Bearer sw-alice")
    assert len({request.id for request in site.seen}) == 50


def refuse_with(error, *, after=b""):
    async def handle(request):
        if after:
            request.exchange.start(200, ())
            request.exchange.write(after)
        raise error

    return handle


async def test_a_gateway_error_is_rendered_once_with_its_headers(site):
    site.handle = refuse_with(RateLimited("Too many.", retry_after=2))
    exchange = await site.ask(authorization=b"Bearer sw-alice")
    assert (exchange.status, exchange.header("retry-after"), exchange.finished) == (429, "2", 1)
    assert exchange.json["error"]["message"] == "Too many."
    assert site.watch.codes == ["rate_limit_exceeded"]


async def test_an_unforeseen_failure_tells_the_client_nothing_and_the_log_everything(site, caplog):
    site.handle = refuse_with(RuntimeError("password hunter2 in /srv/secret"))
    with caplog.at_level(logging.ERROR):
        exchange = await site.ask(authorization=b"Bearer sw-alice")
    assert (exchange.status, exchange.json["error"]["code"]) == (500, "internal_error")
    for word in (b"hunter2", b"/srv", b"RuntimeError", b"Traceback", b"sw-alice"):
        assert word not in exchange.written
    assert "hunter2" in caplog.text
    assert "sw-alice" not in caplog.text
    assert exchange.header("x-request-id") == caplog.records[0].fields["request_id"]


@pytest.mark.parametrize("error", [UpstreamBroken("Broken."), RuntimeError("boom")], ids=["foreseen", "unforeseen"])
async def test_a_failure_after_the_start_breaks_the_connection_instead_of_ending_the_body(site, error):
    site.handle = refuse_with(error, after=b"half an ans")
    exchange = await site.ask(authorization=b"Bearer sw-alice")
    assert (exchange.broken, exchange.finished, exchange.written) == (True, 0, b"half an ans")
    assert site.watch.codes == [getattr(error, "code", "internal_error")]


async def test_a_cancelled_request_closes_its_connection(site):
    reached = asyncio.Event()

    async def wait(request):
        reached.set()
        await asyncio.Event().wait()

    site.handle = wait
    exchange = RecordedExchange(path="/do", headers={b"x-api-key": b"sw-alice"})
    task = asyncio.ensure_future(site.router.find("/do")["POST"](exchange))
    async with asyncio.timeout(30):
        await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (exchange.broken, exchange.started) == (True, False)


async def test_only_a_request_that_prefers_something_can_be_put_off_and_never_before_its_key_is_known(site):
    asked = []

    async def defer(request):
        asked.append(request.caller)
        request.exchange.respond(202, (), b"later")
        return request.exchange.headers[b"prefer"] == b"respond-async"

    site.routes.defer = defer
    assert (await site.ask(authorization=b"Bearer sw-alice")).status == 200
    assert (await site.ask(authorization=b"Bearer wrong", prefer=b"respond-async")).status == 401
    assert (await site.ask(authorization=b"Bearer sw-viewer", prefer=b"respond-async")).status == 403
    assert asked == []
    assert (await site.ask(authorization=b"Bearer sw-alice", prefer=b"respond-async")).status == 202
    assert (asked, len(site.seen)) == ([ALICE], 1)


async def test_handlers_are_there_without_the_guard_for_who_knows_who_asks(site):
    request = Request(RecordedExchange(path="/do"), "id", ADMIN, background=True)
    await site.routes.handlers["POST", "/do"](request)
    assert site.seen == [request]
