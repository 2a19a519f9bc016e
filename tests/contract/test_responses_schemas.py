"""Every event of a streamed response is one for OpenAI's own API document, whichever upstream it was made of."""

import asyncio
import json
from pathlib import Path

import msgspec
import pytest
from jsonschema import Draft202012Validator

from stellwerk.api.openai.reply import OpenAIReply
from stellwerk.api.openai.responses_answers import begin_response
from stellwerk.api.openai.responses_items import OutputItems
from stellwerk.api.openai.responses_requests import ResponsesBody
from stellwerk.api.openai.responses_stream import ResponseStream
from stellwerk.core.errors import GatewayError
from stellwerk.core.plan import Target
from tests.port_fakes import CountingMeter, PlayedAnswer, RecordedExchange, events, make_call

DOCUMENT = json.loads((Path(__file__).parents[1] / "schemas" / "openai-responses.json").read_text(encoding="utf-8"))
EVENTS = {name for name in DOCUMENT["components"]["schemas"] if name.endswith("Event")}
NULL_AT_OPENAI_TOO = ("$.response.usage: None is not", "$.response.user: None is not")
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
OTHER = {"token": "Ho", "logprob": -2, "bytes": [72, 111]}
LOGPROB = {"token": "Hi", "logprob": -0.1, "bytes": None, "top_logprobs": [OTHER]}
TOOL = {"type": "function", "name": "f", "description": "A tool.", "parameters": {"type": "object"}}
ASKED = {
    "plain": {},
    "rich": {
        "instructions": "Be short.",
        "tools": [TOOL],
        "tool_choice": {"type": "function", "name": "f"},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}},
        "reasoning": {"effort": "low"},
        "metadata": {"a": "b"},
        "temperature": 0.5,
        "top_p": 1,
        "max_output_tokens": 9,
        "user": "ann",
        "parallel_tool_calls": False,
    },
}


def piece(delta, finish=None, **more):
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish, **more}]}


def call(index, arguments, **more):
    return piece({"tool_calls": [{"index": index, "function": {"arguments": arguments, **more}, "id": f"c{index}"}]})


ENDED = [piece({}, "stop"), {"choices": [], "usage": USAGE}]
STREAMS = {
    "openai": [
        piece({"role": "assistant", "content": ""}, logprobs=None),
        piece({"content": "Hi"}, logprobs={"content": [LOGPROB], "refusal": None}),
        *ENDED,
    ],
    "tools": [call(0, "", name="f"), call(0, "{}"), call(1, "{}", name="g"), piece({}, "tool_calls")],
    "llama.cpp": [
        piece({"role": "assistant", "content": None}),
        piece({"reasoning_content": "Hm"}),
        piece({"content": "Hi"}),
        *ENDED,
    ],
    "ollama": [
        piece({"role": "assistant", "content": "", "reasoning": "Hm"}),
        piece({"role": "assistant", "content": "Hi"}),
        call(0, "{}", name="f"),
        piece({"role": "assistant", "content": ""}, "tool_calls"),
    ],
    "refusal": [piece({"refusal": "No."}), *ENDED],
    "nothing": [piece({"content": ""}), *ENDED],
    "length": [piece({"content": "Hi"}), piece({}, "length")],
    "filter": [piece({"content": "Hi"}), piece({}, "content_filter")],
    "broken off": [piece({"content": "Hi"})],
}


def check(event):
    """The kind of the event; whatever is wrong with it fails the test."""
    kind = next(
        name
        for name in EVENTS
        if event["type"] in DOCUMENT["components"]["schemas"][name]["properties"]["type"]["enum"]
    )
    schema = {"$ref": f"#/components/schemas/{kind}", "components": DOCUMENT["components"]}
    problems = [f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(event)]
    assert [problem for problem in problems if not problem.startswith(NULL_AT_OPENAI_TOO)] == []
    return kind


def respond(bodies, fields):
    client = RecordedExchange()
    body = msgspec.convert({"model": "house/up", "input": "Hello", **fields}, ResponsesBody)
    response = begin_response(body, "resp_1", 1_700_000_000)
    exchange = ResponseStream(client, "/", b"", {}, response=response, output=OutputItems(1_000_000))
    reply = OpenAIReply(make_call(stream=True, wants_usage=True), exchange)
    texts = [json.dumps(one, separators=(",", ":")) for one in bodies]
    ending = [] if bodies is STREAMS["broken off"] else ["[DONE]"]
    stream = "".join(f"data: {text}\n\n" for text in [*texts, *ending]).encode()
    try:
        asyncio.run(reply.relay(PlayedAnswer(stream), Target(provider="house", model="up"), CountingMeter()))
    except GatewayError:
        assert bodies is STREAMS["broken off"]
    # Each has its name before its data.
    return events(b"\n\n".join(part.partition(b"\n")[2] for part in client.written.split(b"\n\n")) + b"\n\n")


@pytest.mark.parametrize("bodies", STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize("fields", ASKED.values(), ids=ASKED)
def test_every_event_is_one_for_openai(bodies, fields):
    made = respond(bodies, fields)
    assert len(made) > 3
    for event in made:
        check(event)


def test_every_kind_of_event_that_is_recorded_was_made_and_checked():
    made = {check(event) for bodies in STREAMS.values() for event in respond(bodies, {})}
    assert made == EVENTS


def test_the_check_itself_finds_what_is_missing():
    event = next(event for event in respond(STREAMS["openai"], {}) if event["type"] == "response.output_text.delta")
    del event["logprobs"]
    with pytest.raises(AssertionError, match="'logprobs' is a required property"):
        check(event)
