import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.core.call import Wire
from stellwerk.core.errors import UpstreamBroken, UpstreamError
from stellwerk.core.events import Finished, Text, Used
from stellwerk.core.outcome import Usage
from stellwerk.providers._openai_events import read_events, stream_error
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
