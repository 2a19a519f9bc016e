import json

import pytest

from stellwerk.core.call import Operation, Wire
from stellwerk.core.errors import BadRequest, NotFound

HI = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    ("path", "body", "operation", "wire", "stream"),
    [
        ("/api/chat", {"messages": HI}, Operation.CHAT, Wire.OLLAMA_CHAT, True),
        ("/api/chat", {"messages": HI, "stream": False}, Operation.CHAT, Wire.OLLAMA_CHAT, False),
        ("/api/generate", {"prompt": "Hi"}, Operation.CHAT, Wire.OLLAMA_GENERATE, True),
        ("/api/embed", {"input": ["Hi"]}, Operation.EMBEDDING, Wire.OLLAMA_EMBED, False),
        ("/api/embeddings", {"prompt": "Hi"}, Operation.EMBEDDING, Wire.OLLAMA_EMBED, False),
    ],
)
async def test_a_request_becomes_a_call(site, path, body, operation, wire, stream):
    await site.ask(path, {"model": "house/up", **body})
    (call,) = site.calls
    assert (call.operation, call.wire, call.model, call.stream) == (operation, wire, "house/up", stream)
    assert (call.id, call.received, call.deadline) == ("trace-1", 100.0, 160.0)
    assert site.replies[0].fields(wire) is call.fields


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("tiny", "tiny"),
        ("tiny:latest", "tiny"),
        ("house/up:latest", "house/up"),
        ("qwen3", "qwen3:latest"),
        ("qwen3:latest", "qwen3:latest"),
        ("ollama/qwen3", "ollama/qwen3:latest"),
        ("gemma3:4b", "gemma3:4b"),
        ("fast:latest", "fast"),
        ("house/unlisted", "house/unlisted"),
        ("nobody", "nobody"),
    ],
)
async def test_no_tag_and_latest_mean_the_same(site, asked, found):
    await site.ask("/api/chat", {"model": asked, "messages": HI})
    assert site.calls[0].model == found


async def test_an_unknown_model_is_not_found_in_ollamas_words(site):
    async def refuse(call, reply):
        raise NotFound("The model does not exist.", code="model_not_found", param="model")

    site.answering = refuse
    exchange = await site.ask("/api/chat", {"model": "nobody:7b", "messages": HI})
    assert (exchange.status, exchange.json) == (404, {"error": "model 'nobody:7b' not found"})
    assert exchange.header("x-request-id") == "trace-1"


async def test_other_errors_keep_their_words(site):
    async def refuse(call, reply):
        raise BadRequest("No.", param="model")

    site.answering = refuse
    exchange = await site.ask("/api/generate", {"model": "tiny", "prompt": "x"})
    assert (exchange.status, exchange.json) == (400, {"error": "No."})


@pytest.mark.parametrize(
    ("more", "reason"), [({}, "load"), ({"keep_alive": 0}, "unload"), ({"keep_alive": -1}, "load")]
)
async def test_who_asks_nothing_only_loads(site, more, reason):
    chat = await site.ask("/api/chat", {"model": "tiny:latest", "messages": [], "stream": False, **more})
    assert chat.json == {
        "model": "tiny:latest",
        "created_at": "2023-11-14T22:13:20.000000000Z",
        "message": {"role": "assistant", "content": ""},
        "done": True,
        "done_reason": reason,
    }
    generate = await site.ask("/api/generate", {"model": "tiny", **more})
    assert generate.written.endswith(b"\n")
    assert generate.header("content-type") == "application/x-ndjson"
    assert (generate.json["response"], generate.json["done_reason"]) == ("", reason)
    assert site.calls == []


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/api/embed", "/api/embeddings", "/api/show"])
async def test_nothing_is_said_of_a_model_that_is_not_there_or_not_allowed(site, path):
    for name, key in (("nobody", b"alice"), ("tiny", b"bob"), ("house/unlisted", b"bob")):
        exchange = await site.ask(path, {"model": name}, key=key)
        assert (exchange.status, exchange.json) == (404, {"error": f"model '{name}' not found"})
    assert site.calls == []


async def test_an_unlisted_name_of_an_open_provider_can_be_loaded(site):
    assert (await site.ask("/api/chat", {"model": "house/unlisted"})).json["done_reason"] == "load"


async def test_no_input_has_no_vectors(site):
    for given in ("", [], None):
        assert (await site.ask("/api/embed", {"model": "house/e", "input": given})).json["embeddings"] == []
    assert (await site.ask("/api/embeddings", {"model": "house/e", "prompt": ""})).json == {"embedding": []}
    assert site.calls == []


async def test_only_a_single_model_is_asked_for_what_it_alone_knows(site):
    for name, expected in (
        ("tiny", {"chat_template_kwargs": {"enable_thinking": True}}),
        ("house/up", {"reasoning_effort": "medium"}),
        ("fast", {}),
        ("house/unlisted", {}),
    ):
        await site.ask("/api/chat", {"model": name, "messages": HI, "think": True})
        fields = site.replies[-1].fields(Wire.OPENAI_CHAT)
        sent = {key: json.loads(bytes(value)) for key, value in fields.items()}
        assert {key: sent[key] for key in sent.keys() - {"model", "messages", "stream"}} == expected


async def test_lists_hold_what_the_caller_may_see(site):
    site.loaded = ["tiny"]
    everything = await site.ask("/api/tags", key=b"viewer")
    assert [row["name"] for row in everything.json["models"]] == [
        "tiny",
        "house/up",
        "house/e",
        "ollama/qwen3:latest",
        "ollama/gemma3:4b",
        "fast",
    ]
    assert [row["name"] for row in (await site.ask("/api/tags", key=b"bob")).json["models"]] == ["house/up"]
    assert [row["name"] for row in (await site.ask("/api/ps")).json["models"]] == ["tiny"]
    assert (await site.ask("/api/ps", key=b"bob")).json == {"models": []}


@pytest.mark.parametrize("field", ["model", "name"])
async def test_a_model_is_shown_under_either_name_of_the_field(site, field):
    shown = (await site.ask("/api/show", {field: "tiny:latest", "verbose": True})).json
    assert shown["capabilities"] == ["completion"]
    assert (await site.ask("/api/show", {"x": 1})).json == {"error": "model is required"}


async def test_the_server_says_that_it_runs(site):
    for method in ("GET", "HEAD"):
        exchange = await site.ask("/", method=method, key=None)
        assert (exchange.status, exchange.written) == (200, b"Ollama is running")
        assert (await site.ask("/api/version", method=method)).json == {"version": "0.33.0"}


@pytest.mark.parametrize("path", ["/api/chat", "/api/tags", "/api/version", "/api/pull"])
async def test_a_key_is_needed(site, path):
    method = "POST" if path in ("/api/chat", "/api/pull") else "GET"
    exchange = await site.ask(path, method=method, key=None)
    assert exchange.status == 401
    assert list(exchange.json) == ["error"]


async def test_who_only_reads_may_not_ask(site):
    assert (await site.ask("/api/chat", {"model": "tiny", "messages": HI}, key=b"viewer")).status == 403


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("POST", "/api/pull", "pull"),
        ("POST", "/api/push", "push"),
        ("POST", "/api/create", "create"),
        ("POST", "/api/copy", "copy"),
        ("DELETE", "/api/delete", "delete"),
        ("POST", "/api/blobs/sha256:00", "blobs"),
    ],
)
async def test_what_is_not_offered_says_so(site, method, path, words):
    exchange = await site.ask(path, {"model": "tiny"}, method=method)
    assert exchange.status == 400
    assert exchange.json["error"].startswith(words)


async def test_no_blob_is_known(site):
    assert (await site.ask("/api/blobs/sha256:00", method="HEAD")).status == 404


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model":"tiny","messages":"x"}', b'{"model":"tiny","stream":1}'])
async def test_a_body_that_cannot_be_read_is_refused(site, body):
    exchange = await site.ask("/api/chat", body, method="POST")
    assert exchange.status == 400
    assert isinstance(exchange.json["error"], str)
    assert site.calls == []
