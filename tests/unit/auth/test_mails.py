import pytest

from stellwerk.auth.mails import approval_mail, rejection_mail
from stellwerk.core.principal import Tier
from stellwerk.core.secrets import Secret

LANGUAGES = ("en", "de")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("tier", list(Tier))
def test_an_approval_says_where_and_with_which_key(language, tier):
    mail = approval_mail(language, base_url="https://llm.example.org/", tier=tier, key=Secret("sk-sw-abc"))
    assert "https://llm.example.org/v1/models" in mail.body
    assert mail.body.count("sk-sw-abc") == 2
    assert "{" not in mail.body


@pytest.mark.parametrize("language", LANGUAGES)
def test_without_the_key_a_placeholder_stands_in_its_place(language):
    assert mail_of(language, Tier.PAYG).body.count("<") == 2


def mail_of(language, tier):
    return approval_mail(language, base_url="http://localhost:4000", tier=tier)


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_tier_is_told_how_it_pays(language):
    assert len({mail_of(language, tier).body for tier in Tier}) == 3


def test_braces_in_the_key_or_address_are_taken_as_they_are():
    mail = approval_mail("en", base_url="http://{tier}", tier=Tier.SUB, key=Secret("{url}"))
    assert "http://{tier}/v1" in mail.body
    assert "Bearer {url}" in mail.body


@pytest.mark.parametrize("language", LANGUAGES)
def test_subjects_are_one_fixed_line_and_texts_are_plain(language):
    mails = [mail_of(language, Tier.SUB), rejection_mail(language)]
    assert len({mail.subject for mail in mails}) == 2
    for mail in mails:
        assert mail.subject.isprintable()
        assert max(len(line) for line in mail.body.splitlines()) <= 120
        assert "\r" not in mail.body


def test_both_languages_are_there():
    assert "Guten Tag" in rejection_mail("de").body
    assert "Hello" in rejection_mail("en").body
