import pytest

from stellwerk.core.call import Call, Operation, Wire
from stellwerk.core.errors import BadRequest, Forbidden, NotFound
from stellwerk.core.plan import Model
from stellwerk.core.principal import Principal, Role
from stellwerk.routing.catalogue import Alias, Catalogue, Snapshot
from stellwerk.routing.plan import may_see, plan

EMBEDDING = frozenset({Operation.EMBEDDING})


def model(provider, name, *, own=None, **facts):
    return Model(provider=provider, name=name, id=own or f"{provider}/{name}", **facts)


@pytest.fixture
def catalogue():
    return Catalogue(
        Snapshot(
            [
                model("llama_cpp", "demo", own="demo", local=True),
                model("openai", "gpt-5"),
                model("openai", "embed", operations=EMBEDDING),
                model("groq", "llama"),
            ],
            aliases={
                "fast": Alias(targets=("groq/llama", "openai/gpt-5")),
                "mixed": Alias(targets=("openai/embed", "openai/gpt-5")),
            },
            open_providers=["openai"],
        )
    )


def call(name, *, allowed=None, operation=Operation.CHAT):
    models = None if allowed is None else frozenset(allowed)
    return Call(
        id="req_1",
        operation=operation,
        wire=Wire.OPENAI_CHAT,
        model=name,
        fields={},
        principal=Principal(key_id="k", name="n", role=Role.USER, models=models),
        received=0.0,
        deadline=1.0,
    )


def test_a_call_goes_to_the_targets_of_its_model(catalogue):
    found = plan(call("fast"), catalogue)
    assert found.name == "fast"
    assert [target.model for target in found.targets] == ["llama", "gpt-5"]


def test_targets_that_cannot_do_it_are_left_out(catalogue):
    assert [t.model for t in plan(call("mixed"), catalogue).targets] == ["gpt-5"]
    assert [t.model for t in plan(call("mixed", operation=Operation.EMBEDDING), catalogue).targets] == ["embed"]


def test_an_unknown_model_is_not_found_and_a_likely_one_is_named(catalogue):
    with pytest.raises(NotFound) as caught:
        plan(call("gtp-5"), catalogue)
    assert (caught.value.status, caught.value.code, caught.value.param) == (404, "model_not_found", "model")
    assert "'gtp-5'" in caught.value.message
    assert "Did you mean 'openai/gpt-5'" in caught.value.message
    assert "/v1/models" in caught.value.message


def test_a_suggestion_never_gives_away_what_the_key_may_not_use(catalogue):
    with pytest.raises(NotFound) as caught:
        plan(call("gtp-5", allowed=["demo"]), catalogue)
    assert "openai" not in caught.value.message


def test_a_huge_name_is_not_repeated_whole(catalogue):
    with pytest.raises(NotFound) as caught:
        plan(call("x" * 100_000), catalogue)
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("gpt-5", ["openai/gpt-5"]),
        ("openai/gpt-5", ["openai/gpt-5"]),
        ("GPT-5", ["openai/gpt-5"]),
        ("gpt-5", ["gpt-5"]),
        ("gpt-5", ["openai/*"]),
        ("openai/not-listed", ["openai/*"]),
        ("demo", ["demo"]),
        ("demo", ["llama_cpp/*"]),
        ("fast", ["fast"]),
        ("fast", ["groq/*", "openai/gpt-5"]),
    ],
)
def test_a_key_may_use_what_its_list_names(catalogue, name, allowed):
    assert plan(call(name, allowed=allowed), catalogue).targets


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("gpt-5", []),
        ("gpt-5", ["groq/*"]),
        ("openai/gpt-5", ["gpt-5"]),
        ("openai/not-listed", ["openai/gpt-5"]),
        ("fast", ["groq/*"]),
        ("groq/llama", ["fast"]),
        ("demo", ["*"]),
    ],
)
def test_a_key_may_use_nothing_else(catalogue, name, allowed):
    with pytest.raises(Forbidden) as caught:
        plan(call(name, allowed=allowed), catalogue)
    assert (caught.value.status, caught.value.code, caught.value.param) == (403, "model_access_denied", "model")


@pytest.mark.parametrize(
    ("name", "operation", "words"),
    [("embed", Operation.CHAT, "chat completions"), ("gpt-5", Operation.EMBEDDING, "embeddings")],
)
def test_a_model_that_cannot_do_it_is_refused(catalogue, name, operation, words):
    with pytest.raises(BadRequest) as caught:
        plan(call(name, operation=operation), catalogue)
    assert (caught.value.status, caught.value.param) == (400, "model")
    assert words in caught.value.message


def test_rights_are_checked_before_abilities(catalogue):
    with pytest.raises(Forbidden):
        plan(call("embed", allowed=["demo"]), catalogue)


@pytest.mark.parametrize(
    ("allowed", "seen"),
    [
        (None, {"demo", "openai/gpt-5", "openai/embed", "groq/llama", "fast", "mixed"}),
        ([], set()),
        (["openai/*"], {"openai/gpt-5", "openai/embed", "mixed"}),
        (["gpt-5"], {"openai/gpt-5"}),
        (["fast"], {"fast"}),
        (["demo", "nothing"], {"demo"}),
    ],
)
def test_a_key_sees_what_it_may_use(catalogue, allowed, seen):
    principal = call("demo", allowed=allowed).principal
    assert {model.id for model in catalogue.models() if may_see(principal, model, catalogue)} == seen


@pytest.mark.parametrize("asked", ["claude-h", "CLAUDE-H", "claude-haiku", "mammouth/claude-haiku"])
@pytest.mark.parametrize("allowed", ["claude-h", "mammouth/claude-haiku"])
def test_a_key_that_names_a_shortcode_may_use_its_model_by_every_name(asked, allowed):
    haiku = model("mammouth", "claude-haiku", shortcode="claude-h")
    catalogue = Catalogue(Snapshot([haiku, model("mammouth", "other", shortcode="o")]))
    found = plan(call(asked, allowed=[allowed]), catalogue)
    assert found.name == "mammouth/claude-haiku"
    principal = call(asked, allowed=[allowed]).principal
    assert [may_see(principal, known, catalogue) for known in catalogue.models()] == [True, False]
    with pytest.raises(Forbidden):
        plan(call("o", allowed=[allowed]), catalogue)
