import json

import pytest

from stellwerk.api.openai.completions_by_chat import CompletionRenderer, chat_fields
from stellwerk.core.call import Operation
from stellwerk.core.errors import BadRequest
from stellwerk.core.events import Finished, Text, Used
from stellwerk.core.outcome import Usage
from tests.port_fakes import events, make_call

EVENTS = [
    Text(index=0, text="one"),
    Text(index=1, text="two"),
    Text(index=0, text=" more"),
    Finished(index=1, reason="length"),
    Finished(index=0, reason="stop"),
    Used(usage=Usage(input_tokens=3, output_tokens=5)),
]


def ask(**fields):
    return chat_fields(make_call(Operation.COMPLETION, **fields).fields)


def renderer(**fields):
    return CompletionRenderer(make_call(Operation.COMPLETION, **fields), "cmpl-1")


@pytest.mark.parametrize("prompt", ["Once upon", ["Once upon"]])
def test_the_prompt_becomes_a_message(prompt):
    fields = ask(prompt=prompt)
    assert json.loads(bytes(fields["messages"])) == [{"role": "user", "content": "Once upon"}]
    assert "prompt" not in fields


def test_everything_that_a_chat_knows_is_kept_as_the_client_wrote_it():
    sent = {"max_tokens": 9, "temperature": 0.5, "stop": ["\n"], "n": 2, "seed": 1, "stream": True, "top_k": 4}
    fields = ask(**sent)
    assert {name: json.loads(bytes(fields[name])) for name in sent} == sent


@pytest.mark.parametrize(
    "fields",
    [{"echo": False}, {"best_of": 1}, {"logprobs": None}, {"suffix": None}, {"logprobs": 0}, {"best_of": None}],
)
def test_fields_that_ask_for_nothing_are_left_out(fields):
    assert not set(fields) & set(ask(**fields))


@pytest.mark.parametrize(
    "fields", [{"echo": True}, {"best_of": 2}, {"logprobs": 3}, {"suffix": "end"}, {"logprobs": 1}]
)
def test_what_a_chat_cannot_do_is_refused_by_name(fields):
    (name,) = fields
    with pytest.raises(BadRequest, match=name) as caught:
        ask(**fields)
    assert (caught.value.param, caught.value.code) == (name, "unsupported_parameter")


@pytest.mark.parametrize("prompt", [["a", "b"], [1, 2], [[1, 2]], [{"a": 1}], [["a"]]])
def test_a_prompt_that_is_no_text_is_refused(prompt):
    with pytest.raises(BadRequest) as caught:
        ask(prompt=prompt)
    assert caught.value.param == "prompt"


def test_events_become_one_whole_completion():
    collected = renderer()
    for event in EVENTS:
        collected.take(event)
    body = json.loads(collected.whole())
    assert isinstance(body.pop("created"), int)
    assert body == {
        "id": "cmpl-1",
        "object": "text_completion",
        "model": "house/up",
        "choices": [
            {"index": 0, "text": "one more", "logprobs": None, "finish_reason": "stop"},
            {"index": 1, "text": "two", "logprobs": None, "finish_reason": "length"},
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
    }


def test_a_choice_without_words_is_there_all_the_same():
    collected = renderer()
    collected.take(Finished(index=0, reason="stop"))
    body = json.loads(collected.whole())
    assert body["choices"][0]["text"] == ""
    assert "usage" not in body


def test_events_become_chunks():
    streamed = renderer(stream=True)
    chunks = events(b"".join(streamed.take(event) or b"" for event in EVENTS))
    assert [(one["choices"][0]["index"], one["choices"][0]["text"]) for one in chunks] == [
        (0, "one"),
        (1, "two"),
        (0, " more"),
        (1, ""),
        (0, ""),
    ]
    assert [one["choices"][0]["finish_reason"] for one in chunks] == [None, None, None, "length", "stop"]
    assert all("usage" not in one for one in chunks)
    assert streamed.last() == b""


def test_usage_comes_last_and_is_null_before_for_whoever_asked():
    streamed = renderer(stream=True, wants_usage=True)
    chunks = events(b"".join(streamed.take(event) or b"" for event in EVENTS) + streamed.last())
    assert [one["usage"] for one in chunks[:-1]] == [None] * 5
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["total_tokens"]) == ([], 8)


def test_usage_that_the_upstream_did_not_send_is_not_invented():
    streamed = renderer(stream=True, wants_usage=True)
    streamed.take(EVENTS[0])
    assert streamed.last() == b""
