"""All limits together, beside a model that keeps every call and looks through all of them for every question."""

import random

import pytest

from stellwerk.core.errors import GatewayError, RateLimited
from stellwerk.core.principal import Allowance
from stellwerk.limits.admit import Limits, LimitSettings

MINUTE = 60_000_000_000
TOTAL = 4

ALLOWANCES = {
    1: Allowance(requests_per_minute=12, tokens_per_minute=500, concurrent_requests=3),
    2: Allowance(requests_per_minute=9),
    "burst": Allowance(requests_per_minute=8, burst=3),
    "plain": Allowance(requests_per_minute=7, tokens_per_minute=200),
    "narrow": Allowance(concurrent_requests=1, tokens_per_minute=1000),
    "free": Allowance(),
    (1, "large"): Allowance(requests_per_minute=4, tokens_per_minute=90),
    (2, "large"): Allowance(requests_per_minute=4, tokens_per_minute=90),
}
"""Of users, keys and users on a model."""

CALLERS = (
    (1, "burst", "small"),
    (1, "plain", "small"),
    (1, "plain", "large"),
    (1, "narrow", "large"),
    (2, "free", "small"),
    (2, "free", "large"),
)


class Admission:
    def __init__(self, names, at, tokens):
        self.names, self.at, self.running, self.requests = names, at, True, 1
        self.tokens = {
            name: min(tokens, most) for name in names if (most := ALLOWANCES[name].tokens_per_minute) is not None
        }


class Everything:
    def __init__(self):
        self.admitted = []

    def counted(self, name, at, now):
        """What still counts at `at` when nobody has come since `now`."""
        return [each for each in self.admitted if name in each.names and at - MINUTE < each.at <= now]

    def fits(self, names, tokens, at, now):
        return all(self.fits_one(ALLOWANCES[name], name, tokens, at, now) for name in names)

    def fits_one(self, allowance, name, tokens, at, now):
        counted = self.counted(name, at, now)
        if (most := allowance.requests_per_minute) and sum(each.requests for each in counted) + 1 > most:
            return False
        if allowance.burst and self.bucket(name, at) < interval(allowance):
            return False
        most = allowance.tokens_per_minute
        return not most or sum(each.tokens[name] for each in counted) + min(tokens, most) <= most

    def bucket(self, name, at):
        """What a bucket holds that was full at first, in nanoseconds of filling."""
        allowance = ALLOWANCES[name]
        full = left = allowance.burst * interval(allowance)
        before = 0
        for each in self.admitted:
            if name in each.names:
                left = min(full, left + each.at - before) - interval(allowance)
                before = each.at
        return min(full, left + at - before)

    def wait(self, names, tokens, now):
        moments = {now}
        for name in names:
            moments.update(each.at + MINUTE for each in self.counted(name, now, now))
            if ALLOWANCES[name].burst:
                moments.add(now + max(0, interval(ALLOWANCES[name]) - self.bucket(name, now)))
        return min(at - now for at in moments if self.fits(names, tokens, at, now))

    def busy(self, names):
        for name in names:
            running = sum(each.running for each in self.admitted if name in each.names)
            if (most := ALLOWANCES[name].concurrent_requests) and running >= most:
                return True
        return False

    def forget(self, now):
        self.admitted = [each for each in self.admitted if each.running or each.at > now - 3 * MINUTE]


def interval(allowance):
    return -(-MINUTE // allowance.requests_per_minute)


def end_one(numbers, held):
    """Ends a call in one of all ways."""
    permit, admission = held.pop(numbers.randrange(len(held)))
    admission.running = False
    how = numbers.choice(("known", "known", "known", "unknown", "refund"))
    # What of a burst comes back is a question of time: tests of its own ask for it.
    if how == "refund" and "burst" not in admission.names:
        permit.refund()
        admission.requests, admission.tokens = 0, dict.fromkeys(admission.tokens, 0)
    elif how == "unknown":
        permit.release()
    else:
        tokens = numbers.choice((0, 10, 50, 600))
        permit.release(tokens)
        admission.tokens = dict.fromkeys(admission.tokens, tokens)


def try_one(limits, call, guess):
    try:
        return limits.admit(call, guess)
    except GatewayError as error:
        return error


def run_side_by_side(clock, call, estimate, *, steps, seed):
    numbers = random.Random(seed)
    settings = LimitSettings(models={"large": ALLOWANCES[1, "large"]}, total_concurrent_requests=TOTAL)
    limits, everything, held = Limits(settings, clock, keys=2), Everything(), []
    given = {
        name: {field: getattr(each, field) for field in each.__struct_fields__} for name, each in ALLOWANCES.items()
    }
    calls = [call(key, user_id=user, model=model, user=given[user], **given[key]) for user, key, model in CALLERS]
    seen = dict.fromkeys(("admitted", "late", "busy", "full"), 0)
    for _ in range(steps):
        clock.at += numbers.choice((0, 0, numbers.random(), numbers.random() * 6))
        if held and numbers.random() < 0.3:
            end_one(numbers, held)
            continue
        number, tokens, now = numbers.randrange(len(calls)), numbers.choice((1, 20, 60, 300)), int(clock.at * 1e9)
        user, key, model = CALLERS[number]
        names = (user, key, (user, model)) if model == "large" else (user, key)
        pause = everything.wait(names, tokens, now)
        answer = try_one(limits, calls[number], estimate(tokens))
        if pause:
            seen["late"] += 1
            assert isinstance(answer, RateLimited)
            assert answer.retry_after == pytest.approx(pause / 1e9, abs=2e-6)
        elif everything.busy(names):
            seen["busy"] += 1
            assert "concurrent requests" in answer.message
        elif len(held) == TOTAL:
            seen["full"] += 1
            assert answer.code == "overloaded"
        else:
            seen["admitted"] += 1
            everything.admitted.append(Admission(names, now, tokens))
            held.append((answer, everything.admitted[-1]))
        assert limits.running == len(held)
        everything.forget(now)
    assert min(seen.values()) > steps / 250, seen


@pytest.mark.parametrize("seed", range(4))
def test_it_decides_like_a_list_of_all_admissions(clock, call, estimate, seed):
    run_side_by_side(clock, call, estimate, steps=2_500, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 105))
def test_it_decides_like_a_list_of_all_admissions_for_long(clock, call, estimate, seed):
    run_side_by_side(clock, call, estimate, steps=20_000, seed=seed)
