import inspect
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from stellwerk.cli import webhook_view, webhooks
from stellwerk.http import egress
from stellwerk.http.egress import Egress
from stellwerk.http.egress_url import UrlRefused
from stellwerk.records.audit import read
from stellwerk.webhooks import attempt, delivery, schedule

SECRET = r"whsec_[\w+/]{43}="


class Receiver(HTTPServer):
    """Keeps what it is sent and answers with `status`."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.received = []
        self.status = 204


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.received.append((self.path, self.headers, self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def receiver(monkeypatch):
    with Receiver() as server:
        monkeypatch.setenv("STELLWERK_EGRESS__ALLOWED_ORIGINS", f"[{server.url}]")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def run(command):
    return lambda *arguments, **how: command(webhooks.app, *arguments, **how)


@pytest.fixture
def shown(parsed):
    return lambda *arguments: parsed(webhooks.app, *arguments)


@pytest.fixture
def added(run, receiver):
    return run("add", f"{receiver.url}/hook", "--event", "key.parked", "--event", "engine.crashed").stdout.strip()


def test_adding_shows_the_secret_once_and_alone_on_standard_output(run, shown, receiver):
    done = run("add", f"{receiver.url}/hook", "--description", "pager")
    assert re.fullmatch(f"{SECRET}\n", done.stdout)
    assert "Webhook 1 is told: request.finished." in done.stderr
    [listed] = shown("list")
    assert {name: listed[name] for name in ("id", "url", "events", "description", "active", "with_images")} == {
        "id": 1,
        "url": f"{receiver.url}/hook",
        "events": ["request.finished"],
        "description": "pager",
        "active": True,
        "with_images": False,
    }
    assert done.stdout.strip() not in run("list", "--json").stdout + run("list").stdout
    assert re.fullmatch(SECRET, shown("add", f"{receiver.url}/other", "--images", "--whole-key")["secret"])


def test_a_url_in_a_private_network_is_refused(run, receiver, german):
    for url in ("http://127.0.0.1:9/", "http://10.0.0.1/", "ftp://example.org/", "x"):
        assert "wird nicht gerufen" in run("add", url, expect=1).stderr
    assert "keine Webhooks" in run("list").stderr


def test_an_event_that_does_not_exist_is_refused(run, receiver):
    assert "at least one of these events" in run("add", receiver.url, "--event", "rain", expect=1).stderr


def test_a_webhook_is_listed_in_one_line(run, added, receiver):
    title, row = run("list").stdout.splitlines()
    assert title.split("\t") == ["id", "URL", "events", "state", "description"]
    assert row.split("\t") == ["1", f"{receiver.url}/hook", "key.parked, engine.crashed", "active", "–"]


def test_a_webhook_is_switched_off_and_on_and_removed(run, added):
    run("disable", "1")
    assert "off" in run("list").stdout
    assert "switched off" in run("test", "1", expect=1).stderr
    run("enable", "1")
    assert "\tactive\t" in run("list").stdout
    run("remove", "1")
    assert "There are no webhooks" in run("list").stderr
    for arguments in (("remove", "1"), ("enable", "1"), ("test", "1"), ("deliveries", "1"), ("secret", "1")):
        assert "no such webhook" in run(*arguments, expect=1).stderr
    run("remove", "first", expect=2)


def test_a_test_message_is_sent_without_a_running_gateway(run, shown, added, receiver):
    assert "has arrived" in run("test", "1").stderr
    [(path, headers, body)] = receiver.received
    assert path == "/hook"
    assert headers["webhook-signature"].startswith("v1,")
    assert b'"type":"test"' in body
    [delivery] = shown("deliveries", "1")
    assert (delivery["id"], delivery["state"]) == (headers["webhook-id"], "delivered")
    assert delivery["log"][0]["status"] == 204


def test_a_message_that_did_not_arrive_can_be_sent_again(run, shown, added, receiver):
    receiver.status = 503
    assert "has not arrived: The receiver answered 503." in run("test", "1", expect=1).stderr
    [delivery] = shown("deliveries", "1")
    row = run("deliveries", "1").stdout.splitlines()[1]
    assert row.split("\t")[:2] == [delivery["id"], "test"]
    assert "failed" in row
    assert "fails since" in run("list").stdout
    assert "sent again" in run("retry", delivery["id"]).stderr
    assert shown("deliveries", "1")[0]["state"] == "pending"
    assert "no such delivery" in run("retry", "msg_x", expect=1).stderr


def test_a_new_secret_signs_beside_the_old_one(run, added, receiver):
    new = run("secret", "1").stdout.strip()
    assert re.fullmatch(SECRET, new)
    assert new != added
    run("test", "1")
    assert len(receiver.received[0][1]["webhook-signature"].split()) == 2


def test_changes_are_audited_without_secrets(run, added, database):
    run("secret", "1")
    run("disable", "1")
    run("enable", "1")
    run("test", "1")
    run("remove", "1")
    records = database.read(lambda connection: read(connection, limit=9))
    assert [record.action.removeprefix("webhook.") for record in records] == [
        "delete", "test", "change", "change", "secret", "create",
    ]  # fmt: skip
    assert added not in str(records)
    assert "/hook" not in str(records)


def test_what_came_of_a_test_is_said_in_german(run, added, receiver, german):
    receiver.status = 500
    done = run("test", "1", expect=1)
    assert done.stderr == "Die Nachricht ist nicht angekommen: Der Empfänger hat mit 500 geantwortet.\n"
    receiver.status = 410
    run("test", "1", expect=1)
    assert "aus: Der Empfänger hat mit 410 geantwortet" in run("list").stdout


def test_failures_are_known_by_what_the_gateway_stores_of_them(german):
    written = "".join(inspect.getsource(module) for module in (attempt, delivery, egress, schedule))
    for stored in webhook_view.FAILURES:
        assert f'"{stored}"' in written
    with pytest.raises(UrlRefused) as refused:
        Egress(tuple).parse("http://127.0.0.1/")
    assert webhook_view.explain_failure(refused.value.message).startswith("Diese URL wird nicht gerufen")


@pytest.mark.parametrize("module", [webhooks, webhook_view])
def test_every_text_has_both_languages_and_the_same_places(module):
    for key, texts in module.TEXTS.items():
        places = {language: set(re.findall(r"{(\w+)}", text)) for language, text in texts.items()}
        assert set(texts) == {"en", "de"}, key
        assert places["en"] == places["de"], key
