import asyncio
import threading
import unicodedata

import pytest
from argon2 import extract_parameters
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.auth.passwords import (
    _NOBODYS,
    Passwords,
    PasswordSettings,
    check_new_password,
    hash_password,
    verify_password,
)
from stellwerk.core.errors import BadRequest, Unavailable
from stellwerk.core.secrets import Secret

GOOD = Secret("Drei Äpfel im Güterwagen")


@pytest.fixture(scope="module")
def encoded():
    return hash_password(GOOD)


def test_a_password_is_kept_as_argon2id_with_64_mebibytes_and_three_passes(encoded):
    assert encoded.startswith("$argon2id$v=19$m=65536,t=3,p=1$")
    assert len(encoded) <= 200
    assert "pfel" not in encoded
    assert hash_password(GOOD) != encoded


def test_only_the_password_itself_is_right(encoded):
    assert verify_password(encoded, GOOD) is True
    assert verify_password(encoded, Secret(GOOD.reveal() + " ")) is False


def test_the_same_letters_are_right_however_the_keyboard_composes_them(encoded):
    decomposed = unicodedata.normalize("NFD", GOOD.reveal())
    assert decomposed != GOOD.reveal()
    assert verify_password(encoded, Secret(decomposed)) is True


@pytest.mark.parametrize("stored", [None, "", "plain", "$argon2id$v=19$m=65536", "ä"])
def test_where_no_password_is_stored_none_is_right(stored):
    assert verify_password(stored, GOOD) is False


def test_what_cannot_be_encoded_is_wrong_and_no_failure():
    assert verify_password(None, Secret("\ud800")) is False


def test_nobodys_password_costs_as_much_as_a_real_one(encoded):
    assert extract_parameters(_NOBODYS) == extract_parameters(encoded)


@pytest.mark.parametrize(
    "password",
    [
        "correct horse battery staple",
        "Drei Äpfel im Güterwagen",
        "x7#Kq!9zRw$2",
        "!#%&/()=?{[]",
        "长城以北的火车站台上没有人",
        "a" * 3 + "bcdkl mnopq" + "z" * 242,
    ],
)
def test_a_password_that_nobody_guesses_is_accepted(password):
    check_new_password(Secret(password), "ada@example.com")


@pytest.mark.parametrize(
    "password",
    [
        "",
        "x7#Kq!9zRw$",
        "correct horse battery staple " * 9,
        "aaaaaaaaaaaa",
        "abcabcabcabcabc",
        "123456789012",
        "1234567890123456",
        "password1234",
        "Password-1234!",
        "P@ssw0rd!P@ssw0rd!",
        "passwort12345678",
        "qwertzuiop123",
        "stellwerk-admin-1",
        "changeme changeme",
        "lovelace@example.com",
        "lovelace lovelace1",
        "lovelaceexample12",
        "hallo hallo hallo",
    ],
)
def test_a_password_that_is_short_long_or_guessed_first_is_refused(password):
    with pytest.raises(BadRequest) as raised:
        check_new_password(Secret(password), "lovelace@example.com", param="new_password")
    assert (raised.value.code, raised.value.param) == ("weak_password", "new_password")
    assert not password or password not in raised.value.message


@given(st.text(max_size=300), st.text(max_size=40))
def test_every_text_is_either_accepted_or_refused(password, email):
    accepted = True
    try:
        check_new_password(Secret(password), email)
    except BadRequest:
        accepted = False
    assert not accepted or 12 <= len(password) <= 256


class Slow:
    """Work that waits until it is let go and knows how many ran at once."""

    def __init__(self):
        self.gate, self.lock = threading.Event(), threading.Lock()
        self.running = self.most = self.done = 0

    def __call__(self, *_):
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        assert self.gate.wait(30)
        with self.lock:
            self.running -= 1
            self.done += 1
        return True


@pytest.fixture
def slow():
    return Slow()


@pytest.fixture
def passwords(slow):
    passwords = Passwords(PasswordSettings(at_once=2, waiting=3), verify_one=slow, hash_one=slow)
    yield passwords
    slow.gate.set()
    passwords.close()


async def settle(condition):
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # what is waited for happens in threads
            await asyncio.sleep(0.001)


async def test_two_passwords_are_checked_at_once_and_the_rest_waits(passwords, slow):
    tasks = [asyncio.ensure_future(passwords.verify(None, GOOD)) for _ in range(5)]
    await settle(lambda: slow.running == 2)
    slow.gate.set()
    assert await asyncio.gather(*tasks) == [True] * 5
    assert slow.most == 2


async def test_one_more_than_may_wait_is_refused_at_once(passwords, slow):
    tasks = [asyncio.ensure_future(passwords.verify(None, GOOD)) for _ in range(5)]
    await settle(lambda: slow.running == 2)
    for refuse in (passwords.verify(None, GOOD), passwords.hash(GOOD)):
        with pytest.raises(Unavailable) as raised:
            await refuse
        assert (raised.value.code, raised.value.retry_after) == ("overloaded", 2.0)
    with pytest.raises(Unavailable):
        passwords.check_free()
    slow.gate.set()
    await asyncio.gather(*tasks)
    assert await passwords.verify(None, GOOD) is True


async def test_a_client_that_leaves_the_queue_makes_room_and_one_that_is_served_does_not(passwords, slow):
    tasks = [asyncio.ensure_future(passwords.verify(None, GOOD)) for _ in range(5)]
    await settle(lambda: slow.running == 2)
    tasks[0].cancel()
    await asyncio.gather(tasks[0], return_exceptions=True)
    with pytest.raises(Unavailable):
        passwords.check_free()
    tasks[4].cancel()
    await asyncio.gather(tasks[4], return_exceptions=True)
    passwords.check_free()
    slow.gate.set()
    await asyncio.gather(*tasks[1:4])
    await settle(lambda: slow.done == 4)


async def test_real_passwords_are_hashed_off_the_event_loop():
    passwords = Passwords()
    try:
        hashing = asyncio.ensure_future(passwords.hash(GOOD))
        turns = 0
        while not hashing.done():
            await asyncio.sleep(0)
            turns += 1
        assert turns > 10
        assert await passwords.verify(hashing.result(), GOOD) is True
    finally:
        passwords.close()
