import sqlite3

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from stellwerk.storage.failures import is_corruption, is_storage_failure, sqlite_reason, storage_unavailable


def failure(code, kind=OperationalError):
    cause = sqlite3.OperationalError("it failed")
    cause.sqlite_errorcode = code
    return kind("SELECT 1", {}, cause)


@pytest.mark.parametrize(
    "code", [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR_FSYNC]
)
def test_a_disk_that_fails_is_a_storage_failure(code):
    assert is_storage_failure(failure(code))


@pytest.mark.parametrize("code", [sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT_UNIQUE])
def test_a_wrong_statement_is_not(code):
    assert not is_storage_failure(failure(code))


def test_a_driver_without_sqlite_codes_is_judged_by_the_kind_of_its_error():
    lost = Exception("server closed the connection")
    assert is_storage_failure(OperationalError("SELECT 1", {}, lost))
    assert is_storage_failure(ProgrammingError("SELECT 1", {}, lost, connection_invalidated=True))
    assert not is_storage_failure(IntegrityError("SELECT 1", {}, lost))


def test_the_detail_of_a_code_does_not_hide_its_kind():
    assert sqlite_reason(failure(sqlite3.SQLITE_IOERR_WRITE).orig) == sqlite3.SQLITE_IOERR
    assert sqlite_reason(ValueError()) is None
    assert is_corruption(failure(sqlite3.SQLITE_CORRUPT_INDEX).orig)


def test_clients_learn_nothing_about_the_storage():
    error = storage_unavailable()
    assert (error.status, error.code, error.retry_after) == (503, "storage_unavailable", 2.0)
    assert "/" not in error.message
    assert "SQL" not in error.message
