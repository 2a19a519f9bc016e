import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.storage.sealing import OVERHEAD, Seal, SealBroken

SEAL = Seal(bytes(range(32)))


@given(st.binary(max_size=500), st.binary(max_size=40))
def test_what_was_sealed_can_be_opened(content, purpose):
    sealed = SEAL.seal(content, purpose=purpose)
    assert len(sealed) == len(content) + OVERHEAD
    assert SEAL.open(sealed, purpose=purpose) == content


def test_the_same_content_never_looks_the_same():
    assert len({SEAL.seal(b"content") for _ in range(100)}) == 100


def test_the_content_is_not_in_the_sealed_piece():
    content = b"a prompt that nobody may read"
    assert content[:6] not in SEAL.seal(content)


@given(st.data())
def test_a_piece_that_was_changed_is_refused(data):
    sealed = bytearray(SEAL.seal(b"content"))
    place = data.draw(st.integers(0, len(sealed) - 1))
    sealed[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SealBroken):
        SEAL.open(bytes(sealed))


@given(st.binary(max_size=100))
def test_what_was_never_sealed_is_refused(content):
    with pytest.raises(SealBroken):
        SEAL.open(content)


def test_another_secret_opens_nothing():
    with pytest.raises(SealBroken):
        Seal(bytes(32)).open(SEAL.seal(b"content"))


def test_a_piece_cannot_be_passed_off_as_another_one():
    with pytest.raises(SealBroken):
        SEAL.open(SEAL.seal(b"content", purpose=b"message 1"), purpose=b"message 2")


def test_a_short_secret_is_refused():
    with pytest.raises(ValueError):
        Seal(b"too short")
