"""How jobs are kept and worked on, and how they reach the storage."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import msgspec
from sqlalchemy import Connection

Answered = TypeVar("Answered")


class Run(Protocol):
    """`Writer.run` and `Database.fetch`: runs work in a transaction."""

    def __call__(self, work: Callable[[Connection], Answered], /) -> Awaitable[Answered]: ...


class JobSettings(msgspec.Struct, frozen=True, kw_only=True):
    max_waiting: int = 10_000
    """Jobs that may wait for one model."""
    max_waiting_per_client: int = 2_500
    """Jobs of one holder that may wait, over all models; 0 is unlimited."""
    workers: int = 64
    """Jobs that run at the same time, over all models."""
    attempts: int = 3
    attempt_seconds: float = 600.0
    deadline_seconds: float = 86_400.0
    """A job that has not begun by then never will."""
    result_hours: float = 24.0
    result_bytes: int = 8 * 1024 * 1024
    history_days: float = 15.0
    """How long a job is remembered after its end."""
    lease_seconds: float = 30.0
    """A worker that was not heard of for so long is given up for dead."""
    heartbeat_seconds: float = 10.0
    look_seconds: float = 1.0
    """How often the storage is looked at for what others have done."""
    prune_seconds: float = 60.0
