import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.core.secrets import Secret
from stellwerk.telemetry.redaction import MAX_SECRET_LENGTH, MAX_SECRETS, Redactor

SECRET = "correct horse\nbattery"
AROUND = st.text(st.characters(exclude_characters="Q"), max_size=60)


@pytest.fixture
def redactor():
    redactor = Redactor()
    redactor.add_secret(Secret(SECRET))
    return redactor


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("key sk-proj-abc_DEF-123456 was refused", "key *** was refused"),
        ("Authorization: Bearer abc.def+ghi/jkl==", "Authorization: Bearer ***"),
        ("authorization: Basic dXNlcjpwYXNz", "authorization: Basic ***"),
        ("gsk_abcdefgh xai-abcdefgh AIzaSyAbcdefgh hf_abcdefgh", "*** *** *** ***"),
        ("https://user:pass@host:1/x?key=abc&b=1", "https://***@host:1/x?key=***&b=1"),
        (f"it is {SECRET}!", "it is ***!"),
        (SECRET * 2, "******"),
    ],
)
def test_what_looks_like_a_key_is_masked(redactor, text, expected):
    assert redactor.redact(text, 1_000) == expected


@pytest.mark.parametrize(
    "text",
    ["a risk-free task-force", "basic understanding", "https://host/a@b", "tokens=12 key_id=key_1", "sk-short"[:6]],
)
def test_ordinary_words_stay(redactor, text):
    assert redactor.redact(text, 1_000) == text


def test_a_long_text_is_cut_and_says_so(redactor):
    assert redactor.redact("a" * 100, 10) == "a" * 9 + "…"


def test_a_secret_that_begins_like_another_one_is_masked_whole():
    redactor = Redactor()
    redactor.add_secret(Secret("abcdefgh"))
    redactor.add_secret(Secret("abcdefgh-and-more"))
    assert redactor.redact("abcdefgh-and-more", 100) == "***"


def test_texts_too_short_to_be_secrets_are_not_masked():
    redactor = Redactor()
    redactor.add_secret(Secret("a"))
    redactor.add_secret(Secret(""))
    assert redactor.redact("a day", 100) == "a day"


def test_secrets_are_bounded_in_number_and_length():
    redactor = Redactor()
    for number in range(MAX_SECRETS):
        redactor.add_secret(Secret(f"secret-{number}"))
    redactor.add_secret(Secret("secret-1"))
    with pytest.raises(ValueError, match="secrets"):
        redactor.add_secret(Secret("one-too-many"))
    with pytest.raises(ValueError, match="characters"):
        Redactor().add_secret(Secret("x" * (MAX_SECRET_LENGTH + 1)))


@given(before=AROUND, after=AROUND, repeat=st.integers(1, 10), limit=st.integers(1, 100))
def test_no_part_of_a_secret_comes_through_wherever_the_text_is_cut(before, after, repeat, limit):
    secret = "QZXWVK" * 4
    redactor = Redactor()
    redactor.add_secret(Secret(secret))
    redacted = redactor.redact(f"{before}{secret}{after}" * repeat, limit)
    assert "Q" not in redacted
    assert len(redacted) <= limit


@pytest.mark.parametrize("offset", range(-60, 60, 7))
def test_a_secret_across_the_end_of_the_searched_part_leaves_nothing(offset):
    limit = 50
    secret = "QZXWVK" * 10
    redactor = Redactor()
    redactor.add_secret(Secret(secret))
    # Sixty-fold shrinking brings what stands at the end of the searched part below the limit.
    start = 2 * limit + MAX_SECRET_LENGTH + offset
    text = (secret * 1_000)[: start // 60 * 60] + " " * (start % 60) + secret + "tail"
    redacted = redactor.redact(text, limit)
    assert "QZX" not in redacted
    assert len(redacted) <= limit
