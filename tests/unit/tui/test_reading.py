import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.tui.facts import advice_of, crashes_of, jobs_of, names_of, queue_of, queues_with_gates, state_of
from stellwerk.tui.reading import MOST_ROWS, clean, lines, moment, number, rows, whole
from stellwerk.tui.snapshot import Queue

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["data", "id", "state", "model", "at"]), inner),
    max_leaves=20,
)


@given(JSON)
def test_whatever_a_gateway_answers_is_read_without_an_error(said):
    jobs_of(said)
    crashes_of(said)
    advice_of(said)
    list(names_of(said))
    queues_with_gates(said, said)
    assert whole(said) >= 0
    assert moment(said) is None or isinstance(moment(said), float)
    assert all(
        character.isprintable() or character == " " for line in lines(said) for character in line if character < "\x80"
    )


@given(st.text())
def test_no_control_character_gets_through(text):
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in clean(text))


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("a\tb", "a b"),
        ("a\u202eb\u2066c", "abc"),
        ("\x9b2J", "2J"),
        (True, ""),
        (3, "3"),
    ],
)
def test_what_steers_a_terminal_is_cut_out(text, left):
    assert clean(text) == left


def test_texts_and_lists_have_a_bound():
    assert len(clean("x" * 10_000)) == 300
    assert len(list(rows([{}] * 10_000))) == MOST_ROWS
    assert lines("\n".join(map(str, range(1000)))) == tuple(map(str, range(960, 1000)))


@pytest.mark.parametrize(
    ("said", "at"),
    [
        ("2026-11-21T10:00:00.000Z", 1_795_255_200.0),
        ("2026-11-21T10:00:00.000000", 1_795_255_200.0),
        ("2026-11-21T11:00:00+01:00", 1_795_255_200.0),
        (17, 17.0),
        ("yesterday", None),
        (float("nan"), None),
    ],
)
def test_times_are_read_in_every_documented_form(said, at):
    assert moment(said) == at


def test_numbers_are_numbers():
    assert (number(True), number("3"), number(1e300), number(2)) == (None, None, None, 2.0)
    assert (whole(-3), whole(2.9), whole(None)) == (0, 2, 0)


@pytest.mark.parametrize(
    ("said", "state"), [("ready", "running"), (None, "stopped"), ("restarting", "crashed"), ("new", "new")]
)
def test_states_have_one_word(said, state):
    assert state_of(said) == state


def test_a_model_s_live_calls_stand_in_its_queue():
    stored = [{"name": "a", "processing": 2, "waiting": 5, "total_processed": 9, "max_waiting": 100, "paused": True}]
    gates = [
        {"name": "a", "running": 3, "waiting": 1, "max_concurrent": 4, "max_waiting": 7},
        {"name": "B", "running": 1},
    ]
    assert queues_with_gates(stored, gates) == (
        Queue(name="a", processing=3, waiting=6, max_concurrent=4, max_waiting=100, processed=9, paused=True),
        Queue(name="B", processing=1),
    )


def test_a_documented_queue_is_read():
    told = {
        "model": "gemma", "processing": 5, "waiting": 3, "max_concurrent": 10, "max_waiting": 10,
        "total_processed": 1234, "total_failed": 12, "total_timeout": 3, "utilization": 0.5,
    }  # fmt: skip
    queue = queue_of(told)
    assert (queue.utilization, queue.processed, queue.failed, queue.timed_out) == (0.5, 1234, 12, 3)
