import asyncio
import contextlib
import random
import timeit

import pytest

from stellwerk.core.clock import SystemClock
from stellwerk.core.errors import GatewayError, RateLimited, Unavailable
from stellwerk.core.outcome import Estimate
from stellwerk.core.principal import Allowance, Tier
from stellwerk.limits.admit import Limits, LimitSettings, PastCall

REQUESTS_LEFT = b"x-ratelimit-remaining-requests"
TOKENS_LEFT = b"x-ratelimit-remaining-tokens"


def payg(**allowance):
    return {Tier.PAYG: Allowance(**allowance)}


def test_without_limits_everything_is_admitted_without_headers(clock, call, estimate):
    limits = Limits(LimitSettings(), clock)
    permits = [limits.admit(call(), estimate()) for _ in range(1000)]
    assert limits.running == 1000
    assert {permit.headers for permit in permits} == {()}


def test_a_minute_admits_its_share_at_once_and_the_next_after_a_minute(clock, call, estimate, refusal):
    limits = Limits(LimitSettings(tiers=payg(requests_per_minute=3)), clock)
    left = [dict(limits.admit(call(), estimate()).headers)[REQUESTS_LEFT] for _ in range(3)]
    assert left == [b"2", b"1", b"0"]
    clock.at += 20
    error = refusal(limits, call())
    assert isinstance(error, RateLimited)
    assert (error.status, error.code, error.retry_after) == (429, "rate_limit_exceeded", 40.0)
    assert error.message == (
        "Rate limit exceeded. Try again in 40 s. The limit of 3 requests per minute for this user is reached."
    )
    assert dict(error.headers) == {
        b"x-ratelimit-limit-requests": b"3",
        b"x-ratelimit-remaining-requests": b"0",
        b"x-ratelimit-reset-requests": b"40s",
    }
    clock.at += error.retry_after
    limits.admit(call(), estimate())


def test_a_burst_comes_on_top_of_the_minute(clock, call, estimate, refusal):
    limits = Limits(LimitSettings(requests_per_minute=60, burst=10), clock)
    for left in range(9, -1, -1):
        assert dict(limits.admit(call(), estimate()).headers)[REQUESTS_LEFT] == b"%d" % left
    error = refusal(limits, call())
    assert error.retry_after == 1.0
    assert "60 requests per minute, 10 at once, for this key" in error.message
    admitted = 10
    for _ in range(59):
        clock.at += 1
        with contextlib.suppress(RateLimited):
            limits.admit(call(), estimate())
            admitted += 1
    assert admitted == 60
    assert "60 requests per minute for this key" in refusal(limits, call()).message


@pytest.mark.parametrize(("burst", "at_once"), [(0, 25), (1, 1), (10, 10), (25, 25), (90, 25)])
def test_at_one_moment_exactly_the_burst_is_admitted_and_never_more_than_the_rate(
    clock, call, estimate, refusal, burst, at_once
):
    limits = Limits(LimitSettings(requests_per_minute=25, burst=burst), clock)
    for _ in range(at_once):
        limits.admit(call(), estimate())
    refusal(limits, call())


async def test_of_500_parallel_calls_exactly_the_limit_is_admitted(call, estimate):
    limits = Limits(LimitSettings(tiers=payg(requests_per_minute=100)), SystemClock())
    begin = asyncio.Event()

    async def ask(number):
        await begin.wait()
        try:
            permit = limits.admit(call(f"key {number % 7}"), estimate())
        except RateLimited:
            return 0
        await asyncio.sleep(0)
        permit.release(10)
        return 1

    asked = asyncio.gather(*(ask(number) for number in range(500)))
    begin.set()
    assert sum(await asked) == 100
    assert limits.running == 0


def test_a_user_has_one_limit_over_all_of_his_keys(clock, call, estimate, refusal):
    limits = Limits(LimitSettings(tiers=payg(requests_per_minute=2)), clock)
    limits.admit(call("a"), estimate())
    limits.admit(call("b"), estimate())
    refusal(limits, call("c"))
    limits.admit(call("d", user_id=2), estimate())
    limits.admit(call("e", user_id=3, tier=Tier.SUB), estimate())


def test_keys_do_not_use_up_each_others_limits(clock, call, estimate, refusal):
    limits = Limits(LimitSettings(requests_per_minute=1), clock)
    limits.admit(call("a"), estimate())
    limits.admit(call("b"), estimate())
    refusal(limits, call("a"))


def test_limits_of_a_key_and_a_user_go_before_those_of_the_configuration(clock, call, estimate, refusal):
    limits = Limits(
        LimitSettings(requests_per_minute=60, concurrent_requests=1, tiers=payg(requests_per_minute=1)), clock
    )
    own = call("own", requests_per_minute=2, concurrent_requests=5, user={"requests_per_minute": 0})
    limits.admit(own, estimate())
    limits.admit(own, estimate())
    assert "2 requests per minute for this key" in refusal(limits, own).message
    free = call("free", user_id=2, requests_per_minute=0, concurrent_requests=0, user={"requests_per_minute": 0})
    for _ in range(100):
        assert limits.admit(free, estimate()).headers == ()


def test_a_model_may_have_limits_for_each_user(clock, call, estimate, refusal):
    limits = Limits(LimitSettings(models={"large": Allowance(requests_per_minute=1, concurrent_requests=1)}), clock)
    limits.admit(call("a", model="large"), estimate()).release()
    assert "1 requests per minute for this model" in refusal(limits, call("b", model="large")).message
    limits.admit(call("a", model="small"), estimate())
    limits.admit(call("c", user_id=2, model="large"), estimate())


def test_another_name_of_a_model_does_not_get_around_its_limit(clock, call, estimate, refusal):
    limits = Limits(
        LimitSettings(models={"up/large": Allowance(requests_per_minute=2), "best": Allowance(requests_per_minute=1)}),
        clock,
    )
    limits.admit(call(model="best"), estimate(), "up/large")
    refusal(limits, call(model="best"), model="up/large")
    limits.admit(call(model="other"), estimate(), "up/large")
    refusal(limits, call(model="third"), model="up/large")
    refusal(limits, call(model="up/large"), model="up/large")


def test_a_limit_of_a_bare_name_holds_for_the_full_name_and_for_aliases_too(clock, call, estimate, refusal):
    limits = Limits(LimitSettings(models={"large": Allowance(requests_per_minute=1)}), clock)
    limits.admit(call(model="up/large"), estimate(), "up/large")
    refusal(limits, call(model="large"), model="up/large")
    refusal(limits, call(model="best"), model="up/large")
    limits.admit(call(model="up/small"), estimate(), "up/small")


def test_the_headers_show_the_limit_with_the_least_left(clock, call, estimate):
    settings = LimitSettings(
        requests_per_minute=5, tokens_per_minute=900, tiers=payg(requests_per_minute=9, tokens_per_minute=100)
    )
    limits = Limits(settings, clock)
    assert limits.admit(call(), estimate(40)).headers == (
        (b"x-ratelimit-limit-requests", b"5"),
        (b"x-ratelimit-remaining-requests", b"4"),
        (b"x-ratelimit-reset-requests", b"1m0s"),
        (b"x-ratelimit-limit-tokens", b"100"),
        (b"x-ratelimit-remaining-tokens", b"60"),
        (b"x-ratelimit-reset-tokens", b"1m0s"),
    )


def test_of_50_calls_with_5_tokens_each_exactly_20_fit_into_100(clock, call, estimate, refusal):
    limits = Limits(LimitSettings(tiers=payg(tokens_per_minute=100)), clock)
    admitted = 0
    for number in range(50):
        with contextlib.suppress(RateLimited):
            limits.admit(call(f"key {number}"), estimate(3, 2)).release(5)
            admitted += 1
    assert admitted == 20
    error = refusal(limits, call())
    assert error.retry_after == 60.0
    assert "100 tokens per minute for this user" in error.message


def test_an_answer_without_a_bound_is_taken_for_the_assumed_length(clock, call, estimate):
    limits = Limits(LimitSettings(tokens_per_minute=5000, assumed_output_tokens=1000), clock)
    permit = limits.admit(call(), estimate(200, None))
    assert dict(permit.headers)[TOKENS_LEFT] == b"3800"


def test_each_of_several_answers_without_a_bound_is_taken_for_that_length(clock, call):
    limits = Limits(LimitSettings(tokens_per_minute=5000, assumed_output_tokens=1000), clock)
    three = Estimate(input_tokens=200, least_input_tokens=0, output_tokens=None, answers=3)
    assert dict(limits.admit(call(), three).headers)[TOKENS_LEFT] == b"1800"


@pytest.mark.parametrize(("tokens", "left"), [(None, b"59"), (0, b"99"), (5, b"94"), (70, b"29"), (500, b"0")])
def test_the_tokens_that_were_used_replace_those_that_were_reserved(clock, call, estimate, tokens, left):
    limits = Limits(LimitSettings(tokens_per_minute=100), clock)
    limits.admit(call(), estimate(40)).release(tokens)
    try:
        headers = limits.admit(call(), estimate(1)).headers
    except RateLimited as error:
        headers = error.headers
    assert dict(headers)[TOKENS_LEFT] == left


def test_a_call_that_is_larger_than_the_limit_is_admitted_when_nothing_else_is_used(clock, call, estimate, refusal):
    limits = Limits(LimitSettings(tokens_per_minute=100), clock)
    limits.admit(call(), estimate(1)).release(1)
    error = refusal(limits, call(), tokens=1_000_000)
    clock.at += error.retry_after
    limits.admit(call(), estimate(1_000_000))
    refusal(limits, call(), tokens=1)


def test_calls_that_run_are_limited_until_they_are_released(clock, call, estimate, refusal):
    limits = Limits(LimitSettings(concurrent_requests=2), clock)
    first, second = limits.admit(call(), estimate()), limits.admit(call(), estimate())
    error = refusal(limits, call())
    assert (error.code, error.retry_after) == ("rate_limit_exceeded", 1.0)
    assert "2 concurrent requests for this key" in error.message
    first.release()
    first.release()
    limits.admit(call(), estimate())
    refusal(limits, call())
    second.release()
    assert limits.running == 1


def test_a_user_may_run_so_many_calls_over_all_of_his_keys(clock, call, estimate, refusal):
    limits = Limits(LimitSettings(tiers=payg(concurrent_requests=2)), clock)
    permit = limits.admit(call("a"), estimate())
    limits.admit(call("b"), estimate())
    assert "2 concurrent requests for this user" in refusal(limits, call("c")).message
    permit.release()
    limits.admit(call("c"), estimate())


def test_the_whole_gateway_has_a_limit_too(clock, call, estimate, refusal):
    limits = Limits(LimitSettings(total_concurrent_requests=2), clock)
    permit = limits.admit(call("a"), estimate())
    limits.admit(call("b", requests_per_minute=5), estimate())
    for key in (call("c"), call("b", requests_per_minute=5)):
        error = refusal(limits, key)
        assert isinstance(error, Unavailable)
        assert (error.status, error.code) == (503, "overloaded")
    permit.release()
    limits.admit(call("c"), estimate())


@pytest.mark.parametrize("limit", ["concurrent_requests", "total_concurrent_requests"])
def test_a_refused_call_uses_nothing_up(clock, call, estimate, refusal, limit):
    limits = Limits(LimitSettings(requests_per_minute=60, tokens_per_minute=600, burst=2, **{limit: 1}), clock)
    permit = limits.admit(call(), estimate(100))
    for _ in range(10):
        refusal(limits, call(), tokens=100)
    permit.release()
    headers = dict(limits.admit(call(), estimate(100)).headers)
    assert (headers[REQUESTS_LEFT], headers[TOKENS_LEFT]) == (b"0", b"400")


def test_what_one_limit_refuses_no_other_counts(clock, call, estimate, refusal):
    limits = Limits(
        LimitSettings(requests_per_minute=1, tiers=payg(requests_per_minute=3, tokens_per_minute=30)), clock
    )
    limits.admit(call("a"), estimate(10))
    for _ in range(10):
        refusal(limits, call("a"))
        refusal(limits, call("b"), tokens=21)
    limits.admit(call("b"), estimate(10))
    limits.admit(call("c"), estimate(10))
    refusal(limits, call("d"))


def test_a_refund_gives_everything_back(clock, call, estimate, refusal):
    settings = LimitSettings(
        requests_per_minute=10, burst=1, tokens_per_minute=50, concurrent_requests=1, tiers=payg(requests_per_minute=1)
    )
    limits = Limits(settings, clock)
    for _ in range(100):
        permit = limits.admit(call(), estimate(50))
        permit.refund()
        permit.refund()
        permit.release(5000)
    assert limits.running == 0
    limits.admit(call(), estimate(50))
    refusal(limits, call())


def test_a_refund_after_a_release_does_nothing(clock, call, estimate, refusal):
    limits = Limits(LimitSettings(requests_per_minute=1, tokens_per_minute=10), clock)
    permit = limits.admit(call(), estimate(10))
    permit.release(10)
    permit.refund()
    refusal(limits, call())


def test_limits_of_a_key_that_were_changed_count_from_the_next_call(clock, call, estimate, refusal):
    limits = Limits(LimitSettings(), clock)
    limits.admit(call("a"), estimate())
    refusal(limits, call("a", concurrent_requests=1))
    limits.admit(call("a", concurrent_requests=2), estimate())


def test_new_settings_forget_neither_running_calls_nor_what_is_used_up(clock, call, estimate, refusal):
    limits = Limits(LimitSettings(requests_per_minute=2), clock)
    asked = call()
    permits = [limits.admit(asked, estimate()) for _ in range(2)]
    limits.replace(LimitSettings(requests_per_minute=2, concurrent_requests=2))
    assert "requests per minute" in refusal(limits, asked).message
    clock.at += 60
    assert "concurrent" in refusal(limits, asked).message
    limits.replace(LimitSettings())
    permits.append(limits.admit(asked, estimate()))
    for permit in permits:
        permit.release()
    assert limits.running == 0


def test_a_limit_that_is_lifted_and_set_again_is_as_used_up_as_before(clock, call, estimate, refusal):
    limits = Limits(LimitSettings(requests_per_minute=2), clock)
    for _ in range(2):
        limits.admit(call(), estimate())
    limits.replace(LimitSettings())
    limits.admit(call(), estimate())
    limits.replace(LimitSettings(requests_per_minute=2))
    refusal(limits, call())


def test_a_burst_that_is_new_counts_what_was_used_before(clock, call, estimate, refusal):
    limits = Limits(LimitSettings(requests_per_minute=60), clock)
    for _ in range(5):
        limits.admit(call(), estimate())
    limits.replace(LimitSettings(requests_per_minute=60, burst=3))
    assert refusal(limits, call()).retry_after == 1.0


def test_the_state_of_a_user_without_asking(clock, call, estimate):
    limits = Limits(LimitSettings(tiers=payg(requests_per_minute=25)), clock)
    principal = call().principal
    status = limits.status(principal)
    assert (status.limit, status.remaining, status.resets_in) == (25, 25, 0.0)
    limits.admit(call("a"), estimate())
    clock.at += 10
    limits.admit(call("b"), estimate())
    clock.at += 10
    status = limits.status(principal)
    assert (status.limit, status.remaining, status.resets_in) == (25, 23, 50.0)
    free = limits.status(call(user_id=2, tier=Tier.ADMIN).principal)
    assert (free.limit, free.remaining, free.resets_in) == (None, None, 0.0)


def test_the_state_of_a_user_with_a_burst_is_what_would_be_admitted_now(clock, call, estimate):
    limits = Limits(LimitSettings(tiers=payg(requests_per_minute=60, burst=10)), clock)
    assert limits.status(call().principal).remaining == 10
    for left in range(9, -1, -1):
        limits.admit(call(), estimate())
        assert limits.status(call().principal).remaining == left


def past(clock, age, tokens=0, model="m"):
    return PastCall(key_id="a", user_id=1, model=model, at=clock.now() - age, tokens=tokens)


def test_after_a_restart_the_last_minute_still_counts(clock, call, estimate, refusal):
    limits = Limits(LimitSettings(tiers=payg(requests_per_minute=5)), clock)
    limits.seed(past(clock, age) for age in (100, 60, 59, 5, 30, 1))
    limits.admit(call(), estimate())
    assert refusal(limits, call()).retry_after == pytest.approx(1.0)
    clock.at += 60
    for _ in range(4):
        limits.admit(call(), estimate())


def test_after_a_restart_the_state_of_a_user_is_known_before_the_first_call(clock, call):
    limits = Limits(LimitSettings(tiers=payg(requests_per_minute=5)), clock)
    limits.seed(past(clock, age) for age in (20, 10))
    status = limits.status(call().principal)
    assert (status.remaining, status.resets_in) == (3, pytest.approx(50.0))


def test_after_a_restart_tokens_bursts_and_models_count_too(clock, call, estimate, refusal):
    limits = Limits(
        LimitSettings(
            requests_per_minute=60,
            burst=2,
            tiers=payg(tokens_per_minute=100),
            models={"large": Allowance(requests_per_minute=1)},
        ),
        clock,
    )
    limits.seed([past(clock, 0, 40, "large"), past(clock, 0, 10)])
    assert "2 at once" in refusal(limits, call()).message
    assert "tokens per minute" in refusal(limits, call("b"), tokens=51).message
    assert "this model" in refusal(limits, call("b", model="large")).message
    assert dict(limits.admit(call("b"), estimate(50)).headers)[TOKENS_LEFT] == b"0"


def test_a_wall_clock_that_was_set_back_keeps_nobody_out_for_longer_than_a_minute(clock, call, estimate, refusal):
    limits = Limits(LimitSettings(tiers=payg(requests_per_minute=1, burst=1, tokens_per_minute=1)), clock)
    limits.seed(past(clock, -1e6, 10**12) for _ in range(1000))
    assert refusal(limits, call()).retry_after <= 60
    clock.at += 60
    limits.admit(call(), estimate())


def test_who_is_at_rest_needs_no_memory(clock, call, estimate, refusal):
    limits = Limits(
        LimitSettings(requests_per_minute=60, models={"m": Allowance(requests_per_minute=9)}), clock, keys=100
    )
    limits.admit(call("running", user_id=-1), estimate())
    for n in range(5000):
        clock.at += 1
        limits.admit(call(f"key {n}", user_id=n), estimate()).release()
    callers = limits._callers
    assert max(len(callers.by_key), len(callers.by_user), len(callers._by_model)) <= 110
    limits.replace(LimitSettings(concurrent_requests=1))
    assert "concurrent" in refusal(limits, call("running", user_id=-1)).message


def test_100_000_keys_stay_within_bounds_and_none_that_is_blocked_is_forgotten(clock, call, estimate, refusal):
    limits = Limits(LimitSettings(requests_per_minute=1), clock, keys=1000)
    start = clock.at
    limits.admit(call("blocked"), estimate())
    guess = estimate()
    for n in range(100_000):
        clock.at = start + n * 0.0005
        limits.admit(call(f"key {n}", user_id=n, requests_per_minute=0), guess).release()
    assert "for this key" in refusal(limits, call("blocked")).message
    assert len(limits._callers.by_key) <= 1010


def test_a_user_is_not_forgotten_as_long_as_one_of_his_keys_is_known(clock, call, estimate, refusal):
    limits = Limits(LimitSettings(), clock, keys=1)
    limits.admit(call("first", requests_per_minute=5), estimate()).release()
    for n in range(2, 50):
        limits.admit(call(f"key {n}", user_id=n), estimate()).release()
    limits.replace(LimitSettings(tiers=payg(requests_per_minute=1)))
    limits.admit(call("second"), estimate())
    assert "for this user" in refusal(limits, call("first", requests_per_minute=5)).message


def test_who_waits_exactly_as_told_is_admitted(clock, call, estimate):
    numbers = random.Random(1)
    limits = Limits(
        LimitSettings(
            requests_per_minute=50,
            burst=7,
            tokens_per_minute=3_000,
            tiers=payg(requests_per_minute=40, tokens_per_minute=2_500),
        ),
        clock,
    )
    clock.at = 12_345_678.912345
    told = 0
    while told < 1000:
        clock.at += numbers.random()
        asked, tokens = call(f"key {numbers.randrange(2)}"), estimate(numbers.randrange(1, 400))
        try:
            permit = limits.admit(asked, tokens)
        except RateLimited as error:
            told += 1
            clock.at += error.retry_after
            permit = limits.admit(asked, tokens)
        permit.release(numbers.choice([None, 0, numbers.randrange(500)]))


@pytest.mark.parametrize(
    ("settings", "microseconds"),
    [
        (LimitSettings(), 5),
        (LimitSettings(total_concurrent_requests=100), 5),
        (LimitSettings(requests_per_minute=10**9, tiers=payg(requests_per_minute=10**9)), 20),
        (LimitSettings(requests_per_minute=10**9, tokens_per_minute=10**12, tiers=payg(tokens_per_minute=10**12)), 30),
    ],
)
def test_admitting_costs_little(call, estimate, settings, microseconds):
    limits, asked, guess = Limits(settings, SystemClock()), call(), estimate()
    once = min(timeit.repeat(lambda: limits.admit(asked, guess).release(9), number=500, repeat=20)) / 500
    assert once < microseconds * 1e-6


def test_a_flood_that_is_refused_costs_little(call, estimate):
    limits, asked, guess = Limits(LimitSettings(requests_per_minute=600), SystemClock()), call(), estimate()
    for _ in range(600):
        limits.admit(asked, guess).release()

    def flood():
        with pytest.raises(GatewayError):
            limits.admit(asked, guess)

    assert min(timeit.repeat(flood, number=100, repeat=20)) / 100 < 50e-6
