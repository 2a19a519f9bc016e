"""Says that a job has ended in the transaction that ends it: neither is ever stored without the other."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from stellwerk.jobs.job import Job
from stellwerk.jobs.settings import Run

Answered = TypeVar("Answered")


class NoteEnd(Protocol):
    """Called in the writer's thread. An error takes the end of the job back."""

    def __call__(self, connection: Connection, job: Job, /) -> None: ...


def noting_ends(run: Run, note: NoteEnd) -> Run:
    """The same `run` for work that returns those jobs that it has ended, beside others that have not."""

    def run_and_note(work: Callable[[Connection], Answered], /) -> Awaitable[Answered]:
        return run(partial(_work_and_note, work=work, note=note))

    return run_and_note


def _work_and_note(connection: Connection, *, work: Callable[[Connection], Answered], note: NoteEnd) -> Answered:
    answer = work(connection)
    for one in answer if isinstance(answer, list) else (answer,):
        if isinstance(one, Job) and one.state.ended:
            note(connection, one)
    return answer
