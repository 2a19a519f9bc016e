import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.core.outcome import Usage
from stellwerk.providers.ollama_usage import read_ollama_usage

LAST = {
    "model": "up",
    "created_at": "2026-11-20T12:00:00.123456789Z",
    "message": {"role": "assistant", "content": ""},
    "done": True,
    "done_reason": "stop",
    "total_duration": 4883583458,
    "load_duration": 1334875,
    "prompt_eval_count": 26,
    "prompt_eval_duration": 342546000,
    "eval_count": 282,
    "eval_duration": 4535599000,
}


def read(**changed):
    return read_ollama_usage(json.dumps(LAST | changed).encode())


def test_both_counts_stand_in_the_last_line():
    assert read() == Usage(input_tokens=26, output_tokens=282)


@pytest.mark.parametrize("absent", [0, None])
def test_a_count_of_nothing_is_left_out_or_zero(absent):
    assert read(prompt_eval_count=absent) == Usage(output_tokens=282)
    assert read(eval_count=absent) == Usage(input_tokens=26)
    assert read(prompt_eval_count=absent, eval_count=absent) is None


def test_vectors_are_counted_by_what_was_read():
    answer = {"model": "up", "embeddings": [[0.1, 0.2]], "total_duration": 14143917, "prompt_eval_count": 8}
    assert read_ollama_usage(json.dumps(answer).encode()) == Usage(input_tokens=8)


@pytest.mark.parametrize("odd", [-1, 1_000_000_001, 10**40, 1.5, "26", [], True])
def test_a_count_that_cannot_be_believed_is_none(odd):
    assert read(eval_count=odd) is None
    assert read(prompt_eval_count=odd) is None


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"null", b"5", b"\xff", b"[" * 100_000, b'{"done":false}'])
def test_a_line_that_counts_nothing_is_none(line):
    assert read_ollama_usage(line) is None


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_read_or_none(line):
    assert read_ollama_usage(line) is None or isinstance(read_ollama_usage(line), Usage)
