import json
import string

import pytest
from typer.testing import CliRunner

from stellwerk.cli import client_access, job_view, jobs
from stellwerk.cli.jobs import app
from tests.gateway_process import environment_for
from tests.scripted_answers import answer, refused, scripted_answers
from tests.terminal_process import on_a_terminal

ID = "550e8400-e29b-41d4-a716-446655440000"
OTHER = "550e8400-e29b-41d4-a716-446655440001"
CHAT = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}}]}

pytestmark = pytest.mark.usefixtures("keyless")


@pytest.fixture
def server():
    with scripted_answers() as running:
        yield running


def job(status="queued", number=ID, **more):
    return {
        "id": number,
        "object": "job",
        "status": status,
        "model": "up/demo",
        "created_at": "2026-11-21T09:30:00.000Z",
        **more,
    }


def run(server, *arguments, expect=0, key="sk-1"):
    keyed = ["--key", key] if key else []
    done = CliRunner().invoke(app, [*arguments, "--url", server.url, *keyed])
    assert done.exit_code == expect, done.output
    return done


@pytest.mark.parametrize("texts", [jobs.TEXTS, job_view.TEXTS, client_access.TEXTS])
def test_both_languages_have_the_same_placeholders(texts):
    for said in texts.values():
        names = [
            {name for _, name, _, _ in string.Formatter().parse(said[language]) if name} for language in ("en", "de")
        ]
        assert names[0] == names[1]


def test_jobs_are_listed(server):
    rows = [job("queued", position=3), job("failed", OTHER, error={"code": "x", "message": "Why\x1b[2J"})]
    server.script = [answer({"data": rows, "has_more": True, "last_id": OTHER})]
    done = run(server, "list", "--status", "failed", "--limit", "2")
    assert f"{ID}\twaits, place 3\tup/demo" in done.stdout
    assert "Why?[2J" in done.stdout
    assert f"--before {OTHER}" in done.stderr
    assert server.seen[0].path == "/api/requests?status=failed&limit=2"
    assert server.seen[0].headers["authorization"] == "Bearer sk-1"


def test_the_list_is_json_too(server):
    server.script = [answer({"data": [job("running")]})]
    assert json.loads(run(server, "list", "--json").stdout)[0]["status"] == "running"


def test_no_jobs_are_said_to_be_none(server):
    server.script = [answer({"data": []})]
    done = run(server, "list")
    assert (done.stdout, done.stderr) == ("", "There are no jobs.\n")


def test_a_job_is_shown_with_its_attempts(server):
    log = [{"number": 1, "started_at": "2026-11-21T09:31:00.000Z", "outcome": "retried"}]
    server.script = [answer(job("running", attempt_log=log, progress={"done": 2, "total": 9, "unit": "pages"}))]
    shown = run(server, "show", ID).stdout
    assert "runs, 2 of 9 pages" in shown
    assert "attempt 1" in shown
    assert "retried" in shown


def test_answers_are_printed_in_the_order_of_the_jobs(server):
    pages = {"pages": [{"index": 0, "markdown": "# Read"}]}
    server.script = [answer(job("running")), answer(job("completed")), answer(CHAT)]
    server.script += [answer(job("completed", OTHER)), answer(pages)]
    done = run(server, "wait", ID, OTHER)
    assert (done.stdout, done.stderr) == ("Hello\n# Read\n", "")


def test_whole_answers_are_printed_on_demand(server):
    server.script = [answer(job("completed")), answer(CHAT)]
    assert json.loads(run(server, "wait", ID, "--json").stdout) == CHAT


def test_what_is_no_text_is_passed_on(server):
    server.script = [answer(job("completed")), answer(raw=b"\x00\xffsound", kind="audio/wav")]
    assert run(server, "wait", ID).stdout_bytes == b"\x00\xffsound"


def test_one_that_failed_does_not_hide_the_others(server):
    failed = job("failed", error={"code": "x", "message": "The model died."})
    server.script = [answer(failed), answer(job("completed", OTHER)), answer(CHAT)]
    done = run(server, "wait", ID, OTHER, expect=1)
    assert done.stdout == "Hello\n"
    assert done.stderr == f"Job {ID} has failed: The model died\n"


def test_one_that_was_given_up_can_be_queued_again(server):
    server.script = [answer(job("dead"))]
    assert f"stellwerk jobs retry {ID}" in run(server, "wait", ID, expect=1).stderr


def test_waiting_ends_with_its_time(server):
    server.script = [answer(job("running"))]
    done = run(server, "wait", ID, "--timeout", "0", expect=75)
    assert f"stellwerk jobs wait {ID}" in done.stderr


def test_a_cancelled_job_has_no_answer(server):
    server.script = [answer(job("cancelled"))]
    done = run(server, "wait", ID, expect=1)
    assert done.stderr == f"Job {ID} was cancelled.\n"


def test_who_stops_waiting_learns_how_to_go_on(server, tmp_path):
    server.script = [answer(job("running", progress={"done": 3, "total": 20, "unit": "pages"}))] * 400
    environment = {**environment_for(tmp_path), "TERM": "xterm", "STELLWERK_API_KEY": "sk-1"}
    with on_a_terminal("jobs", "wait", ID, OTHER, "--url", server.url, environment=environment, folder=tmp_path) as it:
        it.wait_for("3 of 20 pages")
        it.type("\x03")
        it.wait_for(f"stellwerk jobs wait {ID} {OTHER}")
        assert it.wait_for_end() == 130
    assert "Traceback" not in it.shown


def test_jobs_are_cancelled_each_for_itself(server):
    server.script = [refused(404, "There is no such job.", "job_not_found"), answer(job("cancelled", OTHER))]
    done = run(server, "cancel", ID, OTHER, expect=1)
    assert f"{ID}: There is no such job" in done.stderr
    assert f"Job {OTHER} is cancelled." in done.stderr
    assert [seen.method for seen in server.seen] == ["DELETE", "DELETE"]


def test_what_is_no_id_is_no_job_either(server):
    server.script = [refused(404, "There is no such request.", "not_found")]
    assert "There is no such job" in run(server, "show", "nope", expect=1).stderr


def test_one_that_had_ended_is_not_called_cancelled(server):
    server.script = [answer(job("completed"))]
    assert f"Job {ID} had ended already: done" in run(server, "cancel", ID).stderr


def test_dead_jobs_are_queued_again(server):
    server.script = [answer(job("queued")), refused(409, "No.", "job_not_dead")]
    assert run(server, "retry", ID).stderr == f"Job {ID} is queued again.\n"
    assert "given up" in run(server, "retry", ID, expect=1).stderr


def test_refusals_are_said_in_german_too(server, german):
    server.script = [refused(404, "There is no such job.", "job_not_found")]
    assert "Diesen Job gibt es nicht" in run(server, "show", ID, expect=1).stderr


def test_nobody_at_home_is_said(server):
    server.close()
    assert "No gateway answers at http://127.0.0.1" in run(server, "list", expect=1).stderr


def test_the_key_may_come_from_the_environment(server, keyless):
    keyless.setenv("STELLWERK_API_KEY", "sk-env")
    server.script = [answer({"data": []})]
    run(server, "list", key=None)
    assert server.seen[0].headers["authorization"] == "Bearer sk-env"


def test_the_key_may_be_that_of_the_data_folder(server, tmp_path):
    (tmp_path / "admin.key").write_text("sk-admin\n")
    server.script = [answer({"data": []})]
    run(server, "list", key=None)
    assert server.seen[0].headers["authorization"] == "Bearer sk-admin"


def test_without_any_key_nothing_is_asked(server):
    done = run(server, "list", key=None, expect=1)
    assert "There is no API key" in done.stderr
    assert server.seen == []


def test_keys_of_this_machine_stay_on_it(tmp_path):
    (tmp_path / "admin.key").write_text("sk-admin\n")
    done = CliRunner().invoke(app, ["list", "--url", "http://gateway.example:4000"])
    assert (done.exit_code, "There is no API key" in done.stderr) == (1, True)
