"""Sessions in the database, for gateways on several machines that share one: the contract of the files.

A row is a question with its answer: two writers add two rows, and neither undoes what the other has written.
"""

import logging
from collections.abc import Callable
from typing import Protocol, TypeVar

from sqlalchemy import (
    Column,
    Connection,
    Double,
    Index,
    String,
    Table,
    Text,
    bindparam,
    delete,
    func,
    insert,
    select,
    tuple_,
)

from stellwerk.core.clock import Clock
from stellwerk.sessions.history import MOST_MESSAGES, Message, keep_newest, make_exchange
from stellwerk.sessions.names import check_session_id
from stellwerk.storage.tables import metadata, row_number

MOST_SESSIONS = 10_000
"""Of one owner; a new one beyond them takes the place of the one that was not used for longest."""

_EXCHANGES = MOST_MESSAGES // 2
_log = logging.getLogger(__name__)

session_exchanges = Table(
    "session_exchanges",
    metadata,
    Column("number", row_number, primary_key=True),
    Column("owner", String(20), nullable=False),
    Column("model", String(256), nullable=False),
    Column("session_id", String(64), nullable=False),
    Column("question", Text, nullable=False),
    Column("answer", Text, nullable=False),
    Column("at", Double, nullable=False),
    Index(None, "owner", "model", "session_id", "number"),
)

_of_session = (
    session_exchanges.c.owner == bindparam("of_owner"),
    session_exchanges.c.model == bindparam("of_model"),
    session_exchanges.c.session_id == bindparam("of_id"),
)
_newest = (
    select(session_exchanges.c.question, session_exchanges.c.answer)
    .where(*_of_session)
    .order_by(session_exchanges.c.number.desc())
    .limit(_EXCHANGES)
)
_first_kept = (
    select(session_exchanges.c.number)
    .where(*_of_session)
    .order_by(session_exchanges.c.number.desc())
    .limit(1)
    .offset(_EXCHANGES - 1)
)
_forget_older = delete(session_exchanges).where(*_of_session, session_exchanges.c.number < bindparam("first"))
_sessions_beyond = (
    select(session_exchanges.c.model, session_exchanges.c.session_id)
    .where(session_exchanges.c.owner == bindparam("of_owner"))
    .group_by(session_exchanges.c.model, session_exchanges.c.session_id)
    .order_by(func.max(session_exchanges.c.number).desc())
    .offset(bindparam("most"))
)
_forget_sessions = delete(session_exchanges).where(
    session_exchanges.c.owner == bindparam("of_owner"),
    tuple_(session_exchanges.c.model, session_exchanges.c.session_id).in_(_sessions_beyond),
)

Result = TypeVar("Result")


class Run(Protocol):
    """Runs work in a transaction and returns when it is over, as `Database.read` and `Database.write` do."""

    def __call__(self, work: Callable[[Connection], Result], /) -> Result: ...


class SqlSessions:
    """Waits for the database. Raises Unavailable, code `storage_unavailable`, and BadRequest for a bad session id."""

    def __init__(self, read: Run, write: Run, clock: Clock, *, most_sessions: int = MOST_SESSIONS) -> None:
        self._read = read
        self._write = write
        self._clock = clock
        self._most_sessions = most_sessions

    def read(self, owner_folder: str, model: str, session_id: str) -> list[Message]:
        """Empty when there is no such session. `owner_folder` is "" or the digits of a user id, as of the files."""
        session = _session(owner_folder, model, session_id)
        rows = self._read(lambda connection: connection.execute(_newest, session).all())
        messages: list[Message] = []
        for question, answer in reversed(rows):
            messages += Message(role="user", content=question), Message(role="assistant", content=answer)
        return keep_newest(messages)

    def append(self, owner_folder: str, model: str, session_id: str, user: str, assistant: str) -> None:
        """Adds a question and its answer; too large ones are logged and left out."""
        session = _session(owner_folder, model, session_id)
        exchange = make_exchange(user, assistant)
        if exchange is None:
            _log.warning("an exchange of the session %s of %s is too large to be kept", session_id, model)
            return
        question, answer = exchange
        row = {"owner": owner_folder, "model": model, "session_id": session_id, "at": self._clock.now()}
        row |= {"question": question.content, "answer": answer.content}

        def work(connection: Connection) -> None:
            is_new = connection.execute(_newest, session).first() is None
            connection.execute(insert(session_exchanges).values(row))
            if is_new:
                connection.execute(_forget_sessions, {"of_owner": owner_folder, "most": self._most_sessions})
                return
            first = connection.execute(_first_kept, session).scalar()
            if first is not None:
                connection.execute(_forget_older, {**session, "first": first})

        self._write(work)


def _session(owner: str, model: str, session_id: str) -> dict[str, str]:
    return {"of_owner": owner, "of_model": model, "of_id": check_session_id(session_id)}
