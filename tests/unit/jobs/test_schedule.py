import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from stellwerk.jobs.schedule import AGING_SECONDS, Candidate, Line, assign, choose, next_tag, urgency

NOW = 1_000_000.0

candidates = st.builds(
    Candidate,
    number=st.integers(1, 10**6),
    rank=st.integers(0, 2),
    tag=st.integers(0, 1000),
    queued_at=st.floats(NOW - 100, NOW),
)


def waiting(number, *, rank=1, tag=1, seconds=0.0):
    return Candidate(number=number, rank=rank, tag=tag, queued_at=NOW - seconds)


def line(queue, *candidates, running=0, width=100, turns=0):
    return Line(queue=queue, running=running, width=width, turns=turns, candidates=candidates)


@given(st.lists(candidates, min_size=1, unique_by=lambda one: one.number), st.integers(0, 100))
def test_the_chosen_one_is_among_the_most_urgent(among, turn):
    chosen = choose(among, now=NOW, turn=turn)
    assert urgency(chosen, NOW) == min(urgency(one, NOW) for one in among)


@given(st.lists(candidates, min_size=1, unique_by=lambda one: one.number), st.integers(0, 100))
def test_nobody_of_the_same_rank_and_urgency_has_a_lower_tag(among, turn):
    chosen = choose(among, now=NOW, turn=turn)
    alike = [one for one in among if one.rank == chosen.rank and urgency(one, NOW) == urgency(chosen, NOW)]
    assert chosen.tag == min(one.tag for one in alike)


@given(candidates)
def test_urgency_grows_with_every_step_and_never_falls(one):
    seconds = [urgency(one, NOW + step * AGING_SECONDS) for step in range(5)]
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[2] == 0


def test_the_higher_priority_goes_first():
    assert choose([waiting(1, rank=2), waiting(2, rank=0), waiting(3, rank=1)], now=NOW, turn=0).number == 2


def test_every_second_turn_belongs_to_those_that_have_aged():
    among = [waiting(1, rank=0, tag=1), waiting(2, rank=2, tag=99, seconds=41)]
    assert [choose(among, now=NOW, turn=turn).number for turn in range(4)] == [1, 2, 1, 2]


def test_a_low_job_starts_within_a_minute_under_endless_high_ones():
    low = waiting(1, rank=2, tag=10_000)
    for second in range(60):
        now = NOW + second
        high = [Candidate(number=100 + n, rank=0, tag=n, queued_at=now - 50) for n in range(3)]
        if choose([low, *high], now=now, turn=second).number == 1:
            break
    else:
        raise AssertionError("it never started")
    assert second >= 2 * AGING_SECONDS


def test_an_old_mountain_of_low_ones_leaves_every_second_turn_to_high_ones():
    among = {n: waiting(n, rank=2, tag=n, seconds=1000) for n in range(1, 50)}
    among |= {100 + n: waiting(100 + n, rank=0, tag=500 + n) for n in range(10)}
    order = []
    for turn in range(20):
        chosen = choose(among.values(), now=NOW, turn=turn)
        order.append(chosen.rank)
        del among[chosen.number]
    assert order.count(0) == 10


class Waiters:
    """A queue of one rank that is served by its tags."""

    def __init__(self):
        self.jobs = []

    def add(self, client, count, others=0):
        for _ in range(count):
            first = min((tag for tag, _ in self.jobs), default=0)
            last = max((tag for tag, own in self.jobs if own == client), default=None)
            self.jobs.append((next_tag(first=first, last=last, other_clients=others), client))

    def serve(self):
        self.jobs.sort(key=lambda job: job[0])
        return self.jobs.pop(0)[1]


@given(st.lists(st.integers(1, 30), min_size=2, max_size=6))
def test_clients_take_turns_however_much_each_has_queued(counts):
    line = Waiters()
    for client, count in enumerate(counts):
        line.add(client, count)
    served = [line.serve() for _ in range(len(counts))]
    assert sorted(served) == list(range(len(counts)))


@given(st.integers(1, 200), st.integers(0, 50))
def test_who_comes_late_is_served_after_at_most_one_turn_of_everybody(mountain, before):
    line = Waiters()
    line.add("first", mountain)
    for _ in range(min(before, mountain - 1)):
        line.serve()
    line.add("late", 1)
    assert "late" in [line.serve() for _ in range(min(3, len(line.jobs)))]


def test_many_clients_of_one_holder_share_its_turns():
    line = Waiters()
    for number in range(50):
        line.add(f"mine-{number}", 1, others=number)
    line.add("theirs", 5)
    served = [line.serve() for _ in range(12)]
    assert served.count("theirs") >= 4


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 8)), min_size=1, max_size=5),
    st.integers(0, 20),
)
def test_no_queue_gets_more_turns_than_it_is_wide(queues, count):
    lines = [
        line(str(n), *(waiting(100 * n + one) for one in range(waits)), running=running, width=width)
        for n, (running, width, waits) in enumerate(queues)
    ]
    given_turns = assign(lines, count=count, free=1000, now=NOW)
    room = sum(min(waits, max(0, width - running)) for running, width, waits in queues)
    assert len(given_turns) == min(count, room)
    for each in lines:
        got = [one for queue, one in given_turns if queue == each.queue]
        assert len(got) <= max(0, each.width - each.running)
        assert len({one.number for one in got}) == len(got)


def test_the_queue_with_the_fewest_running_jobs_goes_first():
    slow = line("slow", *(waiting(n) for n in range(10)), running=5)
    quick = line("quick", *(waiting(100 + n) for n in range(10)), running=0)
    assert [queue for queue, _ in assign([slow, quick], count=5, free=1000, now=NOW)] == ["quick"] * 5


@given(free=st.integers(1, 100), queues=st.integers(1, 6))
def test_one_model_never_gets_more_than_three_quarters_of_many_workers(free, queues):
    lines = [line(f"q{n}", *(waiting(1000 * n + m) for m in range(100))) for n in range(queues)]
    given_away = Counter(queue for queue, _ in assign(lines, count=100, free=free, now=NOW))
    assert max(given_away.values()) <= max(3, math.ceil(free * 3 / 4))
    assert given_away.total() >= free * 3 // 4
    if queues == 1 and free >= 4:
        assert given_away.total() < free


def test_few_workers_are_all_used():
    for free in (1, 2, 3):
        assert len(assign([line("q", *map(waiting, range(9)))], count=9, free=free, now=NOW)) == free
