import json
import threading

import pytest
from sqlalchemy import insert
from typer.testing import CliRunner

from stellwerk.ledger.calls import calls
from tests.scripted_gateway import ScriptedGateway


@pytest.fixture
def english(monkeypatch):
    for name in ("LC_ALL", "LC_MESSAGES", "STELLWERK_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "en_US.UTF-8")


@pytest.fixture
def german(english, monkeypatch):
    monkeypatch.setenv("LANG", "de_DE.UTF-8")


@pytest.fixture
def command(folder, english):
    """Runs a command on the test's data folder and expects it to end with a status, 0 unless said."""

    def command(app, *arguments, expect=0, stdin=None):
        done = CliRunner().invoke(app, [*arguments, "--data", str(folder)], input=stdin)
        assert done.exit_code == expect, done.output
        return done

    return command


@pytest.fixture
def parsed(command):
    """What a command prints with --json."""
    return lambda app, *arguments, **how: json.loads(command(app, *arguments, "--json", **how).stdout)


@pytest.fixture
def record_call(database):
    """Stores the row of a call that is over."""

    def record_call(**values):
        row = {
            "id": "call-1", "key_id": "key", "user_id": 1, "operation": "chat", "model": "demo", "provider": "local",
            "target": "demo", "stream": False, "status": 200, "error": None, "attempts": 1, "input_tokens": 10,
            "output_tokens": 5, "cached_tokens": 0, "reasoning_tokens": 0, "estimated": False, "cost": 1000,
            "duration": 0.5, "first_byte": 0.1,
        } | values  # fmt: skip
        database.write(lambda connection: connection.execute(insert(calls).values(row)))

    return record_call


@pytest.fixture
def gateway():
    """A gateway that answers as the test says."""
    with ScriptedGateway() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def keyless(tmp_path, english, monkeypatch):
    """An English environment without any key, and a data folder without anything."""
    for name in ("STELLWERK_API_KEY", "STELLWERK_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STELLWERK_DATA", str(tmp_path))
    return monkeypatch
