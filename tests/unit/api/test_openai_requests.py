import json
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.api._bodies import check_content_type
from stellwerk.api.openai.requests import ChatBody, CompletionBody, EmbeddingBody, read_body
from stellwerk.core.errors import BadRequest, UnsupportedMedia

CHAT = msgspec.json.Decoder(ChatBody)
COMPLETION = msgspec.json.Decoder(CompletionBody)
EMBEDDING = msgspec.json.Decoder(EmbeddingBody)
USER = {"role": "user", "content": "Hi"}
IMAGE = "data:image/png;base64,iVBORw0KGgo="
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Wetter — Köln",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"n": {"type": "integer", "minimum": -9007199254740991, "maximum": 9007199254740991}},
            "required": ["n"],
            "additionalProperties": False,
        },
    },
}
TALK = [
    {"role": "developer", "content": "Be brief."},
    {"role": "system", "content": [{"type": "text", "text": "You are a clerk."}]},
    {"role": "user", "name": "anna", "content": "Weather?"},
    {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "sun"},
    {"role": "function", "name": "old", "content": "x"},
]
FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "n", "strict": True, "schema": WEATHER["function"]["parameters"]},
}

GOOD_CHATS = {
    "the least": {},
    "a conversation with tools": {"messages": TALK, "tools": [WEATHER], "tool_choice": "auto"},
    "a chosen tool": {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
    "allowed tools": {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}},
    "a custom tool": {"tools": [{"type": "custom", "custom": {"name": "sql", "format": {"type": "text"}}}]},
    "no parallel tools": {"tools": [WEATHER], "parallel_tool_calls": False},
    "strict JSON": {"response_format": FORMAT},
    "any JSON": {"response_format": {"type": "json_object"}},
    "pictures": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is it?"},
                    {"type": "image_url", "image_url": {"url": IMAGE, "detail": "low"}},
                    {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                ],
            }
        ]
    },
    "sound": {
        "modalities": ["text", "audio"],
        "audio": {"voice": "alloy", "format": "wav"},
        "messages": [
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}]}
        ],
    },
    "a file": {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}]},
    "several answers": {"n": 2, "logprobs": True, "top_logprobs": 5, "logit_bias": {"50256": -100, "1": 1.5}},
    "bookkeeping": {"metadata": {"team": "ä"}, "store": True, "user": "u", "safety_identifier": "s"},
    "OpenAI's own dials": {
        "service_tier": "flex",
        "reasoning_effort": "minimal",
        "verbosity": "low",
        "prediction": {"type": "content", "content": "x"},
        "prompt_cache_key": "k",
        "web_search_options": {},
    },
    "sampling": {"temperature": 2, "top_p": 0.1, "presence_penalty": -2.0, "frequency_penalty": 2, "seed": -1},
    "limits": {"max_tokens": 0, "max_completion_tokens": 4096, "stop": ["\n", "END"]},
    "one stop": {"stop": "\n\n"},
    "nulls everywhere": dict.fromkeys(
        {*ChatBody.__struct_fields__, "metadata", "store", "service_tier"} - {"model", "messages"}
    ),
    "a stream": {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
    "old functions": {"functions": [{"name": "f", "parameters": {}}], "function_call": {"name": "f"}},
    "fields of other engines": {
        "top_k": 40,
        "min_p": 0.05,
        "grammar": "root ::= x",
        "chat_template_kwargs": {"a": [1]},
    },
    "an empty answer in the history": {"messages": [{"role": "assistant", "content": ""}, USER]},
    "an unlimited number": {"seed": 2**63, "thinking": {"budget": 10**30}},
}


def chat(**fields) -> bytes:
    return json.dumps({"model": "house/up", "messages": [USER], **fields}).encode()


def read_chat(body, content_type=b"application/json"):
    return read_body(body, content_type, CHAT)


@pytest.mark.parametrize("fields", GOOD_CHATS.values(), ids=GOOD_CHATS)
@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("indent", [None, 2])
def test_what_real_clients_send_passes_and_keeps_every_byte(fields, ascii_only, indent):
    sent = {"model": "house/up", "messages": [USER], **fields}
    body, kept = read_chat(json.dumps(sent, ensure_ascii=ascii_only, indent=indent).encode())
    text = json.dumps(sent, ensure_ascii=ascii_only, indent=indent).encode()
    assert body.model == "house/up"
    assert list(kept) == list(sent)
    for name, raw in kept.items():
        assert bytes(raw) in text
        assert json.loads(bytes(raw)) == sent[name]


@pytest.mark.parametrize("raw", [b"1.0", b"1e0", b"10E-1", b"1.50", b"-0.0", b"0.1000000000000000055511151231257827"])
def test_a_number_keeps_the_spelling_of_the_client(raw):
    _, kept = read_chat(
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"temperature":%b, "x" : %b }' % (raw, raw)
    )
    assert bytes(kept["temperature"]) == bytes(kept["x"]) == raw


def test_a_field_given_twice_counts_as_its_last_everywhere():
    body, kept = read_chat(b'{"model":"a","messages":[{"role":"user","content":"x"}],"model":"b"}')
    assert (body.model, bytes(kept["model"])) == ("b", b'"b"')


@pytest.mark.parametrize(
    ("options", "wanted"),
    [(None, False), ({}, False), ({"include_usage": None}, False), ({"include_usage": True}, True)],
)
def test_usage_is_wanted_only_when_it_is_asked_for(options, wanted):
    assert read_chat(chat(stream=True, stream_options=options))[0].wants_usage is wanted


@pytest.mark.parametrize("prompt", ["Hi", "", ["a", "b"], [1, 2, 3], [[1, 2], [3]]])
def test_every_kind_of_prompt_passes(prompt):
    _, kept = read_body(json.dumps({"model": "m", "prompt": prompt}).encode(), None, COMPLETION)
    assert json.loads(bytes(kept["prompt"])) == prompt


@pytest.mark.parametrize("given", ["Hi", ["a", "b"], [1, 2], [[1, 2]]])
def test_every_kind_of_input_passes(given):
    body = {"model": "m", "input": given, "encoding_format": "base64", "dimensions": 256}
    assert read_body(json.dumps(body).encode(), None, EMBEDDING)[0].encoding_format == "base64"


@pytest.mark.parametrize(
    "body",
    {
        "empty": b"",
        "blank": b" \r\n ",
        "a word": b"hello",
        "half": b'{"model":"m","messages":[{"role":"us',
        "a form": b"model=m&messages=x",
        "NaN": chat(temperature=float("nan")),
        "NaN in a field that we do not know": chat(x=float("nan")),
        "Infinity": chat(temperature=float("inf")),
        "two bodies": chat() + chat(),
        "a comma too many": b'{"model":"m",}',
        "a comment": b'{"model":"m" /* x */}',
        "single quotes": b"{'model':'m'}",
        "UTF-16": chat().decode().encode("utf-16"),
        "a byte order mark": b"\xef\xbb\xbf" + chat(),
        "Latin-1": b'{"model":"m","messages":[{"role":"user","content":"K\xf6ln"}]}',
        "Latin-1 in a field that we do not know": b'{"model":"m","messages":[],"x":"\xf6"}',
        "an encoded surrogate": b'{"model":"m","x":"\xed\xa0\x80"}',
        "a lone surrogate": chat(messages=[{"role": "user", "content": "\ud800"}]),
        "a raw line end in a text": b'{"model":"m\n"}',
        "deep lists": b'{"model":"m","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        "a zero byte": b"\x00",
    }.items(),
    ids=lambda item: item[0],
)
def test_what_is_no_json_is_refused_as_such(body):
    with pytest.raises(BadRequest) as caught:
        read_chat(body[1])
    assert caught.value.code == "json_invalid"
    assert caught.value.param is None
    assert "Traceback" not in caught.value.message


@pytest.mark.parametrize("body", [b"[]", b"[{}]", b'"text"', b"1", b"null", b"true"])
def test_what_is_no_object_is_refused(body):
    with pytest.raises(BadRequest, match="must be a JSON object") as caught:
        read_chat(body)
    assert caught.value.code == "invalid_type"


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": None}, "model", "invalid_type"),
        ({"model": 5}, "model", "invalid_type"),
        ({"model": ["m"]}, "model", "invalid_type"),
        ({"model": ""}, "model", "invalid_value"),
        ({"model": "m" * 257}, "model", "invalid_value"),
        ({"messages": "Hi"}, "messages", "invalid_type"),
        ({"messages": None}, "messages", "invalid_type"),
        ({"messages": {}}, "messages", "invalid_type"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": ["Hi"]}, "messages[0]", "invalid_type"),
        ({"messages": [{"content": "Hi"}]}, "messages[0].role", "missing_required_parameter"),
        ({"messages": [{"role": "wizard", "content": "Hi"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": 1}]}, "messages[0].role", "invalid_type"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_type"),
        ({"messages": [{"role": "user", "content": {"text": "x"}}]}, "messages[0].content", "invalid_type"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]", "invalid_type"),
        (
            {"messages": [{"role": "user", "content": [{"text": "x"}]}]},
            "messages[0].content[0].type",
            "missing_required_parameter",
        ),
        ({"messages": [{**USER, "name": 1}]}, "messages[0].name", "invalid_type"),
        ({"messages": [{**USER, "tool_calls": {}}]}, "messages[0].tool_calls", "invalid_type"),
        ({"messages": [{**USER, "tool_call_id": 1}]}, "messages[0].tool_call_id", "invalid_type"),
        ({"stream": "true"}, "stream", "invalid_type"),
        ({"stream": 1}, "stream", "invalid_type"),
        ({"stream_options": []}, "stream_options", "invalid_type"),
        ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage", "invalid_type"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"temperature": 2.1}, "temperature", "invalid_value"),
        ({"temperature": -0.1}, "temperature", "invalid_value"),
        ({"top_p": 1.01}, "top_p", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 129}, "n", "invalid_value"),
        ({"n": 10**100}, "n", "invalid_value"),
        ({"n": 1.5}, "n", "invalid_type"),
        ({"n": True}, "n", "invalid_type"),
        ({"max_tokens": -2}, "max_tokens", "invalid_value"),
        ({"max_tokens": "100"}, "max_tokens", "invalid_type"),
        ({"max_completion_tokens": 10**9}, "max_completion_tokens", "invalid_value"),
        ({"presence_penalty": 3}, "presence_penalty", "invalid_value"),
        ({"frequency_penalty": []}, "frequency_penalty", "invalid_type"),
        ({"stop": 5}, "stop", "invalid_type"),
        ({"stop": [5]}, "stop[0]", "invalid_type"),
        ({"stop": ["x"] * 65}, "stop", "invalid_value"),
        ({"seed": "x"}, "seed", "invalid_type"),
        ({"user": 1}, "user", "invalid_type"),
        ({"logit_bias": []}, "logit_bias", "invalid_type"),
        ({"logit_bias": {"1": 101}}, "logit_bias[...]", "invalid_value"),
        ({"tools": {}}, "tools", "invalid_type"),
        ({"tools": [{}]}, "tools[0].type", "missing_required_parameter"),
        (
            {"tools": [{"type": "function", "function": {}}]},
            "tools[0].function.name",
            "missing_required_parameter",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]},
            "tools[0].function.parameters",
            "invalid_type",
        ),
        ({"tool_choice": 1}, "tool_choice", "invalid_type"),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls", "invalid_type"),
        ({"response_format": "json"}, "response_format", "invalid_type"),
        ({"logprobs": 3}, "logprobs", "invalid_type"),
        ({"top_logprobs": 21}, "top_logprobs", "invalid_value"),
    ],
)
def test_a_wrong_value_is_named(fields, param, code):
    with pytest.raises(BadRequest) as caught:
        read_chat(chat(**fields))
    assert (caught.value.param, caught.value.code) == (param, code)
    assert f"'{param}'" in caught.value.message


@pytest.mark.parametrize("name", ["model", "messages"])
def test_a_missing_field_is_named(name):
    fields = json.loads(chat())
    del fields[name]
    with pytest.raises(BadRequest, match=f"Missing required parameter: '{name}'") as caught:
        read_chat(json.dumps(fields).encode())
    assert (caught.value.param, caught.value.code) == (name, "missing_required_parameter")


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"9" * 5000])
@pytest.mark.parametrize("name", ["temperature", "max_tokens", "seed"])
def test_a_number_beyond_all_bounds_is_refused_where_a_number_counts(name, number):
    with pytest.raises(BadRequest) as caught:
        read_chat(chat()[:-1] + b', "%b": %b}' % (name.encode(), number))
    assert caught.value.param == name


@pytest.mark.parametrize(
    ("decoder", "fields", "param"),
    [
        (COMPLETION, {}, "prompt"),
        (COMPLETION, {"prompt": None}, "prompt"),
        (COMPLETION, {"prompt": []}, "prompt"),
        (COMPLETION, {"prompt": {"text": "x"}}, "prompt"),
        (COMPLETION, {"prompt": "x", "best_of": 0}, "best_of"),
        (COMPLETION, {"prompt": "x", "echo": 1}, "echo"),
        (COMPLETION, {"prompt": "x", "logprobs": True}, "logprobs"),
        (COMPLETION, {"prompt": "x", "suffix": 1}, "suffix"),
        (EMBEDDING, {}, "input"),
        (EMBEDDING, {"input": ""}, "input"),
        (EMBEDDING, {"input": []}, "input"),
        (EMBEDDING, {"input": {"text": "x"}}, "input"),
        (EMBEDDING, {"input": "x", "encoding_format": "hex"}, "encoding_format"),
        (EMBEDDING, {"input": "x", "dimensions": 0}, "dimensions"),
        (EMBEDDING, {"input": "x", "dimensions": "9"}, "dimensions"),
    ],
)
def test_a_wrong_value_is_named_on_the_other_routes_too(decoder, fields, param):
    with pytest.raises(BadRequest) as caught:
        read_body(json.dumps({"model": "m", **fields}).encode(), None, decoder)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        b"",
        b"application/json",
        b"Application/JSON; charset=utf-8",
        b"application/vnd.api+json",
        b"text/plain;charset=UTF-8",
        b"application/x-www-form-urlencoded",
    ],
)
def test_json_is_accepted_under_the_names_that_clients_give_it(content_type):
    check_content_type(content_type)


@pytest.mark.parametrize(
    "content_type", [b"multipart/form-data; boundary=x", b"text/html", b"application/xml", b"image/png", b"json"]
)
def test_what_is_surely_something_else_is_refused(content_type):
    with pytest.raises(UnsupportedMedia, match="application/json"):
        read_chat(chat(), content_type)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KNOWN = sorted({*ChatBody.__struct_fields__, *CompletionBody.__struct_fields__, *EmbeddingBody.__struct_fields__})


@given(
    st.one_of(ANY_JSON, st.dictionaries(st.sampled_from(KNOWN), ANY_JSON)),
    st.sampled_from([CHAT, COMPLETION, EMBEDDING]),
)
def test_arbitrary_json_is_read_or_refused(value, decoder):
    body = json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")
    try:
        _, kept = read_body(body, None, decoder)
    except BadRequest:
        return
    assert {name: json.loads(bytes(raw)) for name, raw in kept.items()} == value


@given(st.binary(max_size=64), st.none() | st.binary(max_size=20))
def test_arbitrary_bytes_are_read_or_refused(body, content_type):
    for decoder in (CHAT, COMPLETION, EMBEDDING):
        with suppress(BadRequest, UnsupportedMedia):
            read_body(body, content_type, decoder)


@pytest.mark.parametrize(
    "name",
    ["MODEL", "Model", "mOdel", "STREAM", "Max_Tokens", "N", "Messages", "me\u017f\u017fages", "max_to\u212aens"],
)
def test_a_field_that_we_read_cannot_be_written_twice_in_two_spellings(name):
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}], name: "other"}).encode()
    with pytest.raises(BadRequest) as caught:
        read_body(body, None, msgspec.json.Decoder(ChatBody))
    assert (caught.value.param, caught.value.code) == (name, "invalid_parameter_name")


def test_fields_that_we_do_not_know_may_be_written_in_any_case():
    body = b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"topK":3,"X-Y":1}'
    _, fields = read_body(body, None, msgspec.json.Decoder(ChatBody))
    assert {"topK", "X-Y"} < set(fields)
