import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.routing.auto_switch import Loaded, SwitchRules, Use, recommend

RULES = SwitchRules(enabled=True)
BUSY_DAY = [Use(model="new", requests=60), Use(model="old", requests=40)]


OLD = (Loaded(model="old"),)


def advise(uses=BUSY_DAY, loaded=OLD, *, free=0, last=None, rules=RULES, now=1000.0):
    return recommend(uses, loaded, free_places=free, now=now, last_switch=last, rules=rules)


def test_the_model_that_most_requests_want_takes_the_place_of_another():
    advice = advise()
    assert (advice.model, advice.replaces, advice.act) == ("new", "old", True)
    assert advice.reasons == ("new had 60 of 100 requests (60%).",)


def test_a_free_slot_needs_nobody_to_go():
    advice = advise(free=1)
    assert (advice.model, advice.replaces, advice.act) == ("new", None, True)


@pytest.mark.parametrize(
    ("uses", "reason"),
    [
        ([], "No local model"),
        ([Use(model="new", requests=0)], "No local model"),
        ([Use(model="new", requests=9)], "Fewer than 10"),
        ([Use(model="new", requests=59), Use(model="old", requests=41)], "Less than 60%"),
        ([Use(model="old", requests=100)], "in memory already"),
    ],
)
def test_without_a_clear_pattern_nothing_is_recommended(uses, reason):
    advice = advise(uses)
    assert (advice.model, advice.act) == (None, False)
    assert reason in advice.reasons[-1]


def test_nothing_happens_while_work_runs_on_what_would_go():
    advice = advise(loaded=[Loaded(model="old", busy=True)])
    assert (advice.model, advice.replaces, advice.act) == ("new", "old", False)
    assert "work is running" in advice.reasons[-1]


def test_an_idle_model_goes_before_a_busy_one_and_a_pinned_one_never():
    loaded = [Loaded(model="busy", busy=True), Loaded(model="idle"), Loaded(model="kept", pinned=True)]
    assert advise(loaded=loaded).replaces == "idle"
    advice = advise(loaded=[Loaded(model="kept", pinned=True)])
    assert (advice.replaces, advice.act) == (None, False)


def test_the_least_wanted_goes():
    uses = [*BUSY_DAY, Use(model="other", requests=0)]
    assert advise(uses, [Loaded(model="old"), Loaded(model="other")]).replaces == "other"


def test_two_switches_keep_their_distance():
    assert not advise(last=800.0).act
    assert advise(last=700.0).act


def test_switched_off_it_only_says_what_it_would_do():
    advice = advise(rules=SwitchRules(enabled=False))
    assert (advice.model, advice.act) == ("new", False)
    assert "off" in advice.reasons[-1]


NAMES = st.sampled_from("abcde")


@given(
    st.dictionaries(NAMES, st.integers(0, 100)),
    st.dictionaries(NAMES, st.tuples(st.booleans(), st.booleans())),
    st.integers(0, 2),
    st.none() | st.floats(0, 1000),
)
def test_whatever_happened_no_busy_or_pinned_model_has_to_go_for_it(requests, loaded, free, last):
    uses = [Use(model=model, requests=number) for model, number in requests.items()]
    held = [Loaded(model=model, busy=busy, pinned=pinned) for model, (busy, pinned) in loaded.items()]
    advice = advise(uses, held, free=free, last=last)
    assert advice.reasons
    if advice.act:
        assert advice.model not in loaded
        goes = next((each for each in held if each.model == advice.replaces), None)
        assert free or goes is not None
        assert goes is None or not (goes.busy or goes.pinned)
