"""What can be asked of a gateway: each call as its request and how its answer is read. Pure; both clients use these."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Generic, TypeAlias, TypeVar

import msgspec

from stellwerk.client.answer import AnswerReader
from stellwerk.client.errors import BadAddress
from stellwerk.client.jobs import Job, JobPage, JobResult, Queue
from stellwerk.client.request import MOST_WAIT_SECONDS, Request, get, part, post, without_nothing
from stellwerk.client.shapes import (
    Batch,
    BatchList,
    Chat,
    Embeddings,
    File,
    FileList,
    Model,
    ModelList,
    Ranking,
    not_understood,
)

Answer = TypeVar("Answer")
Fields: TypeAlias = Mapping[str, Any]
Messages: TypeAlias = str | Sequence[Mapping[str, Any]]
NOTHING: Final[Fields] = MappingProxyType({})

JOBS = "/api/requests"
_LONGEST_KEY = 200


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """A request, and what turns the answer to it into what the caller gets."""

    request: Request
    read: Callable[[AnswerReader, bytes], Answer]


def reading(shape: type[Answer]) -> Callable[[AnswerReader, bytes], Answer]:
    """Reads answers in this shape. Raises Refused and NotUnderstood."""
    decode = msgspec.json.Decoder(shape).decode

    def read(reader: AnswerReader, body: bytes) -> Answer:
        reader.check(body)
        try:
            return decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise not_understood() from None

    return read


def chat_body(messages: Messages, model: str, fields: Fields, *, stream: bool) -> dict[str, Any]:
    """A text stands for one message of a user."""
    said = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
    body = {"model": model, "messages": said, **without_nothing(fields)}
    return {**body, "stream": True} if stream else body


def chat(messages: Messages, model: str, fields: Fields = NOTHING) -> Call[Chat]:
    return Call(post("/v1/chat/completions", chat_body(messages, model, fields, stream=False)), reading(Chat))


def chat_stream(messages: Messages, model: str, fields: Fields = NOTHING) -> Request:
    return post("/v1/chat/completions", chat_body(messages, model, fields, stream=True))


def embed(texts: str | Sequence[str], model: str, fields: Fields = NOTHING) -> Call[Embeddings]:
    said = texts if isinstance(texts, str) else list(texts)
    # Numbers, whatever the default of an upstream is: base64 would not fit the shape.
    body = {"model": model, "input": said, "encoding_format": "float", **without_nothing(fields)}
    return Call(post("/v1/embeddings", body), reading(Embeddings))


def rerank(query: str, documents: Sequence[str], model: str, fields: Fields = NOTHING) -> Call[Ranking]:
    body = {"model": model, "query": query, "documents": list(documents), **without_nothing(fields)}
    return Call(post("/v1/rerank", body), reading(Ranking))


def models() -> Call[list[Model]]:
    read = reading(ModelList)
    return Call(get("/v1/models"), lambda reader, body: read(reader, body).data)


def anything(method: str, path: str, body: Any = None) -> Call[Any]:
    """For what has no name here. Raises BadAddress for a path that does not lead below the gateway."""
    if method not in {"GET", "POST", "DELETE"} or not path.startswith("/"):
        raise BadAddress("A request is GET, POST or DELETE and a path that begins with a slash.")
    request = Request(method="GET", path=path) if body is None else post(path, body)
    return Call(msgspec.structs.replace(request, method=method), _read_anything)


def _read_anything(reader: AnswerReader, body: bytes) -> Any:
    if not body and 200 <= reader.status < 300:
        return None
    return _anything(reader, body)


_anything = reading(Any)


# --- jobs


def submit(
    path: str, body: Any, *, idempotency_key: str | None, priority: str | None, client_id: str | None
) -> Call[str]:
    """Any call of /v1 as a job; read as the job's id."""
    headers = without_nothing(
        {
            "prefer": "respond-async",
            "idempotency-key": (idempotency_key or _new_key())[:_LONGEST_KEY],
            "x-stellwerk-priority": priority,
            "x-client-id": client_id,
        }
    )
    return Call(post(path, body, headers), _read_submitted)


def _new_key() -> str:
    """One for all attempts of a call: a request that is sent again after a refusal makes no second job."""
    return f"python-{os.urandom(16).hex()}"


def _read_submitted(reader: AnswerReader, body: bytes) -> str:
    # The answer may be that of a job that has ended, badly too: its key was used before.
    if job := reader.headers.get("x-stellwerk-job"):
        return job
    return _job(reader, body).id


_job = reading(Job)


def show_job(job: str, wait: float = 0.0) -> Call[Job]:
    wait = min(max(wait, 0.0), MOST_WAIT_SECONDS)
    request = get(f"{JOBS}/{part(job)}", {"wait": round(wait, 3) or None})
    return Call(msgspec.structs.replace(request, waits=wait), _job)


def list_jobs(query: Fields) -> Call[JobPage]:
    return Call(get(JOBS, query), reading(JobPage))


def cancel_job(job: str) -> Call[Job]:
    return Call(Request(method="DELETE", path=f"{JOBS}/{part(job)}"), _job)


def retry_job(job: str) -> Call[Job]:
    return Call(Request(method="POST", path=f"{JOBS}/{part(job)}/retry"), _job)


def job_events(job: str) -> Request:
    return get(f"{JOBS}/{part(job)}/events")


def job_result(job: str) -> Call[JobResult]:
    def read(reader: AnswerReader, body: bytes) -> JobResult:
        reader.check(body)
        return JobResult(body, reader.headers.get("content-type", "application/json"))

    return Call(get(f"{JOBS}/{part(job)}/result"), read)


def queues() -> Call[list[Queue]]:
    return Call(get("/admin/api/queues"), reading(list[Queue]))


# --- files and batches


def upload(data: bytes, name: str, purpose: str) -> Call[File]:
    """Raises BadAddress for a name that cannot be sent."""
    if not name or not name.isprintable() or len(name) > 255:
        raise BadAddress("A file has a name of 1 to 255 visible characters.")
    boundary = f"stellwerk{os.urandom(16).hex()}"
    shown = name.encode("utf-8", "replace").replace(b"\\", b"\\\\").replace(b'"', b"%22")
    body = b"".join(
        (
            f'--{boundary}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\n'.encode(),
            purpose.encode(),
            f"\r\n--{boundary}\r\n".encode(),
            b'content-disposition: form-data; name="file"; filename="%b"\r\n' % shown,
            b"content-type: application/octet-stream\r\n\r\n",
            data,
            f"\r\n--{boundary}--\r\n".encode(),
        )
    )
    kind = f"multipart/form-data; boundary={boundary}"
    return Call(Request(method="POST", path="/v1/files", body=body, content_type=kind), reading(File))


def show_file(file: str) -> Call[File]:
    return Call(get(f"/v1/files/{part(file)}"), reading(File))


def list_files(after: str | None, limit: int) -> Call[list[File]]:
    read = reading(FileList)
    return Call(get("/v1/files", {"after": after, "limit": limit}), lambda reader, body: read(reader, body).data)


def file_content(file: str) -> Call[bytes]:
    def read(reader: AnswerReader, body: bytes) -> bytes:
        reader.check(body)
        return body

    return Call(get(f"/v1/files/{part(file)}/content"), read)


def delete_file(file: str) -> Call[None]:
    return Call(Request(method="DELETE", path=f"/v1/files/{part(file)}"), lambda reader, body: reader.check(body))


def create_batch(file: str, endpoint: str, metadata: Mapping[str, str] | None) -> Call[Batch]:
    body = {"input_file_id": file, "endpoint": endpoint, "completion_window": "24h", "metadata": metadata}
    return Call(post("/v1/batches", without_nothing(body), {"idempotency-key": _new_key()}), reading(Batch))


def show_batch(batch: str) -> Call[Batch]:
    return Call(get(f"/v1/batches/{part(batch)}"), reading(Batch))


def list_batches(after: str | None, limit: int) -> Call[list[Batch]]:
    read = reading(BatchList)
    return Call(get("/v1/batches", {"after": after, "limit": limit}), lambda reader, body: read(reader, body).data)


def cancel_batch(batch: str) -> Call[Batch]:
    return Call(Request(method="POST", path=f"/v1/batches/{part(batch)}/cancel"), reading(Batch))
