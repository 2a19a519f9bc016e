"""The key that an answer came for reaches the record of the call."""

import pytest

from stellwerk.core.errors import UpstreamBroken, UpstreamError

DEAD = UpstreamError("Dead.", may_fall_back=True)


def for_key(answer, key):
    answer.key = key
    return answer


@pytest.mark.parametrize("key", [None, 0, 7])
async def test_the_record_has_the_key_of_the_answer(line, answer, key):
    line.play(a=for_key(answer(b"one"), key))
    await line.run()
    assert line.outcome.upstream_key == key


async def test_of_two_targets_the_key_of_the_second_one_counts(line, answer):
    line.play(a=for_key(answer(DEAD), 3), b=for_key(answer(b"one"), 1))
    await line.run()
    assert (line.outcome.provider, line.outcome.upstream_key) == ("b", 1)


async def test_an_answer_that_breaks_off_stays_the_keys(line, answer):
    line.play(a=for_key(answer(b"one", UpstreamBroken("Broke off.", may_fall_back=True)), 2))
    await line.run()
    assert (line.outcome.error, line.outcome.upstream_key) == ("upstream_broken", 2)


async def test_without_an_answer_there_is_no_key(line, answer):
    line.play(a=for_key(answer(DEAD), 3), b=UpstreamError("Dead."))
    with pytest.raises(UpstreamError):
        await line.run()
    assert line.outcome.upstream_key is None
