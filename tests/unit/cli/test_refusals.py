import pytest

from stellwerk.cli import keys, ledger, signups, users
from stellwerk.cli.refusals import GERMAN, explain
from stellwerk.core.errors import BadRequest, Unavailable


@pytest.fixture
def anna(command):
    command(users.app, "create", "anna@example.org")


@pytest.mark.parametrize(
    ("app", "arguments", "sentence"),
    [
        (users, ("create", "anna@example.org"), "email_taken"),
        (users, ("create", "anna"), "invalid_email"),
        (ledger, ("correct", "1", "-1", "--note", "x"), "balance_below_zero"),
        (keys, ("create", "x", "--networks", "everywhere"), "invalid_networks"),
        (keys, ("create", "x", "--user", "1", "--role", "viewer"), "invalid_role"),
        (signups, ("reject", "1"), "signup_not_found"),
    ],
)
def test_a_refusal_is_said_in_the_language_of_the_reader(command, anna, german, app, arguments, sentence):
    assert command(app.app, *arguments, expect=1).stderr == f"{GERMAN[sentence]}\n"


def test_a_refusal_without_german_words_is_said_as_it_is(german):
    assert explain(BadRequest("There are 100000 prices already.", code="too_many_prices")) == (
        "There are 100000 prices already."
    )


def test_a_reason_that_only_an_engine_knows_is_said_as_it_is(german):
    message = "The model 'm' cannot be loaded: it was ended by SIGKILL."
    assert explain(Unavailable(message, code="model_failed")) == f"{GERMAN['model_failed']} ({message})"


def test_an_english_reader_gets_the_words_of_the_error(command, anna):
    assert command(users.app, "create", "anna@example.org", expect=1).stderr == "Email already exists\n"
