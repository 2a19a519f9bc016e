import msgspec
import pytest
from sqlalchemy import update

from stellwerk.core.call import Operation
from stellwerk.core.outcome import Outcome, Usage
from stellwerk.ledger.calls import CallLedger, Totals, calls

OUTCOME = Outcome(
    id="req_0123456789abcdef01234567",
    at=1_700_000_000.25,
    key_id="abcdefghij",
    user_id=7,
    operation=Operation.CHAT,
    model="openai/gpt-5",
    provider="openai",
    target="gpt-5",
    stream=True,
    status=200,
    error=None,
    attempts=2,
    usage=Usage(
        input_tokens=100,
        output_tokens=20,
        cached_tokens=30,
        reasoning_tokens=5,
        audio_milliseconds=61_500,
        characters=40,
        pages=3,
    ),
    estimated=True,
    cost=1234,
    duration=1.5,
    first_byte=0.25,
)
REFUSED = msgspec.structs.replace(
    OUTCOME,
    operation=Operation.EMBEDDING,
    provider=None,
    target=None,
    stream=False,
    status=429,
    error="rate_limit_exceeded",
    attempts=0,
    usage=None,
    estimated=False,
    cost=None,
    first_byte=None,
)


@pytest.fixture
def ledger(database, writer):
    return CallLedger(database, writer)


@pytest.fixture
def stored(writer):
    """Waits until everything recorded so far is in the database."""
    return lambda: writer.run(lambda connection: None)


async def test_everything_about_a_call_is_kept(ledger, stored):
    ledger.record(OUTCOME)
    ledger.record(REFUSED)
    await stored()
    assert await ledger.recent(10) == [REFUSED, OUTCOME]
    assert await ledger.recent(1) == [REFUSED]


async def test_a_call_from_before_anything_but_tokens_was_counted_can_be_read(ledger, stored, database):
    ledger.record(OUTCOME)
    await stored()
    columns = ("audio_milliseconds", "characters", "pages")
    database.write(lambda connection: connection.execute(update(calls).values(dict.fromkeys(columns))))
    (row,) = await ledger.recent(1)
    assert row.usage == msgspec.structs.replace(OUTCOME.usage, **dict.fromkeys(columns, 0))


async def test_a_request_id_that_comes_twice_makes_two_rows(ledger, stored):
    ledger.record(OUTCOME)
    ledger.record(OUTCOME)
    await stored()
    assert len(await ledger.recent(10)) == 2


async def test_absurd_numbers_of_an_upstream_cost_neither_the_row_nor_the_sums(ledger, stored, writer):
    absurd = Usage(input_tokens=10**30, output_tokens=1, pages=10**30)
    for _ in range(20):
        ledger.record(msgspec.structs.replace(OUTCOME, usage=absurd, cost=10**30))
    await stored()
    (row,) = await ledger.recent(1)
    assert row.usage == Usage(input_tokens=10**12, output_tokens=1, pages=10**12)
    assert row.cost == 10**12
    assert (await ledger.totals()).input_tokens == 20 * 10**12
    assert writer.dropped == 0


async def test_totals_are_sums_over_all_calls_or_over_those_of_a_key(ledger, stored):
    assert await ledger.totals() == Totals()
    for outcome in (OUTCOME, REFUSED, msgspec.structs.replace(OUTCOME, key_id="other", cost=1)):
        ledger.record(outcome)
    await stored()
    assert await ledger.totals() == Totals(calls=3, input_tokens=200, output_tokens=40, cost=1235)
    assert await ledger.totals("abcdefghij") == Totals(calls=2, input_tokens=100, output_tokens=20, cost=1234)


def test_reports_by_time_and_by_key_use_an_index(database):
    for question in ("at > 1", "key_id = 'a' AND at > 1", "user_id = 1 AND at > 1"):
        plan = database.read(
            lambda connection, question=question: connection.exec_driver_sql(
                f"EXPLAIN QUERY PLAN SELECT * FROM calls WHERE {question}"
            ).all()
        )
        assert "USING INDEX ix_calls" in plan[0][3]
