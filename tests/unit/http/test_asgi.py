"""The adapter against an ASGI server that is scripted message by message; real servers: tests/contract."""

import asyncio

import pytest

from stellwerk.core.clock import SystemClock
from stellwerk.core.principal import OPEN
from stellwerk.http.asgi import AsgiApplication
from stellwerk.http.router import Route, Router
from tests.running_listener import echo, render_error

BODY = {"type": "http.request", "body": b"", "more_body": False}
GONE = {"type": "http.disconnect"}


class Host:
    """The side of an ASGI server: what it will tell the application, and what it was told."""

    def __init__(self, *messages):
        self.messages = list(messages)
        self.sent = []
        self.taking = asyncio.Event()
        self.taking.set()

    async def receive(self):
        if not self.messages:
            await asyncio.Event().wait()
        return self.messages.pop(0)

    async def send(self, message):
        await self.taking.wait()
        self.sent.append(message)

    @property
    def body(self):
        return b"".join(message.get("body", b"") for message in self.sent)


def scope(path="/echo", **more):
    return {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b"", **more}


@pytest.fixture
def router():
    made = Router()
    made.add(Route("GET", "/echo", OPEN, echo))
    return made


@pytest.fixture
def application(router):
    return AsgiApplication(router, render_error, SystemClock(), 10)


async def test_lifespan_is_answered(application):
    host = Host({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
    await application({"type": "lifespan"}, host.receive, host.send)
    assert [message["type"] for message in host.sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_a_websocket_is_turned_away(application):
    host = Host({"type": "websocket.connect"})
    await application({"type": "websocket", "path": "/echo"}, host.receive, host.send)
    assert host.sent == [{"type": "websocket.close", "code": 1008}]


async def test_a_host_without_raw_path_and_peer_will_do(application):
    host = Host(BODY)
    await application(scope(client=None), host.receive, host.send)
    assert host.sent[0]["status"] == 200
    assert b'"path":"/echo"' in host.body


async def test_a_body_in_pieces_is_put_together(application):
    pieces = [{"type": "http.request", "body": part, "more_body": True} for part in (b"ab", b"", b"cd")]
    host = Host(*pieces, BODY)
    await application(scope(), host.receive, host.send)
    assert b'"body":"abcd"' in host.body


async def test_a_client_that_leaves_inside_its_body_gets_nothing(application):
    host = Host({"type": "http.request", "body": b"half", "more_body": True}, GONE)
    await application(scope(), host.receive, host.send)
    assert host.sent == []


async def test_a_body_that_is_too_large_is_not_read_to_its_end(application):
    more = {"type": "http.request", "body": b"12345678", "more_body": True}
    host = Host(more, more, more)
    await application(scope(), host.receive, host.send)
    assert host.sent[0]["status"] == 413
    assert len(host.messages) == 1


async def test_a_source_that_comes_late_is_held_back_at_once_when_too_much_waits(router, application):
    events = []
    done, let_go = asyncio.Event(), asyncio.Event()

    class Source:
        def pause_reading(self):
            events.append("held")

        def resume_reading(self):
            events.append("let go")
            let_go.set()

    async def flood(exchange):
        exchange.start(200, ())
        exchange.write(b"x" * 100_000)
        exchange.feed_from(Source())
        assert events == ["held"]
        done.set()
        await let_go.wait()
        exchange.finish()

    router.add(Route("GET", "/flood", OPEN, flood))
    host = Host(BODY)
    host.taking.clear()
    serving = asyncio.ensure_future(application(scope("/flood"), host.receive, host.send))
    async with asyncio.timeout(30):
        await done.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        assert events == ["held"]
        host.taking.set()
        await serving
    assert len(host.body) == 100_000


async def test_a_handler_that_fails_is_the_hosts_to_report(router, application):
    async def fail(_exchange):
        raise LookupError("inside")

    router.add(Route("GET", "/fail", OPEN, fail))
    host = Host(BODY)
    with pytest.raises(LookupError):
        await application(scope("/fail"), host.receive, host.send)
    assert host.sent == []


async def test_nothing_is_sent_to_a_client_that_has_left(router, application):
    async def stubborn(exchange):
        try:
            await asyncio.Event().wait()
        finally:
            exchange.respond(200, (), b"late")

    router.add(Route("GET", "/stubborn", OPEN, stubborn))
    host = Host(BODY, GONE)
    async with asyncio.timeout(30):
        await application(scope("/stubborn"), host.receive, host.send)
    assert host.sent == []
