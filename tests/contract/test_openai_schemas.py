"""Whatever an upstream leaves out, our clients get what OpenAI's own API document promises them."""

import asyncio
import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from stellwerk.api._errors import render_openai_error
from stellwerk.api.openai.models import render_model
from stellwerk.api.openai.reply import OpenAIReply
from stellwerk.core.call import Operation
from stellwerk.core.errors import BadRequest, GatewayError, RateLimited
from stellwerk.core.events import Finished, Text, Used
from stellwerk.core.outcome import Usage
from stellwerk.core.plan import Model, Price, Target
from tests.port_fakes import CountingMeter, PlayedAnswer, RecordedExchange, make_call

DOCUMENT = json.loads((Path(__file__).parents[1] / "schemas" / "openai.json").read_text(encoding="utf-8"))
TARGET = Target(provider="house", model="up")
ID = {"id": "chatcmpl-1", "created": 1_700_000_000, "model": "up"}
WHOLE, PIECE, WORDS = (
    {**ID, "object": name} for name in ("chat.completion", "chat.completion.chunk", "text_completion")
)
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
LOGPROB = {"token": "Hi", "logprob": -0.1, "bytes": [72, 105], "top_logprobs": []}
OPENAI_MESSAGE = {"role": "assistant", "content": "Hi", "refusal": None, "annotations": []}
VLLM_NULLS = {"annotations": None, "audio": None, "function_call": None, "reasoning_content": None}
VLLM_USAGE = {**USAGE, "prompt_tokens_details": None}
VLLM_ENDING = {"service_tier": "auto", "system_fingerprint": None, "prompt_logprobs": None, "kv_transfer_params": None}


def choice(message, **more):
    return {"index": 0, "message": message, "finish_reason": "stop", **more}


def delta(content, finish=None, **more):
    return {"choices": [{"index": 0, "delta": content, "finish_reason": finish, **more}]}


CHATS = {
    "openai": {
        **WHOLE,
        "choices": [choice(OPENAI_MESSAGE, logprobs=None)],
        "usage": {
            **USAGE,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "accepted_prediction_tokens": 0},
        },
        "service_tier": "default",
        "system_fingerprint": "fp_1",
    },
    "openai with logprobs": {
        **WHOLE,
        "choices": [choice(OPENAI_MESSAGE, logprobs={"content": [LOGPROB], "refusal": None})],
        "usage": USAGE,
    },
    "llama.cpp": {
        **WHOLE,
        "choices": [choice({"role": "assistant", "content": "Hi"})],
        "system_fingerprint": "b6000-abc",
        "usage": USAGE,
        "timings": {"prompt_n": 5, "prompt_ms": 12.5},
    },
    "llama.cpp with tools and thoughts": {
        **WHOLE,
        "choices": [
            choice({"role": "assistant", "reasoning_content": "hm", "content": None, "tool_calls": [CALL]})
            | {"finish_reason": "tool_calls"}
        ],
        "usage": USAGE,
    },
    "ollama": {
        **WHOLE,
        "system_fingerprint": "fp_ollama",
        "choices": [choice({"role": "assistant", "content": "Hi", "reasoning": "hm"})],
        "usage": USAGE,
    },
    "ollama with tools": {
        **WHOLE,
        "choices": [choice({"role": "assistant", "content": "", "tool_calls": [{**CALL, "index": 0}]})],
    },
    "mistral": {
        **WHOLE,
        "usage": USAGE,
        "choices": [choice({"role": "assistant", "tool_calls": None, "content": "Hi"})],
    },
    "vllm": {
        **WHOLE,
        **VLLM_ENDING,
        "choices": [
            choice(
                {"role": "assistant", "content": "Hi", "refusal": None, "tool_calls": [], **VLLM_NULLS},
                logprobs=None,
                stop_reason=None,
            )
        ],
        "usage": VLLM_USAGE,
    },
    "without usage": {**WHOLE, "choices": [choice(OPENAI_MESSAGE, logprobs=None)], "usage": None},
}
STREAMS = {
    "openai": [
        {**PIECE, **delta({"role": "assistant", "content": "", "refusal": None}, logprobs=None), "usage": None},
        {**PIECE, **delta({"content": "Hi"}, logprobs={"content": [LOGPROB], "refusal": None}), "usage": None},
        {**PIECE, **delta({}, "stop", logprobs=None), "service_tier": "default", "obfuscation": "aB3"},
        {**PIECE, "choices": [], "usage": USAGE, "system_fingerprint": "fp_1"},
    ],
    "openai with tools": [
        {**PIECE, **delta({"role": "assistant", "content": None, "tool_calls": [{"index": 0, **CALL}]})},
        {**PIECE, **delta({"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]})},
        {**PIECE, **delta({}, "tool_calls")},
    ],
    "llama.cpp": [
        {**PIECE, **delta({"role": "assistant", "content": None}), "system_fingerprint": "b6000"},
        {**PIECE, **delta({"content": "Hi"})},
        {**PIECE, **delta({}, "stop")},
        {**PIECE, "choices": [], "usage": USAGE, "timings": {"prompt_ms": 1.5}},
    ],
    "ollama": [
        {**PIECE, "system_fingerprint": "fp_ollama", **delta({"role": "assistant", "content": "Hi"})},
        {**PIECE, "system_fingerprint": "fp_ollama", **delta({"role": "assistant", "content": ""}, "stop")},
        {**PIECE, "choices": [], "usage": USAGE},
    ],
    "mistral": [
        {**PIECE, **delta({"role": "assistant", "content": ""})},
        {**PIECE, **delta({"content": "Hi"}, "stop"), "usage": USAGE},
    ],
    "vllm": [
        {**PIECE, **delta({"role": "assistant", "content": ""}, logprobs=None), "prompt_token_ids": None},
        {**PIECE, **delta({"content": "Hi"}, "stop", logprobs=None, stop_reason=None)},
        {**PIECE, "choices": [], "usage": USAGE},
    ],
    "one that leaves finish_reason out": [
        {**PIECE, "choices": [{"index": 0, "delta": {"content": "Hi"}}]},
        {**PIECE, **delta({}, "length")},
    ],
}
COMPLETIONS = {
    "openai": {
        **WORDS,
        "choices": [{"text": "Hi", "index": 0, "logprobs": None, "finish_reason": "length"}],
        "usage": USAGE,
    },
    "llama.cpp": {
        **WORDS,
        "choices": [{"text": "Hi", "index": 0, "logprobs": None, "finish_reason": "stop"}],
        "usage": USAGE,
        "timings": {},
    },
    "ollama": {**WORDS, "choices": [{"text": "Hi", "index": 0, "finish_reason": "stop"}], "usage": USAGE},
    "vllm": {
        **WORDS,
        **VLLM_ENDING,
        "choices": [{"index": 0, "text": "Hi", "logprobs": None, "finish_reason": "stop", "stop_reason": None}],
        "usage": VLLM_USAGE,
    },
}
EMBEDDINGS = {
    name: {
        "object": "list",
        "model": "up",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -1]}],
        "usage": {**usage, "total_tokens": 5},
    }
    for name, usage in {
        "openai, llama.cpp, ollama": {"prompt_tokens": 5},
        "mistral, vllm": {"prompt_tokens": 5, "completion_tokens": 0, "prompt_tokens_details": None},
    }.items()
}


def check(body, schema, *, may_miss=()):
    validator = Draft202012Validator({"$ref": f"#/components/schemas/{schema}", "components": DOCUMENT["components"]})
    problems = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(body)]
    assert [problem for problem in problems if not any(known in problem for known in may_miss)] == []


def relay(operation, body, **fields):
    exchange = RecordedExchange()
    reply = OpenAIReply(make_call(operation, **fields), exchange)
    asyncio.run(reply.relay(PlayedAnswer(body), TARGET, CountingMeter()))
    return exchange


def tight(body) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def stream(bodies, write=tight) -> bytes:
    return b"".join(b"data: " + write(body) + b"\n\n" for body in bodies) + b"data: [DONE]\n\n"


@pytest.mark.parametrize("body", CHATS.values(), ids=CHATS)
def test_every_chat_completion_is_one_for_openai(body):
    answer = relay(Operation.CHAT, tight(body)).json
    check(answer, "CreateChatCompletionResponse")
    assert answer["model"] == "house/up"


@pytest.mark.parametrize("bodies", STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize("write", [tight, lambda body: json.dumps(body).encode()], ids=["tight", "spaced"])
@pytest.mark.parametrize("wants_usage", [True, False])
def test_every_chunk_is_one_for_openai(bodies, write, wants_usage):
    *chunks, done = relay(Operation.CHAT, stream(bodies, write), stream=True, wants_usage=wants_usage).events
    assert (done, len(chunks)) == ("[DONE]", len([one for one in bodies if one["choices"] or wants_usage]))
    for chunk in chunks:
        check(chunk, "CreateChatCompletionStreamResponse")
        assert chunk["model"] == "house/up"


@pytest.mark.parametrize("body", COMPLETIONS.values(), ids=COMPLETIONS)
def test_every_text_completion_is_one_for_openai(body):
    check(relay(Operation.COMPLETION, tight(body)).json, "CreateCompletionResponse")


@pytest.mark.parametrize("body", COMPLETIONS.values(), ids=COMPLETIONS)
def test_every_chunk_of_a_text_completion_is_one_for_openai(body):
    bodies = [{**body, "choices": [{**body["choices"][0], "finish_reason": None}]}, body]
    bodies = [{name: value for name, value in one.items() if value is not None} for one in bodies]
    for chunk in relay(Operation.COMPLETION, stream(bodies), stream=True).events[:-1]:
        # The document has one schema for whole and streamed completions and describes the whole ones: in OpenAI's
        # own streams `finish_reason` is null until the end. `logprobs` may be absent for every client we know.
        check(chunk, "CreateCompletionResponse", may_miss=("finish_reason", "'logprobs' is a required", "_details"))


@pytest.mark.parametrize("streamed", [True, False])
def test_every_translated_completion_is_one_for_openai(streamed):
    async def pieces():
        yield Text(index=0, text="Hi")
        yield Finished(index=0, reason="stop")
        yield Used(usage=Usage(input_tokens=1, output_tokens=2))

    exchange = RecordedExchange()
    call = make_call(Operation.COMPLETION, stream=streamed, wants_usage=streamed)
    asyncio.run(OpenAIReply(call, exchange).render(pieces(), PlayedAnswer(), TARGET, CountingMeter()))
    for body in exchange.events[:-1] if streamed else [exchange.json]:
        check(body, "CreateCompletionResponse", may_miss=("finish_reason", "None is not of type 'object'"))


@pytest.mark.parametrize("body", EMBEDDINGS.values(), ids=EMBEDDINGS)
def test_every_list_of_embeddings_is_one_for_openai(body):
    check(relay(Operation.EMBEDDING, tight(body)).json, "CreateEmbeddingResponse")


@pytest.mark.parametrize(
    "error",
    [
        GatewayError("Failed."),
        BadRequest("No.", param="messages[0].role"),
        RateLimited("Later.", retry_after=2, metadata={"provider": "house"}),
    ],
)
def test_every_error_is_one_for_openai(error):
    check(json.loads(render_openai_error(error)), "ErrorResponse")


def test_an_error_inside_a_stream_is_one_too():
    exchange = RecordedExchange()
    reply = OpenAIReply(make_call(stream=True), exchange)
    answer = PlayedAnswer(stream(STREAMS["openai"][:1])[: -len(b"data: [DONE]\n\n")])
    with pytest.raises(GatewayError):
        asyncio.run(reply.relay(answer, TARGET, CountingMeter()))
    check(exchange.events[-1], "ErrorResponse")


def test_every_model_is_one_for_openai():
    price = Price(input=1, output=2, cache_read=3, cache_write=4)
    rich = Model(provider="p", name="n", id="p/n", price=price, context_length=8, quantization="Q4", local=True)
    models = [render_model(model) for model in (rich, Model(provider="p", name="m", id="m"))]
    check({"object": "list", "data": models}, "ListModelsResponse")


def test_the_check_itself_finds_what_is_missing():
    with pytest.raises(AssertionError, match="'refusal' is a required property"):
        check(CHATS["llama.cpp"], "CreateChatCompletionResponse")
