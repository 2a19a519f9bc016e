import pytest

from stellwerk.cli import keys, ledger, signups, users
from stellwerk.cli.gateway_client import GatewayTrouble
from stellwerk.cli.refusals import explain, explain_text, explain_trouble
from stellwerk.core.errors import BadRequest, NotFound, Unavailable
from stellwerk.tui.refusals import BY_CODE


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
    assert command(app.app, *arguments, expect=1).stderr == f"{BY_CODE[sentence]}\n"


def test_a_refusal_without_german_words_is_said_as_it_is(german):
    assert explain(BadRequest("There are 100000 prices already.", code="too_many_prices")) == (
        "There are 100000 prices already."
    )


def test_a_reason_that_only_an_engine_knows_is_said_as_it_is(german):
    message = "The model 'm' cannot be loaded: it was ended by SIGKILL."
    assert explain(Unavailable(message, code="model_failed")) == (
        "Das Modell m lässt sich nicht laden: it was ended by SIGKILL."
    )
    assert explain(Unavailable("It fell.", code="model_failed")) == f"{BY_CODE['model_failed']} (It fell.)"


def test_an_english_reader_gets_the_words_of_the_error(command, anna):
    assert command(users.app, "create", "anna@example.org", expect=1).stderr == "Email already exists\n"


def test_what_the_message_names_is_named_in_german_too(german):
    message = "The model 'mistrel' does not exist. Did you mean 'a' or 'b'? GET /v1/models lists the models there are."
    assert explain(NotFound(message, code="model_not_found")) == (
        "Ein Modell mistrel gibt es nicht; gemeint ist vielleicht 'a' oder 'b'. `stellwerk ask --list` zeigt alle."
    )
    assert explain_text("The data folder /x cannot be created: Permission denied.") == (
        "Der Datenordner /x lässt sich nicht anlegen: keine Berechtigung."
    )


def test_what_a_gateway_refuses_over_http_is_german_too(german):
    refused = GatewayTrouble("chat.refused", status=403, message="Admin access required")
    assert explain_trouble(refused) == "Das Gateway lehnt ab (403): Das darf nur ein Admin."
    assert explain_trouble(refused, refused=False) == "Das darf nur ein Admin."
    vendors = GatewayTrouble("chat.failed", message="Somebody's own words.")
    vendors.code = "model_not_found"
    assert explain_trouble(vendors) == "Die Antwort ist gescheitert: Somebody's own words."


def test_an_overlong_message_of_a_stranger_is_not_compared(german):
    assert explain_text("The model '" + "x" * 5000) == "The model '" + "x" * 5000
