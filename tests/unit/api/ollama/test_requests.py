import json

import msgspec
import pytest

from stellwerk.api.ollama.requests import (
    ChatBody,
    EmbedBody,
    GenerateBody,
    OldEmbedBody,
    as_embed_fields,
    read_call,
)
from stellwerk.core.errors import BadRequest

CHAT = msgspec.json.Decoder(ChatBody)
GENERATE = msgspec.json.Decoder(GenerateBody)


def read(body, decoder=CHAT):
    return read_call(json.dumps(body).encode(), None, decoder)


def fields_of(body, decoder=CHAT):
    return json.loads(msgspec.json.encode(read(body, decoder)[1]))


def test_who_says_nothing_gets_a_stream():
    assert read({"model": "m"})[0].streams
    assert read({"model": "m", "stream": None})[0].streams
    assert not read({"model": "m", "stream": False})[0].streams


def test_fields_that_we_never_heard_of_reach_an_ollama():
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi", "x": 1}],
        "shift": False,
        "options": {"mirostat": 1},
    }
    assert fields_of(body) == {**body, "truncate": False, "stream": True}


def test_fields_of_ours_do_not():
    sent = fields_of({"model": "m", "session_id": "s", "timeout": 3, "retries": 1})
    assert sent == {"model": "m", "truncate": False, "stream": True}


def test_nothing_is_dropped_in_silence_unless_the_client_wants_it():
    assert fields_of({"model": "m", "truncate": None})["truncate"] is False
    assert fields_of({"model": "m", "truncate": True})["truncate"] is True


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({}, "model", "model is required"),
        ({"model": ""}, "model", "model is required"),
        ({"model": 3}, "model", "model"),
        ({"model": "m", "think": "deeply"}, "think", "invalid think value"),
        ({"model": "m", "format": "xml"}, "format", "invalid format"),
        ({"model": "m", "top_logprobs": 21}, "top_logprobs", "between 0 and 20"),
        ({"model": "m", "messages": [{"content": "Hi"}]}, "messages[0].role", "role"),
        ({"model": "m", "options": {"temperature": "hot"}}, "options.temperature", "temperature"),
        ({"model": "m", "options": [1]}, "options", "options"),
    ],
)
def test_what_is_wrong_is_named(body, param, words):
    with pytest.raises(BadRequest, match=words) as caught:
        read(body)
    assert caught.value.param == param


def test_no_body_is_said_in_ollamas_words():
    with pytest.raises(BadRequest, match="missing request body"):
        read_call(b" ", None, CHAT)


def test_only_what_asks_nothing_loads():
    message = {"role": "user", "content": ""}
    assert read({"model": "m", "messages": []})[0].only_loads
    assert not read({"model": "m", "messages": [message]})[0].only_loads
    assert read({"model": "m", "prompt": "", "system": "x"}, GENERATE)[0].only_loads
    assert not read({"model": "m", "prompt": "x"}, GENERATE)[0].only_loads


def test_the_old_embeddings_have_another_name_for_their_input():
    _, fields = read_call(b'{"model":"m","prompt":"Hi","options":{}}', None, msgspec.json.Decoder(OldEmbedBody))
    sent = json.loads(msgspec.json.encode(as_embed_fields(fields)))
    assert sent == {"model": "m", "input": "Hi", "options": {}, "truncate": False}


@pytest.mark.parametrize("given", [3, {"x": 1}, [1], [["a"]]])
def test_only_texts_are_embedded(given):
    with pytest.raises(BadRequest):
        read_call(json.dumps({"model": "m", "input": given}).encode(), None, msgspec.json.Decoder(EmbedBody))
