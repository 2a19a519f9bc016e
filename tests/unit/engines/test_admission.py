from hypothesis import given
from hypothesis import strategies as st

from stellwerk.engines.admission import Resident, Shortage, choose_victims, cost


def resident(name: str, mib: float, idle: float = 0.0, *, busy: bool = False, pinned: bool = False) -> Resident:
    return Resident(name=name, mib=mib, idle_seconds=idle, busy=busy, pinned=pinned)


def test_nobody_leaves_when_there_is_room():
    assert choose_victims([resident("a", 100)], needs=50, free=50, slots_free=1) == ()


def test_the_one_unused_for_longest_leaves_first():
    loaded = [resident("a", 100, 5), resident("b", 100, 60), resident("c", 100, 10)]
    assert choose_victims(loaded, needs=50, free=0, slots_free=1) == ("b",)


def test_a_small_model_leaves_before_a_large_one_that_was_used_as_lately():
    loaded = [resident("large", 9000), resident("small", 100)]
    assert choose_victims(loaded, needs=1, free=0, slots_free=0) == ("small",)


def test_small_ones_are_spared_when_a_large_one_has_to_leave_anyway():
    loaded = [resident("small", 10, 60), resident("large", 1000, 1)]
    assert choose_victims(loaded, needs=900, free=0, slots_free=1) == ("large",)


def test_those_in_use_leave_only_when_the_idle_ones_do_not_suffice():
    loaded = [resident("busy", 10, 0, busy=True), resident("idle", 1000, 0)]
    assert choose_victims(loaded, needs=5, free=0, slots_free=1) == ("idle",)
    assert set(choose_victims(loaded, needs=1005, free=0, slots_free=1)) == {"busy", "idle"}


def test_a_pinned_one_never_leaves():
    shortage = choose_victims([resident("a", 100, 99, pinned=True)], needs=50, free=20, slots_free=1)
    assert isinstance(shortage, Shortage)
    assert str(shortage) == "it needs 50 MiB of memory, 20 MiB are free and 0 MiB could be freed"


def test_a_slot_alone_is_reason_enough():
    assert choose_victims([resident("a", 100, 1)], needs=0, free=1e9, slots_free=0) == ("a",)


RESIDENTS = st.lists(
    st.builds(
        Resident,
        name=st.text("abcdefgh", min_size=1, max_size=4),
        mib=st.floats(0, 1e6),
        idle_seconds=st.floats(0, 1e6),
        busy=st.booleans(),
        pinned=st.booleans(),
    ),
    max_size=8,
    unique_by=lambda each: each.name,
)


@given(RESIDENTS, st.floats(0, 1e6), st.floats(-1e5, 1e6), st.integers(0, 3))
def test_a_choice_suffices_holds_nobody_needless_and_nobody_pinned(
    loaded: list[Resident], needs: float, free: float, slots: int
):
    verdict = choose_victims(loaded, needs=needs, free=free, slots_free=slots)
    able = [each for each in loaded if not each.pinned]
    if isinstance(verdict, Shortage):
        assert free + sum(each.mib for each in able) < needs or not (able or slots)
        return
    chosen = [each for each in loaded if each.name in verdict]
    assert not any(each.pinned for each in chosen)
    assert slots + len(chosen) >= 1
    assert free + sum(each.mib for each in chosen) >= needs
    for spared in chosen:
        rest = [each for each in chosen if each is not spared]
        assert slots + len(rest) < 1 or free + sum(each.mib for each in rest) < needs
    # Nobody in use leaves while the idle ones would do.
    idle = [each for each in able if not each.busy]
    if slots + len(idle) >= 1 and free + sum(each.mib for each in idle) >= needs:
        assert not any(each.busy for each in chosen)


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e6))
def test_it_costs_more_to_lose_what_is_large_or_was_used_lately(mib: float, more: float, idle: float):
    assert cost(resident("a", mib, idle)) <= cost(resident("a", mib + more, idle))
    assert cost(resident("a", mib, idle + more)) <= cost(resident("a", mib, idle))
