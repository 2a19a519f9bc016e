import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.engines.ocr.protocol import (
    PREFIX,
    Draw,
    Open,
    Read,
    Warm,
    decode_question,
    frame_head,
    lengths,
)


@pytest.mark.parametrize(
    "question",
    [
        Warm(),
        Open(kind="pdf"),
        Read(kind="jpeg", page=3, mode="gundam", boxes=True),
        Draw(kind="tiff", page=0, longest=None),
    ],
)
def test_a_question_arrives_as_it_was_asked(question):
    frame = frame_head(question, 7)
    head, body = lengths(frame[: PREFIX.size])
    assert body == 7
    assert decode_question(frame[PREFIX.size :]) == question
    assert len(frame) == PREFIX.size + head


@given(st.binary(min_size=8, max_size=8))
def test_lengths_are_bounded_whatever_is_sent(prefix):
    try:
        head, body = lengths(prefix)
    except ValueError:
        return
    assert head <= 32 << 20
    assert body <= 1 << 30
