import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.core.errors import BadRequest, UpstreamBroken
from stellwerk.providers._vectors import ReadAnswer, shorten

NUMBERS = st.lists(st.floats(-1e6, 1e6), min_size=5, max_size=8)


def answer(*rows):
    return json.dumps({"object": "list", "data": [{"index": 0, "embedding": row} for row in rows]}).encode()


@given(st.lists(NUMBERS, max_size=4), st.integers(1, 4))
def test_what_is_left_of_a_vector_has_its_direction_and_length_one(rows, dimensions):
    cut = [row["embedding"] for row in json.loads(shorten(answer(*rows), dimensions))["data"]]
    for row, whole in zip(cut, rows, strict=True):
        assert len(row) == dimensions
        length = math.hypot(*whole[:dimensions])
        if length > 1e-100:
            assert math.hypot(*row) == pytest.approx(1)
            assert [number * length for number in row] == pytest.approx(whole[:dimensions])


def test_a_vector_that_has_just_as_many_is_left_as_it_is():
    assert json.loads(shorten(answer([3.0, 4.0]), 2))["data"][0]["embedding"] == [3.0, 4.0]


def test_nothing_is_made_of_nothing():
    assert json.loads(shorten(answer([0.0, 0.0, 1.0]), 2))["data"][0]["embedding"] == [0.0, 0.0]


def test_too_few_numbers_are_said_and_no_answer_is_none():
    with pytest.raises(BadRequest, match="2 dimensions"):
        shorten(answer([1.0, 0.0]), 3)
    for body in (b"", b"[]", b'{"data":[{"embedding":"AAAA"}]}', b"{" * 100_000):
        with pytest.raises(UpstreamBroken):
            shorten(body, 1)


class Head:
    status, event_bytes, secrets, key = 200, 1024, ("engine-key",), 0

    def header(self, name):
        return {b"x": b"y"}.get(name)


async def test_a_changed_answer_is_read_like_any_other():
    poured = []
    first = ReadAnswer(Head(), b"body")
    assert (first.status, first.secrets, first.key, first.header(b"x")) == (200, ("engine-key",), 0, b"y")
    assert (await first.read(), await first.next()) == (b"body", b"")
    second = ReadAnswer(Head(), b"body")
    await second.pour(poured.append)
    assert poured == [b"body"]
