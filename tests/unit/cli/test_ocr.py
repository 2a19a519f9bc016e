import json

import pytest
import typer
from typer.testing import CliRunner

from stellwerk.cli.ocr import app, parse_pages
from tests.gateway_process import environment_for
from tests.scripted_answers import answer, refused, scripted_answers
from tests.terminal_process import on_a_terminal

PNG = b"\x89PNG\r\n\x1a\n"

pytestmark = pytest.mark.usefixtures("keyless")


class Reader:
    """Answers as the gateway does that reads documents: what stands in a document is its own bytes."""

    def __init__(self):
        self.documents = []
        self.refusals = {}
        self.bodies = []

    def __call__(self, seen):
        if seen.path == "/v1/ocr":
            self.bodies.append(seen.json)
            document = seen.json["document"]
            self.documents.append(document[document["type"]])
            return answer(self.job(len(self.documents) - 1, "queued"), 202)
        number = int(seen.path.split("/")[3].partition("?")[0].rpartition("-")[2])
        if number in self.refusals:
            return self.refusals[number]
        if seen.path.endswith("/result"):
            return answer(self.result(number))
        return answer(self.job(number, "completed"))

    def job(self, number, status):
        return {"id": f"job-{number}", "status": status, "created_at": "2026-11-21T09:30:00.000Z"}

    def result(self, number):
        size = len(self.documents[number])
        page = {"index": 0, "markdown": f"# {size}", "text": str(size), "dimensions": {"width": 1, "height": 2}}
        return {"pages": [page, {"index": 1, "markdown": "end", "degraded": True}], "model": "rapidocr"}


@pytest.fixture
def reader():
    return Reader()


@pytest.fixture
def server(reader):
    with scripted_answers() as running:
        running.script = [reader] * 40
        yield running


@pytest.fixture
def page(tmp_path):
    file = tmp_path / "page.png"
    file.write_bytes(PNG)
    return file


def run(server, *arguments, expect=0, **options):
    done = CliRunner().invoke(app, [*map(str, arguments), "--url", server.url, "--key", "sk-1"], **options)
    assert done.exit_code == expect, done.output
    return done


def test_the_text_goes_to_standard_output(server, page, reader):
    done = run(server, page, "--mode", "gundam", "--pages", "1-2,5", "--priority", "high")
    assert done.stdout == f"{len(reader.documents[0])}\n\nend\n"
    assert "the text of page 2 may be incomplete" in done.stderr
    assert {name: reader.bodies[0].get(name) for name in ("mode", "pages", "boxes", "model")} == {
        "mode": "gundam",
        "pages": [0, 1, 4],
        "boxes": None,
        "model": "rapidocr",
    }
    assert server.seen[0].headers["x-stellwerk-priority"] == "high"


def test_markdown_and_json_are_printed_on_demand(server, page, reader):
    assert run(server, page, "--out", "md").stdout.startswith("# ")
    told = json.loads(run(server, page, "--out", "json").stdout)
    assert [each["file"] for each in told] == [str(page)]
    assert told[0]["pages"][0]["dimensions"] == {"width": 1, "height": 2, "dpi": None}
    assert reader.bodies[1]["boxes"] is True


def test_several_documents_keep_their_order(server, tmp_path):
    files = []
    for number in range(9):
        files.append(tmp_path / f"{number}.png")
        files[-1].write_bytes(PNG + b"x" * 3 * number)
    done = run(server, *files)
    assert [line for line in done.stdout.splitlines() if line.startswith("==>")] == [
        f"==> {file} <==" for file in files
    ]
    sizes = [int(line) for line in done.stdout.splitlines() if line.isdigit()]
    assert sizes == sorted(set(sizes))
    assert len(sizes) == 9


def test_each_document_may_have_a_file_of_its_own(server, page, tmp_path):
    folder = tmp_path / "new" / "read"
    assert "page.md written." in run(server, page, "--out", "md", "--to", folder).stderr
    assert (folder / "page.md").read_text().startswith("# ")
    (folder / "page.md").write_text("mine")
    assert "exists already" in run(server, page, "--out", "md", "--to", folder, expect=1).stderr
    assert (folder / "page.md").read_text() == "mine"


def test_standard_input_and_addresses_are_documents_too(server, reader):
    run(server, "-", "https://example.org/a.pdf", input=PNG)
    assert sorted(reader.documents) == ["data:image/png;base64,iVBORw0KGgo=", "https://example.org/a.pdf"]


def test_one_that_cannot_be_read_does_not_hide_the_others(server, page, tmp_path, reader):
    other = tmp_path / "a.txt"
    other.write_text("just text")
    done = run(server, tmp_path / "none.pdf", page, other, expect=1)
    assert str(len(reader.documents[0])) in done.stdout
    assert "none.pdf cannot be read: No such file or directory" in done.stderr
    assert f"{other}: Documents are JPEG, PNG" in done.stderr
    assert len(reader.documents) == 1


def test_a_job_that_failed_is_told_with_its_file(server, page, reader):
    error = {"code": "invalid_document", "message": "The document is damaged."}
    reader.refusals[0] = answer({**reader.job(0, "failed"), "error": error})
    done = run(server, page, expect=1)
    assert (done.stdout, done.stderr) == ("", f"{page}: Job job-0 has failed: The document is damaged\n")


def test_who_does_not_want_to_wait_learns_how_to_go_on(server, page, reader):
    reader.refusals[0] = answer(reader.job(0, "running"))
    done = run(server, page, "--timeout", "0", expect=75)
    assert "stellwerk jobs wait job-0" in done.stderr


def test_progress_is_shown_and_who_stops_learns_how_to_go_on(server, page, reader, tmp_path):
    server.script = [reader] * 400
    reader.refusals[0] = answer({**reader.job(0, "running"), "progress": {"done": 3, "total": 20, "unit": "pages"}})
    environment = {**environment_for(tmp_path), "TERM": "xterm", "STELLWERK_API_KEY": "sk-1"}
    with on_a_terminal("ocr", str(page), "--url", server.url, environment=environment, folder=tmp_path) as it:
        it.wait_for("3 of 20 pages")
        it.type("\x03")
        it.wait_for("stellwerk jobs wait job-0")
        assert it.wait_for_end() == 130
    assert "Traceback" not in it.shown


def test_a_gateway_without_an_engine_says_so_in_german(server, page, german):
    server.script = [refused(503, "Not installed.", "ocr_not_installed", retry_after="999")]
    assert "keine eigene OCR-Engine" in run(server, page, expect=1).stderr


@pytest.mark.parametrize(("given", "pages"), [(None, None), ("1", [0]), ("3-4,1,3", [2, 3, 0]), (" 2 , 4-4", [1, 3])])
def test_pages_are_read(given, pages):
    assert parse_pages(given) == pages


@pytest.mark.parametrize("given", ["", "0", "3-1", "a", "1-", "-1", "1,,2", "99999", "1-20000"])
def test_what_are_no_pages_is_refused(given):
    with pytest.raises(typer.BadParameter):
        parse_pages(given)
