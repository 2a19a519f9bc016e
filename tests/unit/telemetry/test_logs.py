import io
import json
import logging
import os
import pty
import subprocess
import sys
import warnings

import pytest

from stellwerk.core.secrets import Secret
from stellwerk.telemetry.logs import MAX_WAITING, LogSettings, start_logs

log = logging.getLogger("stellwerk.tests")
DETAILED = LogSettings(format="json", level="debug")


@pytest.fixture
def logged(tmp_path):
    """Runs an action with logs going to a file and returns its lines."""

    def run(action, settings=DETAILED):
        path = tmp_path / "log"
        with path.open("w") as stream:
            writer = start_logs(settings, stream)
            try:
                action(writer)
            finally:
                writer.stop(30)
        return path.read_text().splitlines()

    return run


def test_a_record_becomes_a_line_with_its_fields(logged):
    lines = logged(lambda _: log.info("listening on %s", "127.0.0.1", extra={"fields": {"port": 4000}}))
    line = json.loads(lines[0])
    assert line["message"] == "listening on 127.0.0.1"
    assert (line["level"], line["logger"], line["port"]) == ("info", "stellwerk.tests", 4000)
    assert line["ts"].endswith("Z")


def test_stop_writes_everything_that_is_queued(logged, make_outcome):
    def action(writer):
        for number in range(5_000):
            writer.log_call(make_outcome(id=f"req_{number}"))

    lines = logged(action)
    assert [json.loads(line)["id"] for line in lines] == [f"req_{number}" for number in range(5_000)]


def test_an_idle_writer_wakes_for_the_next_line():
    reader, end = os.pipe()
    with os.fdopen(reader) as lines, os.fdopen(end, "w") as stream:
        writer = start_logs(LogSettings(format="json"), stream)
        try:
            for number in range(3):
                log.info("line %d", number)
                assert json.loads(lines.readline())["message"] == f"line {number}"
        finally:
            writer.stop(30)


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["debug", "info", "warning", "error", "200", "502"]),
        ("info", ["info", "warning", "error", "200", "502"]),
        ("warning", ["warning", "error", "502"]),
        ("error", ["error"]),
    ],
)
def test_the_level_decides_about_records_and_calls(logged, make_outcome, level, expected):
    def action(writer):
        for name in ("debug", "info", "warning", "error"):
            getattr(log, name)(name)
        writer.log_call(make_outcome(status=200))
        writer.log_call(make_outcome(status=502))

    lines = [json.loads(line) for line in logged(action, LogSettings(format="json", level=level))]
    assert [str(line.get("status", line["message"])) for line in lines] == expected


def test_settings_change_while_running(logged, make_outcome):
    def action(writer):
        log.info("before")
        writer.apply(LogSettings(format="json", level="info", calls=False))
        log.info("after")
        writer.log_call(make_outcome())

    lines = logged(action, LogSettings(format="json", level="error"))
    assert [json.loads(line)["message"] for line in lines] == ["after"]


def test_details_of_other_libraries_are_not_asked_for(logged):
    def action(_):
        logging.getLogger("somebody.else").info("a prompt")
        logging.getLogger("somebody.else").warning("a warning")

    assert [json.loads(line)["message"] for line in logged(action)] == ["a warning"]


def test_uvicorn_speaks_through_it_and_its_access_log_is_silent(logged):
    def action(_):
        logging.getLogger("uvicorn.error").warning("started")
        logging.getLogger("uvicorn.access").info("GET /?key=canary")

    assert [json.loads(line)["message"] for line in logged(action)] == ["started"]


def test_python_warnings_become_records(logged):
    def action(_):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(capture=False)
            logging.captureWarnings(capture=True)
            warnings.warn("mind the gap", stacklevel=1)

    assert "mind the gap" in json.loads(logged(action)[0])["message"]


def test_secrets_are_masked_in_messages_fields_and_tracebacks(logged):
    def action(writer):
        writer.add_secret(Secret("canary-one"))
        log.info("key %s", "canary-one", extra={"fields": {"header": "Bearer canary-two", "key": "sk-canary-three"}})
        try:
            raise ValueError("canary-one")
        except ValueError:
            log.exception("failed")

    lines = logged(action)
    assert len(lines) == 2
    assert "canary" not in "".join(lines).replace("writer.add_secret(Secret(", "")
    assert "ValueError: ***" in json.loads(lines[1])["exception"]


def test_an_exception_is_one_line_with_its_last_frames(logged):
    def fail(depth):
        if depth:
            fail(depth - 1)
        raise RuntimeError("deep\ndown")

    def action(_):
        try:
            fail(100)
        except RuntimeError:
            log.exception("failed")

    lines = logged(action, LogSettings(format="human"))
    assert len(lines) == 1
    assert "RuntimeError: deep\\ndown" in lines[0]
    assert lines[0].count("in fail") <= 10


def test_a_record_that_cannot_be_formatted_does_not_break_its_caller(logged):
    class Broken:
        def __str__(self):
            raise RuntimeError

    def action(_):
        log.info("%d", "not a number")
        log.info("%s", Broken())
        log.info("still here")

    lines = [json.loads(line) for line in logged(action)]
    assert [line.get("error") for line in lines] == ["TypeError", "RuntimeError", None]
    assert lines[0]["origin"] == "stellwerk.tests"


def test_a_blocked_pipe_costs_lines_but_never_time(make_outcome):
    reader, end = os.pipe()
    with os.fdopen(reader, "rb") as lines, os.fdopen(end, "w") as stream:
        writer = start_logs(LogSettings(format="json"), stream)
        for _ in range(MAX_WAITING + 5_000):
            writer.log_call(make_outcome())
        log.info("one of those that do not fit")
        assert writer.waiting <= MAX_WAITING
        lost = writer.dropped
        assert lost > 0
        # The reader comes back: everything that was kept arrives, and how much was lost.
        reported = 0
        while reported < lost:
            line = json.loads(lines.readline())
            reported += line.get("lines", 0)
        assert reported == lost
        stopper = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.buffer.read()"], stdin=reader)
        writer.stop(10)
        stream.close()
        stopper.wait(30)
        assert writer.waiting == 0


def test_stopping_with_a_blocked_pipe_gives_up_after_its_time(make_outcome):
    reader, end = os.pipe()
    with os.fdopen(reader, "rb") as lines, os.fdopen(end, "w") as stream:
        writer = start_logs(LogSettings(format="json"), stream)
        for _ in range(2_000):
            writer.log_call(make_outcome())
        writer.stop(0.01)
        assert writer.waiting > 0
        os.set_blocking(reader, False)
        while writer.waiting:
            lines.read()


def test_a_closed_pipe_drops_lines_and_counts_them(make_outcome):
    reader, end = os.pipe()
    os.close(reader)
    with os.fdopen(end, "w") as stream:
        writer = start_logs(LogSettings(format="json"), stream)
        writer.log_call(make_outcome())
        log.info("nobody reads this")
        writer.stop(30)
    assert writer.dropped >= 2


def test_a_closed_stream_drops_lines_and_counts_them():
    stream = io.StringIO()
    writer = start_logs(LogSettings(format="json"), stream)
    stream.close()
    log.info("nobody reads this")
    writer.stop(30)
    assert writer.dropped >= 1


def test_a_blocked_log_does_not_keep_the_process_from_ending():
    program = (
        "import os, sys, logging\n"
        "from stellwerk.telemetry.logs import LogSettings, start_logs\n"
        "writer = start_logs(LogSettings(format='json'), sys.stderr)\n"
        "for _ in range(3000): logging.getLogger('stellwerk').info('x' * 1000)\n"
        "writer.stop(0.05)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)
    try:
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.stderr.close()


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_a_terminal_gets_coloured_short_lines_unless_it_refuses(monkeypatch, no_color, coloured):
    monkeypatch.setenv("NO_COLOR", no_color)
    master, slave = pty.openpty()
    with os.fdopen(master, "rb", buffering=0) as terminal, os.fdopen(slave, "w") as stream:
        writer = start_logs(LogSettings(), stream)
        log.warning("mind the gap")
        writer.stop(30)
        line = terminal.read(1_000)
    assert b"tests: mind the gap" in line
    assert (b"\x1b[" in line) is coloured


def test_what_is_not_a_terminal_gets_json():
    stream = io.StringIO()
    writer = start_logs(LogSettings(), stream)
    log.warning("mind the gap")
    writer.stop(30)
    assert json.loads(stream.getvalue())["message"] == "mind the gap"


def test_logging_is_as_before_after_the_stop():
    root = logging.getLogger()
    before = (root.handlers[:], root.level, logging.getLogger("stellwerk").level)
    start_logs(LogSettings(), io.StringIO()).stop()
    assert (root.handlers[:], root.level, logging.getLogger("stellwerk").level) == before
