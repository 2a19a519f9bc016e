import pytest

from stellwerk.auth.tokens import load_pepper, make_digest


@pytest.fixture
def digest(folder):
    return make_digest(load_pepper(folder, has_keys=False))
