from stellwerk.core.principal import Allowance
from stellwerk.limits.counter import Counter
from stellwerk.limits.window import MINUTE

SECOND = 1_000_000_000


def counter(now=0, **allowance):
    made = Counter("key")
    made.set_allowance(Allowance(**allowance), now)
    return made


def test_a_counter_without_limits_never_refuses_and_needs_no_window():
    free = counter(requests_per_minute=0, tokens_per_minute=None)
    assert (free.limits, free.requests, free.tokens) == (False, None, None)
    assert free.wait(0, 10**9) == 0


def test_it_waits_for_the_slowest_of_its_limits_and_names_it():
    tight = counter(requests_per_minute=4, burst=2, tokens_per_minute=100)
    tight.take(0, 10)
    tight.take(0, 10)
    assert (tight.wait(0, 1), tight.reached(0, 1)) == (15 * SECOND, "4 requests per minute, 2 at once, for this key")
    assert (tight.wait(0, 90), tight.reached(0, 90)) == (MINUTE, "100 tokens per minute for this key")
    tight.take(20 * SECOND, 1)
    tight.take(40 * SECOND, 1)
    assert (tight.wait(50 * SECOND, 1), tight.reached(50 * SECOND, 1)) == (
        10 * SECOND,
        "4 requests per minute for this key",
    )


def test_what_is_taken_can_be_given_back_wholly():
    tight = counter(requests_per_minute=10, burst=1, tokens_per_minute=10)
    for now in range(0, 50_000, 100):
        taking = tight.take(now, 50)
        assert tight.wait(now, 10) == MINUTE
        taking.give_back(now)
        assert tight.wait(now, 10) == 0
    assert tight.at_rest(50_000)


def test_a_window_of_seeds_counts_when_a_limit_comes():
    late = Counter("user")
    for second in (0, 10, 20):
        late.remember(second * SECOND, 7)
    late.set_allowance(Allowance(requests_per_minute=4, tokens_per_minute=30), 30 * SECOND)
    assert (late.requests_state(30 * SECOND)[0], late.wait(30 * SECOND, 10)) == (1, 30 * SECOND)


def test_seeds_that_come_in_disorder_leave_in_order():
    late = Counter("user")
    for second in (20, 0, 10):
        late.remember(second * SECOND, 0)
    late.set_allowance(Allowance(requests_per_minute=3), 20 * SECOND)
    assert late.wait(20 * SECOND, 1) == MINUTE


def test_it_is_at_rest_when_nothing_runs_and_a_minute_has_passed():
    used = counter(requests_per_minute=5, tokens_per_minute=5)
    used.take(0, 1)
    assert not used.at_rest(MINUTE - 1)
    assert used.at_rest(MINUTE)
    used.running = 1
    assert not used.at_rest(MINUTE)


def test_a_lifted_limit_is_no_reason_to_forget_what_was_used():
    used = counter(requests_per_minute=1)
    used.take(0, 1)
    used.set_allowance(Allowance(), 0)
    assert not used.limits
    assert not used.at_rest(1)
    used.set_allowance(Allowance(requests_per_minute=1), 1)
    assert used.wait(1, 1) == MINUTE - 1
