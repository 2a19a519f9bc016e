"""Chat completions, and jobs of them, as the objects of OpenAI's Responses API."""

import os
from typing import Any, Final

import msgspec

from stellwerk.api.openai.responses_requests import ResponsesBody
from stellwerk.core.errors import UpstreamBroken
from stellwerk.jobs.job import Job, State

_INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}
_STATUSES: Final = {
    State.QUEUED: "queued",
    State.LEASED: "in_progress",
    State.DONE: "completed",
    State.FAILED: "failed",
    State.DEAD: "failed",
    State.CANCELLED: "cancelled",
}
_ERROR_CODES: Final = {429: "rate_limit_exceeded", 400: "invalid_prompt"}
METADATA: Final = "metadata"
"""Label of a job that holds the client's pairs as JSON."""


def show_response(body: ResponsesBody, response_id: str, created_at: float, chat: bytes) -> bytes:
    """The response for a whole chat completion. Raises UpstreamBroken for what is none."""
    try:
        answer = msgspec.json.decode(chat, type=dict[str, Any])
        choice = answer["choices"][0]
        message = choice["message"]
        output = _output(message, choice)
        usage = _usage(answer.get("usage"))
    except (msgspec.DecodeError, LookupError, TypeError, AttributeError):
        raise UpstreamBroken("The upstream's answer cannot be read.") from None
    reason = _INCOMPLETE.get(choice.get("finish_reason"))
    response = _response(body, response_id, created_at)
    response |= {
        "status": "completed" if reason is None else "incomplete",
        "incomplete_details": None if reason is None else {"reason": reason},
        "output": output,
        "usage": usage,
    }
    return msgspec.json.encode(response)


def show_job_response(job: Job) -> dict[str, Any]:
    """A response in the background, as far as it is."""
    if job.state is State.DONE and job.result is not None:
        done: dict[str, Any] = msgspec.json.decode(job.result)
        done |= {"id": id_of_job(job.id), "created_at": int(job.created_at), "background": True, "store": True}
        if job.finished_at is not None:
            done["completed_at"] = int(job.finished_at)
        return done
    body = ResponsesBody(model=job.labels.get("model", job.queue), input="")
    response = _response(body, id_of_job(job.id), job.created_at)
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


def _response(body: ResponsesBody, response_id: str, created_at: float) -> dict[str, Any]:
    text = msgspec.to_builtins(body.text) if body.text is not None else {}
    chosen = {name: value for name, value in (text.get("format") or {"type": "text"}).items() if value is not None}
    effort = body.reasoning.effort if body.reasoning is not None else None
    tools = [] if body.tools is None else [_shown_tool(msgspec.to_builtins(tool)) for tool in body.tools]
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


def _shown_tool(tool: dict[str, Any]) -> dict[str, Any]:
    # OpenAI's clients want both of these, null or not.
    return {"parameters": None, "strict": None} | {name: value for name, value in tool.items() if value is not None}


def _output(message: dict[str, Any], choice: dict[str, Any]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    thought = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(thought, str) and thought:
        content = [{"type": "reasoning_text", "text": thought}]
        items.append({"type": "reasoning", "id": _new_id("rs"), "summary": [], "content": content})
    parts: list[dict[str, Any]] = []
    text = message.get("content")
    if isinstance(text, str) and (text or not message.get("tool_calls")):
        logprobs = choice.get("logprobs") or {}
        parts.append(
            {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs.get("content") or []}
        )
    if isinstance(message.get("refusal"), str) and message["refusal"]:
        parts.append({"type": "refusal", "refusal": message["refusal"]})
    if parts:
        whole = choice.get("finish_reason") not in _INCOMPLETE
        items.append(
            {
                "type": "message",
                "id": _new_id("msg"),
                "status": "completed" if whole else "incomplete",
                "role": "assistant",
                "content": parts,
            }
        )
    return items + [_function_call(call) for call in message.get("tool_calls") or ()]


def _function_call(call: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": _new_id("fc"),
        "call_id": call["id"],
        "name": call["function"]["name"],
        "arguments": call["function"].get("arguments") or "",
        "status": "completed",
    }


def _usage(usage: Any) -> dict[str, Any] | None:
    if not isinstance(usage, dict):
        return None
    read, written = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
    inputs, outputs = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": inputs.get("cached_tokens") or 0, "cache_write_tokens": 0},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": outputs.get("reasoning_tokens") or 0},
        "total_tokens": read + written,
    }


def _new_id(prefix: str) -> str:
    return f"{prefix}_{os.urandom(16).hex()}"
