import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.core.call import Wire
from stellwerk.core.errors import UpstreamBroken, UpstreamError
from stellwerk.core.events import Finished, Text, Thinking, ToolCall, Used
from stellwerk.core.outcome import Usage
from stellwerk.providers._openai_events import read_events, stream_error
from stellwerk.providers._openai_tool_calls import LONGEST_ARGUMENTS, MOST_CALLS
from tests.port_fakes import PlayedAnswer, sse
from tests.scripted_upstream import chunk, completion, usage_chunk

BROKEN = UpstreamBroken("gone", may_fall_back=True)
USED = Used(usage=Usage(input_tokens=5, output_tokens=2))


async def collect(*pieces, stream=True, wire=Wire.OPENAI_CHAT):
    return [event async for event in read_events(PlayedAnswer(*pieces), wire, stream=stream)]


def text(words, index=0):
    return Text(index=index, text=words)


def finished(reason="stop", index=0):
    return Finished(index=index, reason=reason)


async def test_a_stream_becomes_events():
    data = sse(chunk(""), chunk("Hel"), chunk("lo"), chunk(finish="stop"), usage_chunk(), "[DONE]")
    assert await collect(data) == [text("Hel"), text("lo"), finished(), USED]


@given(st.lists(st.integers(0, 1200), max_size=10), st.booleans())
async def test_it_does_not_matter_how_the_network_cuts_a_stream(cuts, crlf):
    data = b": hi\n\n" + sse(chunk("Grüße"), chunk("🚂"), chunk(finish="length"), usage_chunk(), "[DONE]")
    data = data.replace(b"\n", b"\r\n") if crlf else data
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[start:end] for start, end in pairwise(places)]
    assert await collect(*pieces) == [text("Grüße"), text("🚂"), finished("length"), USED]


def delta(**piece):
    return {"choices": [{"index": 0, "delta": piece, "finish_reason": None}]}


def called(arguments="", index=0, **more):
    """A piece of a tool call as OpenAI streams it."""
    name = more.pop("name", None)
    return {"index": index, **more, "function": {"arguments": arguments, **({"name": name} if name else {})}}


WEATHER = [
    delta(role="assistant", content=None, tool_calls=[called(id="call_a", type="function", name="weather")]),
    delta(tool_calls=[called('{"city":')]),
    delta(tool_calls=[called('"Köln"}'), called(index=1, id="call_b", type="function", name="time")]),
    delta(tool_calls=[called("{}", index=1)]),
    chunk(finish="tool_calls"),
]
WEATHER_EVENTS = [
    ToolCall(index=0, number=0, id="call_a", name="weather"),
    ToolCall(index=0, number=0, arguments='{"city":'),
    ToolCall(index=0, number=0, arguments='"Köln"}'),
    ToolCall(index=0, number=1, id="call_b", name="time"),
    ToolCall(index=0, number=1, arguments="{}"),
    finished("tool_calls"),
]


@given(st.lists(st.integers(0, 3000), max_size=20), st.booleans())
async def test_thoughts_and_tool_calls_are_the_same_however_the_network_cuts_them(cuts, crlf):
    data = sse(delta(reasoning_content="Hm, "), delta(reasoning="größer"), chunk("Wait."), *WEATHER, "[DONE]")
    data = data.replace(b"\n", b"\r\n") if crlf else data
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    thoughts = [Thinking(index=0, text="Hm, "), Thinking(index=0, text="größer"), text("Wait.")]
    assert await collect(*(data[start:end] for start, end in pairwise(places))) == [*thoughts, *WEATHER_EVENTS]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "said",
    [
        {"reasoning_content": "Hm"},
        {"reasoning": "Hm"},
        {"reasoning": "Hm", "reasoning_content": "Hm"},
        {"reasoning": "Hm", "reasoning_content": ""},
        {"reasoning": "Hm", "reasoning_content": None, "reasoning_details": [{"type": "reasoning.text"}]},
        {"reasoning": {"text": "?"}, "reasoning_content": "Hm"},
    ],
)
async def test_thoughts_are_told_once_and_before_what_is_said(said, stream):
    body = {"choices": [{"delta" if stream else "message": {"content": "Hi", **said}, "finish_reason": "stop"}]}
    data = sse(body) if stream else json.dumps(body).encode()
    assert await collect(data, stream=stream) == [Thinking(index=0, text="Hm"), text("Hi"), finished()]


@pytest.mark.parametrize("odd", [5, {"a": 1}, [], True])
async def test_thoughts_that_are_no_text_are_passed_over(odd):
    body = delta(content="Hi", reasoning=odd, reasoning_content=odd)
    assert await collect(sse(body, chunk(finish="stop"))) == [text("Hi"), finished()]


async def test_a_whole_answer_gives_one_piece_for_each_call():
    calls = [
        {"id": "call_a", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Köln"}'}},
        {"id": "call_b", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
    ]
    body = {"choices": [{"message": {"content": None, "tool_calls": calls}}]}
    assert await collect(json.dumps(body).encode(), stream=False) == [
        ToolCall(index=0, number=0, id="call_a", name="weather", arguments='{"city":"Köln"}'),
        ToolCall(index=0, number=1, id="call_b", name="weather", arguments="{}"),
    ]


async def test_the_calls_of_each_choice_are_numbered_on_their_own():
    both = [
        {"index": choice, "delta": {"tool_calls": [called("{}", id=f"call_{choice}", name="f")]}} for choice in (1, 0)
    ]
    assert await collect(sse({"choices": both}, chunk(finish="tool_calls"))) == [
        ToolCall(index=1, number=0, id="call_1", name="f", arguments="{}"),
        ToolCall(index=0, number=0, id="call_0", name="f", arguments="{}"),
        finished("tool_calls"),
    ]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("index", [{}, {"index": None}, {"index": 0}], ids=str)
@pytest.mark.parametrize("apart", [True, False])
async def test_whole_calls_under_one_index_or_none_are_calls_of_their_own(stream, index, apart):
    calls = [{**called("{}", id=name, name="f"), **index} for name in ("a", "b")]
    calls = [{key: value for key, value in call.items() if key != "index" or index} for call in calls]
    if stream:
        data = sse(*(delta(tool_calls=each) for each in ([[call] for call in calls] if apart else [calls])), "[DONE]")
    else:
        data = json.dumps({"choices": [{"message": {"tool_calls": calls}}]}).encode()
    assert await collect(data, stream=stream) == [
        ToolCall(index=0, number=number, id=name, name="f", arguments="{}") for number, name in enumerate("ab")
    ]


async def test_pieces_without_an_index_go_on_with_the_call_before_them():
    pieces = [called("{", id="a", name="f"), called("}"), called("[", id="b", name="f"), called("]")]
    for piece in pieces:
        del piece["index"]
    events = await collect(sse(*(delta(tool_calls=[piece]) for piece in pieces), "[DONE]"))
    assert [(event.number, event.id, event.arguments) for event in events] == [
        (0, "a", "{"),
        (0, "", "}"),
        (1, "b", "["),
        (1, "", "]"),
    ]


@pytest.mark.parametrize("again", [{"id": "a", "name": "f"}, {"id": "a"}, {"id": "new"}, {"name": "f"}, {"id": ""}])
async def test_what_a_vendor_repeats_in_every_piece_is_said_once(again):
    first, second = called("{", id="a", name="f"), called("}", **again)
    assert await collect(sse(delta(tool_calls=[first]), delta(tool_calls=[second]), "[DONE]")) == [
        ToolCall(index=0, number=0, id="a", name="f", arguments="{"),
        ToolCall(index=0, number=0, arguments="}"),
    ]


@pytest.mark.parametrize(
    ("arguments", "read"),
    [('"{\\"a\\":1.0}"', '{"a":1.0}'), ('{"a": 1.0}', '{"a": 1.0}'), ("null", ""), ('""', ""), ("{}", "{}")],
)
async def test_arguments_may_be_a_string_or_the_json_itself(arguments, read):
    call = f'{{"id":"a","function":{{"name":"f","arguments":{arguments}}}}}'
    data = f'{{"choices":[{{"message":{{"tool_calls":[{call}]}}}}]}}'
    assert await collect(data.encode(), stream=False) == [ToolCall(index=0, number=0, id="a", name="f", arguments=read)]


@pytest.mark.parametrize("calls", [None, [], [None]])
async def test_no_tool_calls_are_no_news(calls):
    assert await collect(sse(delta(content="Hi", tool_calls=calls), "[DONE]")) == [text("Hi")]


@pytest.mark.parametrize("calls", [5, {}, ["f"], [{"index": "0"}], [{"function": "f"}], [{"function": {"name": 5}}]])
async def test_calls_that_cannot_be_read_are_broken_and_not_lost(calls):
    with pytest.raises(UpstreamBroken):
        await collect(sse(delta(tool_calls=calls), "[DONE]"))


async def test_calls_have_their_bounds():
    many = [called("{}", index=number, id=f"c{number}", name="f") for number in range(MOST_CALLS + 1)]
    assert len(await collect(sse(delta(tool_calls=many[:-1]), "[DONE]"))) == MOST_CALLS
    with pytest.raises(UpstreamError, match="too many tools"):
        await collect(sse(delta(tool_calls=many), "[DONE]"))
    long = sse(delta(tool_calls=[called("x" * (LONGEST_ARGUMENTS // 16), id="a", name="f")]))
    with pytest.raises(UpstreamError, match="too much text"):
        await collect(*[long] * 17)


@pytest.mark.parametrize("stream", [True, False])
async def test_an_error_that_stands_at_the_top_is_an_error_too(stream):
    body = {"object": "error", "message": "GPU on fire", "type": "InternalServerError"}
    with pytest.raises(UpstreamError, match="GPU on fire"):
        await collect(sse(body, "[DONE]") if stream else json.dumps(body).encode(), stream=stream)


async def test_choices_keep_their_places():
    both = {"choices": [{"index": 1, "delta": {"content": "b"}}, {"index": 0, "delta": {"content": "a"}}]}
    ends = {"choices": [{"index": 1, "delta": {}, "finish_reason": "stop"}, {"index": 0, "finish_reason": "length"}]}
    assert await collect(sse(both, ends)) == [text("b", 1), text("a"), finished("stop", 1), finished("length")]


@pytest.mark.parametrize(
    "message", [{"content": "Hi"}, {"content": None, "refusal": "Hi"}, {"content": "", "refusal": "Hi"}]
)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_is_what_the_model_says_too(message, stream):
    body = {"choices": [{"delta" if stream else "message": message, "finish_reason": "stop"}]}
    data = sse(body) if stream else json.dumps(body).encode()
    assert await collect(data, stream=stream) == [text("Hi"), finished()]


async def test_a_whole_answer_becomes_events():
    data = json.dumps(completion("Hi")).encode()
    assert await collect(data[:9], data[9:], stream=False) == [text("Hi"), finished(), USED]


@pytest.mark.parametrize(
    "extra", [{"choices": None}, {"choices": []}, {}, {"x": [1]}, {"usage": None}, {"error": None}]
)
async def test_chunks_without_news_are_passed_over(extra):
    assert await collect(sse(chunk("Hi"), extra, chunk(finish="stop"), "[DONE]")) == [text("Hi"), finished()]


@pytest.mark.parametrize("ending", [(), (b"data: [DO",), (b": bye\n\n",)])
async def test_a_stream_that_ends_before_it_is_finished_is_broken(ending):
    with pytest.raises(UpstreamBroken):
        await collect(sse(chunk("Hi")), *ending)


async def test_a_finished_stream_needs_no_done():
    assert await collect(sse(chunk("Hi"), chunk(finish="stop"))) == [text("Hi"), finished()]


async def test_done_is_the_end_whatever_comes_after_it():
    assert await collect(sse(chunk("Hi"), "[DONE]", chunk("late"), "[DONE]"), BROKEN) == [text("Hi")]


@pytest.mark.parametrize("stream", [True, False])
async def test_an_error_inside_is_an_error(stream):
    body = {"error": {"message": "GPU on fire at http://10.0.0.7/"}}
    data = sse(chunk("Hi"), body) if stream else json.dumps(body).encode()
    with pytest.raises(UpstreamError, match="GPU on fire at …"):
        await collect(data, stream=stream)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"choices":[]}',
        b'{"choices":5}',
        b'{"choices":[5]}',
        b'{"choices":[{"message":"Hi"}]}',
        b'{"choices":[{"message":{"content":"\xff"},"finish_reason":"stop"}]}',
        b'{"choices":[{"message":{"content":"\\ud800"}}]}',
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=lambda data: data[:40],
)
async def test_a_whole_answer_that_says_nothing_is_broken_and_another_may_be_asked(data):
    with pytest.raises(UpstreamBroken) as caught:
        await collect(data, stream=False)
    assert caught.value.may_fall_back


async def test_an_upstream_that_breaks_is_told_as_it_is():
    with pytest.raises(UpstreamBroken) as caught:
        await collect(sse(chunk("Hi")), BROKEN)
    assert caught.value is BROKEN


@pytest.mark.parametrize("wire", [Wire.OPENAI_COMPLETION, Wire.OPENAI_EMBEDDING])
async def test_other_wires_are_not_read(wire):
    with pytest.raises(UpstreamError):
        await collect(b"{}", wire=wire)


@given(st.binary(max_size=60))
async def test_arbitrary_bytes_are_read_or_refused(data):
    for stream in (True, False):
        try:
            await collect(data, b"data: " + data + b"\n\n", stream=stream)
        except UpstreamError as error:
            assert error.message.endswith(".")  # noqa: PT017


@given(st.binary(max_size=60))
def test_every_error_object_has_a_message(raw):
    assert stream_error(raw).message
