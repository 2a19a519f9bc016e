import pytest
from typer import rich_utils
from typer.testing import CliRunner

from stellwerk.cli.german_help import _HEADINGS, explain
from stellwerk.cli.main import app

ENGLISH = ("Usage:", "Options", "Commands", "Arguments", "Error", "required", "default:", "Try ", "No such", "Missing")


@pytest.fixture
def run(german, monkeypatch):
    """Runs the whole command line in German; Typer's own words are put back afterwards."""
    for name in _HEADINGS:
        monkeypatch.setattr(rich_utils, name, getattr(rich_utils, name))

    def run(*arguments, expect=0, **how):
        done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"}, **how)
        assert done.exit_code == expect, done.output
        assert [word for word in ENGLISH if word in done.output] == []
        return done.output

    return run


def test_the_help_is_german(run):
    shown = run("--help")
    assert "Aufruf: " in shown
    assert "[OPTIONEN] BEFEHL [ARGUMENTE]..." in shown
    assert "Benutzer anlegen, zeigen, ändern und sperren." in shown
    assert "Die Vervollständigung für diese Shell einrichten." in shown


def test_the_help_of_a_command_is_german(run):
    shown = run("ledger", "correct", "--help")
    assert "Eine Berichtigung buchen" in shown
    assert "±BETRAG" in shown
    assert "[nötig]" in shown
    assert "Diese Hilfe zeigen." in shown
    assert "[Vorgabe: 10]" in run("models", "search", "--help")


def test_a_group_without_a_command_shows_its_help(run):
    assert "Einen Benutzer anlegen." in run("users", expect=2)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("nonsense",), "Den Befehl 'nonsense' gibt es nicht."),
        (("models", "lod"), "Den Befehl 'lod' gibt es nicht. Gemeint ist vielleicht 'load', 'unload'."),
        (("--nonsense",), "Die Option --nonsense gibt es nicht."),
        (
            ("usage", "--sinze", "7d"),
            "Die Option --sinze gibt es nicht. Gemeint ist vielleicht --json, --since, --user.",
        ),
        (("usage", "--since"), "Die Option '--since' braucht einen Wert."),
        (("ask", "--list=1"), "Die Option '--list' nimmt keinen Wert."),
        (("usage", "--by", "moon"), "'--by': 'moon' ist keins von 'day', 'user', 'key', 'model'."),
        (("models", "load", "x", "--context", "many"), "'--context': 'many' ist keine ganze Zahl."),
        (("models", "load", "x", "--context", "1"), "'--context': 1 liegt nicht im Bereich 256<=x<=16777216."),
        (("ask", "--temperature", "hot", "Hi"), "'--temperature' / '-T': 'hot' ist keine Zahl."),
        (("ledger", "correct", "1", "2"), "Die Option '--note' fehlt."),
        (("keys", "create"), "Das Argument 'name' fehlt."),
        (("usage", "more"), "Zu viele Argumente: more"),
    ],
)
def test_what_is_wrong_with_a_call_is_said_in_german(run, arguments, sentence):
    shown = run(*arguments, expect=2)
    assert sentence in shown


def test_a_sentence_of_another_form_stays_as_it_is():
    assert explain("The moon is full.") == "The moon is full."


def test_english_readers_get_what_typer_says(english):
    done = CliRunner().invoke(app, ["nonsense"])
    assert done.exit_code == 2
    assert "No such command 'nonsense'." in done.output
    assert "Run the gateway until" in CliRunner().invoke(app, ["--help"]).output
