"""Few attempts in a long time: a limit that outlives a restart and holds over all processes of one database.

Each function runs in the caller's transaction. `try_all` looks and records in one, and a writing transaction of ours
takes the database's write lock when it begins: between the look and the record nobody else can come.
"""

import hashlib
from collections.abc import Sequence

import msgspec
from sqlalchemy import Column, Connection, Double, Index, String, Table, bindparam, delete, func, insert, select, update

from stellwerk.storage.tables import metadata, row_number

LONGEST_SECONDS = 86_400.0
"""The longest window that a rule may have; older rows are of no use to anybody."""

_SUBJECT_LENGTH = 400

_ROWS = 500_000
"""Beyond these the oldest go first: a flood of names must not fill the disk, and must not lock everybody out."""

_AHEAD_SECONDS = 60.0
"""Two processes read their clocks before they get the lock; a row further in the future is from a wrong clock."""

attempts = Table(
    "attempts",
    metadata,
    Column("number", row_number, primary_key=True),
    Column("subject", String(_SUBJECT_LENGTH), nullable=False),
    Column("at", Double, nullable=False),
    Index(None, "subject", "at"),
    Index(None, "at"),
)

_decisive = (
    select(attempts.c.at)
    .where(attempts.c.subject == bindparam("subject"), attempts.c.at > bindparam("since"))
    .order_by(attempts.c.at.desc())
    .limit(1)
    .offset(bindparam("skipped"))
)
"""The attempt that has to grow old before there is room; no row when there is."""

_forget = delete(attempts).where(attempts.c.subject == bindparam("subject"), attempts.c.at <= bindparam("until"))
_prune = delete(attempts).where(attempts.c.at <= bindparam("until"))
_set_right = update(attempts).where(attempts.c.at > bindparam("until")).values(at=bindparam("now"))
_numbers = select(func.min(attempts.c.number), func.max(attempts.c.number))


class Rule(msgspec.Struct, frozen=True):
    """At most `limit` ≥ 1 attempts in any `seconds` (up to LONGEST_SECONDS) for a subject, such as `login:1.2.3.4`.

    A subject is always asked with the same rules: what the longest of those given does not need any more is dropped.
    """

    subject: str
    limit: int
    seconds: float

    def __post_init__(self) -> None:
        if self.limit < 1 or not 0 < self.seconds <= LONGEST_SECONDS:
            raise ValueError("a rule needs a limit of at least 1 and a window of at most a day")


def try_all(connection: Connection, rules: Sequence[Rule], *, now: float) -> float:
    """0.0: allowed, and recorded under every rule. Else the seconds to wait, and nothing is recorded.

    `now` is Unix seconds. For a writing transaction alone: under any other one two processes may both be allowed.
    """
    prune(connection, now)
    pause = wait_of(connection, rules, now)
    if pause > 0:
        return pause
    longest: dict[str, float] = {}
    for rule in rules:
        longest[rule.subject] = max(rule.seconds, longest.get(rule.subject, 0.0))
    for subject, seconds in longest.items():
        # A subject thus never keeps more rows than its limit, however long it goes on.
        connection.execute(_forget, {"subject": _stored(subject), "until": now - seconds})
    if longest:
        connection.execute(insert(attempts), [{"subject": _stored(subject), "at": now} for subject in longest])
    return 0.0


def wait_of(connection: Connection, rules: Sequence[Rule], now: float) -> float:
    """Seconds until `try_all` would allow an attempt, 0.0 when it would now; looks only."""
    return max((_wait(connection, rule, now) for rule in rules), default=0.0)


def forget(connection: Connection, subject: str) -> None:
    """Takes back everything that was recorded for a subject, such as the failures before a good password."""
    connection.execute(delete(attempts).where(attempts.c.subject == _stored(subject)))


def prune(connection: Connection, now: float) -> None:
    """Drops what no rule can ask for any more, and bounds the table; `try_all` does it by itself."""
    connection.execute(_prune, {"until": now - LONGEST_SECONDS})
    connection.execute(_set_right, {"until": now + _AHEAD_SECONDS, "now": now})
    first, last = connection.execute(_numbers).one()
    if first is not None and last - first >= _ROWS:
        connection.execute(delete(attempts).where(attempts.c.number <= last - _ROWS))


def _wait(connection: Connection, rule: Rule, now: float) -> float:
    since = now - rule.seconds
    found = {"subject": _stored(rule.subject), "since": since, "skipped": rule.limit - 1}
    at = connection.execute(_decisive, found).scalar()
    if at is None:
        return 0.0
    pause: float = max(at + rule.seconds - now, 0.0)
    while at > (now + pause) - rule.seconds:
        # The sum of two floats may fall short of what it stands for.
        pause += 1e-6
    return pause


def _stored(subject: str) -> str:
    """A subject that fits its column, however long the name is that somebody has sent."""
    if len(subject) <= _SUBJECT_LENGTH:
        return subject
    return "sha256:" + hashlib.sha256(subject.encode(errors="surrogatepass")).hexdigest()
