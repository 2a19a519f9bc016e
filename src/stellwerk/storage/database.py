"""The gateway's database: opens it, reads from it, and writes in short transactions where nobody shares a commit.

It runs SQL for others and knows no users and no calls. The gateway's own writes go through `storage/writer.py`.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from stellwerk.storage.failures import is_storage_failure, storage_unavailable
from stellwerk.storage.folder import FolderLock, prepare_folder
from stellwerk.storage.schema import check_integrity, ensure_schema
from stellwerk.storage.sqlite import make_engine

FILE_NAME = "stellwerk.db"

_CHECKED_BYTES = 64 * 1024 * 1024
"""A larger file is not read through at every start; damage in it shows when the page is read."""

Result = TypeVar("Result")


class Database:
    """An open database of the current schema. Made by `open_database`; usable from every thread."""

    def __init__(self, path: Path, *, writing: Engine, reading: Engine) -> None:
        self.path = path
        self.writing = writing
        self.reading = reading

    def read(self, query: Callable[[Connection], Result]) -> Result:
        """Runs `query` on a consistent view. Raises Unavailable, code `storage_unavailable`."""
        return _run(self.reading, query)

    def write(self, work: Callable[[Connection], Result]) -> Result:
        """Runs `work` in a transaction of its own and returns after the commit. Raises as `read` does."""
        return _run(self.writing, work)

    async def fetch(self, query: Callable[[Connection], Result]) -> Result:
        """`read` for the event loop: waits in a thread."""
        return await asyncio.to_thread(self.read, query)

    def close(self) -> None:
        self.reading.dispose()
        self.writing.dispose()


def open_database(folder: Path, *, lock: FolderLock | None = None) -> Database:
    """Opens, creates or migrates the database of a data folder.

    Who serves passes the `lock` that it holds; others may read and write beside a running gateway. Raises
    StorageRefused with a sentence for the operator.
    """
    prepare_folder(folder)
    path = folder / FILE_NAME
    ensure_schema(path, owner=lock is not None)
    if lock is not None:
        check_integrity(path, up_to_bytes=_CHECKED_BYTES)
    return Database(path, writing=make_engine(path, immediate=True), reading=make_engine(path, immediate=False))


def _run(engine: Engine, work: Callable[[Connection], Result]) -> Result:
    try:
        with engine.begin() as connection:
            return work(connection)
    except DBAPIError as error:
        if is_storage_failure(error):
            raise storage_unavailable() from error
        raise
