import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from stellwerk.cli.sigo_e import FLAGS, run
from tests.scripted_gateway import SIGOREST_MODELS

COMMAND = Path(sys.executable).with_name("sigoE")

pytestmark = pytest.mark.usefixtures("keyless")


@pytest.fixture
def sigo_e(gateway, capsys):
    """Runs the command as it is called in a shell, and returns status, output and errors."""
    gateway.become_sigorest()

    def sigo_e(*arguments):
        status = run(arguments, os.environ, [gateway.url])
        output = capsys.readouterr()
        return status, output.out, output.err

    return sigo_e


def test_the_documented_flags_are_all_there():
    assert {flag.name for flag in FLAGS} >= {"m", "s", "n", "T", "t", "r", "sp", "l", "i", "h", "v", "j", "q"}


def test_a_question_is_asked_with_the_documented_defaults(gateway, sigo_e):
    assert sigo_e("Hallo", "Welt") == (0, "Hello there\n", "")
    assert gateway.calls == [
        {
            "model": "gpt41",
            "messages": [{"role": "user", "content": "Hallo Welt"}],
            "stream": True,
            "timeout": 180,
            "retries": 3,
        }
    ]


def test_every_flag_has_its_effect(gateway, sigo_e):
    line = "-m claude-h -s=mein-projekt --n 20 -T 0 --t=9 -r 2 -q Hallo"
    sigo_e("-sp", "Sei kurz.", *line.split())
    assert gateway.calls == [
        {
            "model": "claude-h",
            "messages": [{"role": "system", "content": "Sei kurz."}, {"role": "user", "content": "Hallo"}],
            "stream": True,
            "session_id": "mein-projekt",
            "max_tokens": 20,
            "temperature": 0.0,
            "timeout": 9,
            "retries": 2,
        }
    ]


def test_the_documented_defaults_may_be_spelled_out(gateway, sigo_e):
    sigo_e("-n", "0", "-T", "-1", "-t", "0", "-r", "0", "-sp", "", "-s", "", "Hi")
    assert gateway.calls[0].keys() == {"model", "messages", "stream", "timeout", "retries"}


def test_where_the_usual_model_is_not_offered_a_local_one_answers(gateway, sigo_e):
    gateway.details = SIGOREST_MODELS[1:]
    status, output, errors = sigo_e("Hi")
    assert (status, output) == (0, "Hello there\n")
    assert errors == "gpt41 is not offered here; ollama-qwen3 answers.\n"
    assert gateway.calls[0]["model"] == "ollama-qwen3"
    assert sigo_e("-q", "Hi")[2] == sigo_e("-v", "error", "Hi")[2] == ""


def test_a_model_that_was_named_is_never_replaced(gateway, sigo_e):
    gateway.details = SIGOREST_MODELS[1:]
    sigo_e("-m", "gpt41", "Hi")
    assert gateway.calls[0]["model"] == "gpt41"


def test_debugging_says_whom_it_asks(gateway, sigo_e):
    _, output, errors = sigo_e("-v", "debug", "Hi")
    assert output == "Hello there\n"
    assert f"Asking gpt41 at {gateway.url}\n" in errors


def test_json_holds_the_documented_fields(sigo_e):
    status, output, _ = sigo_e("-j", "Hi")
    assert status == 0
    assert json.loads(output).keys() == {
        "model", "pid", "timestamp", "prompt", "response", "error", "duration_ms",
    }  # fmt: skip


def test_models_are_listed_and_described(sigo_e):
    assert sigo_e("-l")[1].splitlines()[1] == "api.mammouth.ai\tgpt-4.1\tgpt41\t2.00\t8.00"
    assert "Temperature\t0.00 to 2.00" in sigo_e("-i")[1]
    status, _, errors = sigo_e("-i", "-m", "nothing")
    assert (status, errors) == (1, "The gateway offers no model nothing; -l shows all of them.\n")


def test_a_failure_ends_with_1(gateway, sigo_e):
    gateway.after = b""
    assert sigo_e("Hi") == (1, "Hello there\n", "The answer broke off before its end.\n")
    gateway.status = 502
    assert sigo_e("Hi")[0] == 1


def test_wrong_flags_end_with_2(gateway, sigo_e):
    assert sigo_e("-x", "Hi") == (2, "", "There is no flag -x; -h lists all of them.\n")
    assert gateway.calls == []


def test_the_help_shows_the_flags_and_the_sessions(sigo_e, tmp_path):
    sessions = tmp_path / ".sessions"
    (sessions / "7").mkdir(parents=True)
    for name in ("claude-h-mein-projekt.json", "gpt41-a.json", ".new", "x\x1b[2J.json"):
        (sessions / name).touch()
    status, output, _ = sigo_e("-h")
    assert status == 0
    assert all(f"-{flag.name} " in output for flag in FLAGS)
    assert output.endswith(f"Sessions in {sessions}:\n  claude-h-mein-projekt\n  gpt41-a\n")


def test_the_help_does_without_sessions(sigo_e):
    assert "Sessions" not in sigo_e("-help")[1]


def test_the_installed_command_reads_standard_input_and_ends_with_2_without_a_prompt():
    done = subprocess.run([COMMAND], input=b"\n", capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"There is no prompt." in done.stderr


def test_on_a_terminal_one_line_is_asked_for():
    main, side = pty.openpty()
    with subprocess.Popen([COMMAND], stdin=side, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        os.close(side)
        assert process.stderr.read(8) == b"Prompt: "
        os.write(main, b"\r")
        assert process.wait(60) == 2
        assert process.stdout.read() == b""
    os.close(main)


def test_who_stops_reading_ends_it_without_a_traceback():
    with subprocess.Popen([COMMAND, "-h"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.wait(60) in (0, 1)
        assert b"Traceback" not in process.stderr.read()
