"""The search for canaries finds one that was planted: without that, finding none would prove nothing."""

import base64
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from secrets import token_urlsafe

import pytest

from tests.canaries import Canary, Secrets, forms_of, read_folder, read_process, search
from tests.raw_http import Answer
from tests.secret_journey import Shown

PLANTED = 'Kanari "planted" +ü%/ in its place'


@pytest.mark.parametrize("form", sorted({form for form, _ in forms_of(PLANTED)}))
def test_a_canary_is_found_in_every_form(form):
    for name, needle in forms_of(PLANTED):
        if name == form:
            places = {"here": b"a" + needle + b"b", "there": b"nothing"}
            assert [hit.place for hit in search(places, [Canary("planted", PLANTED)])] == ["here"]
            assert not search(places, [Canary("planted", PLANTED, ("here",))])


def test_base64_is_found_however_it_is_aligned():
    for shift in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            content = encode(b"x" * shift + PLANTED.encode() + b" and more")
            assert search({"here": content}, [Canary("planted", PLANTED)])


@pytest.mark.parametrize("part", [slice(17, 34), slice(30, 47), slice(43, 60)], ids=["first", "middle", "last"])
def test_a_piece_of_a_key_is_found(part):
    key = f"sk-sw-aaaaaaaaaa-{token_urlsafe(32)}"
    assert search({"here": key[part].encode()}, [Canary("key", key)])
    assert not search({"here": f"{key[:16]}…{key[-4:]}".encode()}, [Canary("key", key)])


def test_a_canary_is_found_in_a_database_and_in_what_it_has_not_taken_over_yet(tmp_path):
    (tmp_path / "secrets").mkdir()
    (tmp_path / "backups").mkdir()
    for name in ("admin.key", "chat.key", "secrets/pepper", "backups/old.db"):
        (tmp_path / name).write_text(PLANTED)
    with closing(sqlite3.connect(tmp_path / "stellwerk.db", isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE users (name TEXT)")
        database.execute("INSERT INTO users VALUES (?)", [PLANTED])
        hits = search(read_folder(tmp_path), [Canary("planted", PLANTED)])
        assert {hit.place for hit in hits} == {"file backups/old.db", "file stellwerk.db-wal"}
    hits = search(read_folder(tmp_path), [Canary("planted", PLANTED)])
    assert {hit.place for hit in hits} == {"file backups/old.db", "file stellwerk.db"}


def test_a_canary_is_found_in_the_arguments_and_the_environment_of_a_process():
    wait = [sys.executable, "-c", "print(flush=True); input()", PLANTED]
    with subprocess.Popen(wait, env={"SECRET": PLANTED}, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        # Before it says something it may still be a copy of this process.
        assert process.stdout.readline()
        places = read_process(process.pid, environment=True)
        process.communicate(b"\n")
    hits = search(places, [Canary("planted", PLANTED)])
    assert {hit.place.split()[-1] for hit in hits} == {"cmdline", "environ"}


def test_a_canary_is_found_in_answers_heads_and_outputs():
    shown = Shown(Secrets())
    shown.answer("GET /", Answer(200, {"x": PLANTED}, b""))
    shown.answer("GET /", Answer(500, {}, PLANTED.encode()))
    shown.keep("log", PLANTED.encode())
    hits = search(shown.places, [Canary("planted", PLANTED)])
    assert {hit.place for hit in hits} == {"answer of GET /", "error of GET /", "log"}


def test_what_is_shown_once_is_a_secret_from_then_on():
    secrets = Secrets()
    shown, key = Shown(secrets), f"sk-sw-aaaaaaaaaa-{token_urlsafe(32)}"
    place, body = "POST /user/api/keys", json.dumps({"key": key}).encode()
    shown.answer(place, Answer(200, {}, body))
    assert not search(shown.places, secrets.all)
    shown.answer("GET /user/api/keys", Answer(200, {}, body))
    assert [hit.place for hit in search(shown.places, secrets.all)] == ["answer of GET /user/api/keys"]
