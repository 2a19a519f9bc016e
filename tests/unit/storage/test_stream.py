import pytest
from sqlalchemy import Boolean, Column, Double, Integer, MetaData, String, Table
from sqlalchemy.dialects import postgresql, sqlite

from stellwerk.storage.stream import InsertStatement, Stream

COLUMNS = ("name", "at", "good")


@pytest.fixture
def table():
    return Table(
        "things",
        MetaData(),
        Column("number", Integer, primary_key=True),
        Column("name", String),
        Column("at", Double),
        Column("good", Boolean),
    )


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 63, 64, 65, 200])
def test_every_row_is_inserted_once_and_in_order(database, table, count):
    rows = [(f"thing {n}", n / 2, n % 2 == 0) for n in range(count)]
    statement = InsertStatement(table, COLUMNS, database.writing.dialect)

    def insert_all(connection):
        table.create(connection)
        statement.run(connection, rows)
        return connection.execute(table.select().order_by(table.c.number)).all()

    assert [tuple(row[1:]) for row in database.write(insert_all)] == rows


@pytest.mark.parametrize(("dialect", "mark"), [(sqlite.dialect(), "?"), (postgresql.dialect(), "%(")])
def test_values_travel_as_parameters_in_every_dialect(table, dialect, mark):
    for _, text in InsertStatement(table, COLUMNS, dialect)._texts:
        assert mark in text.partition("VALUES")[2]
        assert "number" not in text


def test_items_put_back_come_out_in_the_same_order():
    stream = Stream(encode=tuple, bound=10, wake=lambda: None)
    for n in range(6):
        stream.append(n)
    taken = stream.take(4)
    stream.append(6)
    stream.put_back(taken)
    assert stream.take(10) == [0, 1, 2, 3, 4, 5, 6]


def test_an_idle_writer_is_woken_and_a_busy_one_is_left_alone():
    woken = []
    stream = Stream(encode=tuple, bound=10, wake=lambda: woken.append(len(stream.items)))
    stream.append("first")
    stream.idle = False
    stream.append("second")
    assert woken == [1]
