from sqlalchemy import BigInteger, Column, Integer, MetaData, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateTable

from stellwerk.auth.keys import api_keys
from stellwerk.ledger.calls import calls
from stellwerk.storage.tables import metadata, row_number


def test_rows_are_numbered_by_the_database_in_every_dialect():
    table = Table("things", MetaData(), Column("number", row_number, primary_key=True))
    assert "number INTEGER" in str(CreateTable(table).compile(dialect=sqlite.dialect()))
    assert "number BIGSERIAL" in str(CreateTable(table).compile(dialect=postgresql.dialect()))


def test_every_table_can_be_made_in_postgresql():
    assert {api_keys.name, calls.name} < set(metadata.tables)
    for table in metadata.tables.values():
        assert str(CreateTable(table).compile(dialect=postgresql.dialect()))


def test_money_and_tokens_do_not_overflow():
    wide = {"cost", "input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens"}
    assert all(isinstance(calls.c[name].type, BigInteger) for name in wide)
    assert isinstance(calls.c.status.type, Integer)
