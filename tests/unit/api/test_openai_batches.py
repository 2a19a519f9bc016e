import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Batch

from stellwerk.api.openai.batch_lines import Line, Problem, read_lines, write_line
from stellwerk.api.openai.batches import show_batch
from stellwerk.core.principal import Priority
from stellwerk.jobs.job import Job, JobError, State
from stellwerk.records.batches import StoredBatch

CHAT = "/v1/chat/completions"
GOOD = {"custom_id": "a", "method": "POST", "url": CHAT, "body": {"model": "m"}}


def job(state=State.DONE, **fields):
    return Job(
        id="550e8400-e29b-41d4-a716-446655440000",
        kind="call",
        queue="q",
        path=CHAT,
        key_id="k",
        user_id=1,
        client_id="",
        priority=Priority.LOW,
        labels={"custom_id": "a"},
        created_at=0.0,
        queued_at=0.0,
        deadline_at=1.0,
        state=state,
        attempts=1,
        **fields,
    )


def batch(**fields):
    return StoredBatch(
        **{
            "id": "batch_1",
            "job_id": "j",
            "key_id": "k",
            "user_id": 1,
            "endpoint": CHAT,
            "input_file_id": "file-1",
            "labels": {"a": "b"},
            "created_at": 1.0,
            "expires_at": 2.0,
            "total": 3,
        }
        | fields
    )


def read(*lines):
    content = b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
    return list(read_lines(content, CHAT))


def test_lines_are_read_and_blank_ones_left_out():
    assert read(GOOD, b"", {**GOOD, "custom_id": "b"}, b"  ") == [
        Line(1, "a", b'{"model": "m"}'),
        Line(3, "b", b'{"model": "m"}'),
    ]


def test_a_byte_order_mark_before_the_first_line_is_no_part_of_it():
    assert read(b"\xef\xbb\xbf" + json.dumps(GOOD).encode()) == [Line(1, "a", b'{"model": "m"}')]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"{", "invalid_json_line"),
        (b"\xff", "invalid_json_line"),
        ({**GOOD, "custom_id": 1}, "invalid_request"),
        ({"custom_id": "a"}, "invalid_request"),
        ({**GOOD, "custom_id": ""}, "invalid_custom_id"),
        ({**GOOD, "method": "GET"}, "invalid_method"),
        ({**GOOD, "url": "/v1/embeddings"}, "mismatched_endpoint"),
    ],
)
def test_a_line_that_is_wrong_is_named(line, code):
    (problem,) = read(line)
    assert isinstance(problem, Problem)
    assert (problem.line, problem.code) == (1, code)


def test_a_custom_id_counts_once():
    assert [getattr(each, "code", None) for each in read(GOOD, GOOD)] == [None, "duplicate_custom_id"]


@given(st.binary(max_size=100))
def test_no_file_makes_it_fail(content):
    list(read_lines(content, CHAT))


def test_an_answer_is_a_line_of_the_output():
    line = json.loads(write_line(job(status=200, result=b'{"x":1}'), cancelled=False))
    assert line == {
        "id": "batch_req_550e8400e29b41d4a716446655440000",
        "custom_id": "a",
        "response": {"status_code": 200, "request_id": "550e8400-e29b-41d4-a716-446655440000", "body": {"x": 1}},
        "error": None,
    }


@pytest.mark.parametrize(
    ("state", "code", "expected"),
    [
        (State.FAILED, "deadline_exceeded", "batch_expired"),
        (State.CANCELLED, "cancelled", "batch_cancelled"),
        (State.DEAD, "crashed", "crashed"),
    ],
)
def test_what_has_no_answer_says_why(state, code, expected):
    line = json.loads(write_line(job(state, status=500, error=JobError(code=code, message="m")), cancelled=True))
    assert (line["response"], line["error"]["code"]) == (None, expected)


@pytest.mark.parametrize(
    ("fields", "counts", "status"),
    [
        ({"total": 0}, {}, "validating"),
        ({}, {State.QUEUED: 2, State.DONE: 1}, "in_progress"),
        ({}, {State.DONE: 2, State.DEAD: 1}, "finalizing"),
        ({"cancelling_at": 1.5}, {State.QUEUED: 3}, "cancelling"),
        *(({"status": end, "ended_at": 1.5}, {}, end) for end in ("completed", "failed", "expired", "cancelled")),
    ],
)
def test_a_batch_is_one_for_openais_client(fields, counts, status):
    shown = Batch.model_validate(show_batch(batch(**fields), counts))
    assert (shown.status, shown.metadata) == (status, {"a": "b"})
    if status in ("completed", "failed", "expired", "cancelled"):
        assert getattr(shown, f"{status}_at") == 1
    if counts:
        assert shown.request_counts.completed == counts.get(State.DONE, 0)
