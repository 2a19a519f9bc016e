"""A response in the background is told in the events of a stream, the same ones however often it is told."""

import json

import msgspec
import pytest

from stellwerk.api.openai.responses_answers import begin_response, show_response
from stellwerk.api.openai.responses_items import OutputItems
from stellwerk.api.openai.responses_replay import ResponseReplay
from stellwerk.api.openai.responses_requests import ResponsesBody
from stellwerk.core.principal import Priority
from stellwerk.jobs.job import Job, JobError, JobEvent, State

CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
MESSAGE = {"reasoning_content": "Hm.", "content": "Hi", "refusal": "No.", "tool_calls": [CALL]}


def result(finish="stop"):
    chat = {"choices": [{"index": 0, "message": MESSAGE, "finish_reason": finish}]}
    response = begin_response(ResponsesBody(model="mine", input="Hello"), "resp_1", 0)
    return show_response(response, json.dumps(chat).encode(), OutputItems(1_000_000))


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
        "labels": {"model": "mine"},
        "created_at": 1_700_000_000.5,
        "queued_at": 0.0,
        "deadline_at": 1.0,
        "state": state,
        "attempts": 0,
    }
    return Job(**values | fields)


def told(*states, end, after=-1):
    replay = ResponseReplay(after)
    written = b"".join(replay.write(JobEvent(type="state", job=job(state))) for state in states) + replay.end(end)
    parts = [part.split("\n") for part in written.decode().split("\n\n") if part]
    events = [json.loads(data.removeprefix("data: ")) for _, data in parts]
    assert [name for name, _ in parts] == [f"event: {event['type']}" for event in events]
    return events


def test_every_way_to_its_end_is_told_in_the_same_events():
    done = job(State.DONE, result=result(), finished_at=1_700_000_001.0)
    events = told(State.QUEUED, State.LEASED, end=done)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["response"]["status"] for event in events[:3]] == ["queued", "queued", "in_progress"]
    assert events[-1]["type"] == "response.completed"
    numbered = [(event["sequence_number"], event["type"]) for event in events]
    for states in ([State.DONE], [State.LEASED], [State.LEASED, State.QUEUED, State.LEASED]):
        again = told(*states, end=done)
        assert [(event["sequence_number"], event["type"]) for event in again] == numbered
    assert told(State.DONE, end=done, after=7) == told(State.DONE, end=done)[8:]
    assert told(State.DONE, end=done, after=1000) == []


def test_what_is_told_piece_by_piece_is_what_stands_at_the_end():
    events = told(State.QUEUED, end=job(State.DONE, result=result()))
    output = events[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["reasoning", "message", "function_call"]
    assert [event["item"] for event in events if event["type"] == "response.output_item.done"] == output
    deltas = [event["delta"] for event in events if event["type"].endswith(".delta")]
    assert deltas == ["Hm.", "Hi", "No.", '{"x":1}']
    begun = [event["item"] for event in events if event["type"] == "response.output_item.added"]
    assert [item.get("content", item.get("arguments")) for item in begun] == [[], [], ""]


@pytest.mark.parametrize(
    ("end", "kind", "status"),
    [
        (job(State.DONE, result=result("length")), "incomplete", "incomplete"),
        (job(State.DONE), "failed", "failed"),
        (job(State.DEAD, error=JobError(code="x", message="Later."), status=429), "failed", "failed"),
        (job(State.CANCELLED), "failed", "cancelled"),
    ],
)
def test_the_last_event_says_how_it_ended(end, kind, status):
    last = told(State.QUEUED, end=end)[-1]
    assert (last["type"], last["response"]["status"]) == (f"response.{kind}", status)
    assert (kind == "failed") == bool(last["response"]["error"])


def test_what_is_no_state_is_no_event():
    assert ResponseReplay().write(JobEvent(type="piece", data=b"Hi")) == b""
    assert msgspec.json.decode(result())["status"] == "completed"
