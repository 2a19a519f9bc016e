import asyncio

import pytest

from stellwerk.tui.admin_source import AdminSource
from stellwerk.tui.choosing import choose_source
from stellwerk.tui.connection import Connection
from stellwerk.tui.documented_source import DocumentedSource
from stellwerk.tui.feed import Feed, pause_after
from stellwerk.tui.trouble import ConsoleTrouble

LOGIN = "eyJhbGciOiJIUzI1NiJ9.e30.c2ln"


async def trouble_of(asking):
    with pytest.raises(ConsoleTrouble) as caught:
        await asking
    return caught.value


async def test_a_request_carries_token_and_client(gateway, connect):
    gateway.answers["GET /there"] = {"well": True}
    assert await connect("sk-mine").get("/there", limit=3, name="a b") == {"well": True}
    [asked] = gateway.asked
    assert asked.headers["authorization"] == "Bearer sk-mine"
    assert asked.headers["x-client-id"] == "tui_console"
    assert asked.query == {"limit": "3", "name": "a b"}


async def test_a_path_of_the_address_stays_in_front(gateway, connect):
    gateway.answers["GET /proxied/health"] = {}
    assert await connect(url=f"{gateway.url}/proxied/").get("/health") == {}


@pytest.mark.parametrize(
    ("status", "said", "key", "values"),
    [
        (401, {"detail": "Invalid token"}, "trouble.unauthenticated", {}),
        (403, {}, "trouble.forbidden", {}),
        (404, {"detail": "Not Found"}, "trouble.not_offered", {}),
        (404, {"detail": "There is nothing at POST /x."}, "trouble.not_offered", {}),
        (404, {"error": {"code": "unknown_url", "message": "There is nothing."}}, "trouble.not_offered", {}),
        (404, {"detail": "Model x not available"}, "trouble.answer", {"code": 404, "message": "Model x not available"}),
        (503, {"error": {"message": "Full\x1b[2J."}}, "trouble.answer", {"code": 503, "message": "Full."}),
        (500, [], "trouble.answer", {"code": 500, "message": "?"}),
    ],
)
async def test_a_refusal_is_told_in_the_gateway_s_words(gateway, connect, status, said, key, values):
    gateway.answers["GET /x"] = (status, said)
    trouble = await trouble_of(connect().get("/x"))
    assert (trouble.status, trouble.key, trouble.values) == (status, key, values)


async def test_what_is_no_json_is_no_gateway(connect):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert (await trouble_of(connect(url=f"http://127.0.0.1:{port}").get("/"))).key == "trouble.no_gateway"


async def test_nobody_who_answers_and_nobody_who_answers_in_time_differ(gateway, connect):
    assert (await trouble_of(connect(url="http://127.0.0.1:1").get("/"))).key == "trouble.unreachable"
    gateway.hold.clear()
    assert (await trouble_of(connect().ask("GET", "/x", seconds=0.5))).key == "trouble.silent"


@pytest.mark.parametrize("url", ["ftp://x", "http://user:pass@x", "http://", "http://x/?a=b", "http://a b"])
def test_an_address_that_is_none_is_refused(url, connect):
    with pytest.raises(ConsoleTrouble, match="bad_url"):
        connect(url=url)


@pytest.mark.parametrize("token", ["a b", "a\r\nx-admin: 1", "schlüssel"])
async def test_a_token_cannot_add_lines_to_a_request(gateway, connect, token):
    assert (await trouble_of(connect(token).get("/x"))).key == "trouble.bad_token"
    assert gateway.asked == []


async def test_a_key_asks_for_the_administration_and_a_login_for_the_documented_routes(gateway, connect):
    gateway.answers |= {"GET /admin/api/slots": [], "GET /admin/models": {}}
    assert isinstance(await choose_source(connect("sk-x"), None), AdminSource)
    assert isinstance(await choose_source(connect(LOGIN), None), DocumentedSource)
    del gateway.answers["GET /admin/models"]
    assert isinstance(await choose_source(connect(LOGIN), None), AdminSource)
    gateway.answers = {"GET /admin/models": {}}
    assert isinstance(await choose_source(connect("sk-x"), None), DocumentedSource)


async def test_routes_that_there_are_not_are_asked_for_once(gateway, connect):
    gateway.answers["GET /admin/api/slots"] = []
    gateway.answers["GET /admin/api/crashes"] = (403, {})
    source = await choose_source(connect(), type("Clock", (), {"now": lambda self: 0.0})())
    first, second = await source.read(), await source.read()
    assert first == second
    assert (first.queues, first.jobs, first.crashes) == (None, None, None)
    assert gateway.paths("GET").count("/api/requests") == 1
    assert gateway.paths("GET").count("/admin/api/crashes") == 1


def test_pauses_grow_and_end_at_a_quarter_of_a_minute():
    trouble = ConsoleTrouble("trouble.unreachable", url="")
    assert [pause_after(trouble, failures) for failures in range(1, 8)] == [1, 2, 4, 8, 15, 15, 15]
    assert pause_after(ConsoleTrouble("trouble.unauthenticated", 401), 1) == 30


async def test_a_look_that_fails_is_told_with_the_pause_until_the_next():
    lost = asyncio.Queue()

    async def choose():
        raise ConsoleTrouble("trouble.unreachable", url="u")

    feed = Feed(choose, show=lambda _: None, lose=lambda trouble, pause: lost.put_nowait(pause), every=2.0)
    task = asyncio.ensure_future(feed.run())
    pauses = []
    for _ in range(3):
        async with asyncio.timeout(30):
            pauses.append(await lost.get())
        await asyncio.sleep(0)
        feed.hurry()
    task.cancel()
    assert pauses == [1, 2, 4]


def test_a_secret_is_in_no_text_of_a_connection(connect):
    assert isinstance(connect("sk-canary"), Connection)
    assert "sk-canary" not in repr(connect("sk-canary").__dict__)
