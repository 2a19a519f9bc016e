"""What can be done with calls that are put into a queue, each thing right and wrong."""

import base64
import json
import struct
import zlib
from typing import Any

from tests.gateway_process import wait_until
from tests.secret_journey import WITNESS, Journey

_JOBS = "/api/requests"
_ONE = f"{_JOBS}/{{request_id}}"
_FILES, _BATCHES, _RESPONSES = "/v1/files", "/v1/batches", "/v1/responses"


async def queue_jobs(journey: Journey) -> None:
    good, bad = journey.good, journey.bad
    queue = f"{WITNESS}/up"
    done = await _begin(journey, f"{WITNESS}/up", "job")
    await good("GET", _ONE, query="?wait=10", request_id=done)
    await good("GET", f"{_ONE}/result", request_id=done)
    journey.shown.answer(f"GET {_ONE}/events", await journey.ask("GET", f"{_JOBS}/{done}/events"))
    journey.done.add(("GET", f"{_ONE}/events"))
    await bad("retry of a job that is done", "POST", f"{_JOBS}/{done}/retry")

    failed = await _begin(journey, f"{WITNESS}/echo-500", "failing job")

    async def has_failed():
        return (await good("GET", _ONE, request_id=failed))["status"] == "dead"

    await wait_until(has_failed)
    await good("POST", f"{_ONE}/retry", request_id=failed)

    await good("POST", "/admin/api/queues/{name}/pause", name=queue.replace("/", "%2F"))
    kept = await _begin(journey, f"{WITNESS}/up", "waiting job")
    await good("DELETE", _ONE, request_id=kept)
    await good("POST", "/admin/api/queues/{name}/resume", name=queue.replace("/", "%2F"))
    await good("GET", _JOBS)
    await good("GET", "/admin/api/queues")
    await leave_files(journey)
    await answer_later(journey)
    await read_documents(journey)


async def _begin(journey: Journey, model: str, name: str) -> str:
    content = {"model": model, "messages": [{"role": "user", "content": journey.secrets.prompt(name)}]}
    answer = await journey.ask("POST", "/v1/chat/completions", content, prefer="respond-async")
    assert answer.status == 202, answer.body
    journey.shown.answer(f"model, {name}", answer)
    return answer.json["id"]


async def leave_files(journey: Journey) -> None:
    """Files and batches; whoever has left a file reads it again, and nobody else does."""
    good, bad, secrets = journey.good, journey.bad, journey.secrets
    of_file = f"{_FILES}/{{file_id}}"
    prompts = [
        secrets.add(f"line {n}", f"Kanari line {n} ü 0b5e77", f"answer of GET {of_file}/content") for n in range(3)
    ]
    file = await _upload(journey, b"\n".join(_line(n, prompt) for n, prompt in enumerate(prompts)))
    await good("GET", of_file, file_id=file)
    await good("GET", _FILES)
    await _read(journey, file)
    made = await good("POST", _BATCHES, _batch(file))
    ended = await _end_of(journey, made["id"])
    assert ended["request_counts"] == {"total": 3, "completed": 3, "failed": 0}
    await _read(journey, ended["output_file_id"])
    await good("GET", _BATCHES)
    await bad("cancel of a batch that has ended", "POST", f"{_BATCHES}/{made['id']}/cancel")

    wrong = secrets.prompt("wrong line")
    lines = (_line(0, wrong, messages=wrong), _line(1, wrong)[:-9], _line(2, wrong, n=wrong), wrong.encode())
    failed = await _upload(journey, b"\n".join(lines))
    assert (await _end_of(journey, (await good("POST", _BATCHES, _batch(failed)))["id"]))["status"] == "failed"
    await bad("form without an end", "POST", _FILES, _form(secrets.prompt("form").encode())[:-9], content_type=_FORM)
    await bad("file as JSON", "POST", _FILES, {"file": secrets.prompt("no form")})
    await bad("batch of nothing", "POST", _BATCHES, _batch("file-0") | {"metadata": [secrets.prompt("metadata")]})
    for left in (file, failed):
        await good("DELETE", of_file, file_id=left)


async def answer_later(journey: Journey) -> None:
    """Responses, at once and in the background."""
    good, bad, secrets = journey.good, journey.bad, journey.secrets
    one = f"{_RESPONSES}/{{response_id}}"

    def body(name: str, **more: Any) -> dict[str, Any]:
        return {"model": f"{WITNESS}/up", "input": secrets.prompt(name), **more}

    await good("POST", _RESPONSES, body("response"))
    made = await good("POST", _RESPONSES, body("response in the background", background=True))

    async def is_done() -> bool:
        return (await good("GET", one, response_id=made["id"]))["status"] == "completed"

    await wait_until(is_done)
    await good("POST", f"{one}/cancel", response_id=made["id"])
    await good("DELETE", one, response_id=made["id"])
    await bad("response with a wrong input", "POST", _RESPONSES, body("wrong response", tools=secrets.prompt("tools")))
    await bad("response of nobody", "GET", f"{_RESPONSES}/resp_0")


async def read_documents(journey: Journey) -> None:
    """A page that is read by a model that sees: at once, as a job, and as a file."""
    good, bad, secrets = journey.good, journey.bad, journey.secrets
    path, place = "/v1/ocr", f"answer of GET {_FILES}/{{file_id}}/content"
    model = f"{WITNESS}/up"

    def body(name: str, **more: Any) -> dict[str, Any]:
        picture = base64.b64encode(_picture(secrets.prompt(name))).decode()
        return {
            "model": model,
            "document": {"type": "base64", "base64": picture},
            "prompt": secrets.prompt(name),
        } | more

    answer = journey.shown.answer(f"model of POST {path}", await journey.ask("POST", path, body("page")))
    assert answer.status == 200, answer.body
    answer = await journey.ask("POST", path, body("page in a job"), prefer="respond-async")
    assert answer.status == 202, answer.body
    job = answer.json["id"]

    async def is_done() -> bool:
        return (await good("GET", _ONE, request_id=job))["status"] == "completed"

    await wait_until(is_done)
    file = await _upload(journey, _picture(secrets.add("uploaded page", "Kanari page ü 5d1c0a92", place)))
    document = {"model": model, "document": {"type": "file", "file_id": file}}
    answer = journey.shown.answer(f"model of POST {path}", await journey.ask("POST", path, document))
    assert answer.status == 200, answer.body
    await _read(journey, file)
    await bad(
        "page that is none", "POST", path, body("no page") | {"document": {"base64": secrets.prompt("no picture")}}
    )
    text = base64.b64encode(secrets.prompt("text as a page").encode() * 4).decode()
    await bad("text as a page", "POST", path, {"document": {"base64": text}, "model": model})
    await bad("document for a loader", "PUT", "/process", {"document": secrets.prompt("document for a loader")})
    address = f"http://10.0.0.1/{secrets.chosen_key('page at an address')}"
    await bad("page at a private address", "POST", path, {"document": {"document_url": address}, "model": model})


def _picture(comment: str) -> bytes:
    """A white PNG of 64 × 64 with a comment that only its bytes show."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    pixels = zlib.compress((b"\0" + b"\xff" * 64) * 64)
    head = struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0)
    comments = chunk(b"iTXt", b"Comment\0\0\0\0\0" + comment.encode())
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + comments + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


_FORM = "multipart/form-data; boundary=witness"


def _form(content: bytes) -> bytes:
    head = b"--witness\r\nContent-Disposition: form-data; name="
    purpose, end = head + b'"purpose"\r\n\r\nbatch\r\n', b"\r\n--witness--\r\n"
    return purpose + head + b'"file"; filename="witness.jsonl"\r\n\r\n' + content + end


def _line(number: int, prompt: str, **more: Any) -> bytes:
    body = {"model": f"{WITNESS}/up", "messages": [{"role": "user", "content": prompt}], **more}
    line = {"custom_id": f"{WITNESS}-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(line, ensure_ascii=False).encode()


def _batch(file: str) -> dict[str, Any]:
    return {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}


async def _upload(journey: Journey, content: bytes) -> str:
    return (await journey.good("POST", _FILES, _form(content), content_type=_FORM))["id"]


async def _read(journey: Journey, file: str) -> None:
    answer = await journey.ask("GET", f"{_FILES}/{file}/content")
    assert answer.status == 200
    journey.shown.answer(f"GET {_FILES}/{{file_id}}/content", answer)


async def _end_of(journey: Journey, batch: str) -> Any:
    async def look() -> Any:
        found = await journey.good("GET", f"{_BATCHES}/{{batch_id}}", batch_id=batch)
        return found if found["completed_at"] or found["failed_at"] else None

    return await wait_until(look)
