import timeit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stellwerk.core.clock import SystemClock
from stellwerk.core.errors import GatewayError, RateLimited, Unavailable
from stellwerk.limits.admit import Limits, LimitSettings


def refusal(limits, call):
    with pytest.raises(GatewayError) as raised:
        limits.admit(call)
    return raised.value


def test_without_limits_everything_is_admitted_without_headers(clock, call):
    limits = Limits(LimitSettings(), clock)
    permits = [limits.admit(call()) for _ in range(1000)]
    assert limits.running == 1000
    assert {permit.headers for permit in permits} == {()}


def test_a_rate_admits_its_burst_and_says_when_the_next_may_come(clock, call):
    limits = Limits(LimitSettings(requests_per_minute=60, burst=3), clock)
    left = [dict(limits.admit(call()).headers)[b"x-ratelimit-remaining-requests"] for _ in range(3)]
    assert left == [b"2", b"1", b"0"]
    error = refusal(limits, call())
    assert isinstance(error, RateLimited)
    assert (error.status, error.code, error.retry_after) == (429, "rate_limit_exceeded", 1.0)
    assert dict(error.headers) == {
        b"x-ratelimit-limit-requests": b"60",
        b"x-ratelimit-remaining-requests": b"0",
        b"x-ratelimit-reset-requests": b"3s",
    }
    clock.at += error.retry_after
    limits.admit(call())


def test_keys_do_not_use_up_each_others_limits(clock, call):
    limits = Limits(LimitSettings(requests_per_minute=60, burst=1), clock)
    limits.admit(call("a"))
    limits.admit(call("b"))
    refusal(limits, call("a"))


def test_calls_that_run_are_limited_until_they_are_released(clock, call):
    limits = Limits(LimitSettings(concurrent_requests=2), clock)
    first, second = limits.admit(call()), limits.admit(call())
    error = refusal(limits, call())
    assert (error.code, error.retry_after) == ("rate_limit_exceeded", 1.0)
    first.release()
    first.release()
    limits.admit(call())
    refusal(limits, call())
    second.release()
    assert limits.running == 1


def test_the_whole_gateway_has_a_limit_too(clock, call):
    limits = Limits(LimitSettings(total_concurrent_requests=2), clock)
    permit = limits.admit(call("a"))
    limits.admit(call("b"))
    error = refusal(limits, call("c"))
    assert isinstance(error, Unavailable)
    assert (error.status, error.code) == (503, "overloaded")
    permit.release()
    limits.admit(call("c"))


@pytest.mark.parametrize("limit", ["concurrent_requests", "total_concurrent_requests"])
def test_a_refused_call_uses_nothing_up(clock, call, limit):
    limits = Limits(LimitSettings(requests_per_minute=60, burst=2, **{limit: 1}), clock)
    permit = limits.admit(call())
    for _ in range(10):
        refusal(limits, call())
    permit.release()
    assert dict(limits.admit(call()).headers)[b"x-ratelimit-remaining-requests"] == b"0"


def test_the_limits_of_a_key_go_before_those_of_the_config(clock, call):
    limits = Limits(LimitSettings(requests_per_minute=60, burst=10, concurrent_requests=1), clock)
    own = call("own", requests_per_minute=2, concurrent_requests=5)
    limits.admit(own)
    limits.admit(own)
    assert "2 requests per minute" in refusal(limits, own).message
    free = call("free", requests_per_minute=0, concurrent_requests=0)
    for _ in range(100):
        assert limits.admit(free).headers == ()


def test_limits_of_a_key_that_were_changed_count_from_the_next_call(clock, call):
    limits = Limits(LimitSettings(), clock)
    limits.admit(call("a"))
    refusal(limits, call("a", concurrent_requests=1))
    limits.admit(call("a", concurrent_requests=2))


def test_new_settings_forget_neither_running_calls_nor_used_up_rates(clock, call):
    limits = Limits(LimitSettings(requests_per_minute=60, burst=2), clock)
    asked = call()
    permits = [limits.admit(asked) for _ in range(2)]
    limits.replace(LimitSettings(requests_per_minute=60, burst=2, concurrent_requests=2))
    assert "requests per minute" in refusal(limits, asked).message
    clock.at += 60
    assert "concurrent" in refusal(limits, asked).message
    limits.replace(LimitSettings())
    permits.append(limits.admit(asked))
    for permit in permits:
        permit.release()
    assert limits.running == 0


def test_keys_at_rest_need_no_memory(clock, call):
    limits = Limits(LimitSettings(requests_per_minute=60, burst=1), clock, keys=100)
    limits.admit(call("running"))
    for n in range(5000):
        clock.at += 1
        limits.admit(call(f"key {n}")).release()
    assert len(limits._states) <= 101
    assert "running" in limits._states
    limits.replace(LimitSettings(concurrent_requests=1))
    assert "concurrent" in refusal(limits, call("running")).message


steps = st.lists(
    st.one_of(
        st.tuples(st.just("admit"), st.sampled_from("abc")),
        st.tuples(st.just("release"), st.integers(0, 30)),
        st.tuples(st.just("pass"), st.sampled_from([0.0, 0.1, 1.0, 7.0])),
        st.tuples(st.just("replace"), st.integers(0, 3)),
    ),
    max_size=200,
)


@given(steps=steps)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_the_counts_are_right(clock, call, steps):
    most = 2
    limits = Limits(LimitSettings(concurrent_requests=most), clock, keys=2)
    held = []
    for step, value in steps:
        if step == "admit":
            running = sum(key == value for key, _ in held)
            try:
                held.append((value, limits.admit(call(value))))
            except RateLimited:
                assert most
                assert running >= most
            else:
                assert not most or running < most
        elif step == "release" and held:
            held.pop(value % len(held))[1].release()
        elif step == "pass":
            clock.at += value
        elif step == "replace":
            most = value
            limits.replace(LimitSettings(concurrent_requests=most))
        assert limits.running == len(held)


def test_admitting_costs_little(call):
    limits = Limits(
        LimitSettings(
            requests_per_minute=1_000_000, burst=1_000_000, concurrent_requests=10, total_concurrent_requests=100
        ),
        SystemClock(),
    )
    asked = call()
    assert min(timeit.repeat(lambda: limits.admit(asked).release(), number=1000, repeat=20)) / 1000 < 10e-6
