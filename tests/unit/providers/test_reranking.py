import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.core.call import Operation, Wire
from stellwerk.core.clock import SystemClock
from stellwerk.core.errors import BadRequest, UpstreamBroken, UpstreamError
from stellwerk.core.plan import Model, Target
from stellwerk.core.ports import EngineAddress
from stellwerk.core.secrets import Secret
from stellwerk.http.pool import parse_base_url
from stellwerk.providers._reranking import score
from stellwerk.providers.local import Local
from stellwerk.providers.openai_compatible import OpenAICompatible, ProviderSettings
from tests.port_fakes import make_call
from tests.upstream_scripts import answering, failing

USAGE = {"prompt_tokens": 9, "total_tokens": 9}
RANKED = {"model": "up", "results": [{"index": 1, "relevance_score": 0.9}], "usage": USAGE}


def vectors(*rows, **more):
    data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)]
    return {"object": "list", "model": "up", "data": data, "usage": USAGE, **more}


def scores(body) -> list[float]:
    results = json.loads(score(json.dumps(body).encode()))["results"]
    assert [result["index"] for result in results] == list(range(len(results)))
    return [result["relevance_score"] for result in results]


@pytest.fixture
def connect(upstream, pools):
    def make(**settings):
        made = ProviderSettings(**{"name": "house", "base_url": upstream.url, "keys": (Secret("key"),), **settings})
        return OpenAICompatible(made, pools.pool(parse_base_url(upstream.url)[0]), SystemClock())

    return make


async def rerank(provider, model, **fields):
    call = make_call(Operation.RERANK, **fields)
    async with asyncio.timeout(30):
        answer = await provider.send(call, Target(provider="house", model=model), Wire.RERANK, call.fields)
        return json.loads(await answer.read())


# --- scores


def test_a_score_is_the_cosine_of_query_and_document():
    assert scores(vectors([2, 0], [3, 0], [0, 5], [-1, 0], [1, 1])) == pytest.approx([1, 0, -1, 0.5**0.5])


def test_vectors_count_in_the_order_of_their_numbers():
    body = vectors([1, 0], [0, 1], [1, 0])
    body["data"].reverse()
    assert scores(body) == [0, 1]


def test_a_vector_without_a_direction_scores_nothing():
    assert scores(vectors([1, 0], [0, 0])) == [0]
    assert scores(vectors([0, 0], [1, 0])) == [0]
    assert scores(vectors([1e200, 1], [1e200, 1])) == [0]


@given(st.lists(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=3), min_size=2, max_size=6))
def test_every_score_lies_between_minus_one_and_one(rows):
    assert all(-1 <= found <= 1 for found in scores(vectors(*rows)))


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"data":[]}', b'{"data":[{"embedding":[1]}]}', b'{"data":[{"embedding":"AAAA"}]}'],
)
def test_what_holds_no_vectors_is_the_upstreams_fault(body):
    with pytest.raises(UpstreamBroken):
        score(body)


def test_vectors_of_different_sizes_are_the_upstreams_fault():
    with pytest.raises(UpstreamBroken):
        score(json.dumps(vectors([1, 0], [1])).encode())


# --- upstreams


@pytest.mark.parametrize(
    ("rerank_path", "path"), [("rerank", "/v1/rerank"), ("/v2/rerank", "/v2/rerank")], ids=["below", "beside"]
)
async def test_an_upstream_that_reranks_is_asked_as_the_client_asked(connect, upstream, rerank_path, path):
    upstream.script = answering(200, RANKED)
    answer = await rerank(connect(rerank=rerank_path), "jina-reranker-v2", top_n=1, max_tokens_per_doc=99)
    assert answer == RANKED
    (request,) = upstream.requests
    assert (request.path, request.headers["authorization"]) == (path, "Bearer key")
    assert request.json == {
        "model": "jina-reranker-v2",
        "query": "Hi",
        "documents": ["Hello", "Goodbye"],
        "top_n": 1,
        "max_tokens_per_doc": 99,
    }


@pytest.mark.parametrize(
    ("settings", "model"),
    [({}, "any"), ({"rerank": "rerank"}, "text-Embedding-3-small")],
    ids=["no reranking", "an embedding model"],
)
async def test_otherwise_the_vectors_of_the_texts_are_compared(connect, upstream, settings, model):
    upstream.script = answering(200, vectors([1, 0], [0, 1], [1, 0]))
    answer = await rerank(connect(**settings), model, top_n=1, user="somebody")
    assert [(each["index"], each["relevance_score"]) for each in answer["results"]] == [(0, 0), (1, 1)]
    assert answer["usage"] == USAGE
    (request,) = upstream.requests
    assert request.path == "/v1/embeddings"
    assert request.json == {"model": model, "input": ["Hi", "Hello", "Goodbye"], "encoding_format": "float"}


async def test_a_reranker_is_no_embedding_model_though_its_name_may_say_so(connect, upstream):
    upstream.script = answering(200, RANKED)
    assert await rerank(connect(rerank="rerank"), "qwen3-embed-rerank") == RANKED
    assert upstream.requests[0].path == "/v1/rerank"


async def test_many_long_vectors_are_compared_too(connect, upstream):
    upstream.script = answering(200, vectors(*([0.123456789] * 2_000 for _ in range(31))))
    documents = ["text"] * 30
    answer = await rerank(connect(), "embed", documents=documents)
    assert [each["relevance_score"] for each in answer["results"]] == pytest.approx([1] * 30)


@pytest.mark.parametrize(("status", "kind"), [(400, BadRequest), (500, UpstreamError)])
async def test_refusals_of_an_upstream_are_passed_on(connect, upstream, status, kind):
    upstream.script = failing(status)
    for settings in ({}, {"rerank": "rerank"}):
        with pytest.raises(kind):
            await rerank(connect(**settings), "any")


# --- engines of our own


class Lease:
    def __init__(self, address) -> None:
        self.address, self.released = address, 0

    def doubt(self) -> None: ...

    def suspect(self) -> None: ...

    def note_answer(self) -> None: ...

    def release(self) -> None:
        self.released += 1


class Engines:
    def __init__(self, upstream, operations) -> None:
        self._lease = Lease(EngineAddress(host="127.0.0.1", port=upstream.port, key="engine"))
        self._model = Model(provider="local", name="any", id="any", local=True, operations=frozenset(operations))
        self.released = lambda: self._lease.released

    def models(self):
        return [self._model]

    async def acquire(self, model, **options):
        return self._lease


async def test_a_local_reranker_is_told_no_more_than_it_needs(upstream, pools):
    upstream.script = answering(200, RANKED)
    engines = Engines(upstream, {Operation.RERANK})
    answer = await rerank(Local(engines, pools.pool, SystemClock()), "any", top_n=1, lora=[], cache_prompt=False)
    assert (answer, engines.released()) == (RANKED, 1)
    (request,) = upstream.requests
    assert request.path == "/v1/rerank"
    assert request.json == {"model": "any", "query": "Hi", "documents": ["Hello", "Goodbye"], "top_n": 1}


async def test_of_a_local_embedding_model_the_vectors_are_compared(upstream, pools):
    upstream.script = answering(200, vectors([1, 0], [0, 1], [1, 0]))
    engines = Engines(upstream, {Operation.EMBEDDING, Operation.RERANK})
    answer = await rerank(Local(engines, pools.pool, SystemClock()), "any")
    assert [each["relevance_score"] for each in answer["results"]] == [0, 1]
    assert engines.released() == 1
    assert upstream.requests[0].path == "/v1/embeddings"


async def test_an_engine_is_free_again_when_its_vectors_cannot_be_read(upstream, pools):
    upstream.script = answering(200, {"data": []})
    engines = Engines(upstream, {Operation.EMBEDDING, Operation.RERANK})
    with pytest.raises(UpstreamBroken):
        await rerank(Local(engines, pools.pool, SystemClock()), "any")
    assert engines.released() == 1
