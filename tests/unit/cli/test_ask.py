import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from stellwerk.cli.ask import app, find_gateway
from stellwerk.cli.gateway_client import GatewayTrouble
from stellwerk.cli.language import TEXTS

NOWHERE = "http://127.0.0.1:1"

pytestmark = pytest.mark.usefixtures("keyless")


def run(gateway, *arguments, expect=0, key="sk-1", **options):
    keyed = ["--key", key] if key else []
    done = CliRunner().invoke(app, ["--url", gateway.url, *keyed, *arguments], **options)
    assert done.exit_code == expect, done.output
    return done


def test_the_answer_goes_to_standard_output(gateway):
    done = run(gateway, "What", "is it?")
    assert (done.stdout, done.stderr) == ("Hello there\n", "")
    assert gateway.calls == [
        {"model": "stellwerk-demo", "messages": [{"role": "user", "content": "What is it?"}], "stream": True}
    ]


def test_the_question_may_come_from_standard_input(gateway):
    run(gateway, input="\ufeffZeile eins\nZeile zwei\n\n")
    assert gateway.calls[0]["messages"] == [{"role": "user", "content": "Zeile eins\nZeile zwei"}]


def test_an_argument_goes_before_standard_input(gateway):
    run(gateway, "this", input="not this")
    assert gateway.calls[0]["messages"][0]["content"] == "this"


@pytest.mark.parametrize("typed", ["", " \n"])
def test_without_a_question_nothing_is_asked(gateway, typed):
    done = run(gateway, input=typed, expect=2)
    assert "There is no prompt." in done.stderr
    assert gateway.calls == []


def test_a_question_that_is_no_text_is_refused(gateway):
    assert "UTF-8" in run(gateway, input=b"Gr\xfc\xdfe", expect=1).stderr


def test_a_question_without_end_is_refused(gateway):
    assert "longer than 4 MiB" in run(gateway, input=b"x" * ((4 << 20) + 1), expect=1).stderr
    assert gateway.calls == []


def test_what_is_chosen_goes_along(gateway):
    run(
        gateway, "-m", "gpt41", "-s", "proj", "-n", "20", "-T", "0", "-t", "9", "-r", "2", "--system", "Be brief.", "Hi"
    )
    assert gateway.calls == [
        {
            "model": "gpt41",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
            "stream": True,
            "session_id": "proj",
            "max_tokens": 20,
            "temperature": 0.0,
            "timeout": 9,
            "retries": 2,
        }
    ]


def test_json_holds_the_whole_exchange(gateway):
    told = json.loads(run(gateway, "--json", "Hi").stdout)
    assert list(told) == ["model", "pid", "timestamp", "prompt", "response", "error", "duration_ms"]
    assert (told["model"], told["prompt"], told["response"], told["error"]) == (
        "stellwerk-demo",
        "Hi",
        "Hello there",
        "",
    )
    assert told["pid"] == os.getpid()
    assert told["duration_ms"] >= 0


def test_json_tells_what_went_wrong_and_what_had_come(gateway):
    gateway.after = b'data: {"error":{"message":"The model died."}}\n\n'
    told = json.loads(run(gateway, "--json", "Hi", expect=1).stdout)
    assert (told["response"], told["error"]) == ("Hello there", "The answer failed: The model died.")


def test_a_failure_is_told_and_ends_with_1(gateway):
    gateway.after = b""
    done = run(gateway, "Hi", expect=1)
    assert (done.stdout, done.stderr) == ("Hello there\n", "The answer broke off before its end.\n")


def test_half_a_character_does_not_end_the_answer(gateway):
    gateway.answer = ["a\ud83d", "b"]
    assert run(gateway, "Hi").stdout == "a?b\n"


def test_another_program_gets_what_the_model_wrote(gateway):
    gateway.answer = ["a\x1b[1mb\r\n"]
    command = [sys.executable, "-m", "stellwerk", "ask", "--url", gateway.url, "--key", "k", "Hi"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=60)
    assert done.stdout == b"a\x1b[1mb\r\n\n"


def test_models_are_listed_by_provider(gateway):
    assert run(gateway, "--list").stdout.splitlines() == [
        "Provider\tModel\tShortcode\tIn $/M\tOut $/M",
        "house\thouse/embed\t–\t0.10 EUR\t0.00 EUR",
        "local\tstellwerk-demo\t–\t–\t–",
        "mammouth\tmammouth/gpt-4.1\tgpt41\t2.00\t8.00",
    ]


def test_prices_in_one_currency_need_it_once(gateway):
    gateway.models = gateway.models[::2]
    assert run(gateway, "--list").stdout.splitlines()[:2] == [
        "Provider\tModel\tShortcode\tIn EUR/M\tOut EUR/M",
        "house\thouse/embed\t–\t0.10\t0.00",
    ]


def test_the_list_is_there_as_json(gateway):
    listed = json.loads(run(gateway, "-l", "-j").stdout)
    assert [(model["id"], model["input_cost"]) for model in listed] == [
        ("house/embed", 0.1),
        ("stellwerk-demo", None),
        ("mammouth/gpt-4.1", 2),
    ]


def test_a_model_is_described_by_any_of_its_names(gateway):
    described = dict(line.split("\t") for line in run(gateway, "--info", "-m", "GPT41").stdout.splitlines())
    assert described["Model"] == "mammouth/gpt-4.1"
    assert described["Longest answer, tokens"] == "8192"
    assert described["Out $/M"] == "8.00"
    assert gateway.calls == []


def test_without_a_name_the_model_that_would_answer_is_described(gateway):
    assert json.loads(run(gateway, "-i", "-j").stdout)["id"] == "stellwerk-demo"


def test_a_model_that_is_not_offered_is_not_described(gateway):
    assert "no model nothing" in run(gateway, "-i", "-m", "nothing", expect=1).stderr


def test_columns_are_german_where_the_machine_is(gateway, monkeypatch):
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    gateway.become_sigorest()
    assert run(gateway, "-l").stdout.splitlines()[:2] == [
        "Anbieter\tModell\tKürzel\tEin $/M\tAus $/M",
        "api.mammouth.ai\tgpt-4.1\tgpt41\t2,00\t8,00",
    ]


def test_a_listener_that_wants_no_key_is_asked_without(gateway):
    assert run(gateway, "Hi", key=None).stdout == "Hello there\n"


def test_where_a_key_is_wanted_it_says_how_to_get_one(gateway):
    gateway.key = "sk-other"
    assert "stellwerk keys create" in run(gateway, "Hi", key=None, expect=1).stderr
    assert "Unknown key." in run(gateway, "Hi", expect=1).stderr


def test_the_first_gateway_that_answers_is_asked(gateway):
    client, models = find_gateway([NOWHERE, gateway.url], None, None, {"STELLWERK_API_KEY": "sk-1"})
    assert client.url == gateway.url
    assert len(models) == 3


def test_when_none_answers_all_addresses_are_named():
    with pytest.raises(GatewayTrouble) as caught:
        find_gateway([NOWHERE, "http://127.0.0.1:2"], "k", None, {})
    assert (caught.value.key, caught.value.values) == (
        "ask.not_running",
        {"urls": "http://127.0.0.1:1, http://127.0.0.1:2"},
    )


def test_a_refusal_says_more_than_an_address_where_nobody_is(gateway):
    gateway.status = 403
    with pytest.raises(GatewayTrouble) as caught:
        find_gateway([NOWHERE, gateway.url], "k", None, {})
    assert caught.value.key == "chat.refused"


def test_every_text_says_the_same_in_both_languages():
    for key, texts in TEXTS.items():
        if key.startswith(("ask.", "flags.", "sigo_")):
            assert texts.keys() == {"en", "de"}
            assert {part.split("}")[0] for part in texts["en"].split("{")[1:]} == {
                part.split("}")[0] for part in texts["de"].split("{")[1:]
            }
