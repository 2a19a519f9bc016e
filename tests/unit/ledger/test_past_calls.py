from stellwerk.ledger.calls import read_recent
from stellwerk.ledger.past_calls import PastCall, add_past_call, add_past_upstream_call
from stellwerk.ledger.upstream_usage import hours_of_use

CALL = PastCall(id="old-1", at=7205.0, key_id="key", user_id=1)


def test_a_past_call_is_stored_once(database):
    assert database.write(lambda connection: add_past_call(connection, CALL))
    assert not database.write(lambda connection: add_past_call(connection, CALL))
    (found,) = database.read(lambda connection: read_recent(connection, 9))
    assert (found.id, found.at, found.key_id, found.status, found.usage, found.cost) == (
        "old-1", 7205.0, "key", 200, None, None,
    )  # fmt: skip


def test_calls_of_one_moment_are_told_apart_by_their_id(database):
    other = PastCall(id="old-2", at=7205.0, key_id="key", user_id=1)
    assert [database.write(lambda connection, call=call: add_past_call(connection, call)) for call in (CALL, other)]
    assert len(database.read(lambda connection: read_recent(connection, 9))) == 2


def test_what_it_used_is_booked_on_the_key_of_the_provider_once(database):
    call = PastCall(id="old-1", at=7205.0, key_id="key", user_id=1, model="m", input_tokens=3, output_tokens=4)
    for _ in range(2):
        database.write(lambda connection: add_past_upstream_call(connection, call, "cloud", 2))
    (hour,) = database.read(lambda connection: hours_of_use(connection, "cloud", limit=9))
    assert (hour.hour, hour.key_index, hour.requests, hour.prompt_tokens, hour.completion_tokens) == (7200, 2, 1, 3, 4)
    (found,) = database.read(lambda connection: read_recent(connection, 9))
    assert (found.usage.input_tokens, found.usage.output_tokens) == (3, 4)
