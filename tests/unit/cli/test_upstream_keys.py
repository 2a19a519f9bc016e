import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from stellwerk.cli import upstream_keys
from stellwerk.cli.upstream_keys import duration
from stellwerk.core.clock import SystemClock
from stellwerk.ledger.upstream_usage import add_usage

KEYS = {
    "ring": [
        {"index": 0, "state": "parked", "retry_in": None, "reason": "unauthorized"},
        {"index": 1, "state": "cooling", "retry_in": 89.4, "reason": "hourly_quota"},
        {"index": 2, "state": "ready", "retry_in": None, "reason": None},
    ],
    "alone": [{"index": 0, "state": "ready", "retry_in": None, "reason": None}],
}


@pytest.fixture
def details():
    """A gateway that tells an admin's key what `details.answer` says; `details.keys` are those it was shown."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            key = self.headers.get("authorization", "").removeprefix("Bearer ")
            self.server.shown.append(key)
            status = 200 if key == "admin-key" else 403 if key == "user-key" else 401
            body = json.dumps(self.server.answer if status == 200 else {"error": {"message": "no"}}).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.answer, server.shown = {"keys": KEYS, "more": 1}, []
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def run(details, keyless):
    def run(*arguments, key="admin-key", expect=0):
        given = () if key is None else ("--key", key)
        done = CliRunner().invoke(upstream_keys.app, ["--url", details.url, *given, *arguments])
        assert done.exit_code == expect, done.output
        return done

    return run


def test_each_key_has_a_line(run):
    assert run().stdout.splitlines()[:5] == [
        "provider\tkey\tstate\tback in\treason\trequests this hour\ttokens this hour\trequests 24 h\ttokens 24 h",
        "alone\t0\tready\t–\t–\t–\t–\t–\t–",
        "ring\t0\tparked\t–\tnot known to the vendor\t–\t–\t–\t–",
        "ring\t1\tcooling\t1m 30s\thourly quota\t–\t–\t–\t–",
        "ring\t2\tready\t–\t–\t–\t–\t–\t–",
    ]
    assert "kill -HUP" in run().stderr
    assert "kill -HUP" not in run("--provider", "alone").stderr


def test_germans_read_german(run, keyless):
    keyless.setenv("LANG", "de_DE.UTF-8")
    assert "ring\t1\tpausiert\t1m 30s\tStundenkontingent" in run().stdout
    assert "Anbieter nobody" in run("--provider", "nobody", expect=1).stderr


def test_programs_get_json(run):
    rows = json.loads(run("--json", "--provider", "ring").stdout)
    assert rows[1] == {
        "provider": "ring", "index": 1, "state": "cooling", "retry_in": 89.4, "reason": "hourly_quota",
        "requests_hour": None, "tokens_hour": None, "requests_day": None, "tokens_day": None,
    }  # fmt: skip


def test_the_use_of_a_key_stands_beside_it(run, database, folder):
    hour = int(SystemClock().now()) // 3600 * 3600
    rows = [(hour, "ring", 1, "m", 2, 10, 5), (hour - 5 * 3600, "ring", 1, "n", 1, 1, 1)]
    rows.append((hour - 24 * 3600, "ring", 1, "m", 9, 9, 9))
    database.write(lambda connection: add_usage(connection, rows))
    unused, used, _ = json.loads(run("--json", "--provider", "ring", "--data", str(folder)).stdout)
    counts = ("requests_hour", "tokens_hour", "requests_day", "tokens_day")
    # The hour may have ended meanwhile.
    assert [used[name] for name in counts] in ([2, 15, 3, 17], [0, 0, 3, 17])
    assert [unused[name] for name in counts] == [0, 0, 0, 0]


def test_a_provider_without_keys_and_a_gateway_without_any_are_said(run, details):
    assert "these do: alone, ring" in run("--provider", "nobody", expect=1).stderr
    details.answer = {"keys": {}}
    assert "No provider of the gateway has a key" in run().stderr
    assert run("--json").stdout.strip() == "[]"


def test_without_an_address_the_gateway_of_the_config_is_asked(details, keyless, tmp_path):
    keyless.setenv("STELLWERK_LISTEN__PORT", str(details.server_address[1]))
    arguments = ["--key", "admin-key", "--data", str(tmp_path)]
    done = CliRunner().invoke(upstream_keys.app, arguments)
    assert (done.exit_code, done.stdout.splitlines()[1].split("\t")[0]) == (0, "alone")


def test_without_a_gateway_there_is_one_sentence(run, details):
    done = CliRunner().invoke(upstream_keys.app, ["--url", "http://127.0.0.1:9"])
    assert done.exit_code == 1
    assert done.stderr.startswith("No gateway answers at http://127.0.0.1:9.")
    details.answer = ["nothing"]
    assert "cannot be understood" in run(expect=1).stderr


def test_the_first_key_that_may_look_is_used(run, details, keyless, tmp_path):
    keyless.setenv("STELLWERK_ADMIN_KEY", "stale-key")
    keyless.setenv("STELLWERK_API_KEY", "user-key")
    assert "key of an admin or a viewer" in run(key=None, expect=1).stderr
    (tmp_path / "admin.key").write_text("admin-key\n")
    details.shown.clear()
    assert "parked" in run(key=None).stdout
    assert details.shown == ["stale-key", "user-key", "admin-key"]


def test_a_key_that_is_given_is_the_only_one_that_is_shown(run, details, keyless):
    keyless.setenv("STELLWERK_API_KEY", "admin-key")
    assert "--key or STELLWERK_API_KEY" in run(key="user-key", expect=1).stderr
    assert details.shown == ["user-key"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0s"), (-1, "0s"), (0.2, "1s"), (59, "59s"), (59.1, "1m 0s"), (7500, "2h 5m"), (280_000, "3d 5h")],
)
def test_durations_are_short(seconds, words):
    assert duration(seconds) == words
