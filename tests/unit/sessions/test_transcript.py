import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from stellwerk.sessions.transcript import LONGEST, Transcript


def event(value):
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def delta(text, index=0, finish_reason=None, **more):
    choice = {"index": index, "delta": {"content": text, **more}, "finish_reason": finish_reason}
    return event({"object": "chat.completion.chunk", "choices": [choice]})


END = delta(None, finish_reason="stop") + b"data: [DONE]\n\n"


def heard(*pieces):
    transcript = Transcript()
    for piece in pieces:
        transcript.feed(piece)
    return transcript


def cut(data, places):
    places = sorted({place % (len(data) + 1) for place in places})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


TEXTS = ["Grüße ", "aus ", "東京 ", "👩\u200d🚀", "\n\ndata: ", '"}', "\r\n", "\\", "[DONE]", "\x00"]
NOISE = (
    b": comment\n\n"
    + b"event: ping\n\n"
    + delta("other", index=1)
    + delta(None, tool_calls=[{"index": 0, "function": {"name": "f", "arguments": "{}"}}])
    + delta(None, reasoning_content="hm")
    + event({"choices": []})
    + event({"choices": None, "usage": {"prompt_tokens": 1}})
    + event({"choices": [{"delta": "odd"}]})
    + b"data: nonsense\n\n"
    + b"data:\n\n"
)
STREAM = NOISE + b"".join(delta(text) + NOISE for text in TEXTS) + END


@given(st.lists(st.integers(0, len(STREAM)), max_size=30), st.booleans())
def test_any_cutting_gives_the_same_text(places, carriage_returns):
    stream = STREAM.replace(b"\n", b"\r\n") if carriage_returns else STREAM
    transcript = heard(*cut(stream, places))
    assert transcript.text == "".join(TEXTS)
    assert transcript.complete


def test_byte_by_byte_is_the_same():
    transcript = heard(*(STREAM[n : n + 1] for n in range(len(STREAM))))
    assert transcript.text == "".join(TEXTS)
    assert transcript.complete


@given(st.lists(st.text()), st.lists(st.integers(0, 5000), max_size=10))
def test_any_text_is_heard_as_it_was_said(texts, places):
    stream = b"".join(map(delta, texts)) + END
    assert heard(*cut(stream, places)).text == "".join(texts)


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_no_bytes_make_it_fail(pieces):
    transcript = heard(*pieces)
    transcript.whole(b"".join(pieces))
    assert isinstance(transcript.text, str)


def test_data_over_several_lines_is_one_event():
    stream = b'data: {"choices":\ndata: [{"delta":{"content":"x"}}]}\n\n' + END
    assert heard(stream).text == "x"


def test_an_answer_that_broke_off_is_not_complete():
    transcript = heard(delta("Hel"), delta("lo"))
    assert transcript.text == "Hello"
    assert not transcript.complete
    assert not Transcript().complete


def test_a_reason_to_end_completes_an_answer_without_a_last_line():
    assert heard(delta("x", finish_reason="length")).complete
    assert heard(delta("x"), b"data: [DONE]\n\n").complete


def test_the_end_of_another_choice_is_not_the_end():
    assert not heard(delta("x"), delta(None, index=1, finish_reason="stop")).complete


@pytest.mark.parametrize("failure", [{"error": {"message": "x"}}, {"error": "x"}, {"object": "error", "message": "x"}])
def test_an_error_in_the_stream_is_no_text_and_no_end(failure):
    transcript = heard(delta("x"), event(failure), END)
    assert transcript.text == "x"
    assert not transcript.complete


def test_nothing_counts_after_the_end():
    assert heard(delta("x") + END + delta("y"), delta("z")).text == "x"


def test_parts_of_a_text_are_heard_and_thoughts_are_not():
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "yes"}, 7]
    assert heard(delta(parts), END).text == "yes"


def test_what_is_said_is_bounded():
    transcript = heard(*[delta("x" * 100_000)] * 12, END)
    assert len(transcript.text) <= LONGEST
    assert not transcript.complete


def test_the_bound_counts_bytes_and_not_characters():
    exactly = "€" * (LONGEST // 3)
    assert heard(*(delta(exactly[n : n + 50_000]) for n in range(0, len(exactly), 50_000)), END).text == exactly
    more = exactly + "€"
    assert not heard(*(delta(more[n : n + 50_000]) for n in range(0, len(more), 50_000)), END).complete


def test_an_event_without_an_end_is_bounded():
    transcript = heard(*[b"data: " + b"x" * 100_000] * 12, b"\n\n" + END)
    assert not transcript.complete


def whole(value):
    transcript = Transcript()
    transcript.whole(value if isinstance(value, bytes) else msgspec.json.encode(value))
    return transcript


def test_a_whole_answer_is_heard():
    choices = [
        {"index": 1, "message": {"role": "assistant", "content": "no"}, "finish_reason": "stop"},
        {"index": 0, "message": {"role": "assistant", "content": "Grüße 👋"}, "finish_reason": "stop"},
    ]
    transcript = whole({"id": "x", "choices": choices})
    assert transcript.text == "Grüße 👋"
    assert transcript.complete


def test_a_whole_answer_needs_no_reason_to_end():
    assert whole({"choices": [{"message": {"content": "x"}}]}).complete


def test_a_whole_answer_with_tool_calls_only_is_empty():
    transcript = whole({"choices": [{"index": 0, "message": {"content": None, "tool_calls": [{}]}}]})
    assert (transcript.text, transcript.complete) == ("", True)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"null",
        b"[]",
        b"[" * 100_000,
        b'{"choices":[]}',
        b'{"error":{"message":"x"}}',
        b'{"choices":[{"message":{"content":"x"}}],"error":{"message":"y"}}',
        b'{"choices":[{"message":{"content":"\xff"}}]}',
        b'{"choices":[{"message":{"content":"\\ud800"}}]}',
    ],
)
def test_what_is_no_answer_is_not_complete(body):
    assert not whole(body).complete


def test_a_whole_answer_is_bounded_too():
    transcript = whole({"choices": [{"message": {"content": "x" * (LONGEST + 1)}}]})
    assert (transcript.text, transcript.complete) == ("", False)
