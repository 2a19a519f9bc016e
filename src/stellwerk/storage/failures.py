"""What can be wrong with the data folder, and how a driver's error is told apart from a mistake of the caller.

StorageRefused              the gateway does not start; the message is for the operator and names the file
├── FolderInUse             another process serves from this folder
├── DatabaseCorrupt         the file is damaged, or it is not ours
├── DatabaseTooNew          a newer Stellwerk wrote it
└── MigrationFailed
"""

import sqlite3

from sqlalchemy.exc import DBAPIError, OperationalError

from stellwerk.core.errors import Unavailable

STORAGE_UNAVAILABLE = "storage_unavailable"

_CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_SQLITE_FAILURES = _CORRUPT | {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
}


class StorageRefused(Exception):
    """The data folder or its database cannot be used."""


class FolderInUse(StorageRefused):
    pass


class DatabaseCorrupt(StorageRefused):
    pass


class DatabaseTooNew(StorageRefused):
    pass


class MigrationFailed(StorageRefused):
    pass


def sqlite_reason(error: BaseException) -> int | None:
    """SQLite's primary result code of a driver error; None when it carries none."""
    code = getattr(error, "sqlite_errorcode", None)
    # The low byte is the kind; the rest says which call failed.
    return code & 0xFF if isinstance(code, int) else None


def is_corruption(error: sqlite3.Error) -> bool:
    return sqlite_reason(error) in _CORRUPT


def is_storage_failure(error: DBAPIError) -> bool:
    """Whether the database is at fault (full, locked, gone), so that the same statement may succeed later."""
    reason = sqlite_reason(error.orig) if error.orig is not None else None
    if reason is not None:
        return reason in _SQLITE_FAILURES
    return error.connection_invalidated or isinstance(error, OperationalError)


def storage_unavailable() -> Unavailable:
    return Unavailable("The gateway cannot reach its storage.", code=STORAGE_UNAVAILABLE, retry_after=2.0)
