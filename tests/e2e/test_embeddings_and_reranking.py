"""OpenAI's client and plain requests against a gateway with real engines: embeddings and reranking."""

import base64
import json
import math
import struct
from collections.abc import AsyncIterator

import openai
import pytest
import pytest_asyncio

from tests.customers import House, ask
from tests.gateway_process import GatewayProcess, running_gateway
from tests.openai_client import client_of
from tests.real_engines import free_ports
from tests.scripted_upstream import ScriptedUpstream
from tests.tiny_gguf import write_tiny_chat_model, write_tiny_embedding_model, write_tiny_reranker
from tests.upstream_scripts import answering

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEMO = "stellwerk-demo-embedding"
DOCUMENTS = [
    "Set the environment variable OPENAI_API_KEY, then its models are offered.",
    "Put the file into the models folder and it is loaded when somebody asks for it.",
    "The port is 8080 unless the configuration says another.",
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[ScriptedUpstream]:
    upstream = ScriptedUpstream()
    await upstream.start()
    yield upstream
    await upstream.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory, server) -> AsyncIterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("vectors")
    models = folder / "models"
    models.mkdir()
    write_tiny_chat_model(models / "chat.gguf")
    write_tiny_embedding_model(models / "vectors.gguf")
    write_tiny_reranker(models / "ranks.gguf")
    config = {
        "engines": {"enabled": True, "models_folder": str(models), "first_port": free_ports(7)},
        "providers": {"up": {"base_url": server.url, "models": ["up-rerank", "up-embed"], "api_key": ""}},
        "upstream": {"attempts": 1, "breaker_failures": 0},
    }
    async with running_gateway(folder, config) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(gateway) -> AsyncIterator[openai.AsyncOpenAI]:
    async with client_of(gateway, timeout=60) as made:
        yield made


@pytest.fixture(scope="module")
def house(gateway) -> House:
    return House(gateway)


@pytest.fixture
def upstream(server) -> ScriptedUpstream:
    server.requests.clear()
    return server


def length(vector: list[float]) -> float:
    return math.hypot(*vector)


def cosine(one: list[float], two: list[float]) -> float:
    return sum(a * b for a, b in zip(one, two, strict=True)) / (length(one) * length(two))


async def rerank(gateway, model, query, documents, path="/v1/rerank", key=None, headers=None, **fields):
    body = {"model": model, "query": query, "documents": documents, **fields}
    return await ask(gateway.port, "POST", path, body, key=key or gateway.key, headers=headers)


# --- embeddings


async def test_vectors_are_the_same_in_numbers_and_in_base64(client):
    # The client itself asks for base64 when nobody says how it should.
    packed = await client.embeddings.create(model="vectors", input=["one", "two"])
    plain = await client.embeddings.create(model="vectors", input=["one", "two"], encoding_format="float")
    for first, second in zip(packed.data, plain.data, strict=True):
        assert (len(first.embedding), first.index) == (96, second.index)
        assert first.embedding == pytest.approx(second.embedding, abs=1e-6)
        assert length(first.embedding) == pytest.approx(1, abs=1e-5)
    assert plain.data[0].embedding != plain.data[1].embedding
    assert (packed.usage.prompt_tokens, packed.model) == (plain.usage.prompt_tokens, "vectors")
    raw = await client.embeddings.with_raw_response.create(model="vectors", input="one", encoding_format="base64")
    assert isinstance(json.loads(raw.text)["data"][0]["embedding"], str)


async def test_a_null_asks_for_nothing_as_in_the_requests_of_litellm(gateway):
    body = {"model": "vectors", "input": "one", "encoding_format": None, "dimensions": None, "user": None}
    answer = await ask(gateway.port, "POST", "/v1/embeddings", body, key=gateway.key)
    assert answer.status == 200, answer.body
    assert len(answer.json["data"][0]["embedding"]) == 96


@pytest.mark.parametrize("encoding", ["float", "base64", None])
async def test_fewer_dimensions_are_the_first_ones_at_full_length(client, encoding):
    how = {} if encoding is None else {"encoding_format": encoding}
    whole = (await client.embeddings.create(model="vectors", input="one", encoding_format="float")).data[0].embedding
    answer = await client.embeddings.create(model="vectors", input="one", dimensions=8, **how)
    vector = answer.data[0].embedding
    if isinstance(vector, str):
        vector = list(struct.unpack("<8f", base64.b64decode(vector)))
    assert (len(vector), length(vector)) == (8, pytest.approx(1, abs=1e-5))
    assert cosine(vector, whole[:8]) == pytest.approx(1, abs=1e-5)


async def test_more_dimensions_than_there_are_get_a_reason(client):
    with pytest.raises(openai.BadRequestError, match="96 dimensions") as caught:
        await client.embeddings.create(model="vectors", input="one", dimensions=97)
    assert caught.value.param == "dimensions"


async def test_token_ids_are_taken_in_place_of_texts(client):
    single = await client.embeddings.create(model="vectors", input=[7, 8, 9], encoding_format="float")
    several = await client.embeddings.create(model="vectors", input=[[7, 8, 9], [10]], encoding_format="float")
    assert (single.usage.prompt_tokens, len(several.data)) == (3, 2)
    assert several.data[0].embedding == pytest.approx(single.data[0].embedding, abs=1e-5)


async def test_a_text_that_is_too_long_is_the_clients_mistake(client):
    with pytest.raises(openai.BadRequestError, match="too large to process") as caught:
        await client.embeddings.create(model="vectors", input=["short", "a " * 3_000])
    assert caught.value.code == "context_length_exceeded"
    # It harmed nobody.
    assert (await client.embeddings.create(model="vectors", input="one")).data


@pytest.mark.parametrize("model", ["chat", "ranks"])
async def test_other_models_do_not_embed(client, model):
    with pytest.raises(openai.BadRequestError) as caught:
        await client.embeddings.create(model=model, input="one")
    assert caught.value.code == "unsupported_operation"


async def test_an_unknown_name_never_reaches_an_embedding_model(client):
    with pytest.raises(openai.NotFoundError):
        await client.embeddings.create(model="text-embedding-3-small", input="one")


async def test_the_demo_that_ships_knows_a_question_in_both_languages(client):
    listed = {model.id: model for model in (await client.models.list()).data}
    assert listed[DEMO].x_stellwerk["operations"] == ["embedding", "rerank"]
    texts = ["Where do I put my GGUF files?", "Wohin kommen meine GGUF-Dateien?", "Who painted the Mona Lisa?"]
    answer = await client.embeddings.create(model=DEMO, input=texts, encoding_format="float")
    english, german, stranger = (row.embedding for row in answer.data)
    assert len(english) == 128
    assert cosine(english, german) > 0.5 > cosine(english, stranger)


# --- reranking


async def test_a_local_reranker_scores_each_pair(gateway):
    answer = await rerank(gateway, "ranks", "hello", ["a cat", "hello there", "x"], headers={"x-request-id": "ranked"})
    assert answer.status == 200
    scores = [result["relevance_score"] for result in answer.json["results"]]
    assert scores == sorted(scores, reverse=True)
    assert sorted(result["index"] for result in answer.json["results"]) == [0, 1, 2]
    assert (answer.json["model"], answer.json["object"]) == ("ranks", "list")
    assert answer.json["usage"]["total_tokens"] == answer.json["meta"]["tokens"]["input_tokens"] > 0
    row = await gateway.call("ranked")
    assert (row["operation"], row["status"], row["output_tokens"]) == ("rerank", 200, 0)
    assert row["input_tokens"] == answer.json["usage"]["prompt_tokens"]


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
async def test_an_embedding_model_reranks_across_languages(gateway, path):
    documents = [{"text": DOCUMENTS[0]}, *DOCUMENTS[1:]]
    query = "Wo lege ich mein Modell ab?"
    answer = await rerank(gateway, DEMO, query, documents, path, top_n=1, return_documents=True)
    (best,) = answer.json["results"]
    assert (best["index"], best["document"]) == (1, {"text": DOCUMENTS[1]})
    assert 0 < best["relevance_score"] <= 1
    assert answer.json["id"].startswith("rerank-")


async def test_a_document_that_is_too_long_is_the_clients_mistake(gateway):
    for model in ("ranks", "vectors"):
        answer = await rerank(gateway, model, "hello", ["short", "a " * 3_000])
        assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")


async def test_a_chat_model_does_not_rerank(gateway):
    answer = await rerank(gateway, "chat", "hello", ["one"])
    assert (answer.status, answer.error["code"]) == (400, "unsupported_operation")
    assert "reranking" in answer.error["message"]


async def test_an_upstream_reranks_and_the_tokens_are_paid_for(gateway, house, upstream):
    await house.set_price("up/up-rerank", input_per_1m=1_000)
    customer = await house.make_customer(balance=1)
    results = [{"index": 1, "relevance_score": 0.2}, {"index": 0, "relevance_score": 0.9}]
    upstream.script = answering(200, {"model": "up-rerank", "results": results, "usage": {"total_tokens": 100}})
    answer = await rerank(gateway, "up/up-rerank", "q", [{"text": "a"}, "b"], key=customer.key, max_tokens_per_doc=5)
    assert [result["index"] for result in answer.json["results"]] == [0, 1]
    assert answer.json["model"] == "up/up-rerank"
    (request,) = upstream.requests
    assert request.path == "/v1/rerank"
    assert request.json == {"model": "up-rerank", "query": "q", "documents": ["a", "b"], "max_tokens_per_doc": 5}
    # 100 tokens at 1000 a million.
    assert await house.balance(customer) == 900_000


async def test_whoever_has_no_money_is_refused_before_anybody_is_asked(gateway, house, upstream):
    await house.set_price("up/up-embed", input_per_1m=1_000)
    customer = await house.make_customer(balance=0)
    answer = await rerank(gateway, "up/up-embed", "q", ["a"], key=customer.key)
    assert (answer.status, upstream.requests) == (402, [])


async def test_a_refusal_of_the_upstream_is_told_in_openais_form(gateway, upstream):
    upstream.script = answering(404, {"error": {"message": "no such thing", "code": "nothing"}})
    answer = await rerank(gateway, "up/up-rerank", "q", ["a"])
    assert answer.status in (404, 502)
    assert set(answer.error) >= {"message", "type", "code"}


@pytest.mark.parametrize("body", [b"", b"{}", b'{"model":"ranks"}', b'{"model":"ranks","query":"q","documents":[]}'])
async def test_a_body_that_lacks_something_is_refused(gateway, body):
    answer = await ask(gateway.port, "POST", "/v1/rerank", body, key=gateway.key)
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
