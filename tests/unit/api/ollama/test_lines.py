import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.api.ollama.lines import LineRelay, first_vector, openai_vectors
from stellwerk.core.errors import UpstreamBroken, UpstreamError
from stellwerk.core.outcome import Usage
from tests.port_fakes import CountingMeter


def relay(meter=None, **more):
    return LineRelay(upstream="qwen3:8b", asked="mine", meter=meter or CountingMeter(), **{"longest": 1000, **more})


def line(content="x", *, model="qwen3:8b", **more):
    said = {"model": model, "created_at": "t", "message": {"role": "assistant", "content": content}, "done": False}
    return json.dumps({**said, **more}, separators=(",", ":")).encode() + b"\n"


LAST = line("", done=True, done_reason="stop", prompt_eval_count=5, eval_count=2)


@given(st.lists(st.integers(1, 400), max_size=6))
def test_lines_pass_whole_wherever_the_network_cuts_them(cuts):
    whole = line("Grüß ☀") + line("b") + LAST
    meter = CountingMeter()
    lines = relay(meter)
    places = sorted({0, len(whole), *(min(cut, len(whole)) for cut in cuts)})
    out = b"".join(lines.feed(whole[start:end]) for start, end in pairwise(places))
    assert out + lines.end() == whole.replace(b"qwen3:8b", b"mine")
    assert meter.counted == [Usage(input_tokens=5, output_tokens=2)]
    assert (meter.events, meter.size) == (3, len(out))


def test_only_the_models_own_name_is_replaced():
    call = [{"function": {"name": "ask", "arguments": {"model": "qwen3:8b"}}}]
    given = line('{"model":"qwen3:8b"}', message={"tool_calls": call})
    (passed,) = [json.loads(relay().feed(given))]
    assert passed["model"] == "mine"
    assert passed["message"]["tool_calls"] == call


@pytest.mark.parametrize("given", [b'{"created_at":"t","model" : "qwen3:8b","x":1e3}\n', line(model="qwen3:8b-q4")])
def test_the_name_is_found_wherever_it_stands(given):
    passed = json.loads(relay().feed(given))
    assert passed == {**json.loads(given), "model": "mine"}


@pytest.mark.parametrize("reason", ["load", "unload"])
def test_an_answer_to_a_request_that_asks_nothing_has_used_nothing_up(reason):
    given = line("", done=True, done_reason=reason)
    streamed, whole = CountingMeter(), CountingMeter()
    relay(streamed).feed(given)
    relay(whole).whole(given)
    assert streamed.counted == whole.counted == [Usage()]


@pytest.mark.parametrize("more", [{"done_reason": "stop"}, {"done_reason": 5}, {"done_reason": None}, {}])
def test_an_answer_that_counts_nothing_else_is_left_to_be_estimated(more):
    meter = CountingMeter()
    relay(meter).feed(line("", done=True, **more))
    assert meter.counted == []


def test_nothing_follows_the_last_line():
    lines = relay()
    assert lines.feed(LAST + line("more")) == LAST.replace(b"qwen3:8b", b"mine")
    assert lines.feed(line("more")) == b""
    assert (lines.done, lines.end()) == (True, b"")


def test_a_last_line_without_its_end_counts():
    lines = relay()
    assert lines.feed(LAST[:-1]) == b""
    assert lines.end() == LAST.replace(b"qwen3:8b", b"mine")


@pytest.mark.parametrize("given", [b"", line(), line()[:-9]])
def test_an_end_before_the_last_line_is_an_error(given):
    lines = relay()
    lines.feed(given)
    with pytest.raises(UpstreamBroken):
        lines.end()


def test_an_error_line_is_an_error_without_what_the_upstream_was_shown():
    with pytest.raises(UpstreamError, match="no memory") as caught:
        relay(secrets=("top-secret-key",)).feed(b'{"error":"no memory for top-secret-key"}\n')
    assert caught.value.may_fall_back
    assert "top-secret-key" not in caught.value.message


@pytest.mark.parametrize("given", [b"<html>\n", b"[]\n", b'{"done":1}\n', b"x" * 1001, b"[" * 5000 + b"\n"])
def test_what_cannot_be_read_is_an_error(given):
    with pytest.raises(UpstreamBroken):
        relay().feed(given)


@pytest.mark.parametrize("given", [b"", b"{}", line(), b'{"done":true', b'{"error":"no"}'])
def test_a_whole_answer_is_complete_or_an_error(given):
    with pytest.raises(UpstreamError):
        relay().whole(given)


def test_vectors_are_counted_and_renamed():
    meter = CountingMeter()
    body = b'{"model":"qwen3:8b","embeddings":[[0.1,-2e-5]],"prompt_eval_count":3}'
    assert relay(meter).vectors(body) == body.replace(b"qwen3:8b", b"mine")
    assert meter.counted == [Usage(input_tokens=3)]
    assert first_vector(body) == b'{"embedding":[0.1,-2e-5]}'
    with pytest.raises(UpstreamBroken):
        relay().vectors(b'{"embedding":[1]}')


def test_openai_vectors_come_in_the_order_of_the_inputs():
    rows = [{"index": 1, "embedding": [2]}, {"index": 0, "embedding": [1.5]}]
    assert openai_vectors(json.dumps({"data": rows}).encode()) == [[1.5], [2.0]]
    with pytest.raises(UpstreamBroken):
        openai_vectors(b'{"data":[{"embedding":"AAAA"}]}')
