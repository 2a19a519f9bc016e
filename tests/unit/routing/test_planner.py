import msgspec
import pytest

from stellwerk.core.call import Operation
from stellwerk.core.errors import BadRequest, Forbidden, NotFound
from stellwerk.core.plan import Model, Price
from stellwerk.routing.catalogue import Alias, Catalogue, Snapshot
from stellwerk.routing.choice import Choice, Chooser, Group, Traffic
from stellwerk.routing.planner import Planner, PlanRules
from tests.port_fakes import ALICE, StillClock, make_call

IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}]
CERTAIN = {"certain": True, "local": True, "context_length": 50}


def model(name, provider="local", **facts):
    own = name if provider == "local" else f"{provider}/{name}"
    return Model(provider=provider, name=name, id=own, **facts)


MODELS = [
    model("text", **CERTAIN),
    model("eyes", **CERTAIN | {"input_modalities": ("text", "image"), "context_length": 5000}),
    model("ears", **CERTAIN | {"input_modalities": ("text", "audio")}),
    model("vectors", **CERTAIN | {"operations": frozenset({Operation.EMBEDDING})}),
    model("cloud", provider="vendor"),
    model("seer", provider="vendor", certain=True, input_modalities=("text", "image"), price=Price(input=9, output=9)),
]


@pytest.fixture
def make():
    def make(groups=None, loaded=(), **rules):
        catalogue = Catalogue(
            Snapshot(
                MODELS,
                aliases={"all": Alias(targets=("text", "eyes", "vendor/cloud"))},
                open_providers=["vendor"],
                prefixes=True,
            )
        )
        chooser = Chooser(Traffic(StillClock()), groups or {})

        def least(call):
            return len(bytes(call.fields.get("messages", b""))) // 8

        planner = Planner(catalogue, chooser, PlanRules(**rules), least_tokens=least, loaded=lambda: loaded)
        return planner.plan

    return make


def names(plan):
    return [target.model for target in plan.targets]


def call(name, *, allowed=None, fallbacks=(), **fields):
    asked = msgspec.structs.replace(make_call(model=name, **fields), fallbacks=tuple(fallbacks))
    if allowed is None:
        return asked
    return msgspec.structs.replace(asked, principal=msgspec.structs.replace(ALICE, models=frozenset(allowed)))


def test_a_target_that_cannot_take_the_request_is_left_out(make):
    assert names(make()(call("all"))) == ["text", "eyes", "cloud"]
    assert names(make()(call("all", messages=IMAGE))) == ["eyes", "cloud"]


def test_a_prompt_that_is_too_long_goes_to_the_targets_that_may_take_it(make):
    long = [{"role": "user", "content": "x" * 1000}]
    assert names(make()(call("all", messages=long))) == ["eyes", "cloud"]


def test_a_model_that_was_named_is_not_replaced_unless_that_is_allowed(make):
    assert names(make()(call("text", messages=IMAGE))) == ["text"]


def test_where_it_is_allowed_another_model_stands_in_and_that_is_said(make):
    plan = make(capability_fallback=True)(call("text", messages=IMAGE))
    assert (names(plan), plan.note) == (["eyes"], "eyes; reason=image")
    assert make(capability_fallback=True)(call("text")).note is None


def test_one_of_the_same_provider_stands_in_first_then_one_in_memory(make):
    sound = [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA=="}}]}]
    assert names(make(capability_fallback=True)(call("vendor/seer", messages=sound))) == ["ears"]
    assert names(make(capability_fallback=True, loaded=["eyes"])(call("ears", messages=IMAGE))) == ["eyes"]


def test_nobody_gets_a_model_that_he_may_not_use_in_its_place(make):
    with pytest.raises(BadRequest) as refused:
        make(capability_fallback=True)(call("text", allowed=["text", "ears"], messages=IMAGE))
    assert refused.value.code == "unsupported_operation"
    assert "takes no images" in refused.value.message


def test_an_embedding_model_is_never_asked_to_chat(make):
    for name in ("vectors", "vector", "VECT"):
        with pytest.raises(BadRequest) as refused:
            make(capability_fallback=True)(call(name))
        assert refused.value.code == "unsupported_operation"
    with pytest.raises(NotFound):
        make(capability_fallback=True)(call("nothing-of-the-kind"))


def test_the_fallbacks_of_a_request_come_after_the_model_that_it_names(make):
    assert names(make()(call("text", fallbacks=["vendor/other", "eyes", "text"]))) == ["text", "other", "eyes"]


@pytest.mark.parametrize(("fallback", "code"), [("unknown", "model_not_found"), ("vectors", "unsupported_operation")])
def test_a_fallback_that_leads_nowhere_is_named(make, fallback, code):
    with pytest.raises(BadRequest) as refused:
        make()(call("text", fallbacks=[fallback]))
    assert (refused.value.param, refused.value.code) == ("fallbacks", code)


def test_a_fallback_needs_the_same_rights(make):
    with pytest.raises(Forbidden):
        make()(call("text", allowed=["text"], fallbacks=["eyes"]))


def test_fallbacks_of_requests_can_be_switched_off(make):
    with pytest.raises(BadRequest) as refused:
        make(request_fallbacks=False)(call("text", fallbacks=["eyes"]))
    assert refused.value.param == "fallbacks"


def test_the_chosen_target_goes_first(make):
    groups = {"all": Group(choice=Choice.WEIGHTED, weights=(0, 0, 1))}
    assert names(make(groups)(call("all"))) == ["cloud", "text", "eyes"]


def test_no_other_model_makes_vectors_for_the_one_that_was_named(make):
    long = call("vectors", operation=Operation.EMBEDDING, messages=[{"role": "user", "content": "x" * 1000}])
    assert names(make(capability_fallback=True)(long)) == ["vectors"]
