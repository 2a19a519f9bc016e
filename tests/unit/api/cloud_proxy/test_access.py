import pytest

from stellwerk.api.cloud_proxy.access import Door
from stellwerk.core.errors import Forbidden
from stellwerk.core.secrets import Secret
from stellwerk.http.cors import read_origins
from tests.port_fakes import ALICE, RecordedExchange

TOKEN = "a token of the operator"
OWN_KEY = "sk-sw-aaaaaaaaaa-" + "x" * 43
HERE = ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1")
ELSEWHERE = ("192.168.1.5", "10.0.0.1", "::ffff:10.0.0.1", "fe80::1%eth0", "2001:db8::1", "", "localhost")


def door(token=TOKEN, *, unauthenticated=False, origins=()) -> Door:
    return Door(
        Secret(token) if token else None,
        unauthenticated=unauthenticated,
        trusted=lambda: ALICE,
        names=frozenset({"mybox"}),
        origins=read_origins(origins, patterns=True)[0],
    )


def asking(peer="127.0.0.1", shown=None, **headers) -> RecordedExchange:
    fields = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    if shown is not None:
        fields[b"authorization"] = b"Bearer " + shown.encode("utf-8")
    return RecordedExchange(peer=peer, headers=fields)


@pytest.mark.parametrize("peer", [*HERE, *ELSEWHERE])
def test_the_token_lets_everybody_in(peer):
    assert door().admit(asking(peer, TOKEN)) is ALICE
    assert door().admit_to_statistics(asking(peer, TOKEN)) is ALICE


@pytest.mark.parametrize("shown", [None, "", "wrong", TOKEN[:-1], f"{TOKEN}x", TOKEN.upper(), OWN_KEY, "wörter"])
def test_anything_else_is_left_to_the_keys(shown):
    assert door().admit(asking(shown=shown)) is None
    assert door(None).admit(asking(shown=shown)) is None


def test_a_token_with_letters_outside_ascii_is_compared_byte_by_byte():
    assert door("geheimes wört").admit(asking(shown="geheimes wört")) is ALICE
    assert door("geheimes wört").admit(asking(shown="geheimes wort")) is None


def test_the_token_may_stand_in_the_other_headers_for_keys():
    assert door().admit(asking("10.0.0.1", x_api_key=TOKEN)) is ALICE


@pytest.mark.parametrize("peer", HERE)
@pytest.mark.parametrize("shown", [None, "ollama", "dummy"])
def test_without_authentication_programs_on_this_machine_come_in(peer, shown):
    assert door(unauthenticated=True).admit(asking(peer, shown)) is ALICE


@pytest.mark.parametrize("peer", ELSEWHERE)
def test_without_authentication_nobody_else_comes_in(peer):
    assert door(unauthenticated=True).admit(asking(peer)) is None
    assert door().admit_to_statistics(asking(peer)) is None


@pytest.mark.parametrize("name", ["x_forwarded_for", "forwarded", "x_real_ip"])
def test_what_a_proxy_on_this_machine_passes_on_is_not_of_this_machine(name):
    exchange = asking(**{name: "127.0.0.1"})
    assert door(unauthenticated=True).admit(exchange) is None
    assert door().admit_to_statistics(exchange) is None


def test_who_shows_a_key_of_ours_is_meant_to_be_its_owner():
    for opened in (door(), door(unauthenticated=True)):
        assert opened.admit(asking(shown=OWN_KEY)) is None
        assert opened.admit_to_statistics(asking(shown=OWN_KEY)) is None


@pytest.mark.parametrize("headers", [{"origin": "https://evil.example"}, {"sec_fetch_site": "same-site"}])
def test_the_page_of_another_site_is_refused_where_nothing_has_to_be_shown(headers):
    with pytest.raises(Forbidden):
        door(unauthenticated=True).admit(asking(host="localhost:11434", **headers))
    assert door(unauthenticated=True).admit(asking(shown=TOKEN, **headers)) is ALICE


@pytest.mark.parametrize(
    ("token", "unauthenticated", "configured"),
    [(TOKEN, False, True), (None, True, True), (TOKEN, True, True), (None, False, False), ("", False, False)],
)
def test_it_knows_whether_anybody_can_come_in(token, unauthenticated, configured):
    assert door(token, unauthenticated=unauthenticated).configured is configured


@pytest.mark.parametrize("origin", ["https://app.example.org", "chrome-extension://abc"])
def test_a_page_that_the_operator_has_named_comes_in_as_programs_do(origin):
    opened = door(unauthenticated=True, origins=["https://app.example.org", "chrome-extension://*"])
    exchange = asking(host="localhost:11434", origin=origin, sec_fetch_site="cross-site")
    assert opened.admit(exchange) is ALICE
    assert opened.admit_to_statistics(exchange) is ALICE


def test_where_every_page_may_read_answers_none_comes_in_without_a_token():
    opened = door(unauthenticated=True, origins=["*"])
    exchange = asking(host="localhost:11434", origin="https://evil.example", sec_fetch_site="cross-site")
    for admit in (opened.admit, opened.admit_to_statistics):
        with pytest.raises(Forbidden):
            admit(exchange)
    assert opened.admit(asking(shown=TOKEN, origin="https://evil.example")) is ALICE


def test_a_link_from_another_site_leads_a_person_to_the_statistics():
    assert door().admit_to_statistics(asking(host="localhost:11434", sec_fetch_site="cross-site")) is ALICE


@pytest.mark.parametrize("host", ["localhost", "a.localhost:11434", "127.0.0.1:11434", "[::1]:11434", "MyBox.:11434"])
def test_programs_ask_by_a_name_of_this_machine(host):
    assert door(unauthenticated=True).admit(asking(host=host)) is ALICE


@pytest.mark.parametrize("host", ["evil.example", "evil.example:11434", "mybox.evil.example", "localhost.evil.example"])
def test_a_page_whose_own_name_leads_here_is_no_program_on_this_machine(host):
    exchange = asking(host=host, origin=f"http://{host}", sec_fetch_site="same-origin")
    assert door(unauthenticated=True).admit(exchange) is None
    assert door().admit_to_statistics(exchange) is None
    assert door(unauthenticated=True).admit(asking(shown=TOKEN, host=host)) is ALICE
