import hypothesis.strategies as st
import pytest
from hypothesis import given

from stellwerk.core.errors import BadRequest
from stellwerk.sessions.names import check_session_id, session_file_name

TRICKS = [
    "",
    ".",
    "..",
    "...",
    "../x",
    "../../etc/passwd",
    "..\\x",
    "..\\..\\windows\\win.ini",
    "a/b",
    "a/../b",
    "a/./b",
    "/etc/passwd",
    "//server/share",
    "\\\\server\\share",
    "C:\\x",
    "C:x",
    "c:",
    "a\\b",
    ".hidden",
    ".ssh",
    "a..b",
    "a..",
    "..a",
    "a\0b",
    "a\0.json",
    "\0",
    "a\n",
    "a\nb",
    "\na",
    "a\r",
    "a\tb",
    " a",
    "a ",
    "a b",
    "~",
    "~root",
    "$HOME",
    "${HOME}",
    "`id`",
    "$(id)",
    "a;b",
    "a|b",
    "a&b",
    "a*",
    "a?",
    "a:b",
    "a:stream",
    "a%2f..%2fb",
    "%2e%2e%2f",
    "%00",
    "＂．．／",
    "a\u2215b",
    "a\u2044b",
    "a\uff0fb",
    "a\u202eb",
    "ä",
    "é",
    "é",
    "１",
    "a\u200bb",
    "\ud800",
    "a\x7f",
    "a\x1b[2J",
    "con",
    "CON",
    "nul",
    "NUL.txt",
    "aux.json",
    "prn",
    "com1",
    "COM9.x",
    "lpt0",
    "conin$",
    "a" * 65,
    "a" * 10_000,
    "<script>",
    "'--",
    '"',
]


@pytest.mark.parametrize("text", TRICKS)
def test_a_session_id_that_is_no_plain_name_is_refused(text):
    with pytest.raises(BadRequest) as caught:
        check_session_id(text)
    assert (caught.value.param, caught.value.code) == ("session_id", "invalid_session_id")
    with pytest.raises(BadRequest):
        session_file_name("m", text)


@pytest.mark.parametrize(
    "text", ["a", "mein-projekt", "A.b_c-9", "_", "-", "9", "a" * 64, "config", "com", "com10", "nulls", "a.", "x.con"]
)
def test_a_plain_name_is_a_session_id(text):
    assert check_session_id(text) == text


def test_the_documented_file_name_stays_as_it_is():
    assert session_file_name("claude-h", "mein-projekt") == "claude-h-mein-projekt.json"
    assert session_file_name("ollama-qwen3.5_4B", "x") == "ollama-qwen3.5_4B-x.json"


@pytest.mark.parametrize(
    "model",
    ["a/b", "../../etc/x", "..", ".hidden", "-rf", "a b", "a:b", "a~b", "ä", "a\0", "a\n", "", "\ud800", "x" * 101],
)
def test_a_model_that_is_no_plain_name_gets_a_hash(model):
    name = session_file_name(model, "x")
    assert name.endswith("-x.json")
    assert "~" in name
    assert "/" not in name
    assert "\0" not in name
    assert not name.startswith((".", "-"))
    assert len(name.encode()) < 240


def test_models_that_look_alike_have_files_of_their_own():
    models = ["a/b", "a:b", "a_b", "a b", "A/B", "x" * 100, "x" * 101, "x" * 102]
    assert len({session_file_name(model, "x") for model in models}) == len(models)


def test_a_model_cannot_be_named_like_the_file_of_another():
    made = session_file_name("a/b", "x").removesuffix("-x.json")
    assert session_file_name(made, "x").removesuffix("-x.json") != made


@given(st.text(max_size=300), st.text(max_size=80))
def test_every_name_stays_in_its_folder(model, session_id):
    try:
        name = session_file_name(model, session_id)
    except BadRequest:
        return
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-~")
    assert not name.startswith(".")
    assert len(name) < 240


@given(st.text(max_size=120), st.text(max_size=120))
def test_two_models_never_share_a_file(one, other):
    assert (session_file_name(one, "x") == session_file_name(other, "x")) == (one == other)
