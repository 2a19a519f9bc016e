import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.core.call import UNKNOWN_OPERATIONS, Operation
from stellwerk.core.plan import Model, Price, Target
from stellwerk.routing.catalogue import Alias, AliasCycleError, Catalogue, Snapshot

EMBEDDING = frozenset({Operation.EMBEDDING})


def model(provider, name, *, own=None, **facts):
    return Model(provider=provider, name=name, id=own or f"{provider}/{name}", **facts)


def aliases(**targets):
    return {name: Alias(targets=tuple(to.split())) for name, to in targets.items()}


def leads(snapshot, name):
    plan = snapshot.plan(name)
    return plan and [f"{target.provider}|{target.model}" for target in plan.targets]


GPT = model("openai", "gpt-5", price=Price(input=1_250_000, output=10_000_000))
MINI = model("openai", "gpt-5-mini")
ROUTED = model("openrouter", "openai/gpt-5")
LLAMA = model("openrouter", "meta-llama/llama-4:free")
QWEN = model("ollama", "qwen3:8b", local=True)
DEMO = model("llama_cpp", "stellwerk-demo", own="stellwerk-demo", local=True)
ALL = (DEMO, QWEN, GPT, MINI, ROUTED, LLAMA)
OPEN = ("openai", "openrouter")


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("openai/gpt-5", "openai|gpt-5"),
        ("gpt-5-mini", "openai|gpt-5-mini"),
        ("openrouter/openai/gpt-5", "openrouter|openai/gpt-5"),
        ("meta-llama/llama-4:free", "openrouter|meta-llama/llama-4:free"),
        ("qwen3:8b", "ollama|qwen3:8b"),
        ("ollama/qwen3:8b", "ollama|qwen3:8b"),
        ("ollama:qwen3:8b", "ollama|qwen3:8b"),
        ("openrouter:meta-llama/llama-4:free", "openrouter|meta-llama/llama-4:free"),
        ("stellwerk-demo", "llama_cpp|stellwerk-demo"),
        ("llama_cpp/stellwerk-demo", "llama_cpp|stellwerk-demo"),
        ("OpenAI/GPT-5", "openai|gpt-5"),
        ("Stellwerk-Demo", "llama_cpp|stellwerk-demo"),
        ("openai/not-listed-yet", "openai|not-listed-yet"),
        ("OpenAI/Not-Listed-Yet", "openai|Not-Listed-Yet"),
        ("openai:not-listed-yet", "openai|not-listed-yet"),
        ("openrouter/a/b/c", "openrouter|a/b/c"),
    ],
)
def test_a_name_leads_to_its_model(name, target):
    assert leads(Snapshot(ALL, open_providers=OPEN), name) == [target]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "openai/",
        "openai:",
        "not-listed-yet",
        "ollama/llama9",
        "ollama:llama9",
        "qwen3",
        "8b",
        "nobody/gpt-5",
        "openai/" + "x" * 600,
    ],
)
def test_an_unknown_name_leads_nowhere(name):
    assert Snapshot(ALL, open_providers=OPEN).plan(name) is None


def test_the_plan_carries_the_canonical_name_and_the_price():
    plan = Snapshot(ALL).plan("gpt-5")
    assert plan is not None
    assert plan.name == "openai/gpt-5"
    assert plan.targets == (Target(provider="openai", model="gpt-5", price=GPT.price),)


def test_a_name_that_was_passed_through_is_priced_too():
    price = Price(input=7)
    snapshot = Snapshot(open_providers=["openai"], price=lambda provider, name: price if name == "new" else None)
    assert snapshot.plan("openai/new").targets[0].price == price
    assert snapshot.plan("openai/other").targets[0].price is None


def test_a_bare_name_with_two_meanings_leads_nowhere_but_both_are_suggested():
    snapshot = Snapshot([model("groq", "llama"), model("together", "llama")])
    assert snapshot.plan("llama") is None
    assert snapshot.suggest("Llama") == ["groq/llama", "together/llama"]


def test_the_one_local_model_wins_for_a_bare_name():
    snapshot = Snapshot([model("groq", "llama"), model("ollama", "llama", local=True)])
    assert leads(snapshot, "llama") == ["ollama|llama"]


def test_a_models_own_id_wins_for_a_bare_name():
    snapshot = Snapshot([model("llama_cpp", "demo", own="demo"), model("groq", "demo"), model("together", "demo")])
    assert leads(snapshot, "demo") == ["llama_cpp|demo"]


def test_a_resellers_name_does_not_take_the_place_of_another_provider():
    snapshot = Snapshot([model("openrouter", "openai/gpt-9")], open_providers=["openai", "openrouter"])
    assert leads(snapshot, "openai/gpt-9") == ["openai|gpt-9"]


def test_names_that_differ_in_case_only_need_the_exact_form():
    snapshot = Snapshot([model("p", "Model"), model("p", "model")])
    assert leads(snapshot, "p/Model") == ["p|Model"]
    assert leads(snapshot, "p/model") == ["p|model"]
    assert snapshot.plan("p/MODEL") is None


def test_the_first_model_of_an_id_counts():
    snapshot = Snapshot([model("a", "x", own="same"), model("b", "y", own="same")])
    assert leads(snapshot, "same") == ["a|x"]
    assert len(snapshot.models()) == 1


def test_an_alias_leads_to_its_targets_in_order_and_once_each():
    snapshot = Snapshot(ALL, aliases=aliases(fast="small openai/gpt-5 gpt-5-mini", small="gpt-5-mini qwen3:8b"))
    assert leads(snapshot, "fast") == ["openai|gpt-5-mini", "ollama|qwen3:8b", "openai|gpt-5"]
    assert leads(snapshot, "FAST") == leads(snapshot, "fast")
    assert snapshot.plan("fast").name == "fast"


def test_an_alias_has_the_facts_of_its_first_target_and_its_own_description():
    snapshot = Snapshot(ALL, aliases={"fast": Alias(targets=("gpt-5", "qwen3:8b"), description="For quick answers")})
    alias = snapshot.get("fast")
    assert (alias.id, alias.provider, alias.name, alias.price) == ("fast", "openai", "gpt-5", GPT.price)
    assert alias.description == "For quick answers"
    assert snapshot.models()[-1] == alias


def test_an_alias_may_lead_to_a_name_that_no_list_contains():
    snapshot = Snapshot(aliases=aliases(fast="openai/new"), open_providers=["openai"])
    assert leads(snapshot, "fast") == ["openai|new"]
    assert snapshot.get("fast").operations == UNKNOWN_OPERATIONS


def test_an_alias_hides_a_model_of_the_same_name():
    snapshot = Snapshot(ALL, aliases=aliases(**{"gpt-5": "qwen3:8b"}))
    assert leads(snapshot, "gpt-5") == ["ollama|qwen3:8b"]
    assert leads(snapshot, "openai/gpt-5") == ["openai|gpt-5"]


def test_a_target_that_leads_nowhere_is_left_out_and_reported():
    snapshot = Snapshot(ALL, aliases=aliases(fast="gone gpt-5", lost="gone"))
    assert leads(snapshot, "fast") == ["openai|gpt-5"]
    assert snapshot.plan("lost") is None
    assert snapshot.get("lost") is None
    assert sorted(snapshot.unresolved) == [("fast", "gone"), ("lost", "gone")]


@pytest.mark.parametrize(
    ("circle", "path"),
    [({"a": "a"}, "a → a"), ({"a": "b", "b": "gpt-5 a"}, "→"), ({"a": "b", "b": "c", "c": "b"}, "→")],
)
def test_aliases_that_lead_back_to_themselves_are_refused(circle, path):
    with pytest.raises(AliasCycleError, match=path):
        Snapshot(ALL, aliases=aliases(**circle))


def test_the_path_of_a_circle_reads_from_alias_to_target():
    with pytest.raises(AliasCycleError) as caught:
        Snapshot(aliases=aliases(a="b", b="c", c="a"))
    assert str(caught.value).endswith(("a → b → c → a", "b → c → a → b", "c → a → b → c"))


def test_get_knows_every_form_of_a_listed_name():
    snapshot = Snapshot(ALL, open_providers=OPEN)
    assert snapshot.get("gpt-5") == snapshot.get("OPENAI/gpt-5") == GPT
    assert snapshot.get("openai/not-listed") is None
    assert snapshot.get("nothing") is None


def test_only_what_is_known_to_be_impossible_is_ruled_out():
    snapshot = Snapshot([model("openai", "embed", operations=EMBEDDING)])
    assert not snapshot.supports(Target(provider="openai", model="embed"), Operation.CHAT)
    assert snapshot.supports(Target(provider="openai", model="embed"), Operation.EMBEDDING)
    assert snapshot.supports(Target(provider="openai", model="unknown"), Operation.CHAT)


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("gtp-5", "openai/gpt-5"),
        ("openai/gpt5", "openai/gpt-5"),
        ("stelwerk-demo", "stellwerk-demo"),
        ("qwen3-8b", "ollama/qwen3:8b"),
    ],
)
def test_a_typo_finds_what_was_meant(typo, meant):
    assert meant in Snapshot(ALL).suggest(typo)


def test_a_typo_is_found_among_thousands():
    many = [model("p", f"org{i}/model-{i}") for i in range(5000)]
    assert "openai/gpt-5-mini" in Snapshot([*many, MINI]).suggest("gpt-5-mni")


def test_nothing_is_suggested_where_nothing_is_alike():
    assert Snapshot(ALL).suggest("zzzzzzzz") == []
    assert Snapshot().suggest("gpt-5") == []


@given(st.text(max_size=2000))
def test_no_name_breaks_the_catalogue(name):
    snapshot = Snapshot(ALL, open_providers=OPEN, aliases=aliases(fast="gpt-5"))
    plan = snapshot.plan(name)
    assert plan is None or plan.targets
    assert len(snapshot.suggest(name)) <= 3
    snapshot.get(name)


def test_a_new_snapshot_takes_the_place_of_the_old_one():
    catalogue = Catalogue()
    assert catalogue.plan("gpt-5") is None
    assert catalogue.models() == ()
    catalogue.swap(Snapshot(ALL))
    assert catalogue.plan("gpt-5").name == "openai/gpt-5"
    assert catalogue.get("qwen3:8b") == QWEN
    assert [known.id for known in catalogue.models()] == [known.id for known in ALL]
    assert catalogue.supports(Target(provider="openai", model="gpt-5"), Operation.CHAT)
    assert catalogue.suggest("gpt-55")


HAIKU = model("mammouth", "claude-3-5-Haiku", shortcode="claude-h")
O3 = model("mammouth", "o3", shortcode="o3")


@pytest.mark.parametrize("name", ["claude-h", "CLAUDE-H", "Claude-H", "claude-3-5-Haiku", "CLAUDE-3-5-HAIKU"])
def test_a_model_with_a_shortcode_is_found_by_it_and_by_its_id_in_any_case(name):
    snapshot = Snapshot([HAIKU])
    assert leads(snapshot, name) == ["mammouth|claude-3-5-Haiku"]
    assert snapshot.plan(name).name == "mammouth/claude-3-5-Haiku"
    assert snapshot.get(name) == HAIKU


def test_a_shortcode_makes_no_second_model():
    assert [known.id for known in Snapshot([HAIKU, O3]).models()] == ["mammouth/claude-3-5-Haiku", "mammouth/o3"]


def test_of_several_models_of_a_name_the_one_with_a_shortcode_is_meant():
    snapshot = Snapshot([model("openai", "o3"), O3, model("azure", "o3")])
    assert leads(snapshot, "o3") == ["mammouth|o3"]
    assert leads(snapshot, "O3") == ["mammouth|o3"]


def test_a_local_model_goes_before_one_with_a_shortcode():
    snapshot = Snapshot([model("vllm", "gpt-4.1", local=True), model("mammouth", "gpt-4.1", shortcode="gpt41")])
    assert leads(snapshot, "gpt-4.1") == ["vllm|gpt-4.1"]
    assert leads(snapshot, "gpt41") == ["mammouth|gpt-4.1"]


def test_a_shortcode_goes_before_another_models_bare_name():
    snapshot = Snapshot([model("house", "claude-h"), HAIKU])
    assert leads(snapshot, "claude-h") == ["mammouth|claude-3-5-Haiku"]
    assert leads(snapshot, "house/claude-h") == ["house|claude-h"]


def test_a_shortcode_is_found_in_any_case_though_another_name_differs_in_case_only():
    snapshot = Snapshot([model("house", "CLAUDE-h"), model("house", "claude-3-5-haiku"), HAIKU])
    assert leads(snapshot, "Claude-H") == ["mammouth|claude-3-5-Haiku"]
    assert leads(snapshot, "CLAUDE-3-5-HAIKU") == ["mammouth|claude-3-5-Haiku"]
    assert leads(snapshot, "CLAUDE-h") == ["house|CLAUDE-h"]


def test_a_shortcode_that_is_the_id_of_another_model_is_given_up():
    snapshot = Snapshot([model("llama_cpp", "o3", own="o3", local=True), O3])
    assert leads(snapshot, "o3") == ["llama_cpp|o3"]
    assert snapshot.get("mammouth/o3").shortcode is None


def test_only_the_first_of_two_models_keeps_a_shortcode():
    near, far = model("near", "q:latest", shortcode="ollama-q"), model("far", "Q:latest", shortcode="Ollama-Q")
    snapshot = Snapshot([near, far])
    assert leads(snapshot, "OLLAMA-Q") == ["near|q:latest"]
    assert [known.shortcode for known in snapshot.models()] == ["ollama-q", None]


def test_an_alias_takes_the_place_of_a_shortcode():
    snapshot = Snapshot(
        [HAIKU, GPT], aliases={"claude-h": Alias(targets=("gpt-5",)), "fast": Alias(targets=("claude-h",))}
    )
    assert leads(snapshot, "Claude-H") == ["openai|gpt-5"]
    assert leads(snapshot, "fast") == ["openai|gpt-5"]
    assert {known.id: known.shortcode for known in snapshot.models() if known.shortcode} == {"claude-h": "claude-h"}


def test_a_shortcode_is_suggested():
    assert Snapshot([HAIKU, GPT]).suggest("claud-h")[0] == "claude-h"


@given(
    st.lists(
        st.tuples(st.sampled_from("pq"), st.sampled_from(["a", "A", "b", "ab"]), st.sampled_from([None, "a", "B"]))
    )
)
def test_a_shortcode_that_is_shown_leads_to_its_model(rows):
    snapshot = Snapshot([model(provider, name, shortcode=shortcode) for provider, name, shortcode in rows])
    for known in snapshot.models():
        if known.shortcode is not None:
            for name in (known.shortcode, known.shortcode.swapcase()):
                assert snapshot.get(name) is known or name in {other.name for other in snapshot.models()}
            assert snapshot.get(known.shortcode) is known


@pytest.mark.parametrize(
    ("asked", "leads_to"),
    [
        ("qwen3-c", "llama_cpp/qwen3-coder-Q4_K_M"),
        ("QWEN3-C", "llama_cpp/qwen3-coder-Q4_K_M"),
        ("qwen", None),
        ("qw", None),
        ("llama", "llama_cpp/llama"),
        ("groq/qwen3-8", "groq/qwen3-8b"),
        ("qwen3-coder-Q4_K_M-x", None),
    ],
)
def test_the_beginning_of_a_name_is_enough_where_it_is_clear(asked, leads_to):
    models = [
        Model(provider="llama_cpp", name="qwen3-coder-Q4_K_M", id="llama_cpp/qwen3-coder-Q4_K_M"),
        Model(provider="llama_cpp", name="llama", id="llama_cpp/llama"),
        Model(provider="llama_cpp", name="llama-70b", id="llama_cpp/llama-70b"),
        Model(provider="groq", name="qwen3-8b", id="groq/qwen3-8b"),
    ]
    found = Snapshot(models, prefixes=True).plan(asked)
    assert (found.name if found else None) == leads_to
    without = Snapshot(models).plan(asked)
    assert without is None or without.name == asked or asked == "llama"
