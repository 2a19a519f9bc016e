import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.core.outcome import Usage
from stellwerk.providers.openai_usage import read_usage, render_usage


def test_every_count_is_read():
    raw = {
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "total_tokens": 30,
        "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 7},
        "cost": 0.1,
    }
    usage = Usage(input_tokens=10, output_tokens=20, cached_tokens=4, reasoning_tokens=7)
    assert read_usage(json.dumps(raw).encode()) == usage


@pytest.mark.parametrize(
    "raw",
    [
        b"null",
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"{}",
        b'{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}',
        b'{"prompt_tokens":-1}',
        b'{"completion_tokens":1e3}',
        b'{"prompt_tokens":1000000001}',
        b'{"prompt_tokens_details":{"cached_tokens":-2}}',
        b'{"prompt_tokens_details":[]}',
        b'{"completion_tokens_details":{"reasoning_tokens":"x"}}',
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=lambda raw: raw[:40],
)
def test_what_cannot_be_believed_is_not_counted(raw):
    assert read_usage(raw) is None


@given(st.integers(1, 10**9), st.integers(0, 10**9))
def test_what_is_rendered_is_read_again(prompt, output):
    usage = Usage(input_tokens=prompt, output_tokens=output)
    assert read_usage(json.dumps(render_usage(usage)).encode()) == usage


@given(st.binary(max_size=60))
def test_arbitrary_bytes_never_raise(raw):
    usage = read_usage(raw)
    assert usage is None or usage.input_tokens >= 0
