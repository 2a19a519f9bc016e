import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.webhooks.payloads import MOST_BYTES, TooLong, make_body, mask_key

AT = 1_708_423_200.5
KEY = "sk-sw-abcdefghij-" + "S" * 43
ASKED = {
    "apikey": KEY,
    "prompt": "Why is the sky blue?",
    "model": "llama3",
    "stream": False,
    "images": ["aW1hZ2U="],
    "raw": False,
}


def generate(data=ASKED, **more):
    return json.loads(make_body("generate.requested", data, AT, **more))


def test_an_event_comes_in_the_envelope_of_standard_webhooks():
    body = json.loads(make_body("key.parked", {"provider": "groq", "key_index": 1}, AT))
    assert body == {
        "type": "key.parked",
        "timestamp": "2024-02-20T10:00:00.500Z",
        "data": {"provider": "groq", "key_index": 1},
    }


def test_a_generate_request_is_told_as_documented_and_nothing_else():
    body = make_body("generate.requested", {**ASKED, "user": "anna"}, AT).decode()
    assert body == (
        '{"apikey":"sk-sw-abcdefghij-…","prompt":"Why is the sky blue?","model":"llama3","stream":false,'
        '"images":[],"raw":false,"timestamp":"2024-02-20T10:00:00Z"}'
    )


def test_what_a_request_left_out_has_its_documented_default():
    assert generate({"model": "m", "images": None}) == {
        "apikey": "…",
        "prompt": "",
        "model": "m",
        "stream": False,
        "images": [],
        "raw": False,
        "timestamp": "2024-02-20T10:00:00Z",
    }


def test_key_and_images_come_only_when_switched_on():
    assert generate(with_key=True)["apikey"] == KEY
    assert generate(with_key=True)["images"] == []
    assert generate(with_images=True)["images"] == ["aW1hZ2U="]
    assert generate(with_images=True)["apikey"] == "sk-sw-abcdefghij-…"


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        (KEY, "sk-sw-abcdefghij-…"),
        ("0123456789abcdef", "0123…"),
        ("12345678", "1234…"),
        ("1234567", "…"),
        ("", "…"),
        ("sk-sw-ABC", "sk-s…"),
    ],
)
def test_a_key_can_be_recognised_and_not_guessed(key, shown):
    assert mask_key(key) == shown


@given(st.text(min_size=8, max_size=80))
def test_of_a_key_of_somebody_else_at_most_four_characters_are_shown(key):
    assert mask_key(key) == key[:4] + "…"


def test_a_long_prompt_is_shortened_and_says_so():
    body = generate({**ASKED, "prompt": "ä" * 1_000_000})
    assert body["truncated"] is True
    assert body["prompt"] == "ä" * 32_768
    assert body["model"] == "llama3"


def test_an_image_is_never_sent_in_part():
    body = generate({**ASKED, "images": ["A" * MOST_BYTES]}, with_images=True)
    assert body["images"] == []
    assert body["truncated"] is True


@pytest.mark.parametrize("text", ["\x00" * 300_000, "𝄞" * 300_000, '"' * 300_000])
def test_a_shortened_body_is_never_too_long(text):
    body = make_body("engine.crashed", {"lines": text, "model": "m"}, AT)
    assert len(body) <= MOST_BYTES
    assert json.loads(body)["data"]["truncated"] is True


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=10), json_values, max_size=10))
def test_what_fits_arrives_as_it_is(data):
    assert json.loads(make_body("job.finished", data, AT))["data"] == data


def test_data_that_cannot_be_shortened_enough_is_refused():
    with pytest.raises(TooLong):
        make_body("job.finished", {str(n): "x" * 40_000 for n in range(20)}, AT)


@pytest.mark.parametrize("value", [object(), "\ud800"])
def test_what_is_no_json_is_refused(value):
    with pytest.raises((TypeError, ValueError)):
        make_body("job.finished", {"value": value}, AT)
