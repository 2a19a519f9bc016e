import json

import pytest

from stellwerk.api.ollama.answers import AnswerRenderer, Durations, timestamp
from stellwerk.core.errors import UpstreamBroken
from stellwerk.core.events import Finished, Text, Thinking, ToolCall, Used
from stellwerk.core.outcome import Usage
from tests.port_fakes import StillClock

DURATIONS = Durations(total=2.0, first_byte=0.5)


def renderer(*, chat=True, keeps=False, longest_call=100):
    return AnswerRenderer("m", chat=chat, keeps=keeps, clock=StillClock(), longest_call=longest_call)


def test_times_have_nanoseconds():
    assert timestamp(1_700_000_000.25) == "2023-11-14T22:13:20.250000000Z"
    assert timestamp(0) == "1970-01-01T00:00:00.000000000Z"


def test_durations_are_nanoseconds_that_add_up():
    assert DURATIONS.fields() == {
        "total_duration": 2_000_000_000,
        "load_duration": 0,
        "prompt_eval_duration": 500_000_000,
        "eval_duration": 1_500_000_000,
    }
    assert "prompt_eval_duration" not in Durations(total=2.0).fields()
    assert min(Durations(total=0.0, first_byte=0.0).fields().values()) == 0
    assert Durations(total=0.0, first_byte=0.0).fields()["eval_duration"] == 1


def test_generate_says_it_at_the_top():
    made = renderer(chat=False, keeps=True)
    assert json.loads(made.take(Thinking(index=0, text="Hm")))["thinking"] == "Hm"
    assert json.loads(made.take(Text(index=0, text="Hi")))["response"] == "Hi"
    whole = json.loads(made.whole(DURATIONS))
    assert (whole["response"], whole["thinking"], whole["done_reason"]) == ("Hi", "Hm", "stop")
    assert "message" not in whole


def test_other_choices_are_left_out():
    made = renderer(keeps=True)
    assert made.take(Text(index=1, text="other")) == b""
    assert made.take(Finished(index=1, reason="length")) == b""
    assert json.loads(made.whole(DURATIONS))["done_reason"] == "stop"


@pytest.mark.parametrize(
    ("reason", "said"),
    [("stop", "stop"), ("tool_calls", "stop"), ("length", "length"), ("content_filter", "content_filter")],
)
def test_the_reason_is_said_in_ollamas_words(reason, said):
    made = renderer()
    made.take(Finished(index=0, reason=reason))
    made.take(Used(usage=Usage(input_tokens=3, output_tokens=1)))
    last = json.loads(made.last(DURATIONS))
    assert (last["done"], last["done_reason"]) == (True, said)
    assert (last["prompt_eval_count"], last["eval_count"]) == (3, 1)


def test_a_tool_call_comes_whole_with_an_id():
    made = renderer()
    assert made.take(ToolCall(index=0, number=3, name="add", arguments='{"a":')) == b""
    assert made.take(ToolCall(index=0, number=3, arguments="12345678901234567890}")) == b""
    line = made.take(Finished(index=0, reason="tool_calls"))
    assert b'"arguments":{"a":12345678901234567890}' in line
    (call,) = json.loads(line)["message"]["tool_calls"]
    assert call["id"].startswith("call_")
    assert len(call["id"]) == 13
    assert (call["function"]["index"], call["function"]["name"]) == (0, "add")


@pytest.mark.parametrize("arguments", ["", "{}", "null", " null\n"])
def test_a_tool_may_be_called_without_arguments(arguments):
    made = renderer()
    made.take(ToolCall(index=0, number=0, name="now", arguments=arguments))
    line = made.take(Finished(index=0, reason="tool_calls"))
    (call,) = json.loads(line)["message"]["tool_calls"]
    assert call["function"] == {"index": 0, "name": "now", "arguments": {}}


def test_calls_that_nobody_closed_come_before_the_last_line():
    made = renderer()
    made.take(ToolCall(index=0, number=0, id="a", name="f"))
    call, last = made.last(DURATIONS).splitlines()
    assert json.loads(call)["message"]["tool_calls"][0]["function"]["arguments"] == {}
    assert json.loads(last)["done"]


@pytest.mark.parametrize("arguments", ['{"a":', "[]", '"x"', "[" * 5000, "x" * 101])
def test_a_broken_tool_call_is_an_error(arguments):
    made = renderer(longest_call=100 if arguments.startswith("x") else 10_000)
    pieces = [ToolCall(index=0, number=0, name="f", arguments=arguments), Finished(index=0, reason="tool_calls")]
    with pytest.raises(UpstreamBroken):
        [made.take(piece) for piece in pieces]


def test_calls_are_bounded():
    made = renderer()
    with pytest.raises(UpstreamBroken):
        [made.take(ToolCall(index=0, number=number, name="f")) for number in range(1025)]
