import asyncio
import json
from typing import Annotated

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from stellwerk.api._bodies import decode_body
from stellwerk.api._endpoints import Endpoint, Registry
from stellwerk.api._guard import Routes
from stellwerk.core.errors import BadRequest, Conflict, Unauthenticated
from stellwerk.core.principal import ADMINS, OPEN
from stellwerk.http.router import Router
from tests.port_fakes import RecordedExchange


class Body(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(max_length=5)] = "none"


class Query(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    limit: Annotated[int, Meta(ge=1, le=9)] = 3
    name: str | None = None
    most: int | None = None
    on: bool = False


class Answer(msgspec.Struct):
    said: str


class NoKeys:
    def authenticate(self, token):
        raise Unauthenticated("no")

    async def authenticate_or_refresh(self, token):
        raise Unauthenticated("no")


class Watch:
    def refused(self, code):
        pass


class Site:
    """One endpoint, and what its handler was asked."""

    def __init__(self, method="POST", path="/things/{thing_id}", **fields):
        self.asked = []
        self.router = Router()
        self.registry = Registry(Routes(self.router, NoKeys(), Watch()))
        fields = {"access": OPEN, "path_parameters": {"thing_id": Annotated[int, Meta(ge=1, le=99)]}} | fields
        self.registry.add(
            Endpoint(method=method, path=path, summary="", tag="", handler=self._handle, answer=Answer, **fields)
        )

    async def _handle(self, asked):
        self.asked.append(asked)
        return await self.answer(asked)

    async def answer(self, asked):
        return Answer(said="hello")

    async def ask(self, path="/things/7", *, body=b"{}", query=b"", **headers):
        exchange = RecordedExchange(
            path=path, query=query, body=body, headers={k.replace("_", "-").encode(): v for k, v in headers.items()}
        )
        [handler] = [found for method, found in self.router.find(path).items() if method != "HEAD"]
        await handler(exchange)
        return exchange


async def test_an_answer_is_json_that_nobody_stores():
    exchange = await Site().ask(x_request_id=b"trace-1")
    assert (exchange.status, exchange.json) == (200, {"said": "hello"})
    assert exchange.header("content-type") == "application/json"
    assert exchange.header("cache-control") == "no-store"
    assert exchange.header("x-request-id") == "trace-1"


async def test_a_handler_gets_values_of_the_declared_types():
    site = Site(query=Query, body=Body)
    await site.ask("/things/42", query=b"limit=5&name=a%20b&on=true", body=b'{"name":"ada"}')
    [asked] = site.asked
    assert asked.parameters == {"thing_id": 42}
    assert asked.query == Query(limit=5, name="a b", on=True)
    assert asked.body == Body(name="ada")
    assert asked.peer == "192.0.2.1"


@pytest.mark.parametrize("path", ["/things/0", "/things/100", "/things/x", "/things/1.5", "/things/%ff", "/things/%00"])
async def test_what_cannot_be_an_id_is_found_nowhere(path):
    site = Site()
    exchange = await site.ask(path)
    assert (exchange.status, exchange.json["error"]["message"]) == (404, "There is no such thing.")
    assert site.asked == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        (b"limit=0", "limit"),
        (b"most=null", "most"),
        (b"limit=", "limit"),
        (b"limit=1&limit=1", "limit"),
        (b"depth=1", "depth"),
        (b"on=perhaps", "on"),
        (b"name=%ff", None),
        (b"\xff=1", None),
        (b"&".join(b"a%d=1" % n for n in range(40)), None),
    ],
)
async def test_a_query_that_does_not_fit_is_refused_by_its_name(query, param):
    site = Site(query=Query)
    exchange = await site.ask(query=query)
    assert (exchange.status, exchange.json["error"]["param"]) == (400, param)
    assert site.asked == []


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b'{"name":"much too long"}', "name", "invalid_value"),
        (b'{"name":1}', "name", "invalid_type"),
        (b'{"nam":"x"}', "nam", "unknown_parameter"),
        (b"[]", None, "invalid_type"),
        (b"", None, "json_invalid"),
        (b"{", None, "json_invalid"),
        (b'{"name":"\xff"}', None, "json_invalid"),
    ],
)
async def test_a_body_that_does_not_fit_is_refused_by_the_name_of_the_field(body, param, code):
    site = Site(body=Body)
    exchange = await site.ask(body=body)
    error = exchange.json["error"]
    assert (exchange.status, error["param"], error["code"]) == (400, param, code)
    assert site.asked == []


async def test_a_hint_stands_beside_the_name_of_an_unknown_field_and_nowhere_else():
    site = Site(body=Body, unknown_hint="Look elsewhere.")
    assert (await site.ask(body=b'{"nam":1}')).json["detail"] == "Unknown parameter: 'nam'. Look elsewhere."
    assert "elsewhere" not in (await site.ask(body=b'{"name":1}')).json["detail"]


async def test_a_body_of_another_type_or_size_is_refused():
    site = Site(body=Body)
    assert (await site.ask(content_type=b"image/png")).status == 415
    exchange = await site.ask(body=b'{"name":"' + b"x" * (1 << 20) + b'"}')
    assert exchange.status == 413
    assert site.asked == []


async def test_a_body_that_may_be_left_out_has_defaults():
    site = Site(body=Body, body_optional=True)
    await site.ask(body=b"")
    await site.ask(body=b'{"name":"ada"}')
    assert [asked.body for asked in site.asked] == [Body(), Body(name="ada")]


async def test_a_handlers_refusal_is_rendered():
    site = Site()

    async def refuse(asked):
        raise Conflict("Not now.", code="busy")

    site.answer = refuse
    exchange = await site.ask()
    assert (exchange.status, exchange.json["error"]["code"]) == (409, "busy")


async def test_nobody_reaches_the_handler_without_a_key():
    site = Site(access=ADMINS, body=Body)
    exchange = await site.ask(body=b"not even json")
    assert exchange.status == 401
    assert site.asked == []


def test_every_endpoint_is_kept_in_order_and_registered_once():
    site = Site()
    assert [(one.method, one.path) for one in site.registry.endpoints] == [("POST", "/things/{thing_id}")]
    with pytest.raises(ValueError, match="registered twice"):
        site.registry.add(*site.registry.endpoints)


@given(
    path=st.text("0123456789abc%./-", min_size=1, max_size=8), query=st.binary(max_size=60), body=st.binary(max_size=60)
)
def test_whatever_comes_the_answer_is_json_and_no_failure(path, query, body):
    site = Site(query=Query, body=Body)
    target = f"/things/{path.replace('/', '')}"
    if site.router.find(target) is None:
        return
    exchange = asyncio.run(site.ask(target, query=query, body=body))
    assert exchange.status in {200, 400, 404}
    assert json.loads(exchange.written)


@pytest.mark.parametrize("name", ["x" * 5000, " - at `$" + "x" * 5000, " - at `$.a` - at `key in $" + "x" * 5000])
def test_a_long_name_of_a_field_does_not_come_back_whole(name):
    decoder = msgspec.json.Decoder(Body)
    with pytest.raises(BadRequest) as caught:
        decode_body(json.dumps({name: 1}).encode(), None, decoder)
    assert len(caught.value.message) + len(caught.value.param or "") < 1000
