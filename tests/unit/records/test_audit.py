import sqlite3
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError

from stellwerk.core.errors import TooLarge
from stellwerk.core.principal import Tier
from stellwerk.core.secrets import Secret
from stellwerk.records.audit import Actor, append, newest, read, verify
from stellwerk.storage.database import open_database
from stellwerk.storage.sqlite import connect

ADA = Actor(name="ada@example.org", key_id="k7d3m2q5xa", peer="192.0.2.7")
COLUMNS = ("id", "at", "actor", "key_id", "peer", "action", "subject", "details", "digest")


def add(database, count=1, **details):
    def work(connection):
        for number in range(count):
            append(connection, ADA, "user.change", f"user:{number}", {"n": number, **details}, now=100.0 + number)

    database.write(work)


@pytest.fixture
def tamper(database):
    """Runs SQL as somebody would who has the file and knows how to get rid of the triggers."""

    def run(*statements):
        connection = connect(database.path)
        connection.execute("DROP TRIGGER IF EXISTS audit_log_no_update")
        connection.execute("DROP TRIGGER IF EXISTS audit_log_no_delete")
        for statement in statements:
            connection.execute(*statement) if isinstance(statement, tuple) else connection.execute(statement)
        connection.close()

    return run


def test_a_record_says_who_what_when_and_from_where(database):
    add(database, before={"tier": Tier.PAYG}, price=Decimal("0.10"), models=frozenset({"b", "a"}))
    (record,) = database.read(lambda connection: read(connection, limit=10))
    assert (record.id, record.at, record.actor, record.key_id, record.peer) == (
        1,
        100.0,
        "ada@example.org",
        "k7d3m2q5xa",
        "192.0.2.7",
    )
    assert (record.action, record.subject) == ("user.change", "user:0")
    assert record.details == {"n": 0, "before": {"tier": "payg"}, "price": "0.10", "models": ["a", "b"]}


def test_the_newest_come_first_and_pages_follow_each_other(database):
    add(database, 5)
    first = database.read(lambda connection: read(connection, limit=2))
    second = database.read(lambda connection: read(connection, limit=2, before=first[-1].id))
    assert [record.id for record in first + second] == [5, 4, 3, 2]


def test_no_page_is_longer_than_a_thousand_and_none_is_negative(database):
    add(database, 1001)
    assert len(database.read(lambda connection: read(connection, limit=10**9))) == 1000
    assert database.read(lambda connection: read(connection, limit=-1)) == []


def test_records_of_one_subject_can_be_asked_for(database):
    add(database, 3)
    found = database.read(lambda connection: read(connection, limit=10, subject="user:1"))
    assert [record.id for record in found] == [2]


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (Secret("sk-sw-canary"), TypeError),
        ({"deep": [Secret("sk-sw-canary")]}, TypeError),
        (b"digest", TypeError),
        (bytearray(b"digest"), TypeError),
        (object(), TypeError),
        (float("nan"), ValueError),
        (2**70, OverflowError),
        ("x" * 300_000, TooLarge),
    ],
)
def test_what_must_not_or_cannot_be_recorded_is_refused(database, value, error):
    with pytest.raises(error) as caught:
        add(database, value=value)
    assert "canary" not in str(caught.value)
    assert database.read(newest) is None


@pytest.mark.parametrize("statement", ["UPDATE audit_log SET actor = 'eve'", "DELETE FROM audit_log"])
def test_the_database_itself_refuses_to_change_a_record(database, statement):
    add(database)
    with pytest.raises(IntegrityError, match="append-only"):
        database.write(lambda connection: connection.exec_driver_sql(statement))


def test_an_undone_change_leaves_no_record(database):
    def work(connection):
        append(connection, ADA, "user.change", "user:1", {}, now=1.0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        database.write(work)
    assert database.read(newest) is None


def test_the_empty_chain_and_a_long_one_are_whole(database):
    assert database.read(verify) is None
    add(database, 1201)
    assert database.read(verify) is None


def test_two_processes_make_one_chain(folder, database):
    other = open_database(folder)
    for _ in range(3):
        add(database)
        add(other)
    other.close()
    assert [record.id for record in database.read(lambda connection: read(connection, limit=9))] == [6, 5, 4, 3, 2, 1]
    assert database.read(verify) is None


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("at", 0.0),
        ("at", "then"),
        ("actor", "eve"),
        ("actor", b"ada@example.org"),
        ("key_id", ""),
        ("peer", "192.0.2.70"),
        ("action", "user.changes"),
        ("subject", "user:10"),
        ("details", '{"n": 1.0}'),
        ("details", '{"n": 1, "m": null}'),
        ("details", "[]"),
        ("details", "no JSON"),
        ("details", "[" * 100_000),
        ("digest", bytes(32)),
        ("digest", "text"),
        ("digest", 5),
        ("id", 100),
        ("id", -1),
    ],
)
def test_an_altered_record_is_found(database, tamper, column, value):
    add(database, 4)
    tamper((f"UPDATE audit_log SET {column} = ? WHERE id = 2", (value,)))
    assert database.read(verify) in ({2} if column != "id" or value > 0 else {1, 2})


@given(data=st.data())
@settings(max_examples=50)
def test_whatever_is_altered_dropped_or_swapped_is_found(made_once, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("chain")
    (folder / "stellwerk.db").write_bytes(made_once.read_bytes())
    database = open_database(folder)
    count = data.draw(st.integers(2, 6))
    texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
    facts = st.dictionaries(texts, st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | texts)

    def work(connection):
        for _ in range(count):
            append(connection, Actor(name=data.draw(texts)), data.draw(texts), "s", data.draw(facts), now=1.0)

    database.write(work)
    end = database.read(newest)
    connection = connect(database.path)
    rows = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM audit_log ORDER BY id").fetchall()
    changed = data.draw(st.sampled_from(["nothing", "drop", "swap", "repeat", "alter", "move"]))
    spot = data.draw(st.integers(0, count - 1))
    forged = forge(rows, changed, spot, data)
    connection.executescript("DROP TRIGGER audit_log_no_update; DROP TRIGGER audit_log_no_delete")
    connection.execute("DELETE FROM audit_log")
    connection.executemany("INSERT INTO audit_log VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", forged)
    connection.close()
    broken = database.read(lambda connection: verify(connection, known=end))
    database.close()
    assert (broken is None) == (forged == rows)
    if changed in {"drop", "alter"}:
        assert broken == spot + 1


def forge(rows, changed, spot, data):
    rows = [list(row) for row in rows]
    other = data.draw(st.integers(0, len(rows) - 1))
    if changed == "drop":
        del rows[spot]
    elif changed == "swap":
        # The facts change places; numbers and digests stay where they were.
        rows[spot][1:8], rows[other][1:8] = rows[other][1:8], rows[spot][1:8]
    elif changed == "move":
        rows[spot][1:], rows[other][1:] = rows[other][1:], rows[spot][1:]
    elif changed == "repeat":
        rows.append([len(rows) + 1, *rows[spot][1:]])
    elif changed == "alter":
        column = data.draw(st.sampled_from([2, 3, 4, 5, 6]))
        rows[spot][column] += "x"
    return [tuple(row) for row in rows]


def test_records_cut_off_the_end_are_missed_by_whoever_noted_it(database, tamper):
    add(database, 4)
    end = database.read(newest)
    tamper("DELETE FROM audit_log WHERE id >= 3")
    assert database.read(verify) is None
    assert database.read(lambda connection: verify(connection, known=end)) == 3


def test_a_chain_computed_anew_differs_from_the_end_that_was_noted(folder, database, tamper):
    add(database, 3)
    end = database.read(newest)
    tamper("DELETE FROM audit_log")
    add(database, 4, forged=True)
    assert database.read(verify) is None
    assert database.read(lambda connection: verify(connection, known=end)) == 3


def test_long_names_are_cut_to_their_columns_and_still_chain(database):
    actor = Actor(name="n" * 999, key_id="k" * 999, peer="p" * 999)
    database.write(lambda connection: append(connection, actor, "a" * 999, "s" * 999, {}, now=1))
    assert database.read(verify) is None
    connection = sqlite3.connect(database.path)
    lengths = connection.execute(
        "SELECT length(actor), length(key_id), length(peer), length(action), length(subject) FROM audit_log"
    ).fetchone()
    connection.close()
    assert lengths == (254, 64, 64, 60, 300)
