"""Documents that lie in this gateway: files that were uploaded, and the bodies of jobs."""

from stellwerk.api.jobs.exchange import CollectingExchange
from stellwerk.api.jobs.ownership import Ownership
from stellwerk.api.ocr.requests import Asked, read_asked, read_chat, read_mode
from stellwerk.api.ocr.sources import Source, Taken, no_document
from stellwerk.api.openai.file_store import FileStore
from stellwerk.core.errors import NotFound
from stellwerk.core.principal import Principal
from stellwerk.jobs.job import Job
from stellwerk.jobs.jobs import Jobs
from stellwerk.records.files import StoredFile, file_not_found

CHAT_PATH = "/api/ocr"


class StoredDocuments:
    def __init__(self, jobs: Jobs, store: FileStore, ownership: Ownership) -> None:
        self._jobs = jobs
        self._store = store
        self._ownership = ownership

    async def read_file(self, caller: Principal, file_id: str) -> Taken:
        file = await self.find_file(caller, file_id)
        return Taken(data=await self._store.read(file.id), content_type=None, name=file.name)

    async def find_file(self, caller: Principal, file_id: str) -> StoredFile:
        """Raises NotFound, in the same words for what is not there and for what is not his."""
        file = await self._store.find(file_id)
        if not self._ownership.may_see(caller, file):
            raise file_not_found()
        return file

    async def read_job(self, caller: Principal, job_id: str, number: int) -> Taken:
        """A document out of the body of a job that has not ended."""
        try:
            job = await self._jobs.get(job_id)
            if not self._ownership.owns(caller, job):
                raise no_document()
            asked = read_documents(job, await self._jobs.body(job_id))
        except NotFound:
            raise no_document() from None
        source = asked[number].source if number < len(asked) else Source()
        if source.file_id is not None:
            return await self.read_file(caller, source.file_id)
        if source.data is None:
            raise no_document()
        return Taken(data=source.data, content_type=source.content_type, name=source.name)


def read_documents(job: Job, body: bytes) -> list[Asked]:
    """What a job is to read. Raises BadRequest."""
    if job.path == CHAT_PATH:
        return read_chat(body, read_mode(job.labels.get("resolution")))[0]
    exchange = CollectingExchange(
        job.path, body, {b"content-type": b"application/json"}, received=0.0, most_bytes=len(body)
    )
    return [read_asked(exchange)]
