import json

import msgspec
import pytest
from openai.types.responses import Response

from stellwerk.api.openai.responses_answers import (
    begin_response,
    id_of_job,
    job_of_id,
    show_job_response,
    show_response,
)
from stellwerk.api.openai.responses_items import OutputItems
from stellwerk.api.openai.responses_requests import ResponsesBody, to_chat
from stellwerk.api.openai.responses_tools import leave_out_web_search
from stellwerk.core.errors import BadRequest, UpstreamBroken
from stellwerk.core.principal import Priority
from stellwerk.jobs.job import Job, JobError, State

CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
FILE_BY_ID = {"type": "input_file", "file_id": "file-1"}
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}
SPACE = {"type": "namespace", "name": "n", "tools": [TOOL]}
USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 2,
    "total_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 1},
}


def body(**fields):
    return msgspec.convert({"model": "up/up", "input": "Hello", **fields}, ResponsesBody)


def chat(message=None, finish="stop", **more):
    message = {"role": "assistant", "content": "Hi", "refusal": None} | (message or {})
    choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
    return json.dumps({"object": "chat.completion", "choices": [choice], "usage": USAGE, **more}).encode()


def shown(answer, **fields):
    text = show_response(begin_response(body(**fields), "resp_1", 1_700_000_000), answer, OutputItems(1_000_000))
    return Response.model_validate_json(text, strict=False)


def job(state, **fields):
    values = {
        "id": "550e8400-e29b-41d4-a716-446655440000",
        "kind": "call",
        "queue": "up/up",
        "path": "/v1/responses",
        "key_id": "k",
        "user_id": 1,
        "client_id": "",
        "priority": Priority.NORMAL,
        "labels": {"model": "mine", "metadata": '{"a":"b"}'},
        "created_at": 1_700_000_000.5,
        "queued_at": 0.0,
        "deadline_at": 1.0,
        "state": state,
        "attempts": 0,
    }
    return Job(**values | fields)


# --- requests


def test_a_text_with_instructions_is_two_messages():
    assert to_chat(body(instructions="Be short.", temperature=0.5, max_output_tokens=9)) == {
        "model": "up/up",
        "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello"}],
        "temperature": 0.5,
        "max_completion_tokens": 9,
    }


def test_a_stream_is_asked_for_with_its_usage():
    asked = to_chat(body(stream=True))
    assert (asked["stream"], asked["stream_options"]) == (True, {"include_usage": True})
    assert "stream" not in to_chat(body(stream=False))


def test_a_conversation_with_tools_is_one_for_chats():
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": "u"}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "b", "annotations": []}]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "done"},
    ]
    messages = to_chat(body(input=items))["messages"]
    assert messages == [
        {
            "role": "user",
            "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "u"}}],
        },
        {
            "role": "assistant",
            "content": "b",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "done"},
    ]


def test_tools_and_formats_have_their_chat_form():
    wanted = to_chat(
        body(
            tools=[TOOL],
            tool_choice={"type": "function", "name": "f"},
            text={"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}},
            reasoning={"effort": "low"},
        )
    )
    assert wanted["tools"] == [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}
    ]
    assert wanted["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    schema = {"name": "n", "schema": {"type": "object"}, "strict": True}
    assert wanted["response_format"] == {"type": "json_schema", "json_schema": schema}
    assert wanted["reasoning_effort"] == "low"


def test_functions_of_a_namespace_have_both_names_in_one():
    inner = {"type": "function", "name": "read", "parameters": {"type": "object"}}
    space = {
        "type": "namespace",
        "name": "files",
        "description": "Files.",
        "tools": [inner, {**inner, "name": "x" * 70}],
    }
    call = {"type": "function_call", "call_id": "c", "namespace": "files", "name": "read", "arguments": "{}"}
    asked = to_chat(body(tools=[TOOL, space], input=[call]))
    one, two, three = (tool["function"]["name"] for tool in asked["tools"])
    assert (one, two, len(three)) == ("f", "files__read", 64)
    assert asked["messages"][0]["tool_calls"][0]["function"]["name"] == "files__read"
    shown_tools = begin_response(body(tools=[space]), "resp_1", 0)["tools"]
    assert [tool["name"] for tool in shown_tools[0]["tools"]] == ["read", "x" * 70]
    assert to_chat(body(tools=[space]))["tools"][1]["function"]["name"] == three


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function", "name": "n__f"}, SPACE]}, "tools[1].tools[0].name"),
        ({"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "custom"}]}]}, "tools[0].tools[0].type"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"tools": [{"type": "file_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"input": [{"role": "tool", "content": "a"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": 1}]}, "input[0].content"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
            "input[0].content[0].type",
        ),
        ({"input": [{"type": "computer_call"}]}, "input[0].type"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format"),
    ],
)
def test_what_a_chat_cannot_say_is_named(fields, param):
    with pytest.raises(BadRequest) as refused:
        to_chat(body(**fields))
    assert refused.value.param == param


SEARCH = {"type": "web_search", "external_web_access": False}


@pytest.mark.parametrize("choice", [None, "auto", "none", "required", {"type": "function", "name": "f"}])
def test_a_search_of_the_web_that_is_only_offered_is_left_out(choice):
    tools = body(tools=[SEARCH, TOOL, {"type": "web_search_preview"}]).tools
    assert [tool.name for tool in leave_out_web_search(tools, choice)] == ["f"]
    assert choice == "required" or leave_out_web_search(tools[:1], None) == []


@pytest.mark.parametrize("choice", ["required", {"type": "web_search"}])
def test_a_search_of_the_web_that_has_to_be_is_refused(choice):
    with pytest.raises(BadRequest) as refused:
        leave_out_web_search(body(tools=[SEARCH]).tools, choice)
    assert refused.value.param == "tool_choice"


# --- answers


def test_an_answer_is_a_response_for_openais_client():
    response = shown(chat(), instructions="Be short.", tools=[TOOL], metadata={"a": "b"})
    assert (response.status, response.output_text, response.object) == ("completed", "Hi", "response")
    usage = response.usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (5, 2, 7)
    assert (usage.input_tokens_details.cached_tokens, usage.output_tokens_details.reasoning_tokens) == (3, 1)


def test_calls_of_tools_and_thoughts_are_items():
    response = shown(chat({"content": None, "tool_calls": [CALL], "reasoning_content": "hm"}, "tool_calls"))
    assert [item.type for item in response.output] == ["reasoning", "function_call"]
    call = response.output[1]
    assert (call.call_id, call.name, call.arguments, call.status) == ("call_1", "f", '{"x":1}', "completed")


@pytest.mark.parametrize(("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_an_answer_that_was_cut_is_incomplete(finish, reason):
    response = shown(chat(finish=finish))
    assert (response.status, response.incomplete_details.reason) == ("incomplete", reason)


def test_of_calls_that_were_cut_only_the_last_one_is_incomplete():
    calls = [CALL, CALL | {"id": "call_2"}]
    response = shown(chat({"content": "Wait.", "tool_calls": calls}, "length"))
    assert [(item.type, item.status) for item in response.output] == [
        ("message", "completed"),
        ("function_call", "completed"),
        ("function_call", "incomplete"),
    ]


def test_an_answer_beyond_its_bound_is_no_response():
    with pytest.raises(UpstreamBroken):
        show_response(begin_response(body(), "resp_1", 0), chat({"content": "x" * 100}), OutputItems(99))


@pytest.mark.parametrize("answer", [b"{", b"{}", b'{"choices":[]}', b'{"choices":[{"message":null}]}'])
def test_what_is_no_chat_is_no_response(answer):
    with pytest.raises(UpstreamBroken):
        show_response(begin_response(body(), "resp_1", 0), answer, OutputItems(1_000_000))


# --- in the background


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (State.QUEUED, "queued"),
        (State.LEASED, "in_progress"),
        (State.CANCELLED, "cancelled"),
        (State.FAILED, "failed"),
        (State.DEAD, "failed"),
        (State.DONE, "failed"),
    ],
)
def test_a_job_is_a_response_as_far_as_it_is(state, status):
    error = JobError(code="rate_limit_exceeded", message="Later.") if state is State.DEAD else None
    response = Response.model_validate(show_job_response(job(state, error=error, status=429 if error else None)))
    assert (response.status, response.model, response.metadata) == (status, "mine", {"a": "b"})
    assert response.background
    if error:
        assert (response.error.code, response.error.message) == ("rate_limit_exceeded", "Later.")


def test_a_job_that_is_done_is_its_response_under_its_own_id():
    result = show_response(begin_response(body(), "resp_other", 5), chat(), OutputItems(1_000_000))
    response = Response.model_validate(show_job_response(job(State.DONE, result=result, finished_at=1_700_000_001.0)))
    assert (response.id, response.status, response.output_text) == (
        "resp_550e8400e29b41d4a716446655440000",
        "completed",
        "Hi",
    )


def test_ids_lead_back_to_jobs():
    job_id = "550e8400-e29b-41d4-a716-446655440000"
    assert job_of_id(id_of_job(job_id)) == job_id
    for other in ("", "resp_", "resp_1", "msg_" + "0" * 32, "resp_" + "g" * 32, "resp_" + "0" * 33):
        assert job_of_id(other) is None
