import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.core.principal import ADMINS, CALLERS, OBSERVERS, OPEN, READERS
from stellwerk.http.cors import NOBODY, Cors, allowed_fields, read_origins
from stellwerk.http.guard import GuardSettings
from stellwerk.http.router import Route, Router
from tests.running_listener import listening

APP, LOCAL, EVIL = b"https://app.example.org", b"http://localhost:3000", b"https://evil.example"
EXTENSION = b"chrome-extension://jfgfiigpkhlkbnfnbobbkinehhfdhndo"
NAMED = [APP.decode(), LOCAL.decode(), EXTENSION.decode()]
OLLAMA = ["chrome-extension://*", "moz-extension://*", "file://*", "http://localhost:*", "https://[::1]:*"]

hosts = st.from_regex(r"[a-z0-9-]{1,12}(\.[a-z0-9-]{1,8}){0,2}", fullmatch=True)
schemes = st.sampled_from(["http", "https", "chrome-extension", "moz-extension", "app", "file"])
ports = st.none() | st.integers(1, 70000)


@st.composite
def origins(draw) -> str:
    scheme, host, port = draw(schemes), draw(hosts), draw(ports)
    return f"{scheme}://{host}" + (f":{port}" if port else "")


# --- who is named


def test_without_entries_nobody_is_told_anything():
    found, wrong = read_origins([])
    assert (found, wrong, bool(found)) == (NOBODY, [], False)
    assert Cors(found, Router()).headers == ()
    assert found.allow(APP) is None


@pytest.mark.parametrize("origin", [APP, LOCAL, EXTENSION])
def test_who_is_named_is_told_his_own_origin(origin):
    found, wrong = read_origins(NAMED)
    assert wrong == []
    assert found.name(origin)
    assert found.allow(origin) == origin


@pytest.mark.parametrize(
    "origin",
    [
        EVIL,
        b"http://app.example.org",
        b"https://app.example.org:8443",
        b"https://app.example.org.evil.example",
        b"https://evil.example/https://app.example.org",
        b"https://www.app.example.org",
        b"https://app.example.org/",
        b"https://app.example.org, https://app.example.org",
        b"http://localhost",
        b"http://localhost:30000",
        b"chrome-extension://jfgfiigpkhlkbnfnbobbkinehhfdhndp",
        b"null",
        b"*",
        b"",
    ],
)
def test_who_is_not_named_to_the_letter_is_told_nothing(origin):
    found, _ = read_origins(NAMED)
    assert not found.name(origin)
    assert found.allow(origin) is None


def test_everybody_may_read_and_nobody_is_named_by_it():
    found, wrong = read_origins(["*", APP.decode()])
    assert wrong == []
    assert (found.allow(EVIL), found.allow(b"null")) == (b"*", b"*")
    assert not found.name(EVIL)
    assert found.name(APP)
    assert found.allow(APP) == APP


@pytest.mark.parametrize(
    ("origin", "named"),
    [
        (EXTENSION, True),
        (b"moz-extension://0d1a2b3c-0000-4000-8000-00000000abcd", True),
        (b"file://", True),
        (b"http://localhost:1", True),
        (b"http://localhost:65535", True),
        (b"https://[::1]:3000", True),
        (b"http://localhost", False),
        (b"http://localhost:", False),
        (b"http://localhost:1.evil.example", False),
        (b"https://localhost:3000", False),
        (b"http://localhost.evil.example:3000", False),
        (b"chrome-extension://a/b", False),
        (b"chrome-extension://a, b", False),
        (b"safari-web-extension://a", False),
        (b"null", False),
    ],
)
def test_the_patterns_of_ollama_name_what_they_mean(origin, named):
    found, wrong = read_origins(OLLAMA, patterns=True)
    assert wrong == []
    assert found.name(origin) is named


@pytest.mark.parametrize(
    "entry",
    ["http://*", "https://*", "https://*.example.org", "*.example.org", "localhost", "http://host/*", "**", "null", ""],
)
def test_other_patterns_are_none(entry):
    found, wrong = read_origins([entry, APP.decode()], patterns=True)
    assert wrong == [entry]
    assert found.named == {APP}
    assert not found.everybody


def test_the_config_has_no_patterns():
    assert read_origins(OLLAMA) == (NOBODY, OLLAMA)


@given(st.lists(origins(), max_size=4), origins(), st.booleans())
def test_only_the_entries_themselves_are_named(entries, asked, everybody):
    found, wrong = read_origins([*entries, *(["*"] if everybody else [])])
    named = {entry for entry in entries if entry not in wrong}
    assert found.name(asked.encode()) is (asked in named)
    assert found.allow(asked.encode()) == (asked.encode() if asked in named else b"*" if everybody else None)


@given(st.binary(max_size=60), st.booleans())
def test_a_browser_is_told_nothing_but_what_it_asked_for(asked, everybody):
    found, _ = read_origins([*NAMED, *OLLAMA, *(["*"] if everybody else [])], patterns=True)
    for origin in (asked, b"chrome-extension://" + asked, b"http://localhost:" + asked, APP + asked):
        told = found.allow(origin)
        assert told in (origin, b"*", None)
        assert told is None or not set(told) & set(b"\r\n ,")


# --- what a browser is told


def answered(origin=APP, method="POST", path="/v1/chat/completions", asks=None):
    router = Router()
    for number, (verb, where, access) in enumerate(
        [
            ("POST", "/v1/chat/completions", CALLERS),
            ("GET", "/v1/models", READERS),
            ("GET", "/health", OPEN),
            ("POST", "/api/pull", CALLERS),
            ("DELETE", "/api/delete", ADMINS),
            ("GET", "/metrics", OBSERVERS),
            ("GET", "/admin/models", READERS),
            ("POST", "/auth/token", OPEN),
            ("PUT", "/user/api/password", READERS),
        ]
    ):

        async def handle(_exchange, number=number) -> None: ...

        router.add(Route(verb, where, access, handle))
    headers = {b"origin": origin}
    if asks is not None:
        headers[b"access-control-request-method"] = asks.encode()
    told, only_asks = Cors(read_origins(NAMED)[0], router).meet(method, path.encode() + b"?x=y", headers)
    return dict(told), only_asks


def test_a_named_page_may_read_the_answer_and_our_headers_but_never_with_cookies():
    told, only_asks = answered()
    assert told[b"access-control-allow-origin"] == APP
    shown = told[b"access-control-expose-headers"].split(b", ")
    assert {b"x-request-id", b"retry-after", b"location", b"x-ratelimit-remaining-tokens"} <= set(shown)
    assert b"x-stellwerk-queue-position" in shown
    assert b"access-control-allow-credentials" not in told
    assert not only_asks


@pytest.mark.parametrize(
    ("method", "path", "told"),
    [
        ("POST", "/v1/chat/completions", True),
        ("GET", "/v1/models", True),
        ("GET", "/health", True),
        ("POST", "/api/pull", True),
        ("GET", "/nowhere", True),
        ("DELETE", "/api/delete", False),
        ("GET", "/metrics", False),
        ("HEAD", "/metrics", False),
        ("GET", "/admin/models", False),
        ("GET", "/admin/nowhere", False),
        ("POST", "/auth/token", False),
        ("PUT", "/user/api/password", False),
    ],
)
def test_logins_and_what_only_admins_may_do_stay_with_pages_of_the_same_origin(method, path, told):
    assert answered(method=method, path=path) == (answered()[0] if told else {}, False)
    assert answered(method="OPTIONS", path=path, asks=method) == (answered()[0] if told else {}, told)
    assert answered(EVIL, method="OPTIONS", path=path, asks=method) == ({}, False)


def test_options_without_a_question_is_a_request_like_others():
    assert answered(method="OPTIONS")[1] is False
    assert answered(method="POST", asks="POST")[1] is False


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        (b"", b""),
        (b"authorization,content-type", b"authorization, content-type"),
        (b"Authorization , X-API-Key", b"authorization, x-api-key"),
        (b"x-stainless-os,x-stainless-retry-count,openai-organization", None),
        (b"anthropic-version,anthropic-dangerous-direct-browser-access,x-stellwerk-priority,prefer", None),
        (b"cookie,x-forwarded-for,host,authorization,*", b"authorization"),
        (b"authorization,authorization", b"authorization"),
        (b"x-stainless-,x-stainless-" + b"a" * 65, b""),
        (b",".join(b"x-stellwerk-%d" % n for n in range(1000)), b", ".join(b"x-stellwerk-%d" % n for n in range(64))),
    ],
)
def test_of_the_headers_that_a_page_wants_to_send_those_of_our_clients_are_allowed(asked, allowed):
    assert allowed_fields(asked) == (asked.replace(b",", b", ") if allowed is None else allowed)


@given(st.binary(max_size=300))
def test_nothing_that_a_page_asks_for_can_break_the_answer(asked):
    assert not set(allowed_fields(asked)) & set(b"\r\n")


# --- on the wire


def request(method="GET", path="/echo", *, body=b"", **headers) -> bytes:
    fields = {"Host": "localhost", "Content-Length": str(len(body)), "Connection": "close", **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def read(data: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split(" ")[1]), dict(line.lower().split(": ", 1) for line in lines), body


@pytest.mark.parametrize("plain", [False, True])
async def test_each_answer_to_a_named_page_says_so_and_a_preflight_is_answered_by_itself(plain):
    async with listening(plain=plain, origins=read_origins(NAMED)[0]) as running:
        for method, path, status in (("GET", "/echo", 200), ("PUT", "/echo", 405), ("GET", "/nowhere", 404)):
            seen, headers, _ = read(await running.exchange(request(method, path, Origin=APP.decode())))
            assert (seen, headers["access-control-allow-origin"], headers["vary"]) == (status, APP.decode(), "origin")
            seen, headers, _ = read(await running.exchange(request(method, path, Origin=EVIL.decode())))
            assert (seen, headers["vary"]) == (status, "origin")
            assert not [name for name in headers if name.startswith("access-control")]
            seen, headers, _ = read(await running.exchange(request(method, path)))
            assert (seen, headers["vary"]) == (status, "origin")
            asking = {"Access_Control_Request_Method": method, "Access_Control_Request_Headers": "authorization,x-evil"}
            seen, headers, body = read(await running.exchange(request("OPTIONS", path, Origin=APP.decode(), **asking)))
            assert (seen, body, "content-length" in headers) == (204, b"", False)
            assert headers["access-control-allow-headers"] == "authorization"
            assert "POST" in headers["access-control-allow-methods"].upper()
            assert int(headers["access-control-max-age"]) > 0
            seen, headers, _ = read(await running.exchange(request("OPTIONS", path, Origin=EVIL.decode(), **asking)))
            assert seen == (405 if path == "/echo" else 404)
            assert "access-control-allow-methods" not in headers


@pytest.mark.parametrize("plain", [False, True])
async def test_without_origins_no_answer_says_anything_of_pages(plain):
    async with listening(plain=plain) as running:
        for method in ("GET", "OPTIONS"):
            asking = {"Origin": APP.decode(), "Access_Control_Request_Method": "GET"}
            _, headers, _ = read(await running.exchange(request(method, **asking)))
            assert not [name for name in headers if name.startswith("access-control") or name == "vary"]


async def test_what_the_guard_refuses_says_it_too_and_nothing_stays_for_the_next_request():
    async with listening(GuardSettings(body_bytes=100, target_bytes=100), origins=read_origins(NAMED)[0]) as running:
        named = {"Origin": APP.decode()}
        for data, status in (
            (request("POST", body=b"x" * 101, **named), 413),
            (request(path="/echo?" + "x" * 200, **named), 400),
            (request(Content_Encoding="gzip", **named), 415),
        ):
            seen, headers, _ = read(await running.exchange(data))
            assert (seen, headers["access-control-allow-origin"]) == (status, APP.decode())
        first = request(**named).replace(b"Connection: close\r\n", b"")
        for following in (request(), b"GET /echo HTTP/1.1\nx\n\n", request("PUT"), request(path="/nowhere")):
            answers = await running.exchange(first + following)
            assert answers.count(b"access-control-allow-origin") == 1
            assert answers.count(b"HTTP/1.1 ") == 2


@pytest.mark.parametrize("plain", [False, True])
async def test_a_stream_says_it_before_its_first_byte(plain):
    async def stream(exchange) -> None:
        exchange.start(200, ((b"content-type", b"text/event-stream"),))
        exchange.write(b"data: 1\n\n")
        exchange.finish()

    async with listening(plain=plain, origins=read_origins(NAMED)[0]) as running:
        running.add("POST", "/stream", stream)
        _, headers, _ = read(await running.exchange(request("POST", "/stream", Origin=LOCAL.decode())))
        assert headers["access-control-allow-origin"] == LOCAL.decode()
        assert headers["transfer-encoding"] == "chunked"
