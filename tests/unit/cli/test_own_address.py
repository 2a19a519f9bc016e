from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from stellwerk.cli import ask, chat, sigo_e
from stellwerk.cli.own_address import find_own_url, local_url, own_url
from stellwerk.config.problems import ConfigError
from stellwerk.storage.address_note import AddressNote

pytestmark = pytest.mark.usefixtures("keyless")


def port_of(gateway):
    return urlsplit(gateway.url).port


@pytest.fixture
def configured(gateway, folder):
    """A gateway on the port that the config file of its data folder names."""
    (folder / "stellwerk.yaml").write_text(f"listen: {{port: {port_of(gateway)}}}\n", encoding="utf-8")
    return gateway


@pytest.fixture
def noted(folder):
    """The note of a gateway that runs."""
    note = AddressNote(folder)
    note.write("0.0.0.0", 6299)
    yield "http://127.0.0.1:6299"
    note.remove()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:4000"),
        ("0.0.0.0", "http://127.0.0.1:4000"),
        ("::", "http://127.0.0.1:4000"),
        ("::1", "http://[::1]:4000"),
        ("192.0.2.7", "http://192.0.2.7:4000"),
        ("2001:db8::7", "http://[2001:db8::7]:4000"),
    ],
)
def test_what_listens_is_reached_at_an_address_of_its_own(host, url):
    assert local_url(host, 4000) == url


def test_the_port_is_that_of_the_config_file(configured, folder):
    assert find_own_url(folder, {}) == configured.url


def test_the_variable_goes_before_the_file(configured, folder):
    assert find_own_url(folder, {"STELLWERK_LISTEN__PORT": "4100"}) == "http://127.0.0.1:4100"


def test_without_a_config_it_is_the_default(folder):
    assert find_own_url(folder, {}) == "http://127.0.0.1:4000"


def test_a_variable_that_only_the_gateway_has_does_not_hide_the_port(folder):
    lines = "listen: {port: 4100}\nhub: {token: '${ONLY_THE_GATEWAY_HAS_IT}'}\n"
    (folder / "stellwerk.yaml").write_text(lines, encoding="utf-8")
    assert find_own_url(folder, {}) == "http://127.0.0.1:4100"


def test_a_config_that_cannot_be_read_keeps_nobody_from_asking(folder):
    (folder / "stellwerk.yaml").write_text("lisen: {}\n", encoding="utf-8")
    assert find_own_url(folder, {}) == "http://127.0.0.1:4000"


def test_ask_finds_the_gateway_that_listens_elsewhere(configured, folder):
    done = CliRunner().invoke(ask.app, ["--data", str(folder), "--key", "sk-1", "Hi"])
    assert (done.exit_code, done.stdout) == (0, "Hello there\n")


def test_chat_finds_the_gateway_that_listens_elsewhere(configured, folder):
    done = CliRunner().invoke(chat.app, ["--data", str(folder), "--key", "sk-1", "--once", "Hi"])
    assert (done.exit_code, done.stdout) == (0, "Hello there\n")


def test_sigo_e_finds_the_gateway_that_listens_elsewhere(configured, folder):
    # Only the second place is of interest: another program of this machine may have port 9080.
    urls = sigo_e.usual_urls({"STELLWERK_DATA": str(folder)})
    assert urls == ("http://127.0.0.1:9080", configured.url)


def test_where_the_gateway_says_that_it_listens_goes_before_the_config(configured, folder, noted):
    assert own_url(folder, {}) == find_own_url(folder, {}) == noted


def test_a_config_that_is_wrong_hides_no_gateway_that_runs(folder, noted):
    (folder / "stellwerk.yaml").write_text("lisen: {}\n", encoding="utf-8")
    assert own_url(folder, {}) == noted


def test_without_a_running_gateway_a_wrong_config_is_told(folder):
    (folder / "stellwerk.yaml").write_text("lisen: {}\n", encoding="utf-8")
    with pytest.raises(ConfigError):
        own_url(folder, {})


@pytest.mark.parametrize("environ", [{"STELLWERK_LISTEN__PORT": "4100"}, {"STELLWERK_LISTEN": "{port: 4100}"}])
def test_a_port_in_the_environment_goes_before_what_the_gateway_says(folder, noted, environ):
    assert own_url(folder, environ) == "http://127.0.0.1:4100"


@pytest.mark.parametrize("environ", [{"STELLWERK_LISTEN__PORT": "0"}, {"STELLWERK_LISTEN__HOST": "0.0.0.0"}])
def test_what_names_no_port_does_not(folder, noted, environ):
    assert own_url(folder, environ) == noted
