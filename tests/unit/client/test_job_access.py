import pytest

from stellwerk.client import (
    BrokenOff,
    Chat,
    JobFailed,
    NotFound,
    NotUnderstood,
    Reading,
    StillRunning,
    Unavailable,
)
from tests.scripted_answers import answer, refused, stream

ID = "550e8400-e29b-41d4-a716-446655440000"
CHAT = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}}]}


def job(status="queued", **more):
    return {"id": ID, "object": "job", "status": status, "created_at": "2026-11-21T09:30:00.000Z", **more}


def test_a_call_becomes_a_job(server, client):
    server.script = [answer(job(), 202, x_stellwerk_job=ID)]
    handle = client.do(
        lambda it: it.submit("/v1/embeddings", {"model": "e", "input": "a"}, priority="low", client_id="app")
    )
    assert handle.id == ID
    seen = server.seen[0]
    assert (seen.method, seen.path, seen.json) == ("POST", "/v1/embeddings", {"model": "e", "input": "a"})
    named = {name: seen.headers[name] for name in ("prefer", "x-stellwerk-priority", "x-client-id")}
    assert named == {"prefer": "respond-async", "x-stellwerk-priority": "low", "x-client-id": "app"}


def test_a_call_that_is_sent_again_makes_one_job(server, client):
    server.script = [refused(503, "Full.", "queue_full", retry_after="0"), answer(job(), 202)]
    client.do(lambda it: it.submit_chat("Hi", "demo"))
    keys = {seen.headers["idempotency-key"] for seen in server.seen}
    assert (len(server.seen), len(keys)) == (2, 1)


def test_two_calls_are_two_jobs(server, client):
    server.script = [answer(job(), 202)] * 2
    for _ in range(2):
        client.do(lambda it: it.submit_chat("Hi", "demo"))
    assert len({seen.headers["idempotency-key"] for seen in server.seen}) == 2


@pytest.mark.parametrize("status", [200, 400])
def test_a_key_that_was_used_gives_its_job_whatever_became_of_it(server, client, status):
    server.script = [answer(CHAT, status, x_stellwerk_job=ID)]
    handle = client.do(lambda it: it.submit("/v1/chat/completions", {}, idempotency_key="mine"))
    assert handle.id == ID
    assert server.seen[0].headers["idempotency-key"] == "mine"


def test_a_full_queue_is_said(server, make_client):
    client = make_client(retries=0)
    server.script = [refused(503, "Queue is full, please try again later", "queue_full", retry_after="30")]
    with pytest.raises(Unavailable) as caught:
        client.do(lambda it: it.submit_chat("Hi", "demo"))
    assert (caught.value.code, caught.value.retry_after) == ("queue_full", 30.0)


def test_a_job_is_waited_for_and_its_answer_read(server, client):
    server.script = [answer(job(), 202), answer(job("running")), answer(job("completed")), answer(CHAT)]
    handle = client.do(lambda it: it.submit_chat("Hi", "demo"))
    assert client.do(lambda it: handle.result(Chat)).text == "Hello"
    assert [seen.path for seen in server.seen[1:]] == [
        f"/api/requests/{ID}?wait=50.0",
        f"/api/requests/{ID}?wait=50.0",
        f"/api/requests/{ID}/result",
    ]


def test_who_watches_is_told(server, client):
    states = [
        job("queued", position=3),
        job("running", progress={"done": 1, "total": 4, "unit": "pages"}),
        job("completed"),
    ]
    server.script = [answer(state) for state in states]
    seen = []
    found = client.do(lambda it: it.jobs.wait(ID, None, seen.append))
    assert [(each.status, each.position) for each in seen] == [("queued", 3), ("running", None), ("completed", None)]
    assert seen[1].progress.total == 4
    assert found == seen[-1]
    assert {each.path for each in server.seen} == {f"/api/requests/{ID}?wait=1.0"}


def test_waiting_outlasts_a_restart(server, client):
    server.script = [None, refused(502, "Proxy says no."), answer(job("completed"))]
    assert client.do(lambda it: it.jobs.wait(ID)).status == "completed"


def test_waiting_ends_with_its_time(server, client):
    server.script = [answer(job("running"))]
    with pytest.raises(StillRunning) as caught:
        client.do(lambda it: it.jobs.wait(ID, 0))
    assert (caught.value.job.id, server.seen[0].path) == (ID, f"/api/requests/{ID}")


def test_waiting_for_nothing_ends_at_once(server, client):
    server.script = [refused(404, "There is no such job.", "job_not_found")]
    with pytest.raises(NotFound):
        client.do(lambda it: it.jobs.wait(ID))


def test_a_job_that_failed_says_why(server, client):
    error = {"code": "model_not_found", "message": "No such model."}
    server.script = [answer(job(), 202), answer(job("failed", error=error, http_status=404))]
    handle = client.do(lambda it: it.submit_chat("Hi", "demo"))
    with pytest.raises(JobFailed, match="No such model") as caught:
        client.do(lambda it: handle.result(Chat))
    assert (caught.value.status, caught.value.code, caught.value.job.status) == (404, "model_not_found", "failed")


def test_events_come_up_to_the_end(server, client):
    server.script = [
        stream(
            ("state", job("running", attempts=1)),
            ("position", {"position": 2, "estimated_start": None}),
            ("progress", {"done": 2, "total": None, "unit": "pages"}),
            ("novelty", {"a": 1}),
            ("piece", {"text": "Hel", "offset": 0, "attempt": 1}),
            ("piece", {"text": "lo", "offset": 3, "attempt": 1}),
            ("end", job("completed")),
            ("state", job("running")),
        )
    ]
    events = client.gather(lambda it: it.jobs.events(ID))
    assert [each.type for each in events] == ["state", "position", "progress", "piece", "piece", "end"]
    assert (events[1].position, events[2].progress.done, events[4].offset) == (2, 2, 3)
    assert "".join(each.text for each in events) == "Hello"
    assert events[-1].job.ended


def test_events_that_end_early_are_broken(server, client):
    server.script = [stream(("state", job("running")))]
    with pytest.raises(BrokenOff):
        client.gather(lambda it: it.jobs.events(ID))


@pytest.mark.parametrize("event", [("state", "nonsense"), ("piece", {"text": 5}), ("end", {"id": ID})])
def test_events_that_are_none_are_said_to_be(server, client, event):
    server.script = [stream(event)]
    with pytest.raises(NotUnderstood):
        client.gather(lambda it: it.jobs.events(ID))


def test_jobs_are_listed_cancelled_and_retried(server, client):
    page = {"object": "list", "data": [job("dead")], "has_more": True, "last_id": ID}
    server.script = [
        answer(page),
        answer(job("cancelled")),
        answer(job("queued")),
        answer([{"model": "m", "waiting": 2}]),
    ]
    found = client.do(lambda it: it.jobs.list(status="dead", model="a/b c", limit=1))
    assert (found.data[0].status, found.has_more, found.last_id) == ("dead", True, ID)
    assert client.do(lambda it: it.jobs.cancel(ID)).status == "cancelled"
    assert client.do(lambda it: it.jobs.retry(ID)).status == "queued"
    assert client.do(lambda it: it.jobs.queues())[0].waiting == 2
    assert [(seen.method, seen.path) for seen in server.seen] == [
        ("GET", "/api/requests?status=dead&model=a%2Fb+c&limit=1"),
        ("DELETE", f"/api/requests/{ID}"),
        ("POST", f"/api/requests/{ID}/retry"),
        ("GET", "/admin/api/queues"),
    ]


def test_a_document_is_read_as_a_job(server, client):
    pages = [{"index": 0, "markdown": "# A", "text": "A", "dimensions": {"width": 9, "height": 8, "dpi": 150}}]
    server.script = [answer(job(), 202), answer(job("completed")), answer({"pages": pages, "model": "rapidocr"})]
    seen = []
    found = client.do(
        lambda it: it.ocr(b"\x89PNG\r\n\x1a\nrest", mode="gundam", pages=[0], boxes=True, watch=seen.append)
    )
    assert (found.text, found.markdown, found.pages[0].dimensions.width, len(seen)) == ("A", "# A", 9, 1)
    assert server.seen[0].path == "/v1/ocr"
    assert server.seen[0].json == {
        "model": "rapidocr",
        "document": {"type": "image_url", "image_url": "data:image/png;base64,iVBORw0KGgpyZXN0"},
        "pages": [0],
        "mode": "gundam",
        "boxes": True,
    }


def test_a_document_may_be_an_address(server, client):
    server.script = [answer(job(), 202)]
    client.do(lambda it: it.submit_ocr("https://example.org/a.pdf", model="up/deepseek-ocr"))
    assert server.seen[0].json == {
        "model": "up/deepseek-ocr",
        "document": {"type": "document_url", "document_url": "https://example.org/a.pdf"},
    }


def test_a_reading_without_plain_text_has_its_markdown():
    assert Reading([]).text == ""
