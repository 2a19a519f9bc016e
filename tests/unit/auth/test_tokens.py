import hashlib
import hmac
import re
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.auth.tokens import (
    WeakKey,
    check_chosen_key,
    derive_secret,
    is_foreign_id,
    is_well_formed,
    load_pepper,
    make_digest,
    new_foreign_id,
    new_token,
)
from stellwerk.core.secrets import Secret
from stellwerk.storage.failures import StorageRefused

PEPPER = Secret("ab" * 32)


def test_a_new_key_has_a_public_id_and_a_secret_part():
    key_id, token = new_token()
    assert re.fullmatch(r"[a-z2-7]{10}", key_id)
    assert re.fullmatch(rf"sk-sw-{key_id}-[A-Za-z0-9_-]{{43}}", token.reveal())
    assert str(token) == "***"


def test_no_two_keys_are_alike():
    made = [new_token() for _ in range(1000)]
    assert len({key_id for key_id, _ in made}) == len({token.reveal() for _, token in made}) == 1000


def test_our_keys_are_recognised_by_their_shape():
    assert is_well_formed(new_token()[1].reveal().encode())
    for token in (b"", b"sk-sw-", b"sk-1234", b"sk-sw-ABCDEFGHIJ-" + b"a" * 43, b"sk-sw-abcdefghij-" + b"a" * 44):
        assert not is_well_formed(token)


def test_ids_tell_our_keys_from_those_that_were_made_elsewhere():
    assert all(is_foreign_id(new_foreign_id()) and not is_foreign_id(new_token()[0]) for _ in range(1000))
    assert len(new_foreign_id()) == len(new_token()[0])


@given(st.binary(max_size=600))
def test_a_digest_is_the_hmac_under_the_derived_key(token):
    extracted = hmac.new(bytes(32), bytes.fromhex(PEPPER.reveal()), hashlib.sha256).digest()
    expanded = hmac.new(extracted, b"api-keys" + b"\x01", hashlib.sha256).digest()
    assert make_digest(PEPPER)(token) == hmac.new(expanded, token, hashlib.sha256).digest()


def test_each_purpose_and_each_pepper_has_a_secret_of_its_own():
    made = {derive_secret(pepper, label) for pepper in (PEPPER, Secret("cd" * 32)) for label in ("api-keys", "logins")}
    assert len(made) == 4
    assert {len(secret) for secret in made} == {32}
    assert derive_secret(PEPPER, "logins") in made


def test_stored_digests_stay_what_they_were():
    expected = "c0a97d12e8cc5700097ffa496608a913"
    assert make_digest(PEPPER)(b"sk-sw-aaaaaaaaaa-" + b"A" * 43).hex().startswith(expected)


def test_another_pepper_gives_other_digests():
    assert make_digest(PEPPER)(b"key") != make_digest(Secret("cd" * 32))(b"key")


def test_the_pepper_is_made_once_for_its_owner_only(tmp_path):
    first = load_pepper(tmp_path, has_keys=False)
    assert load_pepper(tmp_path, has_keys=True) == first
    path = tmp_path / "secrets" / "pepper"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert len(bytes.fromhex(first.reveal())) == 32


def test_a_lost_pepper_is_not_replaced_behind_the_back_of_stored_keys(tmp_path):
    with pytest.raises(StorageRefused, match="secrets/pepper is missing"):
        load_pepper(tmp_path, has_keys=True)
    assert not (tmp_path / "secrets").exists()


@pytest.mark.parametrize("content", ["", "short", "zz" * 32, "ab" * 31, "ä" * 32])
def test_a_damaged_pepper_is_refused(tmp_path, content):
    load_pepper(tmp_path, has_keys=False)
    (tmp_path / "secrets" / "pepper").write_text(content)
    with pytest.raises(StorageRefused, match="secrets/pepper is damaged"):
        load_pepper(tmp_path, has_keys=False)


def test_a_folder_in_the_place_of_the_pepper_is_refused(tmp_path):
    (tmp_path / "secrets" / "pepper").mkdir(parents=True)
    with pytest.raises(StorageRefused, match="cannot be read"):
        load_pepper(tmp_path, has_keys=False)


@pytest.mark.parametrize(
    "key",
    [
        "too-short",
        "sk-1234567890abcdefgh",
        "Admin-0123456789abcdef",
        "changeme-changeme-changeme",
        "test-key-0123456789",
        "password12345678901",
        "x" * 32,
        "with a space 0123456789",
        "with-an-ä-0123456789",
        "a1" * 300,
    ],
)
def test_an_admin_key_that_can_be_guessed_or_sent_by_nobody_is_refused(key):
    with pytest.raises(WeakKey) as raised:
        check_chosen_key(Secret(key))
    assert key not in str(raised.value)


@pytest.mark.parametrize("key", ["c2VjdXJlLXJhbmRvbS1rZXk=", "sk-own-4f1e9a77c03b52d8", "admin-key-of-the-build"])
def test_a_random_admin_key_is_accepted(key):
    check_chosen_key(Secret(key))
