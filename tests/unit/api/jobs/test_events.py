import json

from stellwerk.api.jobs.events import EventWriter
from stellwerk.core.principal import Priority
from stellwerk.jobs.job import Job, JobEvent, Progress, Standing, State


def job(state=State.LEASED, attempts=1, fence=1):
    return Job(
        id="550e8400-e29b-41d4-a716-446655440000",
        kind="call",
        queue="up/up",
        path="/v1/chat/completions",
        key_id="k",
        user_id=1,
        client_id="",
        priority=Priority.NORMAL,
        labels={},
        created_at=0.0,
        queued_at=0.0,
        deadline_at=1.0,
        state=state,
        attempts=attempts,
        fence=fence,
    )


def read(data: bytes):
    fields = dict(line.split(": ", 1) for line in data.decode().strip().split("\n"))
    return fields["event"], fields.get("id"), json.loads(fields["data"])


def piece(data, offset):
    return JobEvent(type="piece", data=data, offset=offset)


def begun(last=None):
    writer = EventWriter(last)
    writer.write(JobEvent(type="state", job=job()))
    return writer


def test_states_places_and_progress_are_events_of_their_own():
    writer = EventWriter()
    name, point, data = read(writer.write(JobEvent(type="state", job=job(State.QUEUED, 0))))
    assert (name, point, data["status"]) == ("state", None, "queued")
    place = JobEvent(type="position", standing=Standing(position=2, estimated_start=None))
    assert read(writer.write(place)) == ("position", None, {"position": 2, "estimated_start": None})
    progress = JobEvent(type="progress", progress=Progress(done=1, total=3, unit="pages"))
    assert read(writer.write(progress)) == ("progress", None, {"done": 1, "total": 3, "unit": "pages"})


def test_a_letter_that_was_cut_in_two_is_one_again():
    writer, text = begun(), "ü".encode()
    assert read(writer.write(piece(text[:1], 0)))[2]["text"] == ""
    assert read(writer.write(piece(text[1:], 1))) == ("piece", "1:2", {"text": "ü", "offset": 1, "attempt": 1})


def test_who_comes_back_in_the_middle_of_a_letter_gets_all_of_it():
    _, point, _ = read(begun().write(piece("aü".encode()[:2], 0)))
    assert point == "1:1"
    assert read(begun(point.encode()).write(piece("aü".encode(), 0)))[2]["text"] == "ü"


def test_an_attempt_that_has_the_number_of_an_earlier_one_is_told_from_its_beginning():
    writer = EventWriter(b"1:3")
    writer.write(JobEvent(type="state", job=job(attempts=1, fence=2)))
    said = {"text": "other", "offset": 0, "attempt": 1}
    assert read(writer.write(piece(b"other", 0))) == ("piece", "2:5", said)


def test_a_gap_does_not_spoil_what_comes_after_it():
    writer = begun()
    writer.write(piece("ü".encode()[:1], 0))
    assert read(writer.write(piece(b"ab", 10)))[2] == {"text": "ab", "offset": 10, "attempt": 1}


def test_who_comes_back_hears_only_what_he_has_not_heard():
    writer = begun(b"1:3")
    assert writer.write(piece(b"abc", 0)) == b""
    assert read(writer.write(piece(b"de", 3)))[2]["text"] == "de"
    assert read(begun(b"1:3").write(piece(b"abcde", 0)))[2] == {"text": "de", "offset": 3, "attempt": 1}


def test_another_attempt_is_heard_from_its_beginning():
    writer = EventWriter(b"1:3")
    writer.write(JobEvent(type="state", job=job(attempts=2, fence=2)))
    assert read(writer.write(piece(b"abc", 0)))[1:] == ("2:3", {"text": "abc", "offset": 0, "attempt": 2})


def test_a_point_that_makes_no_sense_is_left_alone():
    assert read(begun(b"nonsense").write(piece(b"a", 0)))[2]["text"] == "a"
