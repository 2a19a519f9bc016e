"""The events of a response in the background. Its text is told when all of it is there, so every event has the same
number whenever it is told, and who has heard some of them can go on after any."""

from collections.abc import Iterator
from typing import Any

from stellwerk.api.openai.responses_answers import show_job_response
from stellwerk.api.openai.responses_items import Events, field_of, frame_event
from stellwerk.jobs.job import Job, JobEvent, State

_NOTHING_YET: dict[str, Any] = {"error": None, "incomplete_details": None, "output": [], "usage": None}
_QUEUED = 2
"""Events before the response is in progress."""
_CANCELLED = {"code": "server_error", "message": "The response was cancelled."}


class ResponseReplay:
    """Tells one client of one job."""

    def __init__(self, after: int = -1) -> None:
        """`after` is the number of the last event that the client has."""
        self._after = after
        self._number = 0

    def write(self, event: JobEvent) -> bytes:
        """What a change of the job says of the response; of its end, `end` tells."""
        return (
            b"" if event.job is None else b"".join(self._begin(event.job, in_progress=event.job.state is State.LEASED))
        )

    def end(self, job: Job) -> bytes:
        """The rest, of a job that has ended, with its result."""
        out = [*self._begin(job, in_progress=True)]
        response = show_job_response(job)
        status = response["status"]
        for index, item in enumerate(response["output"]):
            out += [self._frame(event) for event in _tell_item(index, item)]
        if status == "cancelled":
            response["error"] = _CANCELLED
        ended = status if status in ("completed", "incomplete") else "failed"
        out.append(self._frame({"type": f"response.{ended}", "response": response}))
        return b"".join(out)

    def _begin(self, job: Job, *, in_progress: bool) -> Iterator[bytes]:
        response = show_job_response(job) | _NOTHING_YET
        response.pop("completed_at", None)
        if not self._number:
            yield self._frame({"type": "response.created", "response": response | {"status": "queued"}})
            yield self._frame({"type": "response.queued", "response": response | {"status": "queued"}})
        if in_progress and self._number == _QUEUED:
            yield self._frame({"type": "response.in_progress", "response": response | {"status": "in_progress"}})

    def _frame(self, event: dict[str, Any]) -> bytes:
        """b"" for what the client has."""
        number = self._number
        self._number += 1
        return frame_event(event, number) if number > self._after else b""


def _tell_item(index: int, item: dict[str, Any]) -> Events:
    place = {"item_id": item["id"], "output_index": index}
    begun = item | {name: empty for name, empty in (("content", []), ("arguments", "")) if name in item}
    if "status" in item:
        begun["status"] = "in_progress"
    yield {"type": "response.output_item.added", "output_index": index, "item": begun}
    if "arguments" in item:
        kind, arguments = "response.function_call_arguments", item["arguments"]
        yield {"type": f"{kind}.delta", **place, "delta": arguments}
        yield {"type": f"{kind}.done", **place, "name": item["name"], "arguments": arguments}
    for content_index, part in enumerate(item.get("content", ())):
        yield from _tell_part(place | {"content_index": content_index}, part)
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _tell_part(place: dict[str, Any], part: dict[str, Any]) -> Events:
    kind, field = part["type"], field_of(part["type"])
    more = {"logprobs": part["logprobs"]} if "logprobs" in part else {}
    empty: dict[str, Any] = {name: [] for name in more}
    yield {"type": "response.content_part.added", **place, "part": part | {field: ""} | empty}
    yield {"type": f"response.{kind}.delta", **place, "delta": part[field], **more}
    yield {"type": f"response.{kind}.done", **place, field: part[field], **more}
    yield {"type": "response.content_part.done", **place, "part": part}
