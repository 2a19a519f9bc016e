"""Chat completions, and jobs of them, as the objects of OpenAI's Responses API."""

import os
from itertools import chain
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from stellwerk.api.openai.responses_items import INCOMPLETE, Choice, OutputItems
from stellwerk.api.openai.responses_requests import ResponsesBody
from stellwerk.api.openai.responses_tools import show_tool
from stellwerk.core.errors import UpstreamBroken
from stellwerk.core.outcome import Usage
from stellwerk.jobs.job import Job, State
from stellwerk.providers.openai_usage import read_usage

_STATUSES: Final = {
    State.QUEUED: "queued",
    State.LEASED: "in_progress",
    State.DONE: "completed",
    State.FAILED: "failed",
    State.DEAD: "failed",
    State.CANCELLED: "cancelled",
}
_ERROR_CODES: Final = {429: "rate_limit_exceeded", 400: "invalid_prompt"}
_CODES_OF_TYPES: Final = {"rate_limit_error": "rate_limit_exceeded", "invalid_request_error": "invalid_prompt"}
_NULL = msgspec.Raw(b"null")
METADATA: Final = "metadata"
"""Label of a job that holds the client's pairs as JSON."""


class _Chat(msgspec.Struct):
    choices: Annotated[list[Choice], Meta(min_length=1)]
    # Raw cannot be one of several types, so what is absent reads as null.
    usage: msgspec.Raw = _NULL


_decode_chat = msgspec.json.Decoder(_Chat).decode


def show_response(response: dict[str, Any], chat: bytes, output: OutputItems) -> bytes:
    """The begun response, with `output`, still empty, for what a whole chat completion brings. Raises UpstreamError for
    what is none."""
    try:
        answer = _decode_chat(chat)
    except (ValueError, RecursionError):
        raise UpstreamBroken("The upstream's answer cannot be read.") from None
    choice = answer.choices[0]
    if choice.message is None:
        raise UpstreamBroken("The upstream's answer cannot be read.")
    for _ in chain(output.take(choice, len(chat)), output.end()):
        pass
    return msgspec.json.encode(end_response(response, output, read_usage(answer.usage))[1])


def end_response(
    response: dict[str, Any], output: OutputItems, usage: Usage | None
) -> tuple[Literal["completed", "incomplete"], dict[str, Any]]:
    """Its status, and the response at the end of its output."""
    reason = INCOMPLETE.get(output.reason or "")
    status: Literal["completed", "incomplete"] = "completed" if reason is None else "incomplete"
    ended = {
        "status": status,
        "incomplete_details": None if reason is None else {"reason": reason},
        "output": output.items,
        "usage": _show_usage(usage),
    }
    return status, response | ended


def fail_response(
    response: dict[str, Any], output: OutputItems, usage: Usage | None, error: dict[str, Any]
) -> dict[str, Any]:
    """The response that an error has ended, `error` being that of a chat, with what was there before it."""
    said = {
        "code": _CODES_OF_TYPES.get(str(error.get("type")), "server_error"),
        "message": str(error.get("message") or "The response could not be made."),
    }
    return response | {"status": "failed", "error": said, "output": output.items, "usage": _show_usage(usage)}


def show_job_response(job: Job) -> dict[str, Any]:
    """A response in the background, as far as it is."""
    if job.state is State.DONE and job.result is not None:
        done: dict[str, Any] = msgspec.json.decode(job.result)
        done |= {"id": id_of_job(job.id), "created_at": int(job.created_at), "background": True, "store": True}
        if job.finished_at is not None:
            done["completed_at"] = int(job.finished_at)
        return done
    body = ResponsesBody(model=job.labels.get("model", job.queue), input="")
    response = begin_response(body, id_of_job(job.id), job.created_at)
    metadata = msgspec.json.decode(job.labels.get(METADATA, "{}"))
    response |= {"status": _STATUSES[job.state], "background": True, "store": True, "metadata": metadata}
    if job.state in (State.FAILED, State.DEAD):
        said = job.error.message if job.error is not None else "The response could not be made."
        response["error"] = {"code": _ERROR_CODES.get(job.status or 0, "server_error"), "message": said}
    elif job.state is State.DONE:
        response |= {"status": "failed", "error": {"code": "server_error", "message": "It is not kept any more."}}
    return response


def id_of_job(job_id: str) -> str:
    return f"resp_{job_id.replace('-', '')}"


def job_of_id(response_id: str) -> str | None:
    """None for what is no id of a response in the background."""
    text = response_id.removeprefix("resp_")
    if text == response_id or len(text) != 32 or not all(letter in "0123456789abcdef" for letter in text):
        return None
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def new_response_id() -> str:
    return f"resp_{os.urandom(24).hex()}"


def begin_response(body: ResponsesBody, response_id: str, created_at: float) -> dict[str, Any]:
    """The response before anything of its output is there."""
    text = msgspec.to_builtins(body.text) if body.text is not None else {}
    chosen = {name: value for name, value in (text.get("format") or {"type": "text"}).items() if value is not None}
    effort = body.reasoning.effort if body.reasoning is not None else None
    tools = [] if body.tools is None else [show_tool(tool) for tool in body.tools]
    return {
        "id": response_id,
        "object": "response",
        "created_at": int(created_at),
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "model": body.model,
        "output": [],
        "parallel_tool_calls": True if body.parallel_tool_calls is None else body.parallel_tool_calls,
        "previous_response_id": None,
        "reasoning": {"effort": effort, "summary": None},
        "store": False,
        "temperature": body.temperature,
        "text": {"format": chosen},
        "tool_choice": "auto" if body.tool_choice is None else body.tool_choice,
        "tools": tools,
        "top_p": body.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": body.user,
        "metadata": body.metadata or {},
    }


def _show_usage(usage: Usage | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
