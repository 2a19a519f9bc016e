import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.core.call import Operation
from stellwerk.core.outcome import Outcome, Usage
from stellwerk.core.secrets import Secret
from stellwerk.telemetry.log_format import MAX_LINE, HumanFormat, JsonFormat, LogRecord, clean, encodable
from stellwerk.telemetry.redaction import Redactor

ANY_TEXT = st.text(st.characters(), max_size=200)
NASTY = ["\x1b[2J", "a\nb", "\r", "\x9b31m", "\u202e", "\u2028", "\ud800", "\x00", "\x7f", '"}', "\\"]
TEXTS = ANY_TEXT | st.sampled_from(NASTY)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=10,
)


def has_control_characters(line):
    return any(unicodedata.category(character) in {"Cc", "Zl", "Zp", "Cs"} for character in line)


@st.composite
def records(draw):
    return LogRecord(
        at=draw(st.floats(0, 4e9)),
        level=draw(st.sampled_from(["debug", "info", "warning", "error"])),
        logger=encodable(draw(TEXTS)),
        message=encodable(draw(TEXTS)),
        fields=clean(draw(st.dictionaries(TEXTS, VALUES, max_size=5)), Redactor()),
        error=draw(st.none() | TEXTS.map(encodable)),
    )


@st.composite
def outcomes(draw):
    return Outcome(
        id=draw(TEXTS),
        at=draw(st.floats(0, 4e9)),
        key_id="key_1",
        user_id=7,
        operation=draw(st.sampled_from(Operation)),
        model=draw(TEXTS),
        provider=draw(st.none() | st.just("openai")),
        target=draw(st.none() | TEXTS),
        stream=draw(st.booleans()),
        status=draw(st.integers(100, 599)),
        error=draw(st.none() | TEXTS),
        attempts=draw(st.integers(0, 9)),
        usage=draw(st.none() | st.just(Usage(input_tokens=1))),
        estimated=draw(st.booleans()),
        cost=draw(st.none() | st.integers(0, 2**60)),
        duration=draw(st.floats(0, 1e6)),
        first_byte=draw(st.none() | st.floats(0, 1e6)),
    )


@given(records())
def test_every_json_line_is_one_line_and_parses(record):
    line = JsonFormat(Redactor()).line(record)
    assert len(line) <= MAX_LINE + 1
    assert line.endswith(b"\n")
    assert not has_control_characters(line[:-1].decode())
    parsed = json.loads(line)
    assert parsed["level"] == record.level
    assert parsed["message"] == record.message


@given(records())
def test_every_human_line_is_one_line_without_control_characters(record):
    line = HumanFormat(Redactor(), colour=False).line(record)
    assert len(line) <= MAX_LINE
    assert line.endswith(b"\n")
    assert not has_control_characters(line[:-1].decode())


@given(outcomes())
def test_the_line_of_any_call_holds_in_both_formats(outcome):
    line = JsonFormat(Redactor()).call_line(outcome)
    assert not has_control_characters(line[:-1].decode())
    assert json.loads(line)["status"] == outcome.status
    human = HumanFormat(Redactor(), colour=False).call_line(outcome)
    assert human.endswith(b"\n")
    assert not has_control_characters(human[:-1].decode())


def test_the_line_of_a_call_has_everything_a_search_needs(make_outcome):
    line = json.loads(JsonFormat(Redactor()).call_line(make_outcome()))
    assert line == {
        "ts": "2026-09-21T14:13:21.750000Z",
        "level": "info",
        "logger": "stellwerk.call",
        "message": "call",
        "id": "req_0123456789abcdef01234567",
        "key_id": "key_1",
        "user_id": 7,
        "operation": "chat",
        "model": "fast",
        "provider": "openai",
        "target": "gpt-5-mini",
        "stream": True,
        "status": 200,
        "attempts": 1,
        "ms": 1500.0,
        "ttft_ms": 30.0,
        "input_tokens": 12,
        "output_tokens": 34,
        "cached_tokens": 8,
        "reasoning_tokens": 20,
        "cost_micros": 1500,
    }


def test_what_is_not_a_token_and_what_is_only_estimated_is_said(make_outcome):
    usage = Usage(input_tokens=12, output_tokens=34, audio_milliseconds=1500, characters=40, pages=3)
    outcome = make_outcome(usage=usage, estimated=True)
    line = json.loads(JsonFormat(Redactor()).call_line(outcome))
    assert (line["audio_ms"], line["characters"], line["pages"], line["estimated"]) == (1500, 40, 3, True)
    assert ", about 12+34 tokens," in HumanFormat(Redactor(), colour=False).call_line(outcome).decode()


def test_a_failed_call_is_a_warning_and_names_its_error(make_outcome):
    outcome = make_outcome(status=502, error="upstream_error", usage=None, cost=None, first_byte=None, attempts=3)
    line = json.loads(JsonFormat(Redactor()).call_line(outcome))
    assert (line["level"], line["error"], line["attempts"]) == ("warning", "upstream_error", 3)
    human = HumanFormat(Redactor(), colour=False).call_line(outcome).decode()
    assert "warning chat fast → openai/gpt-5-mini 502 upstream_error" in human
    assert "3 attempts" in human


def test_a_stream_that_broke_is_a_warning_and_a_clients_mistake_is_none(make_outcome):
    def level(**changes):
        return json.loads(JsonFormat(Redactor()).call_line(make_outcome(**changes)))["level"]

    assert level(status=200, error="upstream_broken") == "warning"
    assert level(status=400, error="invalid_value") == "info"
    assert level(status=499, error="client_closed_request") == "info"


@pytest.mark.parametrize("field", ["model", "target", "id", "error"])
def test_a_key_in_a_name_from_outside_is_masked(make_outcome, field):
    outcome = make_outcome(**{field: "sk-canary-0123456789"})
    assert b"canary" not in JsonFormat(Redactor()).call_line(outcome)
    assert b"canary" not in HumanFormat(Redactor(), colour=False).call_line(outcome)


def test_the_fields_of_a_record_do_not_replace_its_own(make_outcome):
    record = LogRecord(at=0.0, level="info", logger="x", message="here", fields={"message": "forged", "port": 4000})
    line = json.loads(JsonFormat(Redactor()).line(record))
    assert line["message"] == "here"
    assert line["port"] == 4000


def test_a_record_past_the_line_bound_keeps_its_beginning_and_the_end_of_its_traceback():
    record = LogRecord(
        at=0.0,
        level="error",
        logger="x",
        message="\x01" * 30_000,
        fields={"a": "b" * 4_096},
        error="z" * 60_000 + "end",
    )
    line = JsonFormat(Redactor()).line(record)
    parsed = json.loads(line)
    assert len(line) <= MAX_LINE
    assert parsed["truncated"] is True
    assert parsed["message"] == "\x01" * 4_096
    assert parsed["exception"].endswith("end")
    assert len(HumanFormat(Redactor(), colour=True).line(record)) <= MAX_LINE


def test_colours_stand_only_around_the_text():
    record = LogRecord(at=0.0, level="error", logger="stellwerk.app", message="\x1b[2Jgone", fields={})
    line = HumanFormat(Redactor(), colour=True).line(record).decode()
    assert "\x1b[31merror" in line
    assert "app: \\x1b[2Jgone" in line


def test_fields_are_bounded_in_depth_number_and_size():
    nested = value = {}
    for _ in range(20):
        value["next"] = value = {}
    cleaned = clean(
        {"nested": nested, "many": list(range(1_000)), "long": "x" * 10_000, "big": 1 << 100_000}, Redactor()
    )
    assert len(cleaned["many"]) == 64
    assert len(cleaned["long"]) == 4_096
    assert len(cleaned["big"]) == 256
    assert json.dumps(cleaned["nested"]).count("{") < 30


def test_secrets_are_masked_in_fields_of_any_shape():
    redactor = Redactor()
    redactor.add_secret(Secret("canary-secret"))
    cleaned = clean(
        {"a": ["x canary-secret"], "canary-secret": {"b": ("canary-secret",)}, "c": b"canary-secret"}, redactor
    )
    assert "canary" not in json.dumps(cleaned)
