import logging

import pytest

from stellwerk.app.web_origins import own_names, web_origins
from stellwerk.config.settings import Config, Listen

APP = "https://app.example.org"


def found(value=None, *own):
    environ = {} if value is None else {"OLLAMA_ORIGINS": value}
    return web_origins(Config(listen=Listen(cors_origins=own)), environ)


def test_without_settings_nobody_is_named():
    origins = found()
    assert not origins.everywhere
    assert not origins.at_ollama


def test_origins_of_the_config_count_everywhere_and_those_of_ollama_beside_them():
    origins = found('"chrome-extension://*, http://localhost:3000,"', APP)
    assert origins.everywhere.named == {APP.encode()}
    assert not origins.everywhere.name(b"chrome-extension://abc")
    assert origins.at_ollama.named == {APP.encode(), b"http://localhost:3000"}
    assert origins.at_ollama.name(b"chrome-extension://abc")


def test_a_star_for_ollama_opens_nothing_else():
    origins = found("*")
    assert origins.at_ollama.everybody
    assert not origins.everywhere


@pytest.mark.parametrize("entry", ["example.org", "https://*.example.org", "https://a/b", "null"])
def test_what_is_no_origin_is_reported_and_left_out(caplog, entry):
    with caplog.at_level(logging.WARNING):
        origins = found(f"{entry},{APP}")
    assert origins.at_ollama.named == {APP.encode()}
    assert entry in caplog.text
    assert "OLLAMA_ORIGINS" in caplog.text


def test_a_variable_without_end_is_read_as_far_as_it_makes_sense():
    origins = found(",".join(f"https://host-{number}" for number in range(1000)))
    assert len(origins.at_ollama.named) == 64


def test_programs_on_this_machine_ask_by_its_names():
    names = own_names(Config(listen=Listen(allowed_hosts=("Gateway.Example.",))))
    assert {"localhost", "gateway.example"} <= names
