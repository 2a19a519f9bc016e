import asyncio

import pytest

from stellwerk.core.call import Operation
from stellwerk.core.errors import UpstreamError
from stellwerk.core.plan import Model, Price
from stellwerk.routing.catalogue import Alias, AliasCycleError, Catalogue
from stellwerk.routing.discovery import Discovery, Settings, Source, with_registered

DEADLINE = 30.0


class Clock:
    def now(self):
        return 1000.0

    def monotonic(self):
        return 0.0


class Provider:
    """Answers with what the test put in; waits while `gate` is shut."""

    def __init__(self, name, *names):
        self.name = name
        self.names = names
        self.error = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Queue()

    async def models(self):
        self.asked.put_nowait(None)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return [Model(provider=self.name, name=name, id=f"{self.name}/{name}") for name in self.names]


class Engines:
    def __init__(self, *names):
        self.names = names

    def models(self):
        return [Model(provider="llama_cpp", name=name, id=name, local=True) for name in self.names]


class WatchedCatalogue(Catalogue):
    def __init__(self):
        super().__init__()
        self.changed = asyncio.Event()

    def swap(self, snapshot):
        super().swap(snapshot)
        self.changed.set()

    async def holds(self, *names):
        while ids(self) != list(names):
            self.changed.clear()
            await self.changed.wait()


def ids(catalogue):
    return [model.id for model in catalogue.models()]


def make(*providers, **options):
    catalogue = WatchedCatalogue()
    sources = [Source(lister=provider, open=True) for provider in providers]
    return catalogue, Discovery(catalogue, clock=Clock(), sources=sources, **options)


async def test_local_models_and_aliases_are_there_before_anybody_was_asked():
    vendor = Provider("openai", "gpt-5")
    catalogue, _ = make(vendor, local=Engines("demo"), aliases={"fast": Alias(targets=("openai/gpt-5", "demo"))})
    assert ids(catalogue) == ["demo", "fast"]
    assert [target.provider for target in catalogue.plan("fast").targets] == ["openai", "llama_cpp"]
    assert vendor.asked.empty()


async def test_every_provider_is_asked_and_listed():
    catalogue, discovery = make(Provider("groq", "llama"), Provider("openai", "gpt-5"), local=Engines("demo"))
    await discovery.refresh_now()
    assert ids(catalogue) == ["demo", "groq/llama", "openai/gpt-5"]
    assert [(s.name, s.models, s.asked, s.error) for s in discovery.status()] == [
        ("groq", 1, 1000.0, None),
        ("openai", 1, 1000.0, None),
    ]


async def test_one_provider_is_asked_alone():
    one, other = Provider("groq", "llama"), Provider("openai", "gpt-5")
    catalogue, discovery = make(one, other)
    await discovery.refresh("openai")
    await discovery.refresh("nobody")
    assert ids(catalogue) == ["openai/gpt-5"]
    assert (one.asked.qsize(), other.asked.qsize()) == (0, 1)


async def test_a_slow_provider_holds_nobody_up():
    slow, quick = Provider("slow", "s"), Provider("quick", "q")
    slow.gate.clear()
    catalogue, discovery = make(slow, quick)
    refreshing = asyncio.create_task(discovery.refresh_now())
    async with asyncio.timeout(DEADLINE):
        await catalogue.holds("quick/q")
        assert not refreshing.done()
        slow.gate.set()
        await refreshing
    assert ids(catalogue) == ["slow/s", "quick/q"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UpstreamError("The provider refused the key."), "The provider refused the key."),
        (OSError("/etc/passwd"), "could not be used (OSError)"),
        (ValueError("sk-secret"), "could not be used (ValueError)"),
    ],
)
async def test_a_failure_keeps_the_last_list_and_its_reason(error, reason):
    vendor = Provider("openai", "gpt-5")
    catalogue, discovery = make(vendor)
    await discovery.refresh_now()
    vendor.error = error
    await discovery.refresh_now()
    (status,) = discovery.status()
    assert ids(catalogue) == ["openai/gpt-5"]
    assert status.models == 1
    assert reason in status.error
    vendor.error = None
    await discovery.refresh_now()
    assert discovery.status()[0].error is None


async def test_a_provider_that_never_answers_is_given_up():
    vendor = Provider("openai", "gpt-5")
    vendor.gate.clear()
    _, discovery = make(vendor, settings=Settings(answer_seconds=0.01))
    async with asyncio.timeout(DEADLINE):
        await discovery.refresh_now()
    assert discovery.status()[0].error == "No answer within 0.01 s."


async def test_a_provider_that_failed_from_the_start_still_takes_names_after_its_slash():
    vendor = Provider("openai")
    vendor.error = UpstreamError("offline")
    catalogue, discovery = make(vendor)
    await discovery.refresh_now()
    assert catalogue.plan("openai/anything").targets[0].model == "anything"


async def test_a_provider_that_lists_nothing_is_not_asked():
    vendor = Provider("perplexity")
    catalogue = Catalogue()
    discovery = Discovery(catalogue, clock=Clock(), sources=[Source(lister=vendor, open=True, listed=False)])
    await discovery.refresh_now()
    assert vendor.asked.empty()
    assert discovery.status() == ()
    assert catalogue.plan("perplexity/sonar") is not None


async def test_a_closed_provider_takes_only_what_it_lists():
    catalogue = Catalogue()
    discovery = Discovery(catalogue, clock=Clock(), sources=[Source(lister=Provider("own", "a"))])
    await discovery.refresh_now()
    assert catalogue.plan("own/a") is not None
    assert catalogue.plan("own/b") is None


async def test_models_without_a_price_get_one():
    price = Price(input=5)
    catalogue, discovery = make(
        Provider("openai", "gpt-5"),
        local=Engines("demo"),
        price=lambda provider, name: price if (provider, name) == ("openai", "gpt-5") else None,
    )
    await discovery.refresh_now()
    assert catalogue.get("gpt-5").price == price
    assert catalogue.plan("gpt-5").targets[0].price == price
    assert catalogue.get("demo").price is None


async def test_new_local_models_appear_with_the_next_refresh():
    engines = Engines("demo")
    catalogue, discovery = make(local=engines)
    engines.names = ("demo", "new")
    await discovery.refresh_now()
    assert ids(catalogue) == ["demo", "new"]


async def test_new_local_models_are_there_when_the_catalogue_was_published():
    engines = Engines("demo")
    vendor = Provider("openai", "gpt-5")
    catalogue, discovery = make(vendor, local=engines)
    await discovery.refresh_now()
    engines.names = ("demo", "new")
    discovery.publish()
    assert ids(catalogue) == ["demo", "new", "openai/gpt-5"]
    assert vendor.asked.qsize() == 1


async def test_a_refresh_does_not_bring_back_what_was_published_away_meanwhile():
    engines = Engines("demo")
    catalogue, discovery = make(Provider("openai", "gpt-5"), local=engines)
    refreshing = asyncio.create_task(discovery.refresh_now())
    engines.names = ()
    discovery.publish()
    await refreshing
    assert ids(catalogue) == ["openai/gpt-5"]


async def test_what_is_known_of_a_provider_is_there_before_it_was_asked():
    vendor = Provider("openai", "gpt-5")
    known = (Model(provider="openai", name="gpt-5", id="openai/gpt-5"),)
    catalogue = WatchedCatalogue()
    Discovery(catalogue, clock=Clock(), sources=[Source(lister=vendor, known=known)])
    assert ids(catalogue) == ["openai/gpt-5"]
    assert vendor.asked.empty()


async def test_models_that_are_gone_disappear():
    vendor = Provider("openai", "gpt-4", "gpt-5")
    catalogue, discovery = make(vendor)
    await discovery.refresh_now()
    vendor.names = ("gpt-5",)
    await discovery.refresh_now()
    assert ids(catalogue) == ["openai/gpt-5"]


async def test_it_asks_again_and_again_and_stops_when_cancelled():
    vendor = Provider("openai", "gpt-5")
    _, discovery = make(vendor, settings=Settings(refresh_seconds=0.001))
    running = asyncio.create_task(discovery.run())
    async with asyncio.timeout(DEADLINE):
        for _ in range(3):
            await vendor.asked.get()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_cancelled_refresh_leaves_no_question_behind():
    vendor = Provider("openai", "gpt-5")
    vendor.gate.clear()
    _, discovery = make(vendor)
    refreshing = asyncio.create_task(discovery.refresh_now())
    async with asyncio.timeout(DEADLINE):
        await vendor.asked.get()
    refreshing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await refreshing
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_new_configuration_keeps_what_is_known_and_is_asked_about_at_once():
    stays, goes, comes = Provider("stays", "a"), Provider("goes", "b"), Provider("comes", "c")
    catalogue, discovery = make(stays, goes)
    running = asyncio.create_task(discovery.run())
    async with asyncio.timeout(DEADLINE):
        await catalogue.holds("stays/a", "goes/b")
        sources = [Source(lister=stays), Source(lister=comes)]
        discovery.configure(sources=sources, aliases={"fast": Alias(targets=("a",))})
        assert ids(catalogue) == ["stays/a", "fast"]
        await catalogue.holds("stays/a", "comes/c", "fast")
    running.cancel()
    assert [status.name for status in discovery.status()] == ["stays", "comes"]


async def test_the_answer_of_a_provider_that_was_removed_meanwhile_is_dropped():
    vendor = Provider("goes", "b")
    vendor.gate.clear()
    catalogue, discovery = make(vendor)
    refreshing = asyncio.create_task(discovery.refresh_now())
    async with asyncio.timeout(DEADLINE):
        await vendor.asked.get()
        discovery.configure(sources=[], aliases={})
        vendor.gate.set()
        await refreshing
    assert ids(catalogue) == []
    assert discovery.status() == ()


async def test_a_circle_of_aliases_is_refused_and_changes_nothing():
    vendor = Provider("openai", "gpt-5")
    catalogue, discovery = make(vendor)
    await discovery.refresh_now()
    with pytest.raises(AliasCycleError):
        discovery.configure(sources=[], aliases={"a": Alias(targets=("b",)), "b": Alias(targets=("a",))})
    assert ids(catalogue) == ["openai/gpt-5"]
    assert len(discovery.status()) == 1


async def test_what_changes_often_is_asked_again_while_the_others_rest():
    quick, slow = Provider("ollama", "a"), Provider("openai", "gpt-5")
    sources = [Source(lister=quick, changes_often=True), Source(lister=slow)]
    settings = Settings(refresh_seconds=3600, often_seconds=0.001)
    catalogue = WatchedCatalogue()
    discovery = Discovery(catalogue, clock=Clock(), sources=sources, settings=settings)
    running = asyncio.create_task(discovery.run())
    async with asyncio.timeout(DEADLINE):
        await catalogue.holds("ollama/a", "openai/gpt-5")
        quick.names = ("b",)
        await catalogue.holds("ollama/b", "openai/gpt-5")
    assert slow.asked.qsize() == 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_server_that_is_started_later_is_found_soon():
    late, there, unwilling = Provider("vllm", "a"), Provider("openai", "gpt-5"), Provider("groq", "b")
    late.error = UpstreamError("The upstream cannot be reached.", code="upstream_unreachable")
    unwilling.error = UpstreamError("The key is wrong.", code="invalid_key")
    catalogue, discovery = make(late, there, unwilling, settings=Settings(refresh_seconds=3600, often_seconds=0.001))
    running = asyncio.create_task(discovery.run())
    async with asyncio.timeout(DEADLINE):
        for _ in range(3):
            await late.asked.get()
        late.error = None
        await catalogue.holds("vllm/a", "openai/gpt-5")
        while not late.asked.empty():
            late.asked.get_nowait()
    # It is one of the others now.
    assert (there.asked.qsize(), unwilling.asked.qsize()) == (1, 1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_it_is_complete_when_everybody_who_can_be_asked_has_answered_once():
    there, late = Provider("openai", "gpt-5"), Provider("vllm", "a")
    late.error = UpstreamError("Down.")
    _, discovery = make(there, late)
    assert not discovery.is_complete()
    await discovery.refresh_now()
    assert not discovery.is_complete()
    late.error = None
    await discovery.refresh("vllm")
    assert discovery.is_complete()
    late.error = UpstreamError("Down again.")
    await discovery.refresh_now()
    assert discovery.is_complete()
    discovery.configure(sources=[Source(lister=Provider("new")), Source(lister=there, listed=False)], aliases={})
    assert not discovery.is_complete()
    discovery.configure(sources=[Source(lister=there, listed=False)], aliases={})
    assert discovery.is_complete()


async def test_everybody_has_a_turn_again_though_something_changes_often():
    quick, slow = Provider("ollama", "a"), Provider("openai", "gpt-5")
    sources = [Source(lister=quick, changes_often=True), Source(lister=slow)]
    settings = Settings(refresh_seconds=0.01, often_seconds=0.001)
    discovery = Discovery(Catalogue(), clock=Clock(), sources=sources, settings=settings)
    running = asyncio.create_task(discovery.run())
    async with asyncio.timeout(DEADLINE):
        for _ in range(3):
            await slow.asked.get()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def vendor_model(name, **facts):
    return Model(provider="mammouth", name=name, id=f"mammouth/{name}", **facts)


HAIKU = vendor_model("claude-haiku", shortcode="claude-h", context_length=200_000, temperature=(0.0, 1.0))


async def test_registered_models_are_there_whether_they_are_listed_or_not():
    vendor = Provider("mammouth", "new")
    catalogue = Catalogue()
    discovery = Discovery(catalogue, clock=Clock(), sources=[Source(lister=vendor, registered=(HAIKU,))])
    assert catalogue.get("claude-h") == HAIKU
    await discovery.refresh_now()
    assert ids(catalogue) == ["mammouth/new", "mammouth/claude-haiku"]
    assert discovery.status()[0].models == 2
    vendor.error = UpstreamError("offline")
    await discovery.refresh_now()
    discovery.configure(sources=[Source(lister=vendor)], aliases={})
    assert ids(catalogue) == ["mammouth/new"]


def test_a_listed_model_takes_the_registered_facts_and_keeps_its_own():
    listed = vendor_model("Claude-Haiku", created=5, owned_by="anthropic", operations=frozenset(Operation))
    [merged] = with_registered([listed], [HAIKU])
    assert (merged.name, merged.created, merged.owned_by) == ("Claude-Haiku", 5, "anthropic")
    assert (merged.shortcode, merged.context_length, merged.temperature) == ("claude-h", 200_000, (0.0, 1.0))
    assert merged.operations == {Operation.CHAT, Operation.COMPLETION}


def test_a_name_in_another_case_is_another_model_when_both_are_listed():
    upper, exact = vendor_model("CLAUDE-HAIKU"), vendor_model("claude-haiku")
    merged = with_registered([upper, exact], [HAIKU])
    assert [model.shortcode for model in merged] == [None, "claude-h"]
    assert [model.shortcode for model in with_registered([upper, vendor_model("Claude-haiku")], [HAIKU])] == [
        "claude-h",
        None,
    ]
