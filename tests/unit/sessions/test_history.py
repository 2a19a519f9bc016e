import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from stellwerk.sessions.history import (
    LARGEST_FILE,
    MOST_MESSAGES,
    Message,
    decode_history,
    encode_history,
    keep_newest,
    make_exchange,
)

messages = st.builds(Message, role=st.sampled_from(["user", "assistant", "system"]), content=st.text())


def exchanges(count):
    return [message for n in range(count) for message in make_exchange(f"q{n}", f"a{n}")]


@given(st.lists(messages, max_size=20))
def test_what_is_written_is_read_again(history):
    assert decode_history(encode_history(history)) == history


def test_the_file_has_the_documented_form():
    written = encode_history(exchanges(1))
    assert written.startswith(b'{\n  "history": [\n    {\n      "role": "user",')
    assert msgspec.json.decode(written) == {
        "history": [{"role": "user", "content": "q0"}, {"role": "assistant", "content": "a0"}]
    }


@pytest.mark.parametrize("content", [b"", b" \n", b'{"history":[]}', b'{"history":null}', b'{"history":[],"more":1}'])
def test_nothing_kept_is_an_empty_history(content):
    assert decode_history(content) == []


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"null",
        b"[]",
        b"{}",
        b'"x"',
        b'{"history":{}}',
        b'{"history":[1]}',
        b'{"history":[{"role":"user"}]}',
        b'{"history":[{"role":"tool","content":"x"}]}',
        b'{"history":[{"role":"user","content":["x"]}]}',
        b'{"history":[{"role":"user","content":"\xff"}]}',
        b'{"history":' + b"[" * 100_000,
        b"\x89PNG\r\n",
        b'{"history":[]} {"history":[]}',
    ],
)
def test_what_is_no_history_is_refused(content):
    with pytest.raises(ValueError, match="it is no"):
        decode_history(content)


def test_a_long_file_of_somebody_gives_its_newest_messages():
    assert decode_history(encode_history(exchanges(50))) == exchanges(50)[-MOST_MESSAGES:]


@pytest.mark.parametrize("count", range(8, 14))
def test_the_oldest_go_in_pairs(count):
    assert keep_newest(exchanges(count)) == exchanges(count)[-MOST_MESSAGES:]


def test_what_is_left_of_an_odd_history_begins_with_a_question():
    odd = [Message(role="system", content="s"), *exchanges(10)]
    assert keep_newest(odd) == exchanges(10)[2:]


def test_a_short_odd_history_stays_as_it_is():
    greeting = [Message(role="assistant", content="hello"), *exchanges(2)]
    assert keep_newest(greeting) == greeting


@given(st.lists(messages, max_size=45))
def test_what_is_kept_is_always_the_end(history):
    kept = keep_newest(history)
    assert len(kept) <= MOST_MESSAGES
    assert history[len(history) - len(kept) :] == kept
    assert kept == history or not kept or kept[0].role == "user"


def test_a_history_always_fits_its_file():
    history = []
    for _ in range(8):
        history = keep_newest([*history, *make_exchange("\x01" * 100_000, "ü" * 100_000)])
        assert len(encode_history(history)) <= LARGEST_FILE
    assert 2 <= len(history) < 16


def test_an_exchange_that_fits_no_file_is_none():
    assert make_exchange("x" * LARGEST_FILE, "y") is None
    assert make_exchange("\x01" * (LARGEST_FILE // 6), "y") is None


def test_half_of_a_surrogate_pair_does_no_harm():
    question, answer = make_exchange("a\ud800b", "\udc00")
    assert (question.content, answer.content) == ("a?b", "?")
