import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.api.openai.answers import Renaming
from stellwerk.api.openai.streams import DONE, StreamRelay
from stellwerk.core.errors import UpstreamBroken, UpstreamError
from stellwerk.core.outcome import Usage
from tests.port_fakes import CountingMeter, events, sse
from tests.scripted_upstream import chunk, usage_chunk

HELLO = [chunk("Hel"), chunk("lo"), chunk(finish="stop")]
END = "[DONE]"


def relay(*, wants_usage=False, upstream="up", asked="up", **settings):
    meter = CountingMeter()
    stream = StreamRelay(renaming=Renaming(upstream, asked), wants_usage=wants_usage, meter=meter, **settings)
    return stream, meter


def run(data, **settings):
    """Everything that a client gets, and what was counted."""
    stream, meter = relay(**settings)
    return stream.feed(data) + stream.end(), meter.counted


def spaced(*bodies) -> bytes:
    return b"".join(b"data: " + json.dumps(body).encode() + b"\n\n" for body in bodies)


def without(body, *names):
    (choice,) = body["choices"]
    return body | {"choices": [{name: value for name, value in choice.items() if name not in names}]}


def test_a_well_behaved_stream_passes_byte_for_byte():
    data = sse(*HELLO, END)
    assert run(data) == (data, [])


def test_the_hot_path_is_not_parsed():
    data = b'data: {"choices":[{"finish_reason":null, this is no JSON}]}\n\n'
    assert relay()[0].feed(data) == data


@pytest.mark.parametrize("write", [sse, spaced], ids=["tight", "spaced"])
@pytest.mark.parametrize("wants_usage", [True, False])
def test_usage_is_always_counted_and_passed_on_only_when_asked_for(write, wants_usage):
    data = write(*HELLO, usage_chunk(prompt=9, output=4)) + DONE
    out, counted = run(data, wants_usage=wants_usage)
    assert counted == [Usage(input_tokens=9, output_tokens=4)]
    assert out == (data if wants_usage else write(*HELLO) + DONE)


@pytest.mark.parametrize("write", [sse, spaced], ids=["tight", "spaced"])
def test_usage_is_noticed_in_the_same_read_as_everything_else(write):
    two = {"choices": [{"index": at, "delta": {}, "finish_reason": None} for at in (0, 1)]}
    used = usage_chunk(prompt=3, output=1)
    assert run(write(two, chunk("x"), used, chunk(finish="stop")) + DONE)[1] == [Usage(input_tokens=3, output_tokens=1)]


def test_usage_in_the_last_chunk_with_choices_is_counted_and_stays():
    last = chunk(finish="stop", usage={"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5})
    data = sse(chunk("Hi"), last, END)
    assert run(data) == (data, [Usage(input_tokens=3, output_tokens=2)])


def test_a_running_count_ends_with_its_last_value():
    counts = [chunk("a", usage={"prompt_tokens": 3, "completion_tokens": n, "total_tokens": 3 + n}) for n in (1, 2, 3)]
    _, counted = run(sse(*counts, chunk(finish="stop"), END))
    assert counted[-1] == Usage(input_tokens=3, output_tokens=3)


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -1, "completion_tokens": 2},
        {"prompt_tokens": 10**12, "completion_tokens": 2},
        {"prompt_tokens": "5", "completion_tokens": 2},
        {"prompt_tokens": 1.5},
        {"prompt_tokens": [1]},
        "none",
        [],
        7,
    ],
    ids=str,
)
@pytest.mark.parametrize("wants_usage", [True, False])
def test_nonsense_numbers_are_not_counted_and_break_nothing(usage, wants_usage):
    odd = usage_chunk() | {"usage": usage}
    data = sse(*HELLO, odd, END)
    out, counted = run(data, wants_usage=wants_usage)
    assert counted == []
    # A chunk without choices surprises clients that have not asked for it.
    assert out == (data if wants_usage else sse(*HELLO, END))


def test_null_usage_on_every_chunk_is_not_counted():
    data = sse(*[body | {"usage": None} for body in HELLO], END)
    assert run(data) == (data, [])


def test_the_name_that_the_client_used_comes_back():
    data = sse(*[chunk("x", model="gpt-x") for _ in range(3)], chunk(model="gpt-x", finish="stop"), END)
    out, _ = run(data, upstream="gpt-x", asked="house/gpt-x")
    assert {body["model"] for body in events(out)[:-1]} == {"house/gpt-x"}
    assert len(out) == len(data) + 4 * len("house/")


def test_a_more_exact_name_and_words_of_the_model_stay():
    talk = chunk('{"model":"gpt-x"}', model="gpt-x-2026-01-01")
    out, _ = run(sse(talk, chunk(finish="stop"), END), upstream="gpt-x", asked="house/gpt-x")
    assert events(out)[0] == talk


@pytest.mark.parametrize("write", [sse, spaced], ids=["tight", "spaced"])
def test_a_missing_finish_reason_is_added(write):
    data = write(without(chunk("Hi"), "finish_reason"), chunk("!"), chunk(finish="stop")) + DONE
    out, _ = run(data)
    assert [body["choices"][0]["finish_reason"] for body in events(out)[:-1]] == [None, None, "stop"]
    assert events(out)[0]["choices"][0]["delta"] == {"content": "Hi"}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ({"error": {"message": "GPU on fire", "code": 500}}, "GPU on fire"),
        ({"error": "GPU on fire"}, "GPU on fire"),
        ({"error": {"code": "x"}}, "The upstream failed while it answered."),
        ({"error": {"message": {"a": 1}}}, "The upstream failed while it answered."),
        ({"object": "error", "message": "GPU on fire", "type": "ServerError", "code": 500}, "GPU on fire"),
        ({"error": {"message": "see https://10.0.0.7/logs with sk-proj-abcdef123456"}}, "see … with ***"),
    ],
    ids=str,
)
@pytest.mark.parametrize("prefix", [b"", b"event: error\n"])
def test_an_error_inside_the_stream_is_an_error(error, message, prefix):
    stream, _ = relay()
    stream.feed(sse(chunk("Hi")))
    with pytest.raises(UpstreamError) as caught:
        stream.feed(prefix + sse(error))
    assert caught.value.message == message


def test_an_error_inside_the_stream_does_not_repeat_what_the_upstream_was_shown():
    stream, _ = relay(secrets=("house-key",))
    with pytest.raises(UpstreamError) as caught:
        stream.feed(sse({"error": {"message": "bad key house-key"}}))
    assert caught.value.message == "bad key ***"


def test_null_errors_are_none():
    data = sse(*[body | {"error": None} for body in HELLO], END)
    assert run(data)[0] == data


def test_talk_about_errors_is_none():
    data = sse(chunk('"error": {"message": "no"}'), chunk('data: [DONE]\n\n"usage":{'), chunk(finish="stop"), END)
    assert run(data) == (data, [])


@pytest.mark.parametrize(
    "data",
    [
        b"data: {\n\n",
        b"data: oops\n\n",
        b'data: {"usage":{"a":}}\n\n',
        b'data: {"choices":5}\n\n',
        b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"\\ud800"}}]}\n\n',
        b'data: {"choices":[' + b"[" * 50_000 + b"]" * 50_000 + b"]}\n\n",
    ],
    ids=lambda data: data[:24],
)
def test_an_event_that_must_be_read_and_cannot_be_is_an_error(data):
    with pytest.raises(UpstreamError, match="cannot be read"):
        relay()[0].feed(data)


def test_an_unreadable_error_is_still_an_error():
    with pytest.raises(UpstreamError, match="failed while it answered"):
        relay()[0].feed(b'data: {"error":{"message":"\xff"}}\n\n')


def test_nothing_comes_after_done():
    stream, meter = relay(wants_usage=True)
    out = stream.feed(sse(*HELLO, END, END, usage_chunk()))
    assert stream.feed(sse(END, chunk("late"))) == stream.end() == b""
    assert out == sse(*HELLO, END)
    assert meter.counted == []


@pytest.mark.parametrize("done", [b"data:[DONE]\n\n", b"data: [DONE] \n\n", b"data: [DONE]\r\n\r\n"])
def test_every_spelling_of_done_counts(done):
    assert run(sse(chunk("Hi")) + done)[0] == sse(chunk("Hi"), END)


@pytest.mark.parametrize("done", [b"", b"\n", b"data: [DONE]", b"data: [DONE]\n", b"data: [DONE]\r\n"])
def test_a_finished_answer_gets_its_done_when_the_upstream_leaves_it_out(done):
    assert events(run(sse(*HELLO) + done)[0]) == [*HELLO, END]


def test_done_without_its_blank_line_ends_an_answer_that_never_said_why():
    assert run(sse(chunk("Hi")) + b"data: [DONE]\n")[0] == sse(chunk("Hi"), END)


@pytest.mark.parametrize(
    "data", [b"", sse(chunk("Hi")), sse(*HELLO) + b'data: {"cho', sse(chunk("Hi")) + b"data: [DO", b": ping\n\n"]
)
def test_a_stream_that_is_cut_short_is_an_error(data):
    stream, _ = relay()
    stream.feed(data)
    with pytest.raises(UpstreamError) as caught:
        stream.end()
    assert caught.value.code == "upstream_broken"


def test_comments_and_keep_alives_pass():
    data = b": ping\n\n" + sse(chunk("Hi")) + b"event: ping\n\n" + b": ping\n\n" + sse(chunk(finish="stop"), END)
    assert run(data)[0] == data


def test_one_event_may_have_several_lines():
    data = b'event: message\nid: 7\ndata: {"choices":[{"delta":{},\ndata: "finish_reason":"stop"}]}\n\n'
    stream, _ = relay()
    assert stream.feed(data) == data
    assert stream.complete


def test_an_event_past_its_bound_is_refused_before_it_is_kept():
    stream, _ = relay(event_bytes=1000)
    stream.feed(b"data: " + b"x" * 900)
    with pytest.raises(UpstreamBroken):
        stream.feed(b"x" * 200)


CHUNKS = st.sampled_from(
    [
        *HELLO,
        chunk("Grüße 🚂"),
        chunk('"usage":{ [DONE] "error"'),
        usage_chunk(),
        without(chunk("x"), "finish_reason"),
        chunk("x", usage=None),
        chunk("x", usage={"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}),
        {"choices": [], "prompt_filter_results": []},
    ]
)


@st.composite
def streams(draw):
    write = draw(st.sampled_from([sse, spaced]))
    parts = draw(st.lists(CHUNKS.map(write) | st.just(b": ping\n\n"), max_size=8))
    data = b"".join(parts) + write(chunk(finish="stop")) + DONE + draw(st.sampled_from([b"", sse(END), b": bye\n\n"]))
    return data.replace(b"\n", b"\r\n") if draw(st.booleans()) else data


@given(streams(), st.booleans(), st.lists(st.integers(0, 2000), max_size=12))
def test_it_does_not_matter_how_the_network_cuts_a_stream(data, wants_usage, cuts):
    whole, counted = run(data, wants_usage=wants_usage, asked="house/up")
    stream, meter = relay(wants_usage=wants_usage, asked="house/up")
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [stream.feed(data[start:end]) for start, end in pairwise(places)]
    assert b"".join(pieces) + stream.end() == whole
    assert meter.counted == counted
    assert all(piece.endswith(b"\n\n") for piece in pieces if piece)
    assert whole.count(DONE) == 1


@given(streams())
def test_one_byte_at_a_time_is_the_same_too(data):
    stream, _ = relay()
    pieces = [stream.feed(data[at : at + 1]) for at in range(len(data))]
    assert b"".join(pieces) == run(data)[0]


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_arbitrary_bytes_are_passed_or_refused(pieces):
    stream, _ = relay()
    try:
        for piece in pieces:
            stream.feed(piece)
        stream.end()
    except UpstreamError as error:
        assert error.status == 502  # noqa: PT017
