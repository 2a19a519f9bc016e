"""The lines of a batch: requests on the way in, answers and errors on the way out."""

import codecs
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from stellwerk.jobs.job import Job, State

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
MOST_LINES = 10_000
MOST_ERRORS = 100
_LONGEST_ID = 512
_decode_object = msgspec.json.Decoder(msgspec.Raw).decode


class _Line(msgspec.Struct):
    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class Line(msgspec.Struct, frozen=True):
    number: int
    """1 is the first."""
    custom_id: str
    body: bytes


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with the input file, as OpenAI's `errors` has it."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


_decode = msgspec.json.Decoder(_Line).decode


def read_lines(content: bytes, endpoint: str) -> Iterator[Line | Problem]:
    """Every line that is not blank, or what is wrong with it."""
    seen: set[str] = set()
    # Windows' own programs begin a text in UTF-8 with a byte order mark.
    for number, text in enumerate(content.removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        if text.strip():
            yield _read_line(number, text, endpoint, seen)


def _read_line(number: int, text: bytes, endpoint: str, seen: set[str]) -> Line | Problem:
    try:
        line = _decode(text)
        text.decode()
    except msgspec.ValidationError as error:
        return Problem(code="invalid_request", message=f"The line does not fit: {str(error)[:200]}.", line=number)
    except (ValueError, RecursionError):
        return Problem(code="invalid_json_line", message="The line is not valid JSON.", line=number)
    if not 0 < len(line.custom_id) <= _LONGEST_ID:
        return Problem(
            code="invalid_custom_id",
            message=f"A custom_id has 1 to {_LONGEST_ID} characters.",
            line=number,
            param="custom_id",
        )
    if line.custom_id in seen:
        return Problem(
            code="duplicate_custom_id",
            message="This custom_id stands in an earlier line too.",
            line=number,
            param="custom_id",
        )
    seen.add(line.custom_id)
    if line.method != "POST":
        return Problem(code="invalid_method", message="The method is POST.", line=number, param="method")
    if line.url != endpoint:
        return Problem(code="mismatched_endpoint", message=f"The url is {endpoint}.", line=number, param="url")
    return Line(number, line.custom_id, bytes(line.body))


def is_answered(job: Job) -> bool:
    """Whether its line belongs into the output file."""
    return job.state is State.DONE and job.result is not None


def write_line(job: Job, *, cancelled: bool) -> bytes:
    """One line of the output file or of the error file."""
    response: Mapping[str, Any] | None = None
    error: Mapping[str, str] | None = None
    if job.result is not None and job.status is not None:
        response = {"status_code": job.status, "request_id": job.id, "body": _body(job.result)}
    else:
        error = _error(job, cancelled=cancelled)
    line = {
        "id": f"batch_req_{job.id.replace('-', '')}",
        "custom_id": job.labels.get("custom_id", ""),
        "response": response,
        "error": error,
    }
    return msgspec.json.encode(line) + b"\n"


def _body(result: bytes) -> Any:
    try:
        return _decode_object(result)
    except msgspec.DecodeError:
        return result.decode("utf-8", "replace")


def _error(job: Job, *, cancelled: bool) -> Mapping[str, str]:
    if is_expired(job):
        return {
            "code": "batch_expired",
            "message": "This request could not be executed before the completion window expired.",
        }
    if job.state is State.CANCELLED and cancelled:
        return {"code": "batch_cancelled", "message": "The batch was cancelled before this request was executed."}
    if job.error is not None:
        return {"code": job.error.code, "message": job.error.message}
    return {"code": "result_not_found", "message": "The answer is not kept any more."}


def is_expired(job: Job) -> bool:
    return job.error is not None and job.error.code == "deadline_exceeded"
