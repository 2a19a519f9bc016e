import base64
import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stellwerk.api.ollama.openai_requests import Abilities, chat_fields
from stellwerk.api.ollama.requests import ChatBody, GenerateBody, read_call
from stellwerk.api.openai import requests as openai
from stellwerk.core.errors import BadRequest

CHAT = msgspec.json.Decoder(ChatBody)
GENERATE = msgspec.json.Decoder(GenerateBody)
OPENAI = msgspec.json.Decoder(openai.ChatBody)
HI = [{"role": "user", "content": "Hi"}]


def translate(body, decoder=CHAT, **abilities):
    checked, _ = read_call(json.dumps({"model": "m", **body}).encode(), None, decoder)
    return json.loads(msgspec.json.encode(chat_fields(checked, Abilities(**abilities))))


def called(*names, **more):
    calls = [{"function": {"name": name, "arguments": {"n": name}}, **more} for name in names]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def answered_ids(messages):
    return [
        message["tool_call_id"]
        for message in translate({"messages": messages})["messages"]
        if message["role"] == "tool"
    ]


def test_tools_answer_by_id_then_by_name_then_in_their_order():
    tool = {"role": "tool", "content": "x"}
    assert answered_ids([called("a", "b"), tool, tool]) == ["call_1", "call_2"]
    assert answered_ids([called("a", "b"), {**tool, "tool_name": "b"}, tool]) == ["call_2", "call_1"]
    assert answered_ids([called("a", id="own"), {**tool, "tool_call_id": "own"}]) == ["own"]
    assert answered_ids([called("a"), {**tool, "tool_call_id": "lost", "tool_name": "other"}]) == ["call_1"]
    assert answered_ids([called("a"), tool, called("a"), tool]) == ["call_1", "call_2"]


def test_earlier_thoughts_reach_engines_of_ours_and_no_vendor():
    thought = {"role": "assistant", "content": "Yes.", "thinking": "Hm"}
    messages = [
        {**HI[0], "thinking": "no"},
        thought,
        {**called("a"), "thinking": "Hm"},
        {"role": "tool", "content": "x"},
    ]
    user, answer, call, _tool = translate({"messages": messages}, engine=True)["messages"]
    assert "reasoning_content" not in user
    assert answer == {"role": "assistant", "content": "Yes.", "reasoning_content": "Hm"}
    assert (call["reasoning_content"], len(call["tool_calls"])) == ("Hm", 1)
    assert "Hm" not in json.dumps(translate({"messages": messages}))


def test_an_answer_to_no_call_is_refused():
    with pytest.raises(BadRequest) as caught:
        translate({"messages": [called("a"), *2 * [{"role": "tool", "content": "x"}]]})
    assert caught.value.param == "messages[2]"


@pytest.mark.parametrize("arguments", ['"{}"', "[]", "1"])
def test_arguments_are_an_object(arguments):
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "a", "arguments": json.loads(arguments)}}]}
    with pytest.raises(BadRequest) as caught:
        translate({"messages": [call]})
    assert caught.value.param == "messages[0].tool_calls[0].function.arguments"


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n", "png"),
        (b"\xff\xd8\xff\xe0", "jpeg"),
        (b"GIF89a", "gif"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "webp"),
        (b"BM", "bmp"),
    ],
)
def test_an_image_tells_its_kind(head, kind):
    image = base64.b64encode(head + bytes(30)).decode()
    message = {"role": "user", "content": "", "images": [image]}
    (part,) = translate({"messages": [message]})["messages"][0]["content"]
    assert part == {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{image}"}}
    generated = translate({"prompt": "x", "images": [image]}, GENERATE)
    assert generated["messages"][0]["content"][1] == part


@pytest.mark.parametrize("encode", [base64.encodebytes, lambda data: base64.encodebytes(data).replace(b"\n", b"\r\n")])
def test_line_ends_in_an_image_do_not_reach_a_vendor(encode):
    data = b"\x89PNG\r\n\x1a\n" + bytes(200)
    plain, wrapped = base64.b64encode(data).decode(), encode(data).decode()
    for image in (wrapped, f"data:image/png;base64,{wrapped}"):
        (part,) = translate({"messages": [{"role": "user", "images": [image]}]})["messages"][0]["content"]
        assert part["image_url"]["url"] == f"data:image/png;base64,{plain}"


@pytest.mark.parametrize("image", ["", "é", "###", "aGVsbG8gd29ybGQgaGVsbG8gd29ybGQ=", "https://example.com/a.png"])
def test_what_is_no_image_is_refused(image):
    with pytest.raises(BadRequest) as caught:
        translate({"messages": [{**HI[0], "images": [image]}]})
    assert caught.value.param == "messages[0].images[0]"


@pytest.mark.parametrize("role", ["system", "assistant", "tool"])
def test_only_users_show_images(role):
    with pytest.raises(BadRequest) as caught:
        translate({"messages": [called("a"), {"role": role, "images": ["iVBORw0KGgoAAAANSUhEUgAA"]}]})
    assert caught.value.param == "messages[1].images"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": "x", "raw": True}, "raw"),
        ({"prompt": "x", "template": "{{ .Prompt }}"}, "template"),
        ({"prompt": "x", "context": [1, 2]}, "context"),
        ({"prompt": "x", "suffix": "y"}, "suffix"),
        ({"prompt": "x", "logprobs": True}, "logprobs"),
    ],
)
def test_what_a_chat_cannot_express_is_refused(body, param):
    with pytest.raises(BadRequest) as caught:
        translate(body, GENERATE)
    assert caught.value.param == param


def test_empty_forms_of_them_are_not():
    body = {"prompt": "x", "raw": False, "template": "", "context": [], "suffix": "", "logprobs": False, "format": ""}
    assert translate(body, GENERATE) == {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}


@pytest.mark.parametrize("think", [True, False, "low", "medium", "high", "max"])
def test_thinking_is_asked_for_only_where_it_is_known(think):
    body = {"messages": HI, "think": think}
    assert "reasoning_effort" not in translate(body)
    efforts = {True: "medium", False: None, "max": "high"}
    assert translate(body, thinks=True).get("reasoning_effort") == efforts.get(think, think)
    assert translate(body, engine=True)["chat_template_kwargs"] == {"enable_thinking": think is not False}


def test_engines_of_ours_take_more_options():
    body = {"messages": HI, "options": {"top_k": 3, "min_p": 0.1, "repeat_penalty": 1.1, "typical_p": 0.9, "seed": -1}}
    assert not {"top_k", "seed"} & translate(body).keys()
    sent = translate(body, engine=True)
    assert {name: sent[name] for name in ("top_k", "min_p", "repeat_penalty", "typ_p")} == {
        "top_k": 3,
        "min_p": 0.1,
        "repeat_penalty": 1.1,
        "typ_p": 0.9,
    }


@pytest.mark.parametrize("last", [-1, -1.0])
def test_a_penalty_may_look_back_as_far_as_the_context(last):
    body = {"messages": HI, "options": {"repeat_last_n": last}}
    assert translate(body, engine=True, context_length=2048)["repeat_last_n"] == 2048
    assert "repeat_last_n" not in translate(body, engine=True)
    assert "repeat_last_n" not in translate(body, context_length=2048)
    body["options"]["repeat_last_n"] = 0
    assert translate(body, engine=True, context_length=2048)["repeat_last_n"] == 0


def test_whole_numbers_may_be_written_as_others():
    options = {"num_predict": 100.0, "seed": 42.0, "top_k": 3.5}
    sent = translate({"messages": HI, "options": options}, engine=True)
    assert [json.dumps(sent[name]) for name in ("max_tokens", "seed", "top_k")] == ["100", "42", "3"]
    assert translate({"messages": HI, "options": {"seed": 2**60 + 1}})["seed"] == 2**60 + 1


@pytest.mark.parametrize(
    "open_schema", [{"type": "object"}, {"type": ["object", "null"]}, {"properties": {}, "additionalProperties": True}]
)
def test_only_closed_schemas_are_strict(open_schema):
    for schema in (open_schema, {"type": "array", "items": open_schema}):
        assert translate({"messages": HI, "format": schema})["response_format"]["json_schema"]["strict"] is False
    closed = {"type": "object", "properties": {"a": {"enum": ["object"]}}}
    asked = translate({"messages": HI, "format": closed})["response_format"]["json_schema"]
    assert asked["strict"] is True
    assert asked["schema"] == {**closed, "required": ["a"], "additionalProperties": False}


def test_what_is_nested_too_deeply_is_refused():
    schema = {}
    for _ in range(5000):
        schema = {"items": schema}
    with pytest.raises(BadRequest, match="too deeply"):
        chat_fields(ChatBody(model="m", format=schema), Abilities())


TEXT = st.text(max_size=8)
MAYBE_TEXT = st.none() | TEXT
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            TEXT | st.sampled_from(["type", "properties", "items", "additionalProperties", "anyOf"]),
            inner | st.sampled_from(["object"]),
            max_size=3,
        )
    ),
    max_leaves=8,
)
CALLS = st.fixed_dictionaries(
    {
        "function": st.fixed_dictionaries(
            {"name": TEXT}, optional={"arguments": st.dictionaries(TEXT, VALUES, max_size=2)}
        )
    },
    optional={"id": MAYBE_TEXT},
)
MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "USER", "assistant", "tool", "other"])},
    optional={
        "content": MAYBE_TEXT,
        "images": st.none() | st.lists(TEXT | st.just("iVBORw0KGgoAAAANSUhEUgAA"), max_size=2),
        "tool_calls": st.none() | st.lists(CALLS, max_size=3),
        "tool_name": MAYBE_TEXT,
        "tool_call_id": MAYBE_TEXT,
        "thinking": MAYBE_TEXT,
    },
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "num_predict": st.integers(-2, 100),
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0, 1),
        "seed": st.integers(-1, 9),
        "stop": st.lists(TEXT, max_size=3) | TEXT,
        "top_k": st.integers(0, 9),
        "num_ctx": VALUES,
    },
)
COMMON = {
    "stream": st.none() | st.booleans(),
    "format": st.none()
    | st.sampled_from(["", "json"])
    | st.dictionaries(TEXT | st.just("properties"), VALUES, max_size=3),
    "options": st.none() | OPTIONS,
    "think": st.none() | st.booleans() | st.sampled_from(["low", "max"]),
    "keep_alive": st.none() | st.integers(-1, 9) | TEXT,
}
CHATS = st.fixed_dictionaries(
    {"messages": st.lists(MESSAGES, min_size=1, max_size=5)},
    optional={
        **COMMON,
        "tools": st.lists(st.fixed_dictionaries({"function": st.fixed_dictionaries({"name": TEXT})}), max_size=2),
    },
)
PROMPTS = st.fixed_dictionaries(
    {"prompt": TEXT},
    optional={
        **COMMON,
        "system": MAYBE_TEXT,
        "suffix": MAYBE_TEXT,
        "raw": st.booleans(),
        "context": st.lists(st.integers()),
    },
)


@settings(max_examples=150)
@given(CHATS.map(lambda body: (body, CHAT)) | PROMPTS.map(lambda body: (body, GENERATE)), st.booleans(), st.booleans())
def test_every_valid_body_is_translated_or_refused_by_a_fields_name(asked, thinks, engine):
    body, decoder = asked
    try:
        sent = translate(body, decoder, thinks=thinks, engine=engine)
    except BadRequest as error:
        named = error.param
        assert named, "a refusal says what it refuses"
        return
    # What OpenAI's own API takes from a client here, an upstream takes too.
    OPENAI.decode(json.dumps(sent).encode())
    ids = [call["id"] for message in sent["messages"] for call in message.get("tool_calls") or ()]
    assert all(ids)
    assert all(message["tool_call_id"] in ids for message in sent["messages"] if message["role"] == "tool")
