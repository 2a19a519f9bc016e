from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from stellwerk.limits.rate import advance, give_back, make_rate, remaining, replay, wait

MINUTE = 60_000_000_000

rates = st.builds(make_rate, st.integers(1, 100_000), st.integers(1, 1000))
gaps = st.lists(st.one_of(st.integers(0, 1000), st.integers(0, MINUTE), st.just(0)), min_size=1, max_size=300)


class Bucket:
    """The same promise, told differently: a bucket of tokens that fills at a steady pace, in exact fractions."""

    def __init__(self, rate):
        self.rate = rate
        self.tokens = Fraction(rate.burst)
        self.at = 0

    def take(self, now):
        self.tokens = min(Fraction(self.rate.burst), self.tokens + Fraction(now - self.at, self.rate.interval))
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


def run(rate, gaps):
    """Moments at which requests were admitted."""
    arrival, now, admitted = 0, 0, []
    for gap in gaps:
        now += gap
        if wait(rate, arrival, now) <= 0:
            arrival = advance(rate, arrival, now)
            admitted.append(now)
    return admitted


@given(rates, gaps)
def test_it_decides_like_a_bucket_of_tokens(rate, gaps):
    bucket, arrival, now = Bucket(rate), 0, 0
    for gap in gaps:
        now += gap
        assert (
            remaining(rate, arrival, now)
            == min(rate.burst, bucket.tokens + Fraction(now - bucket.at, rate.interval)) // 1
        )
        admitted = wait(rate, arrival, now) <= 0
        assert admitted == bucket.take(now)
        if admitted:
            arrival = advance(rate, arrival, now)


@given(rates, gaps)
def test_no_window_admits_more_than_the_burst_and_its_share(rate, gaps):
    admitted = run(rate, gaps)
    for first, start in enumerate(admitted):
        for count, end in enumerate(admitted[first:], 1):
            assert count <= rate.burst + Fraction((end - start) * rate.per_minute, MINUTE)


@given(st.integers(1, 10_000), st.integers(1, 20_000))
def test_at_one_moment_exactly_the_burst_is_admitted_and_never_more_than_the_rate(per_minute, burst):
    rate = make_rate(per_minute, burst)
    assert len(run(rate, [0] * (min(per_minute, burst) + 1))) == min(per_minute, burst)


@given(rates)
def test_who_waits_as_told_is_admitted_and_not_a_nanosecond_earlier(rate):
    arrival = 0
    while (pause := wait(rate, arrival, 0)) <= 0:
        arrival = advance(rate, arrival, 0)
    assert wait(rate, arrival, pause - 1) > 0
    assert wait(rate, arrival, pause) == 0


def test_a_steady_minute_admits_the_rate():
    rate = make_rate(60, 1)
    assert len(run(rate, [0] + [10_000_000] * 5_999)) == 60


@given(rates, gaps)
def test_a_refund_at_once_leaves_no_trace(rate, gaps):
    arrival = now = 0
    for gap in gaps:
        now += gap
        own = advance(rate, arrival, now)
        assert max(now, give_back(rate, own, own, now)) == max(now, arrival)
        if wait(rate, arrival, now) <= 0:
            arrival = own


@given(rates, st.lists(st.tuples(st.integers(0, MINUTE), st.booleans(), st.integers(0, MINUTE)), max_size=60))
def test_a_refund_lets_others_in_earlier_by_no_more_than_the_time_that_its_call_stood(rate, requests):
    arrival = alone = now = stood = 0
    refunds = []
    for gap, refunded, later in requests:
        now += gap
        for at, own in sorted(refund for refund in refunds if refund[0] <= now):
            arrival = give_back(rate, arrival, own, at)
        refunds = [refund for refund in refunds if refund[0] > now]
        assert max(arrival, now) >= max(alone, now) - stood
        if wait(rate, arrival, now) > 0:
            continue
        arrival = advance(rate, arrival, now)
        if refunded:
            refunds.append((now + later, arrival))
            stood += later
        else:
            alone = advance(rate, alone, now)


@given(rates, gaps)
def test_a_rate_that_comes_later_knows_what_was_admitted_before_it(rate, gaps):
    admitted = run(rate, gaps)
    arrival = 0
    for at in admitted:
        arrival = advance(rate, arrival, at)
    now = admitted[-1]
    assert replay(rate, [(at, 1) for at in admitted], now) == arrival
    assert wait(rate, replay(rate, [(now, 10**6)], now), now) <= rate.interval
