import base64
import hashlib
import hmac
import json
import string
import subprocess
import sys

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.auth.access_tokens import LONGEST_ACCESS_SECONDS, MintSettings, TokenMint
from stellwerk.core.clock import SystemClock
from stellwerk.core.errors import Unauthenticated

SECRET = bytes(range(32))
NOW = 1_000_000
HEADER = {"alg": "HS256", "typ": "JWT"}
GOOD = {
    "iss": "stellwerk",
    "aud": "stellwerk",
    "sub": "7",
    "sid": "0123456789abcdef",
    "jti": "abcdefghijklmnop",
    "iat": NOW,
    "exp": NOW + 900,
    "type": "access",
    "client_id": "default",
}


@pytest.fixture
def mint(clock):
    return TokenMint(SECRET, clock)


def part(value):
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(claims=GOOD, header=HEADER, *, secret=SECRET, digest=hashlib.sha256):
    head = f"{part(header)}.{part(claims)}"
    return f"{head}.{part(hmac.new(secret, head.encode(), digest).digest())}"


def without(name):
    return {key: value for key, value in GOOD.items() if key != name}


def resigned(token, *, signature=None, claims=None):
    head, payload, old = token.split(".")
    return f"{head}.{part(claims) if claims is not None else payload}.{old if signature is None else signature}"


def refused(verify, token):
    with pytest.raises(Unauthenticated) as raised:
        verify(token)
    assert raised.value.status == 401
    return raised.value.code, raised.value.message


def spelt_differently(token):
    """Of the last letter only four bits count, so three others stand for the same bytes."""
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) ^ 1]


INVALID = ("invalid_token", "Invalid token")


def test_the_token_that_the_forgeries_are_made_from_is_good(mint):
    assert mint.verify_access(signed()).user_id == 7


def test_an_access_token_says_whose_login_it_is_and_until_when(mint, clock):
    claims = mint.verify_access(mint.issue_access(7, "0123456789abcdef"))
    assert (claims.user_id, claims.login_id, claims.expires_at) == (7, "0123456789abcdef", clock.now() + 900)


def test_a_refresh_token_says_which_generation_it_is(mint):
    claims = mint.verify_refresh(mint.issue_refresh(7, "0123456789abcdef", 3, NOW + 5.5))
    assert (claims.user_id, claims.login_id, claims.generation, claims.expires_at) == (
        7,
        "0123456789abcdef",
        3,
        NOW + 5,
    )


def test_the_claims_are_those_that_are_documented(mint):
    token = mint.issue_access(7, "0123456789abcdef")
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims | {"jti": ""} == GOOD | {"jti": ""}
    assert jwt.get_unverified_header(token) == HEADER
    assert len(token) <= 512


def test_no_two_tokens_are_alike(mint):
    assert len({mint.issue_access(7, "0123456789abcdef") for _ in range(100)}) == 100


def test_a_token_expires_to_the_second_by_the_clock_of_the_gateway(mint, clock):
    access, refresh = mint.issue_access(7, "a"), mint.issue_refresh(7, "a", 0, NOW + 900)
    clock.at += 899.9
    assert mint.verify_access(access)
    assert mint.verify_refresh(refresh)
    clock.at += 0.1
    assert refused(mint.verify_access, access) == ("expired_token", "Token has expired")
    assert refused(mint.verify_refresh, refresh) == ("expired_token", "Token has expired")


def test_no_access_token_outlives_its_login(mint):
    assert mint.verify_access(mint.issue_access(7, "a", until=NOW + 60.0)).expires_at == NOW + 60
    assert mint.verify_access(mint.issue_access(7, "a", until=NOW + 6000.0)).expires_at == NOW + 900


def test_a_clock_that_goes_back_makes_no_token_invalid(mint, clock):
    token = mint.issue_access(7, "a")
    clock.at -= 86_400
    assert mint.verify_access(token).user_id == 7


FORGED = {
    "no algorithm": signed(header={"alg": "none", "typ": "JWT"}),
    "no algorithm and no signature": f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(GOOD)}.",
    "no algorithm in capitals": f"{part({'alg': 'NONE', 'typ': 'JWT'})}.{part(GOOD)}.x",
    "header without algorithm": signed(header={"typ": "JWT"}),
    "algorithm null": signed(header={"alg": None, "typ": "JWT"}),
    "list of algorithms": signed(header={"alg": ["HS256"], "typ": "JWT"}),
    "lower case algorithm": signed(header={"alg": "hs256", "typ": "JWT"}),
    "another key": signed(secret=bytes(32)),
    "empty key": signed(secret=b""),
    "key with a byte more": signed(secret=SECRET + b"\0x"),
    "HS512": signed(header={"alg": "HS512", "typ": "JWT"}, digest=hashlib.sha512),
    "HS384": signed(header={"alg": "HS384", "typ": "JWT"}, digest=hashlib.sha384),
    "RS256 in name only": signed(header={"alg": "RS256", "typ": "JWT"}),
    "other audience": signed(GOOD | {"aud": "other"}),
    "audience in a list": signed(GOOD | {"aud": ["stellwerk", "other"]}),
    "audience null": signed(GOOD | {"aud": None}),
    "other issuer": signed(GOOD | {"iss": "other"}),
    "issuer in a list": signed(GOOD | {"iss": ["stellwerk"]}),
    "refresh as access": signed(GOOD | {"type": "refresh"}),
    "access with a generation": signed(GOOD | {"gen": 0}),
    "unknown type": signed(GOOD | {"type": "id"}),
    "another claim": signed(GOOD | {"role": "admin"}),
    "other client": signed(GOOD | {"client_id": "console"}),
    "user as a number": signed(GOOD | {"sub": 7}),
    "user 0": signed(GOOD | {"sub": "0"}),
    "negative user": signed(GOOD | {"sub": "-7"}),
    "user with a blank": signed(GOOD | {"sub": "7\n"}),
    "user in other digits": signed(GOOD | {"sub": "٧"}),
    "user beyond all numbers": signed(GOOD | {"sub": "9" * 30}),
    "login as a number": signed(GOOD | {"sid": 7}),
    "end as text": signed(GOOD | {"exp": str(NOW + 900)}),
    "end as a fraction": signed(GOOD | {"exp": NOW + 900.5}),
    "end never": signed(json.dumps(GOOD).replace(str(NOW + 900), "1e999").encode()),
    "end null": signed(GOOD | {"exp": None}),
    "kid": signed(header=HEADER | {"kid": "1"}),
    "kid as a path": signed(header=HEADER | {"kid": "../../../../dev/null"}),
    "jku": signed(header=HEADER | {"jku": "https://example.com/keys"}),
    "jwk": signed(header=HEADER | {"jwk": {"kty": "oct", "k": part(SECRET)}}),
    "crit": signed(header=HEADER | {"crit": ["exp"]}),
    "crit with b64": signed(header=HEADER | {"b64": True, "crit": ["b64"]}),
    "unencoded payload": signed(header=HEADER | {"b64": False, "crit": ["b64"]}),
    "zip": signed(header=HEADER | {"zip": "DEF"}),
    "other type in the header": signed(header={"alg": "HS256", "typ": "at+jwt"}),
    "tampered payload": resigned(signed(), claims=GOOD | {"sub": "1"}),
    "longer life": resigned(signed(), claims=GOOD | {"exp": NOW + 9000}),
    "no signature": resigned(signed(), signature=""),
    "half a signature": resigned(signed(), signature=signed().split(".")[2][:22]),
    "signature of another token": resigned(signed(), signature=signed(GOOD | {"sub": "8"}).split(".")[2]),
    "same signature in other letters": spelt_differently(signed()),
    "padding": signed() + "=",
    "four parts": signed() + ".x",
    "two parts": signed().rpartition(".")[0],
    "line break": signed() + "\n",
    "blank before": " " + signed(),
    "not base64": "a!b.c!d.e!f",
    "header is a list": f"{part([])}.{part(GOOD)}.x",
    "header nested deeply": f"{part(b'[' * 1400)}.{part(GOOD)}.x",
    "payload is a list": signed([GOOD]),
    "payload is no JSON": signed(b"\xff\xfe"),
    "payload nested deeply": signed(b"[" * 1000 + b"]" * 1000),
    "too long": signed(GOOD | {"sid": "a" * 2000}),
    "blanks in the payload": signed(json.dumps(GOOD).encode() + b" " * 1600),
    "a mebibyte": "a" * (1 << 20),
    "nothing": "",
    "dots": "..",
    "an API key": "sk-sw-aaaaaaaaaa-" + "A" * 43,
    "lone surrogate": "\ud800.a.b",
} | {f"no {name}": signed(without(name)) for name in GOOD}


@pytest.mark.parametrize("token", FORGED.values(), ids=FORGED.keys())
def test_a_forged_token_is_refused_without_a_reason(mint, token):
    assert refused(mint.verify_access, token) == INVALID
    assert refused(mint.verify_refresh, token) == INVALID


def test_a_forged_token_that_has_expired_is_forged(mint, clock):
    clock.at += 10_000
    assert refused(mint.verify_access, signed(secret=bytes(32))) == INVALID


def test_neither_token_serves_as_the_other(mint):
    assert refused(mint.verify_refresh, mint.issue_access(7, "a")) == INVALID
    assert refused(mint.verify_access, mint.issue_refresh(7, "a", 0, NOW + 900)) == INVALID


def test_tokens_of_another_gateway_are_refused(mint, clock):
    other = TokenMint(SECRET[::-1], clock)
    assert refused(mint.verify_access, other.issue_access(7, "a")) == INVALID


@given(st.text(max_size=300) | st.from_regex(r"[A-Za-z0-9_-]{0,60}(\.[A-Za-z0-9_-]{0,60}){0,4}", fullmatch=True))
def test_whatever_is_shown_either_is_good_or_is_refused(text):
    mint = TokenMint(SECRET, SystemClock())
    assert refused(mint.verify_access, text) == INVALID


@given(st.integers(0, len(signed()) - 1), st.characters(codec="ascii"))
def test_no_character_of_a_token_can_be_another(position, character):
    mint, token = TokenMint(SECRET, SystemClock()), signed()
    if token[position] != character:
        assert refused(mint.verify_access, token[:position] + character + token[position + 1 :]) == INVALID


def test_a_short_secret_or_a_long_life_is_refused(clock):
    with pytest.raises(ValueError, match="32 bytes"):
        TokenMint(b"x" * 31, clock)
    for seconds in (0, -1, LONGEST_ACCESS_SECONDS + 1):
        with pytest.raises(ValueError, match="3600 seconds"):
            TokenMint(SECRET, clock, MintSettings(access_seconds=seconds))


def test_the_gateway_starts_without_what_only_logins_need():
    code = "import sys, stellwerk.api.login; sys.exit(bool({'jwt', 'argon2'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
