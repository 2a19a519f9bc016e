import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from stellwerk.api.jobs.assembly import ChatAssembly
from tests.port_fakes import sse
from tests.scripted_upstream import chunk, usage_chunk


def assemble(data: bytes, *, cuts=(), most=1 << 20):
    said = []
    assembly = ChatAssembly(most, said.append)
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    room = [assembly.feed(data[start:end]) for start, end in pairwise(places)]
    return assembly, said, all(room)


def delta(index=0, finish=None, **content):
    return {**chunk(), "choices": [{"index": index, "delta": content, "finish_reason": finish}]}


def call(index, **fields):
    return {"index": index, **fields}


@given(st.lists(st.integers(0, 10_000), max_size=8))
def test_a_stream_cut_anywhere_becomes_the_same_answer(cuts):
    events = (chunk("Grüß "), chunk("Gott"), chunk(finish="stop"), usage_chunk(), "[DONE]")
    assembly, said, room = assemble(sse(*events), cuts=cuts)
    whole = json.loads(assembly.whole())
    assert (assembly.complete, room, "".join(said)) == (True, True, "Grüß Gott")
    assert whole["object"] == "chat.completion"
    assert whole["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Grüß Gott", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert whole["usage"] == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


def test_calls_of_tools_are_put_together_from_their_pieces():
    first = delta(tool_calls=[call(0, id="a", type="function", function={"name": "f", "arguments": ""})], content=None)
    events = (
        first,
        delta(tool_calls=[call(0, function={"arguments": '{"x":'})]),
        delta(tool_calls=[call(1, id="b", function={"name": "g", "arguments": "{}"})]),
        delta(tool_calls=[call(0, function={"arguments": "1}"})]),
        delta(finish="tool_calls"),
        "[DONE]",
    )
    choice = json.loads(assemble(sse(*events))[0].whole())["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"] == [
        {"type": "function", "id": "a", "function": {"arguments": '{"x":1}', "name": "f"}},
        {"type": "function", "id": "b", "function": {"arguments": "{}", "name": "g"}},
    ]


def test_several_answers_are_kept_apart_and_only_the_first_is_said():
    events = (delta(1, content="b"), delta(0, content="a"), delta(0, "stop"), delta(1, "length"), "[DONE]")
    assembly, said, _ = assemble(sse(*events))
    choices = json.loads(assembly.whole())["choices"]
    assert [(each["index"], each["message"]["content"], each["finish_reason"]) for each in choices] == [
        (0, "a", "stop"),
        (1, "b", "length"),
    ]
    assert said[-1] == "a"


def test_thoughts_and_probabilities_are_kept():
    token = {"token": "Hi", "logprob": -0.1, "bytes": [72], "top_logprobs": []}
    probable = delta(content="Hi", reasoning_content="h")
    probable["choices"][0]["logprobs"] = {"content": [token], "refusal": None}
    choice = json.loads(assemble(sse(probable, delta(reasoning_content="m"), "[DONE]"))[0].whole())["choices"][0]
    assert choice["message"]["reasoning_content"] == "hm"
    assert choice["logprobs"] == {"content": [token], "refusal": None}


def test_a_stream_that_breaks_off_or_fails_is_not_complete():
    assert not assemble(sse(chunk("a")))[0].complete
    assembly, _, _ = assemble(sse(chunk("a"), {"error": {"message": "no", "type": "upstream_error"}}))
    assert not assembly.complete
    assert assembly.error == {"message": "no", "type": "upstream_error"}


def test_an_answer_has_no_more_than_its_room():
    assert assemble(sse(chunk("a" * 90)), most=100)[2]
    assert not assemble(sse(chunk("a" * 90), chunk("a" * 20)), most=100)[2]


@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([b"data: ", b"\n\n", b'{"choices":[', b"[DONE]"]))))
def test_no_bytes_make_it_fail(pieces):
    assembly = ChatAssembly(1000, lambda _: None)
    for piece in pieces:
        assembly.feed(piece)
    assembly.whole()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["choices", "delta", "index", "tool_calls", "function", "content", "logprobs", "error"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=20,
    )
)
def test_no_json_makes_it_fail(value):
    assembly, _, _ = assemble(sse(json.dumps(value), json.dumps({"choices": [value, {"delta": value}]}), "[DONE]"))
    json.loads(assembly.whole())
