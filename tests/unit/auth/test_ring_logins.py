import pytest

from stellwerk.auth.access_tokens import TokenMint
from stellwerk.auth.logins import REMEMBERED_SECONDS, end_login, start_login
from stellwerk.auth.ring import KeyRing
from stellwerk.core.errors import Unauthenticated
from stellwerk.core.principal import Allowance, Budget, Role, Tier, Window


def code(ring, token):
    with pytest.raises(Unauthenticated) as raised:
        ring.authenticate(token)
    return raised.value.code


async def test_a_login_is_its_user_without_the_limits_of_a_key(ring, user, change):
    await change(user, role=Role.ADMIN, allowance=Allowance(burst=3), budget=Budget(amount=1, window=Window.DAY))
    principal = ring.authenticate(f"{user.id}.abc.good")
    assert (principal.key_id, principal.name, principal.role) == ("login-abc", "ann@example.org", Role.ADMIN)
    assert (principal.user_id, principal.tier, principal.models, principal.networks) == (user.id, Tier.SUB, None, None)
    assert (principal.allowance, principal.budget) == (Allowance(), None)
    assert (principal.user_allowance.burst, principal.user_budget.amount) == (3, 1)
    assert ring.authenticate(f"{user.id}.abc.good") is principal
    await change(user, role=Role.VIEWER, models=frozenset("m"))
    assert (ring.authenticate(f"{user.id}.abc.good").role, ring.authenticate(f"{user.id}.abc.good").models) == (
        Role.VIEWER,
        {"m"},
    )


async def test_real_tokens_of_this_gateway_are_accepted_and_no_others(load, digest, clock, user):
    mint, other = (TokenMint(secret * 32, clock) for secret in (b"a", b"b"))
    ring = KeyRing(load, digest, clock, verify_login=mint.verify_access)
    await ring.refresh()
    token = mint.issue_access(user.id, "0123456789abcdef")
    assert ring.authenticate(token).key_id == "login-0123456789abcdef"
    assert ring.authenticate(token.encode()).key_id == "login-0123456789abcdef"
    refresh = mint.issue_refresh(user.id, "0123456789abcdef", 0, clock.now() + 99)
    for forged in (other.issue_access(user.id, "0123456789abcdef"), refresh, token[:-1], f"{token}.", "..", "a.b.c"):
        assert code(ring, forged) in {"invalid_token", "invalid_api_key"}
    clock.at += 900
    assert code(ring, token) == "expired_token"


async def test_without_a_verifier_no_token_is_good(load, digest, clock, user):
    ring = KeyRing(load, digest, clock)
    await ring.refresh()
    assert code(ring, f"{user.id}.l1.good") == "invalid_api_key"


async def test_an_ended_login_is_refused_until_nobody_can_mean_it_any_more(ring, user, database, clock):
    logins = [
        database.write(lambda connection: start_login(connection, user.id, now=clock.now(), lifetime=60))
        for _ in range(2)
    ]
    await ring.refresh()
    ended, other = (f"{user.id}.{login.id}.good" for login in logins)
    ring.authenticate(ended)
    database.write(lambda connection: end_login(connection, logins[0].id, "logout", clock.now()))
    await ring.refresh()
    assert code(ring, ended) == "invalid_token"
    assert ring.authenticate(other).key_id == f"login-{logins[1].id}"
    assert ring._ended_logins.keys() == {logins[0].id}
    clock.at += REMEMBERED_SECONDS
    database.write(lambda connection: end_login(connection, logins[1].id, "logout", clock.now()))
    await ring.refresh()
    assert ring._ended_logins.keys() == {logins[1].id}


async def test_a_login_of_a_user_whom_another_process_has_just_made_counts_at_once(ring, user, load):
    assert code(ring, f"{user.id}.l1.good") == "invalid_token"
    assert (await ring.authenticate_or_refresh(f"{user.id}.l1.good")).user_id == user.id
    assert load.times == 1


async def test_a_forged_token_costs_no_look_into_the_database(ring, load):
    for token in ("1.l1.bad", "a.b", "é.é.é", "..."):
        with pytest.raises(Unauthenticated):
            await ring.authenticate_or_refresh(token)
    assert load.times == 0


async def test_the_principals_of_logins_are_bounded(ring, user):
    await ring.refresh()
    first = ring.authenticate(f"{user.id}.0.good")
    last = [ring.authenticate(f"{user.id}.{n}.good") for n in range(1, 10_001)][-1]
    assert len(ring._logins) == 10_000
    assert ring.authenticate(f"{user.id}.10000.good") is last
    again = ring.authenticate(f"{user.id}.0.good")
    assert again == first
    assert again is not first
