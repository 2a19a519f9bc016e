import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.core.errors import GatewayError
from stellwerk.providers._refusals import clean_message, parse_retry_after, read_refusal

KEYS = {
    "openai": "sk-proj-Zx81abcdEFGH_-23",
    "anthropic": "sk-ant-api03-abcdef",
    "groq": "gsk_abcdef123456",
    "xai": "xai-abcdef123456",
    "google": "AIzaSyD4abcdefghijklmnopqrstuvwxyz01234",
    "hugging face": "hf_abcdefghijkl",
    "nvidia": "nvapi-abcdefghijkl",
    "perplexity": "pk-abcdef123456",
    "mistral": "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6",
    "together": "0123456789abcdef" * 4,
    "a bearer": "Bearer abc.def-ghi",
    "masked by the vendor": "sk-proj-****wxyz",
}
WORDS = st.text(st.characters(codec="utf-8"), max_size=40)


@given(WORDS, st.sampled_from(sorted(KEYS.values())), WORDS)
def test_no_key_survives(before, key, after):
    cleaned = clean_message(f"{before} {key} {after}")
    assert key not in cleaned
    assert key.removeprefix("Bearer ") not in cleaned


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("frame", ["key {}.", "({})", '"{}"', "key={},", "[{}]", "'{}'"])
def test_no_key_survives_next_to_punctuation(key, frame):
    assert key.removeprefix("Bearer ") not in clean_message("Incorrect API " + frame.format(key))


@given(WORDS, st.from_regex(r"https?://[a-z0-9.:\[\]-]{1,20}/[!-~]{0,20}", fullmatch=True), WORDS)
def test_no_address_survives(before, url, after):
    cleaned = clean_message(f"{before} {url} {after}")
    assert not re.search(r"https?://\S", cleaned)


@given(st.text() | st.none() | st.integers() | st.lists(st.text()))
def test_a_clean_message_is_short_printable_and_not_blank_or_none(text):
    cleaned = clean_message(text)
    if cleaned is not None:
        assert 0 < len(cleaned) <= 2000
        assert cleaned.strip() == cleaned
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", cleaned)


@given(st.text())
def test_cleaning_twice_changes_nothing_more(text):
    cleaned = clean_message(text)
    if cleaned is not None:
        assert clean_message(cleaned) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens.",
        "Unknown parameter: 'tools[0].function.strict'.",
        "The model `meta-llama/Llama-3.3-70B-Instruct-Turbo` does not exist.",
        "Wähle ein anderes Modell — risk-free, a task_list, monkey-patching.",
        "Rate limit reached for requests. Limit: 3 / min. Try again in 20s.",
    ],
)
def test_helpful_words_stay(text):
    assert clean_message(text) == text


def test_a_huge_message_is_cut():
    assert len(clean_message("x, " * 10_000_000)) <= 2000


@given(st.binary(max_size=40) | st.none(), st.floats(0, 2e9))
def test_every_retry_after_is_a_wait_within_bounds_or_none(value, now):
    wait = parse_retry_after(value, now)
    assert wait is None or 1.0 <= wait <= 600.0


@given(st.integers(300, 599), st.binary(max_size=60), st.binary(max_size=12) | st.none())
def test_every_refusal_has_one_meaning(status, body, retry_after):
    error = read_refusal(status, body, retry_after, 1_700_000_000.0)
    assert isinstance(error, GatewayError)
    assert error.status in {400, 404, 409, 413, 422, 429, 502, 503, 504}
    assert (error.retry_after is not None) == (error.status in (429, 503))


@pytest.mark.parametrize("code", ["x" * 65, "two words", "a\nb", "", "sk-proj-abcdef123456", 5, None, ["a"], "ünïcode"])
def test_a_code_that_is_no_word_is_not_passed_on(code):
    error = read_refusal(400, _body(code), None, 0.0)
    assert (error.code, error.param) == ("invalid_value", None)


def test_codes_and_fields_that_are_words_are_passed_on():
    error = read_refusal(400, b'{"error":{"code":"string_above_max_length","param":"input[3].text"}}', None, 0.0)
    assert (error.code, error.param) == ("string_above_max_length", "input[3].text")


def _body(code) -> bytes:
    return json.dumps({"error": {"message": "No.", "code": code, "param": {"a": 1}}}).encode()


OWN_KEY = "house-key without-a-mark"


@given(WORDS, WORDS)
def test_what_the_upstream_was_shown_does_not_survive_however_it_looks(before, after):
    assert OWN_KEY not in (clean_message(f"{before}{OWN_KEY}{after}", [OWN_KEY]) or "")
    assert clean_message(f"{'a' * 3990}{OWN_KEY}", [OWN_KEY]).strip("a*") == ""


def test_what_the_upstream_was_shown_is_no_code_and_no_field():
    body = json.dumps({"error": {"message": "no", "code": "house-key", "param": "x.house-key"}}).encode()
    error = read_refusal(400, body, None, 0.0, ["house-key"])
    assert (error.message, error.code, error.param) == ("no", "invalid_value", None)


def test_a_short_word_is_no_secret():
    assert clean_message("ollama has no such model", ["ollama"]) == "ollama has no such model"


@pytest.mark.parametrize(
    ("message", "status", "code"),
    [
        ("input (3002 tokens) is too large to process. increase the physical batch", 400, "context_length_exceeded"),
        ("image input is not supported - hint: you may need to provide the mmproj", 400, "unsupported_value"),
        ("Multimodal data provided, but model does not support multimodal requests.", 400, "unsupported_value"),
        ("Unknown reasoning format: xx", 400, "invalid_value"),
        ("I said: Unknown reasoning format", 502, "upstream_error"),
    ],
)
def test_mistakes_of_the_client_that_an_engine_takes_upon_itself_are_given_back(message, status, code):
    body = json.dumps({"error": {"code": 500, "message": message, "type": "server_error"}}).encode()
    error = read_refusal(500, body, None, 0.0)
    assert (error.status, error.code) == (status, code)


def test_an_ollama_that_fails_says_why():
    reason = "model requires more system memory (5.6 GiB) than is available (1.2 GiB)"
    error = read_refusal(500, json.dumps({"error": reason}).encode(), None, 0.0)
    assert (error.status, error.message, error.may_fall_back) == (502, reason, True)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("unable to load model: /usr/share/ollama/.ollama/models/blobs/sha256-ab12", "unable to load model: …"),
        (r"open C:\Users\me\.ollama\models: access denied", "open … access denied"),
        ('Post "http://127.0.0.1:43211/completion": EOF', 'Post "…'),
        ("5.5 GiB/s and/or 3/4 of it", "5.5 GiB/s and/or 3/4 of it"),
        ("the key house-key", "the key ***"),
    ],
)
def test_where_an_ollama_has_its_files_is_not_repeated(said, shown):
    error = read_refusal(500, json.dumps({"error": said}).encode(), None, 0.0, ["house-key"])
    assert error.message.startswith(shown)


@pytest.mark.parametrize("status", [500, 501, 502])
@pytest.mark.parametrize(
    "body", [b'{"error":{"message":"inside"}}', b'{"detail":"inside"}', b'[{"error":"inside"}]', b'"inside"', b"{"]
)
def test_the_insides_of_vendors_are_not_repeated(status, body):
    assert read_refusal(status, body, None, 0.0).message == f"The upstream failed with status {status}."
