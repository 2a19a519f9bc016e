import json
import subprocess
import sys
import threading

import msgspec
import pytest

from stellwerk.client import (
    AsyncClient,
    BadAddress,
    BadRequest,
    BrokenOff,
    Chat,
    Client,
    Conflict,
    Forbidden,
    NotFound,
    NotUnderstood,
    RateLimited,
    Refused,
    Retries,
    StellwerkError,
    Unauthenticated,
    Unavailable,
    Unreachable,
)
from stellwerk.core.secrets import Secret
from tests.scripted_answers import answer, delta, refused, stream

CHAT = {
    "id": "c1",
    "model": "demo",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    "novelty": True,
}


def test_a_chat_is_answered_with_types(server, client):
    server.script = [answer(CHAT)]
    found = client.do(lambda it: it.chat("Hi", "demo", max_tokens=5, temperature=None))
    assert (found.text, found.model, found.choices[0].finish_reason, found.usage.total_tokens) == (
        "Hello",
        "demo",
        "stop",
        4,
    )
    seen = server.seen[0]
    assert (seen.method, seen.path, seen.headers["authorization"]) == ("POST", "/v1/chat/completions", "Bearer sk-test")
    assert seen.json == {"model": "demo", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}


def test_a_stream_gives_the_pieces(server, client):
    server.script = [stream(delta("Hel"), delta("lo ü"), {"choices": [], "usage": {"total_tokens": 9}}, "[DONE]")]
    pieces = client.gather(lambda it: it.chat([{"role": "user", "content": "Hi"}], "demo", stream=True))
    assert "".join(piece.text for piece in pieces) == "Hello ü"
    assert pieces[-1].usage.total_tokens == 9
    assert server.seen[0].json["stream"] is True


def test_a_stream_that_ends_early_is_broken(server, client):
    server.script = [stream(delta("Hel"))]
    with pytest.raises(BrokenOff):
        client.gather(lambda it: it.chat("Hi", "demo", stream=True))


def test_a_connection_that_ends_in_a_stream_is_broken(server, client):
    server.script = [stream(delta("Hel"), end=False)]
    with pytest.raises(BrokenOff):
        client.gather(lambda it: it.chat("Hi", "demo", stream=True))


def test_an_error_in_a_stream_is_raised(server, client):
    server.script = [stream(delta("Hel"), {"error": {"message": "The model died.", "code": "upstream_broken"}})]
    with pytest.raises(Refused, match=r"The model died\.") as caught:
        client.gather(lambda it: it.chat("Hi", "demo", stream=True))
    assert caught.value.code == "upstream_broken"


def test_a_stream_that_is_refused_says_why(server, client):
    server.script = [refused(404, "No such model.", "model_not_found")]
    with pytest.raises(NotFound, match="No such model"):
        client.gather(lambda it: it.chat("Hi", "demo", stream=True))


def test_leaving_a_stream_closes_the_connection(server):
    server.script = [stream(delta("a"), delta("b"), "[DONE]"), answer(CHAT)]
    client = Client(server.url, "sk-test")
    pieces = client.chat("Hi", "demo", stream=True)
    assert next(pieces).text == "a"
    pieces.close()
    # The server answers one after the other: it has got rid of the first.
    assert client.chat("Hi", "demo").text == "Hello"


async def test_leaving_a_stream_closes_the_connection_on_the_loop(server):
    server.script = [stream(delta("a"), delta("b"), "[DONE]"), answer(CHAT)]
    client = AsyncClient(server.url, "sk-test")
    pieces = client.chat("Hi", "demo", stream=True)
    assert (await anext(pieces)).text == "a"
    await pieces.aclose()
    assert (await client.chat("Hi", "demo")).text == "Hello"


def test_texts_become_vectors_in_their_order(server, client):
    server.script = [answer({"data": [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1, 0.5]}]})]
    found = client.do(lambda it: it.embed(["a", "b"], "e", dimensions=2))
    assert found.vectors == [[1.0, 0.5], [2.0]]
    assert server.seen[0].json == {"model": "e", "input": ["a", "b"], "encoding_format": "float", "dimensions": 2}


def test_documents_are_ranked(server, client):
    server.script = [answer({"results": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]})]
    found = client.do(lambda it: it.rerank("q", ["a", "b"], "r"))
    assert [(each.index, each.relevance_score) for each in found.results] == [(1, 0.9), (0, 0.1)]


def test_models_are_listed_with_what_is_known(server, client):
    row = {
        "id": "demo",
        "owned_by": "local",
        "x_stellwerk": {"provider": "local", "local": True, "operations": ["chat"]},
    }
    server.script = [answer({"object": "list", "data": [row, {"id": "bare"}]})]
    found = client.do(lambda it: it.models())
    assert [(model.id, model.facts.local) for model in found] == [("demo", True), ("bare", False)]


def test_anything_else_can_be_asked(server, client):
    server.script = [answer([1, 2]), answer(raw=b"", status=204)]
    assert client.do(lambda it: it.request("POST", "/admin/api/keys?x=1", {"name": "a"})) == [1, 2]
    assert client.do(lambda it: it.request("DELETE", "/admin/api/keys/1")) is None
    assert [(each.method, each.path) for each in server.seen] == [
        ("POST", "/admin/api/keys?x=1"),
        ("DELETE", "/admin/api/keys/1"),
    ]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequest),
        (401, Unauthenticated),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (422, BadRequest),
        (500, Unavailable),
        (502, Unavailable),
    ],
)
def test_a_refusal_has_its_kind_and_its_facts(server, client, status, kind):
    server.script = [refused(status, "No.", "why", x_request_id="req_1", retry_after="7")]
    with pytest.raises(kind) as caught:
        client.do(lambda it: it.models())
    error = caught.value
    assert isinstance(error, StellwerkError)
    assert (error.status, error.code, error.message, error.retry_after, error.request_id) == (
        status,
        "why",
        "No.",
        7.0,
        "req_1",
    )
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"detail": "Queue is full"}', "Queue is full"),
        (b'{"error": "plain"}', "plain"),
        (b"<html>", "The gateway answered with status 404."),
        (b"[1]", "The gateway answered with status 404."),
        (b'{"error": {"message": 5}}', "The gateway answered with status 404."),
    ],
)
def test_every_way_of_saying_no_is_read(server, client, body, message):
    server.script = [answer(raw=body, status=404)]
    with pytest.raises(NotFound) as caught:
        client.do(lambda it: it.models())
    assert caught.value.message == message


def test_a_busy_gateway_is_asked_again_when_it_says(server, client):
    busy = refused(429, "Slow down.", "rate_limit_exceeded", retry_after_ms="1")
    server.script = [busy, refused(503, "Full.", "queue_full", retry_after="0"), answer(CHAT)]
    assert client.do(lambda it: it.chat("Hi", "demo")).text == "Hello"
    assert len({(each.method, each.path, each.body) for each in server.seen}) == 1
    assert len(server.seen) == 3


def test_a_stream_is_asked_for_again_too(server, client):
    server.script = [refused(429, "Slow down.", retry_after_ms="1"), stream(delta("a"), "[DONE]")]
    assert len(client.gather(lambda it: it.chat("Hi", "demo", stream=True))) == 1


def test_the_attempts_have_an_end(server, make_client):
    client = make_client(retries=1)
    server.script = [refused(429, "Slow down.", retry_after="0")] * 3
    with pytest.raises(RateLimited) as caught:
        client.do(lambda it: it.models())
    assert caught.value.retry_after == 0.0
    assert len(server.seen) == 2


def test_nobody_waits_longer_than_he_wants(server, make_client):
    client = make_client(retries=Retries(longest_seconds=10))
    server.script = [refused(429, "Tomorrow.", retry_after="86400")]
    with pytest.raises(RateLimited) as caught:
        client.do(lambda it: it.models())
    assert caught.value.retry_after == 86400.0
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (None, BrokenOff),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{", BrokenOff),
        (b"SSH-2.0-OpenSSH\r\n", NotUnderstood),
        (answer(raw=b"<html>"), NotUnderstood),
        (answer({"data": "no list"}), NotUnderstood),
        (answer(raw=b"\xff\xfe"), NotUnderstood),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000, NotUnderstood),
    ],
)
def test_what_is_no_answer_is_said_to_be_none(server, client, said, error):
    server.script = [said]
    with pytest.raises(error):
        client.do(lambda it: it.models())


def test_an_answer_without_end_is_refused(server, make_client):
    client = make_client(most_bytes=1000)
    server.script = [answer(raw=b"[" + b" " * 2000)]
    with pytest.raises(NotUnderstood, match="1000 bytes"):
        client.do(lambda it: it.models())


def test_an_answer_may_end_with_its_connection(server, client):
    server.script = [b'HTTP/1.1 200 OK\r\n\r\n{"data": []}']
    assert client.do(lambda it: it.models()) == []


def test_an_early_hint_is_not_the_answer(server, client):
    server.script = [b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + answer({"data": []})]
    assert client.do(lambda it: it.models()) == []


def test_silence_has_an_end(server, make_client):
    done = threading.Event()
    server.script = [lambda seen: done.wait(30) and b""]
    client = make_client(timeout=0.5)
    try:
        with pytest.raises(StellwerkError, match=r"Nothing came for 0\.5 s"):
            client.do(lambda it: it.models())
    finally:
        done.set()


def test_nobody_at_home_is_unreachable():
    with pytest.raises(Unreachable, match="127"):
        Client("http://127.0.0.1:1", "sk-test").models()


async def test_nobody_at_home_is_unreachable_from_the_loop():
    with pytest.raises(Unreachable, match="127"):
        await AsyncClient("http://127.0.0.1:1", "sk-test").models()


@pytest.mark.parametrize("key", ["sk-a\r\nx-evil: 1", "sk-ü", "sk a\x00"])
def test_a_key_cannot_become_another_header(server, key):
    with pytest.raises(BadAddress):
        Client(server.url, key).models()
    assert server.seen == []


@pytest.mark.parametrize("name", ["", "..", "."])
def test_an_id_cannot_lead_elsewhere(server, client, name):
    with pytest.raises(BadAddress):
        client.do(lambda it: it.jobs.get(name))
    assert server.seen == []


def test_an_id_stays_one_part_of_the_path(server, client):
    server.script = [refused(404, "No.")]
    with pytest.raises(NotFound):
        client.do(lambda it: it.jobs.get("../../admin?x=1"))
    assert server.seen[0].path == "/api/requests/..%2F..%2Fadmin%3Fx%3D1"


@pytest.mark.parametrize("body", [object(), {"a": float("nan"), "b": object()}])
def test_what_is_no_json_is_not_sent(server, client, body):
    with pytest.raises(BadAddress):
        client.do(lambda it: it.request("POST", "/v1/chat/completions", body))


def test_the_key_is_asked_for_before_each_request(server):
    keys = iter(["one", "two"])
    client = Client(server.url, lambda: Secret(next(keys)))
    server.script = [answer({"data": []}), answer({"data": []})]
    client.models()
    client.models()
    assert [each.headers["authorization"] for each in server.seen] == ["Bearer one", "Bearer two"]


def test_the_key_may_come_from_the_environment(server, monkeypatch):
    monkeypatch.setenv("STELLWERK_API_KEY", "sk-env")
    server.script = [answer({"data": []})]
    Client(server.url).models()
    assert server.seen[0].headers["authorization"] == "Bearer sk-env"


def test_without_a_key_none_is_sent(server, monkeypatch):
    monkeypatch.delenv("STELLWERK_API_KEY", raising=False)
    server.script = [answer({"data": []})]
    Client(server.url).models()
    assert "authorization" not in server.seen[0].headers


def test_a_file_is_uploaded_with_its_purpose(server, client, tmp_path):
    file = tmp_path / 'ba"tch.jsonl'
    file.write_bytes(b'{"a": 1}\n')
    server.script = [answer({"id": "file-1", "filename": "batch.jsonl", "bytes": 9, "purpose": "batch"})]
    found = client.do(lambda it: it.files.upload(file))
    assert (found.id, found.bytes) == ("file-1", 9)
    seen = server.seen[0]
    boundary = seen.headers["content-type"].removeprefix("multipart/form-data; boundary=")
    parts = seen.body.split(b"--" + boundary.encode())
    assert (len(parts), parts[0], parts[-1]) == (4, b"", b"--\r\n")
    assert b'name="purpose"\r\n\r\nbatch\r\n' in parts[1]
    assert b'filename="ba%22tch.jsonl"' in parts[2]
    assert parts[2].endswith(b'\r\n\r\n{"a": 1}\n\r\n')


def test_files_and_batches_are_managed(server, client):
    batch = {"id": "b1", "status": "in_progress", "request_counts": {"total": 2, "completed": 1, "failed": 0}}
    server.script = [
        answer({"data": [{"id": "f1"}]}),
        answer({"id": "f1"}),
        answer(raw=b"line\n", kind="application/octet-stream"),
        answer({"deleted": True}),
        answer(batch),
        answer(batch),
        answer({"data": [batch]}),
        answer({**batch, "status": "cancelling"}),
    ]
    assert client.do(lambda it: it.files.list())[0].id == "f1"
    assert client.do(lambda it: it.files.get("f1")).id == "f1"
    assert client.do(lambda it: it.files.content("f1")) == b"line\n"
    assert client.do(lambda it: it.files.delete("f1")) is None
    assert client.do(lambda it: it.batches.create("f1", metadata={"a": "b"})).request_counts.total == 2
    assert client.do(lambda it: it.batches.get("b1")).status == "in_progress"
    assert [each.id for each in client.do(lambda it: it.batches.list())] == ["b1"]
    assert client.do(lambda it: it.batches.cancel("b1")).status == "cancelling"
    assert server.seen[4].json == {
        "input_file_id": "f1",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": {"a": "b"},
    }


def test_both_clients_can_do_the_same():
    def verbs(kind):
        return {name for name in dir(kind) if not name.startswith("_")}

    assert verbs(Client) == verbs(AsyncClient)
    one, other = Client("localhost", "k"), AsyncClient("localhost", "k")
    for part in ("jobs", "files", "batches"):
        assert verbs(getattr(one, part)) == verbs(getattr(other, part))


def test_the_client_needs_nothing_of_the_server():
    program = (
        "import sys, stellwerk.client;"
        "print([name for name in sys.modules if name.startswith('stellwerk.')"
        " and name.split('.')[1] not in ('client', 'core')], 'sqlalchemy' in sys.modules, 'uvicorn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[] False False\n"


def test_a_chat_can_be_written_as_json_again():
    assert json.loads(msgspec.json.encode(msgspec.convert(CHAT, Chat)))["choices"][0]["message"]["content"] == "Hello"
