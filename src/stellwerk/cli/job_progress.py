"""Jobs as they are watched: a bar each on a terminal, nothing elsewhere. All on standard error."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from stellwerk.cli.job_view import progress_of, status_of
from stellwerk.cli.tables import visible
from stellwerk.client.jobs import Job

Show = Callable[[str, Job], None]
"""What is to be called with a name and each state of its job."""
_MOST_BARS = 200
_LONGEST_NAME = 36
"""An id is as long; more would leave no room for the bar on a terminal of 80 columns."""


@contextlib.contextmanager
def watched(*, quiet: bool = False) -> Iterator[Show]:
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda _name, _job: None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[facts]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield _Bars(progress).show


class _Bars:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def show(self, name: str, job: Job) -> None:
        if job.id not in self._tasks:
            if len(self._tasks) >= _MOST_BARS:
                return
            self._tasks[job.id] = self._progress.add_task(_shortened(visible(name)), total=None, facts="")
        done, total = self._place(job)
        facts = visible(progress_of(job) if job.status == "running" and job.progress else status_of(job))
        self._progress.update(self._tasks[job.id], total=total, completed=done, facts=facts)

    def _place(self, job: Job) -> tuple[int, int | None]:
        if job.status == "completed":
            total = (job.progress.total if job.progress else None) or 1
            return total, total
        if job.progress is None:
            return 0, None
        return job.progress.done, job.progress.total


def _shortened(name: str) -> str:
    """What makes a name different from others stands at its end."""
    return name if len(name) <= _LONGEST_NAME else f"…{name[1 - _LONGEST_NAME :]}"
