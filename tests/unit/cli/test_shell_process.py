import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from stellwerk.cli.shell import HISTORY_FILE
from tests.gateway_process import ALONE, COMMAND, DEADLINE, end, environment_for, wait_until
from tests.terminal_process import PROMPT, on_a_terminal

KEY = r"sk-sw-[a-z2-7]{10}-[\w-]{43}"
SERVE = ("serve", "--port", "0", "--shell")


@pytest.fixture
def environment(tmp_path):
    (tmp_path / "stellwerk.yaml").write_text(json.dumps(ALONE))
    return environment_for(tmp_path) | {"STELLWERK_DATA": str(tmp_path / "data")}


@pytest.fixture
def typed(environment, tmp_path):
    """A gateway on a terminal, with its prompt."""
    with on_a_terminal(*SERVE, environment=environment, folder=tmp_path) as terminal:
        terminal.wait_for(PROMPT)
        yield terminal


@contextmanager
def piped(environment, folder, stdin):
    process = subprocess.Popen(
        [*COMMAND, *SERVE],
        env=environment,
        cwd=folder,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        end(process)
        process.stdout.close()
        process.stderr.close()


def ask(output, key):
    port = re.search(r"answers on http://127\.0\.0\.1:(\d+)", output)[1]
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/models", headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
        return answer.status


def children(pid):
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def processor_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def goes_on_calmly(process):
    """Whether it runs on and comes to need next to no processor: a start may go on after its first line."""
    for _ in range(20):
        before = processor_seconds(process.pid)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.7)
        if processor_seconds(process.pid) - before < 0.2:
            return True
    return False


def test_a_key_that_is_typed_beside_the_server_opens_it_and_exit_stops_both(typed):
    key = re.search(KEY, typed.obey("generatekey"))[0]
    assert ask(typed.shown, key) == 200
    typed.type("exit\r")
    assert typed.wait_for_end() == 0
    assert typed.is_echoing()


def test_a_log_line_stands_above_the_line_that_is_being_typed(typed, tmp_path):
    typed.type("listweb")
    typed.wait_for("listweb")
    typed.process.send_signal(signal.SIGHUP)
    (tmp_path / "stellwerk.yaml").write_text(json.dumps(ALONE | {"log": {"level": "debug"}}))
    typed.process.send_signal(signal.SIGHUP)
    typed.wait_for("taken over")
    # Drawn again below.
    typed.wait_for("> listweb")
    assert "There are no webhooks" in typed.obey("hooks")


def test_the_server_goes_on_calmly_when_the_shell_is_left(typed):
    key = re.search(KEY, typed.obey("generatekey"))[0]
    typed.type("\x04")
    end_at = time.monotonic() + DEADLINE
    while children(typed.process.pid):
        assert time.monotonic() < end_at
    assert goes_on_calmly(typed.process)
    assert ask(typed.shown, key) == 200
    typed.process.terminate()
    assert typed.wait_for_end() == 0


def test_ctrl_c_stops_the_server_and_leaves_the_terminal_as_it_was(typed):
    typed.type("listk\x03")
    assert typed.wait_for_end() == 0
    assert typed.is_echoing()


def test_the_shell_does_not_outlive_a_killed_server(typed):
    [shell] = children(typed.process.pid)
    typed.process.kill()
    typed.wait_for_end()
    end_at = time.monotonic() + DEADLINE
    while Path(f"/proc/{shell}").exists() and "(zombie)" not in Path(f"/proc/{shell}/status").read_text():
        assert time.monotonic() < end_at


async def test_without_input_the_server_goes_on_calmly_without_a_shell(environment, tmp_path):
    with piped(environment, tmp_path, subprocess.DEVNULL) as process:
        assert " answers on " in process.stdout.readline()
        await wait_until(lambda: not children(process.pid))
        assert goes_on_calmly(process)
        process.terminate()
        assert process.wait(DEADLINE) == 0


def test_piped_commands_are_obeyed_and_exit_stops_the_server(environment, tmp_path):
    with piped(environment, tmp_path, subprocess.PIPE) as process:
        output, errors = process.communicate("generatekey\nlistkeys\nexit\n", timeout=DEADLINE)
    assert process.returncode == 0, errors
    assert re.search(f"^{KEY}$", output, re.MULTILINE)
    assert "> " not in output
    assert not (tmp_path / "data" / HISTORY_FILE).exists()


def test_a_server_without_the_option_starts_no_shell(environment, tmp_path):
    with on_a_terminal(*SERVE[:-1], environment=environment, folder=tmp_path) as terminal:
        terminal.wait_for("Ctrl+C stops it")
        assert children(terminal.process.pid) == []
