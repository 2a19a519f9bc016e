import base64
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.api.openai.answers import (
    Renaming,
    check_choices,
    check_data,
    complete_chat,
    complete_completion,
    encode_vectors,
)
from stellwerk.core.errors import UpstreamBroken, UpstreamError
from stellwerk.core.outcome import Usage
from tests.scripted_upstream import completion

BARE = {"choices": [{"index": 0, "message": {"role": "assistant"}, "finish_reason": "stop"}], "timings": {"a": 0.1}}


def tight(body) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def embeddings(*vectors):
    rows = [{"object": "embedding", "index": at, "embedding": vector} for at, vector in enumerate(vectors)]
    return {"object": "list", "data": rows, "model": "up", "usage": {"prompt_tokens": 3, "total_tokens": 3}}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 2}, Usage(input_tokens=5, output_tokens=2)),
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 2,
                "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 1},
            },
            Usage(input_tokens=5, output_tokens=2, cached_tokens=4, reasoning_tokens=1),
        ),
        ({"prompt_tokens": 5, "prompt_tokens_details": None}, Usage(input_tokens=5)),
        (None, None),
        ({"prompt_tokens": -5}, None),
        ("many", None),
    ],
)
def test_usage_is_read_from_a_whole_answer(usage, expected):
    assert check_choices(tight({"choices": [], "usage": usage})) == expected


def test_embeddings_are_counted_too():
    assert check_data(tight(embeddings([1.0]))) == Usage(input_tokens=3)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b"{}",
        b'{"choices":null,"data":null}',
        b'{"choices":5,"data":5}',
        b'{"choices":"x","data":{}}',
        b'{"error":null}',
        b'{"choices":[],"data":[]',
        b'{"choices":[],"data":[],"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=lambda body: body[:30],
)
@pytest.mark.parametrize("check", [check_choices, check_data])
def test_what_is_no_answer_is_the_upstreams_fault_and_another_may_be_asked(check, body):
    with pytest.raises(UpstreamBroken) as caught:
        check(body)
    assert caught.value.may_fall_back


@pytest.mark.parametrize("check", [check_choices, check_data])
def test_an_error_under_a_good_status_is_told_as_the_error_it_is(check):
    with pytest.raises(UpstreamError, match="GPU on fire at …") as caught:
        check(b'{"error":{"message":"GPU on fire at http://10.0.0.7/","code":500}}')
    assert caught.value.may_fall_back


@pytest.mark.parametrize("complete", [complete_chat, complete_completion, encode_vectors])
@pytest.mark.parametrize("text", [b"\xff", b"\\ud800", b"[" * 100_000])
def test_texts_that_cannot_be_read_are_the_upstreams_fault_too(complete, text):
    text = text if text.startswith(b"[") else b'"' + text + b'"'
    with pytest.raises(UpstreamBroken):
        complete(b'{"choices":[{"text":%b}],"data":[{"embedding":%b}]}' % (text, text))


def test_a_complete_answer_passes_byte_for_byte():
    body = json.dumps(completion("Grüße"), indent=1).encode()
    assert complete_chat(body) is body
    assert complete_completion(body) is body


def test_a_chat_answer_gets_what_the_schema_requires():
    (choice,) = json.loads(complete_chat(tight(BARE)))["choices"]
    assert choice == {
        "index": 0,
        "message": {"role": "assistant", "content": None, "refusal": None},
        "finish_reason": "stop",
        "logprobs": None,
    }


def test_a_text_completion_gets_what_the_schema_requires():
    body = {"choices": [{"index": 0, "text": "Hi", "finish_reason": "stop"}]}
    assert json.loads(complete_completion(tight(body)))["choices"][0]["logprobs"] is None


def test_completing_keeps_everything_else():
    body = completion("ä", reasoning=[1, 2.5, 10**25], x_groq={"id": None})
    del body["choices"][0]["message"]["refusal"]
    completed = json.loads(complete_chat(tight(body)))
    assert completed == json.loads(tight(completion("ä", reasoning=[1, 2.5, 10**25], x_groq={"id": None})))


@pytest.mark.parametrize("choice", [None, 5, "x", [], {"message": None}, {"message": "Hi"}])
def test_odd_choices_are_left_alone(choice):
    assert len(json.loads(complete_chat(tight({"choices": [choice]})))["choices"]) == 1


@pytest.mark.parametrize("mark", ['"model":"%s"', '"model": "%s"'])
def test_the_model_gets_the_name_that_the_client_used(mark):
    rename = Renaming('a"b/ü', "house/x")
    before = ("{" + mark % 'a\\"b/ü' + "}").encode()
    assert rename(before) == ("{" + mark % "house/x" + "}").encode()


@pytest.mark.parametrize(
    "data",
    ['{"model":"up-2026"}', '{"models":"up"}', r'{"content":"{\"model\":\"up\"}"}', '{"the model":"up"}', '"up"'],
)
def test_other_names_and_texts_stay(data):
    assert Renaming("up", "house/up")(data.encode()) == data.encode()


@given(st.text(), st.text(), st.text())
def test_renaming_never_touches_a_text(upstream, asked, text):
    body = {"model": upstream, "choices": [{"message": {"content": text + json.dumps({"model": upstream})}}]}
    rename = Renaming(upstream, asked)
    renamed = rename(json.dumps(body, ensure_ascii=False).encode())
    if renamed != json.dumps(body, ensure_ascii=False).encode():
        body["model"] = asked
    assert json.loads(renamed) == body


@given(st.lists(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=8), max_size=4))
def test_vectors_become_base64_of_float32(vectors):
    rows = json.loads(encode_vectors(tight(embeddings(*vectors))))["data"]
    decoded = [base64.b64decode(row["embedding"]) for row in rows]
    assert [list(struct.unpack(f"<{len(packed) // 4}f", packed)) for packed in decoded] == vectors


def test_vectors_that_are_base64_already_stay_byte_for_byte():
    body = tight(embeddings("AACAPw==", "AAAAQA=="))
    assert encode_vectors(body) is body


@pytest.mark.parametrize("vector", [["a"], [None], [[1.0]], [1e300], [10**400]], ids=str)
def test_a_vector_of_anything_else_is_the_upstreams_fault(vector):
    with pytest.raises(UpstreamBroken):
        encode_vectors(tight(embeddings(vector)))
