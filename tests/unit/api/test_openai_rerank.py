import asyncio
import json
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.api.openai.requests import RerankBody, read_body
from stellwerk.api.openai.rerank import RerankReply, read_ranking
from stellwerk.core.call import Operation, Wire
from stellwerk.core.errors import BadRequest, UpstreamError
from stellwerk.core.outcome import Usage
from stellwerk.core.plan import Target
from tests.port_fakes import CountingMeter, PlayedAnswer, RecordedExchange, make_call

TARGET = Target(provider="house", model="up")
DECODER = msgspec.json.Decoder(RerankBody)
DOCUMENTS = ["zero", "one", "two"]
QUESTION = {"model": "m", "query": "q", "documents": DOCUMENTS}


def results(*scores):
    return [{"index": index, "relevance_score": score} for index, score in scores]


class Talk:
    """One reply with everything around it."""

    def __init__(self, *, most=3, shows=False) -> None:
        self.exchange, self.meter = RecordedExchange(), CountingMeter()
        call = make_call(Operation.RERANK, documents=DOCUMENTS)
        self.reply = RerankReply(call, self.exchange, DOCUMENTS, most=most, shows=shows)
        self.reply.admit(((b"x-ratelimit-limit-requests", b"60"),))

    async def relay(self, body) -> RecordedExchange:
        async with asyncio.timeout(30):
            await self.reply.relay(PlayedAnswer(json.dumps(body).encode()), TARGET, self.meter)
        return self.exchange


async def test_the_best_documents_come_first_with_what_clients_of_both_apis_read():
    talk = Talk()
    exchange = await talk.relay(
        {"id": "theirs", "model": "up", "results": results((0, 0.1), (2, 0.9), (1, 0.1)), "usage": {"total_tokens": 7}}
    )
    assert (exchange.status, exchange.finished) == (200, 1)
    assert exchange.json == {
        "id": "theirs",
        "object": "list",
        "model": "house/up",
        "results": results((2, 0.9), (0, 0.1), (1, 0.1)),
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
        "meta": {"tokens": {"input_tokens": 7, "output_tokens": 0}},
    }
    assert exchange.header("x-request-id") == "req_1"
    assert exchange.header("x-stellwerk-model") == "house/up"
    assert exchange.header("x-ratelimit-limit-requests") == "60"
    assert talk.meter.counted == [Usage(input_tokens=7)]
    assert (talk.meter.events, talk.meter.begun, talk.reply.started) == (1, 1, True)


async def test_no_more_results_than_asked_for_and_the_texts_only_when_asked_for():
    exchange = await Talk(most=2, shows=True).relay({"results": results((0, -3), (2, -1), (1, -2))})
    assert exchange.json["results"] == [
        {"index": 2, "relevance_score": -1, "document": {"text": "two"}},
        {"index": 1, "relevance_score": -2, "document": {"text": "one"}},
    ]


async def test_an_answer_without_a_name_or_a_count_gets_a_name_and_no_count():
    talk = Talk()
    exchange = await talk.relay({"results": results((0, 1)), "id": 7, "usage": None})
    assert exchange.json["id"].startswith("rerank-")
    assert not {"usage", "meta"} & set(exchange.json)
    assert talk.meter.counted == []


@pytest.mark.parametrize(
    "more",
    [
        {"usage": {"prompt_tokens": 5, "total_tokens": 9}},
        {"usage": {"total_tokens": 5}},
        {"meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}, "tokens": {"input_tokens": 5}}},
        {"meta": {"billed_units": {"input_tokens": 5.0}}},
    ],
)
def test_tokens_are_read_wherever_an_upstream_says_them(more):
    assert read_ranking(json.dumps({"results": [], **more}).encode(), 3).input_tokens == 5


@pytest.mark.parametrize("usage", [{"total_tokens": -1}, {"total_tokens": 10**12}, {"total_tokens": "9"}, 5, [], {}])
def test_tokens_beyond_belief_are_none(usage):
    assert read_ranking(json.dumps({"results": [], "usage": usage}).encode(), 3).input_tokens is None


def test_a_list_called_data_is_read_too():
    (found,) = read_ranking(json.dumps({"data": results((1, 0.5))}).encode(), 3).results
    assert (found.index, found.relevance_score) == (1, 0.5)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"results":[{"index":0}]}',
        b'{"results":[{"index":3,"relevance_score":1}]}',
        b'{"results":[{"index":-1,"relevance_score":1}]}',
        b'{"results":[{"index":0,"relevance_score":1},{"index":0,"relevance_score":2}]}',
        b'{"results":[{"index":0,"relevance_score":NaN}]}',
        b'{"error":{"message":"it failed"}}',
    ],
)
async def test_an_answer_that_cannot_be_used_leaves_the_client_untouched(body):
    talk = Talk()
    with pytest.raises(UpstreamError):
        await talk.reply.relay(PlayedAnswer(body), TARGET, talk.meter)
    assert (talk.reply.started, talk.exchange.started, talk.meter.begun) == (False, False, 0)


@given(st.binary(max_size=60) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_any_answer_is_read_or_refused(body):
    with suppress(UpstreamError):
        read_ranking(body if isinstance(body, bytes) else b'{"results":%b}' % body.encode(), 3)


def test_there_is_no_other_wire():
    reply = Talk().reply
    assert reply.fields(Wire.RERANK)["query"]
    with pytest.raises(BadRequest):
        reply.fields(Wire.OPENAI_EMBEDDING)


# --- bodies


@pytest.mark.parametrize("documents", [["a"], [{"text": "a"}, "b"], ["a"] * 1_000])
def test_documents_are_texts_or_objects_with_a_text(documents):
    body, _ = read_body(json.dumps({**QUESTION, "documents": documents, "top_n": 5_000}).encode(), None, DECODER)
    assert len(body.documents) == len(documents)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"query": ""}, "query"),
        ({"query": ["q"]}, "query"),
        ({"query": None}, "query"),
        ({"query": "q" * 40_000}, "query"),
        ({"documents": []}, "documents"),
        ({"documents": "text"}, "documents"),
        ({"documents": ["a"] * 1_001}, "documents"),
        ({"documents": [{"image": "x"}]}, "documents"),
        ({"documents": [7]}, "documents"),
        ({"top_n": 0}, "top_n"),
        ({"top_n": "3"}, "top_n"),
        ({"return_documents": "yes"}, "return_documents"),
        ({"model": ""}, "model"),
        ({"Query": "another"}, "Query"),
    ],
)
def test_a_wrong_field_is_named(change, param):
    with pytest.raises(BadRequest) as caught:
        read_body(json.dumps({**QUESTION, **change}).encode(), None, DECODER)
    assert caught.value.param.startswith(param)
