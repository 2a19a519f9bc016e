import pytest
import typer
from typer.testing import CliRunner

from stellwerk.cli.confirmation import confirmed

app = typer.Typer(add_completion=False)


@app.command()
def ask():
    typer.echo(confirmed("Delete it?"))


def answered(line):
    return CliRunner().invoke(app, [], input=line)


@pytest.mark.parametrize(
    ("line", "expected"),
    [("y\n", True), ("YES\n", True), ("j\n", True), (" Ja \n", True), ("n\n", False), ("\n", False)],
)
def test_yes_and_no_are_understood_in_both_languages(english, line, expected):
    assert answered(line).stdout == f"{expected}\n"


def test_the_question_says_what_to_answer_in_the_language_of_the_reader(german):
    assert answered("n\n").stderr == "Delete it? [j/N]: "


def test_what_is_neither_is_asked_again(english):
    done = answered("perhaps\ny\n")
    assert done.stdout == "True\n"
    assert done.stderr == "Delete it? [y/N]: y is yes, n is no.\nDelete it? [y/N]: "


def test_an_input_that_ends_is_no_answer(english):
    assert answered("").exit_code == 1
