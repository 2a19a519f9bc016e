"""What a performer says while it works."""

from stellwerk.jobs.job import Job, Progress
from stellwerk.jobs.notices import Notices


class Sink:
    """Of one attempt. Nothing here waits or raises."""

    def __init__(self, job: Job, notices: Notices) -> None:
        self.job = job
        self._notices = notices
        self._unsaved: Progress | None = None
        notices.begin_tape(job.id)

    def piece(self, data: bytes) -> None:
        """The next part of the answer, for those who watch; the result is what the performer returns."""
        self._notices.write_tape(self.job.id, data)

    def progress(self, done: int, total: int | None = None, unit: str = "") -> None:
        """How far it is; stored about every second."""
        self._unsaved = Progress(done=done, total=total, unit=unit)

    def take_progress(self) -> Progress | None:
        """What was said since the last time."""
        unsaved, self._unsaved = self._unsaved, None
        return unsaved

    def close(self) -> None:
        self._notices.end_tape(self.job.id)
