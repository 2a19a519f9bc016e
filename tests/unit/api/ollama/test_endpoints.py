import json

import pytest

from stellwerk.core.call import Operation, Wire
from stellwerk.core.errors import BadRequest, NotFound, RateLimited, Unavailable
from stellwerk.core.principal import Priority
from stellwerk.engines.slot import SlotStatus
from tests.port_fakes import StillClock

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


async def test_who_only_loads_is_counted_and_told_what_is_left(site):
    answer = await site.ask("/api/generate", {"model": "tiny"})
    assert (site.entered, site.permit.released) == ([("alice", "tiny")], [0])
    assert answer.header("x-ratelimit-remaining-requests") == "9"
    site.engines.trouble = Unavailable("No room.")
    assert (await site.ask("/api/generate", {"model": "tiny"})).status == 503
    assert site.permit.released == [0, 0]


async def test_who_is_over_a_limit_loads_nothing(site):
    site.full = RateLimited("Too many requests.", retry_after=7)
    answer = await site.ask("/api/chat", {"model": "tiny", "messages": []})
    assert (answer.status, answer.header("retry-after"), site.engines.done) == (429, "7", [])


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
    seconds = more.get("keep_alive")
    wanted = [] if seconds == 0 else [("load", "tiny", 160.0)]
    assert site.engines.done == 2 * [*wanted, ("keep", "tiny", seconds)]


async def test_an_ollama_loads_its_models_itself(site):
    await site.ask("/api/generate", {"model": "qwen3", "keep_alive": "5m"})
    (call,) = site.calls
    assert (call.model, call.wire) == ("qwen3:latest", Wire.OLLAMA_GENERATE)
    assert set(call.fields) == {"model", "keep_alive", "stream", "truncate"}
    assert site.engines.done == []


async def test_a_vendors_model_needs_no_loading(site):
    assert (await site.ask("/api/chat", {"model": "house/up"})).json["done_reason"] == "load"
    assert (site.calls, site.engines.done) == ([], [])


async def test_who_may_not_use_a_model_does_not_load_it(site):
    await site.ask("/api/generate", {"model": "tiny"}, key=b"bob")
    await site.ask("/api/generate", {"model": "tiny", "keep_alive": 0}, key=b"bob")
    assert site.engines.done == []


async def test_a_model_that_cannot_be_loaded_says_why(site):
    site.engines.trouble = Unavailable("Not enough memory.", code="memory_short")
    exchange = await site.ask("/api/generate", {"model": "tiny"})
    assert (exchange.status, exchange.json) == (503, {"error": "Not enough memory."})


async def test_an_answered_model_stays_for_as_long_as_was_asked(site):
    for model, keep_alive in (("tiny", "1h30m"), ("house/up", 60), ("tiny", None), ("fast", 0)):
        await site.ask("/api/chat", {"model": model, "messages": HI, "keep_alive": keep_alive})
    await site.ask("/api/embed", {"model": "tiny", "input": "x", "keep_alive": -1})
    assert site.engines.done == [("keep", "tiny", 5400.0), ("keep", "tiny", 0.0), ("keep", "tiny", -1.0)]


async def test_a_time_that_is_none_is_refused_before_anything_happens(site):
    for body in ({"messages": HI}, {}):
        exchange = await site.ask("/api/chat", {"model": "tiny", "keep_alive": "soon", **body})
        assert (exchange.status, exchange.json["error"]) == (400, 'time: invalid duration "soon"')
    assert (site.calls, site.engines.done) == ([], [])


async def test_what_was_pulled_is_called_by_the_name_it_was_pulled_by(site):
    site.source.ids["hf.co/u/tiny-GGUF:Q4_0"] = ["gone", "tiny"]
    await site.ask("/api/chat", {"model": "hf.co/u/tiny-GGUF:Q4_0", "messages": HI})
    assert site.calls[0].model == "tiny"


async def test_loaded_models_are_listed_the_longest_lived_first(site):
    now = StillClock().now()
    times = {"tiny": now + 5, "house/up": None, "house/e": now + 9, "ollama/gemma3:4b": now}
    site.engines.slots = [
        SlotStatus(port=1, state="ready", model=model, expires_at=expires) for model, expires in times.items()
    ]
    site.engines.slots += [SlotStatus(port=2, state="empty"), SlotStatus(port=3, state="loading", model="tiny")]
    names = [row["name"] for row in (await site.ask("/api/ps")).json["models"]]
    assert names == ["house/up", "house/e", "tiny"]


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


async def test_a_context_is_the_length_of_the_model_that_is_asked(site):
    await site.ask("/api/chat", {"model": "tiny", "messages": HI, "options": {"repeat_last_n": -1}})
    assert bytes(site.replies[-1].fields(Wire.OPENAI_CHAT)["repeat_last_n"]) == b"2048"


async def test_lists_hold_what_the_caller_may_see(site):
    site.engines.slots = [SlotStatus(port=1, state="ready", model="tiny")]
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
        ("POST", "/api/push", "push"),
        ("POST", "/api/create", "create"),
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


async def test_a_call_has_the_priority_and_the_session_of_its_headers(site):
    chat = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}
    await site.ask("/api/chat", chat, x_stellwerk_priority="low", x_session_id="s")
    await site.ask("/api/chat", chat)
    assert [(call.priority, call.session) for call in site.calls] == [(Priority.LOW, "s"), (Priority.NORMAL, None)]
    assert all(call.place is not None for call in site.calls)
    assert (await site.ask("/api/chat", chat, x_stellwerk_priority="urgent")).status == 400
