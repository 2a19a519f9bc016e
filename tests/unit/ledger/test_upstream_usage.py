import msgspec
import pytest

from stellwerk.core.call import Operation
from stellwerk.core.outcome import Outcome, Usage
from stellwerk.ledger.upstream_usage import HourOfUse, UpstreamUsage, UseInAll, hours_of_use, use_in_all

HOUR = 1_700_002_800
CLOUD = "ollama-cloud"
OUTCOME = Outcome(
    id="req_1",
    at=HOUR + 0.25,
    key_id="abcdefghij",
    user_id=7,
    operation=Operation.CHAT,
    model="ollama-cloud/llama3",
    provider=CLOUD,
    target="llama3",
    stream=True,
    status=200,
    error=None,
    attempts=1,
    usage=Usage(input_tokens=5, output_tokens=2),
    estimated=False,
    cost=None,
    duration=1.5,
    first_byte=0.25,
    upstream_key=0,
)


def outcome(**changes) -> Outcome:
    return msgspec.structs.replace(OUTCOME, **changes)


def row(**changes) -> HourOfUse:
    counts = {"requests": 1, "prompt_tokens": 5, "completion_tokens": 2}
    return HourOfUse(**{"hour": HOUR, "key_index": 0, "model": "llama3", **counts, **changes})


@pytest.fixture
def usage(writer):
    return UpstreamUsage(writer)


@pytest.fixture
def stored(writer, database):
    """What is in the database once everything recorded so far is."""

    async def stored(provider=CLOUD, limit=100):
        await writer.run(lambda connection: None)
        return database.read(lambda connection: hours_of_use(connection, provider, limit=limit))

    return stored


async def test_calls_of_one_commit_and_of_later_ones_are_added_up(usage, stored):
    usage.record(OUTCOME)
    usage.record(OUTCOME)
    assert await stored() == [row(requests=2, prompt_tokens=10, completion_tokens=4)]
    usage.record(outcome(at=HOUR + 3599.9))
    assert await stored() == [row(requests=3, prompt_tokens=15, completion_tokens=6)]


async def test_hours_keys_models_and_providers_are_counted_apart_and_the_newest_hour_stands_first(usage, stored):
    for changes in ({}, {"upstream_key": 1}, {"target": "gpt-oss:120b"}, {"at": HOUR + 3600.0}, {"provider": "other"}):
        usage.record(outcome(**changes))
    expected = [row(hour=HOUR + 3600), row(model="gpt-oss:120b"), row(), row(key_index=1)]
    assert await stored() == expected
    assert await stored(limit=2) == expected[:2]
    assert await stored("other") == [row()]


async def test_a_call_that_no_key_was_answered_for_is_not_counted(usage, stored, database):
    usage.record(outcome(upstream_key=None))
    assert await stored() == []
    nothing = UseInAll(requests=0, prompt_tokens=0, completion_tokens=0)
    assert database.read(lambda connection: use_in_all(connection, CLOUD)) == nothing


async def test_an_answer_that_nothing_was_counted_of_is_a_request_without_tokens(usage, stored):
    usage.record(outcome(usage=None, status=499, error="client_closed_request"))
    assert await stored() == [row(prompt_tokens=0, completion_tokens=0)]


async def test_a_count_beyond_belief_breaks_no_sum(usage, stored, database):
    for _ in range(3):
        usage.record(outcome(usage=Usage(input_tokens=2**70, output_tokens=2**62)))
    assert await stored() == [row(requests=3, prompt_tokens=3 * 10**12, completion_tokens=3 * 10**12)]
    assert database.read(lambda connection: use_in_all(connection, CLOUD)).prompt_tokens == 3 * 10**12


async def test_a_row_that_cannot_be_stored_takes_no_other_with_it(usage, stored):
    usage.record(outcome(target="\ud800"))
    usage.record(OUTCOME)
    assert await stored() == [row()]
