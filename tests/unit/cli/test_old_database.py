import sqlite3
from contextlib import closing

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.cli.old_database import OldRow, opened, read_time

MAY = 1_716_386_400.0


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE notes (a TEXT, b INTEGER)")
        connection.executemany("INSERT INTO notes VALUES (?, ?)", [("x", 1), (b"\xff", 2), ("y" * 2_000_000, 3)])
    return path


def rows(file, columns=("a", "b")):
    with opened(file) as old:
        table = old.table("notes", columns)
        return [] if table is None else list(old.rows(table))


def test_rows_come_with_their_numbers_and_a_row_that_is_too_large_has_no_values(file):
    assert rows(file) == [OldRow(1, {"a": "x", "b": 1}), OldRow(2, {"a": b"\xff", "b": 2}), OldRow(3, None)]


def test_a_column_that_is_not_there_is_left_out(file):
    assert rows(file, ("b", "c"))[0] == OldRow(1, {"b": 1})


def test_a_view_or_an_unknown_name_is_no_table(file):
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE VIEW shown AS SELECT a FROM notes")
    with opened(file) as old:
        assert (old.table("shown", ("a",)), old.table("none", ("a",))) == (None, None)


def test_rows_beyond_the_bound_are_counted(file):
    with opened(file) as old:
        table = old.table("notes", ("b",), most=2)
        assert table is not None
        assert (list(table.numbers), table.left_out) == ([1, 2], 1)


def test_neither_the_file_nor_its_folder_is_changed(file):
    for mode in ("delete", "wal"):
        with closing(sqlite3.connect(file)) as connection:
            connection.execute(f"PRAGMA journal_mode={mode}")
        before = file.read_bytes(), file.stat().st_mtime_ns, sorted(file.parent.iterdir())
        file.chmod(0o400)
        assert len(rows(file)) == 3
        assert (file.read_bytes(), file.stat().st_mtime_ns, sorted(file.parent.iterdir())) == before
        file.chmod(0o600)


def test_rows_that_still_stand_in_the_log_of_a_running_program_are_read(file):
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute("INSERT INTO notes VALUES ('new', 4)")
        connection.commit()
        assert [row.number for row in rows(file)] == [1, 2, 3, 4]


def test_a_file_that_another_program_holds_is_said_so(file, english, capsys):
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(typer.Exit), opened(file, busy_seconds=0.01):
            pass
        connection.execute("ROLLBACK")
    assert "in use" in capsys.readouterr().err


def test_a_damaged_page_costs_its_rows_alone(tmp_path):
    path = tmp_path / "damaged.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA page_size=512")
        connection.execute("CREATE TABLE notes (a TEXT, b INTEGER)")
        connection.executemany("INSERT INTO notes VALUES (?, ?)", [("x" * 400, number) for number in range(20)])
    content = bytearray(path.read_bytes())
    place = content.index(b"x" * 400)
    content[place - 20 : place] = b"\xff" * 20
    path.write_bytes(content)
    found = rows(path)
    assert len(found) <= 20
    assert any(row.values is not None for row in found)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("2024-05-22 14:00:00", MAY),
        ("2024-05-22T14:00:00Z", MAY),
        ("2024-05-22 16:00:00+02:00", MAY),
        ("2024-05-22 16:00:00.5 +0200 CEST m=+0.1", MAY + 0.5),
        ("2024-05-22 14:00:00.000000000+00:00", MAY),
        (1_716_386_400, MAY),
        (MAY, MAY),
    ],
)
def test_times_are_read_in_the_forms_that_sqlite_and_go_write(written, seconds):
    assert read_time(written) == seconds


@pytest.mark.parametrize("written", ["", "now", "2024-13-01", "0001-01-01 00:00:00+00:00", None, b"x", -1, 1e300])
def test_what_is_no_time_is_none(written):
    assert read_time(written) is None


@given(st.one_of(st.text(), st.floats(), st.integers(), st.binary(), st.none()))
def test_anything_may_stand_where_a_time_should(value):
    seconds = read_time(value)
    assert seconds is None or 0 <= seconds < 3e11
