import asyncio
import subprocess
import sys
from decimal import ROUND_CEILING, Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.core.outcome import Usage
from stellwerk.core.plan import Price
from stellwerk.ledger.prices import PriceBook, cost

counts = st.integers(0, 10**9)
prices = st.integers(0, 10**9)


@pytest.fixture
async def book(clock):
    clock.at = 1_795_000_000.0
    book = PriceBook(clock)
    await book.load()
    return book


async def test_a_published_price_is_exact(book):
    assert book.price("openai", "gpt-4o") == Price(
        input=2_500_000, output=10_000_000, cache_read=1_250_000, currency="USD"
    )


async def test_of_prices_in_tiers_the_first_counts(book):
    assert book.price("google", "gemini-2.5-pro").input == 1_250_000


async def test_what_is_not_known_or_not_paid_by_the_token_has_no_price(book):
    assert book.price("nobody", "nothing") is None
    assert book.price("openai", "no-such-model-at-all") is None
    assert book.price("openai", "whisper-1") is None


async def test_a_price_is_looked_up_once_and_again_when_it_may_have_changed(book, clock):
    asked = []
    look_up = book._lookup
    book._lookup = lambda *question: asked.append(question) or look_up(*question)
    for _ in range(3):
        book.price("openai", "gpt-4o")
        book.price("nobody", "nothing")
    assert len(asked) == 2
    clock.at += 3600
    book.price("openai", "gpt-4o")
    assert len(asked) == 3


async def test_only_so_many_prices_are_remembered(clock):
    book = PriceBook(clock, remembered=10)
    await book.load()
    for n in range(100):
        book.price("openai", f"model {n}")
    assert len(book._prices) <= 10


async def test_before_the_prices_are_loaded_none_is_known(clock):
    book = PriceBook(clock)
    assert not book.loaded
    assert book.price("openai", "gpt-4o") is None
    await asyncio.gather(book.load(), book.load())
    assert book.loaded
    assert book.price("openai", "gpt-4o") is not None


def test_loading_opens_no_socket_and_only_loading_imports_the_data():
    program = """
import asyncio, sys
from stellwerk.core.clock import SystemClock
from stellwerk.ledger.prices import PriceBook
assert "genai_prices" not in sys.modules
def refuse(event, arguments):
    if event == "socket.connect" or event == "socket.getaddrinfo":
        raise SystemExit(f"{event} {arguments}")
sys.addaudithook(refuse)
book = PriceBook(SystemClock())
asyncio.run(book.load())
assert book.price("openai", "gpt-4o")
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


@st.composite
def usages(draw):
    tokens = draw(counts)
    return Usage(
        input_tokens=tokens,
        output_tokens=draw(counts),
        cached_tokens=draw(st.integers(0, tokens)),
        audio_milliseconds=draw(counts),
        characters=draw(counts),
        pages=draw(counts),
    )


any_price = st.builds(
    Price,
    input=prices,
    output=prices,
    cache_read=st.none() | prices,
    request=prices,
    audio_second=prices,
    character=prices,
    page=prices,
)


@given(any_price, usages())
def test_a_cost_is_exact_and_rounded_up(price, usage):
    cache_read = price.input if price.cache_read is None else price.cache_read
    with localcontext(prec=60):
        exact = (
            Decimal(usage.input_tokens - usage.cached_tokens) * price.input
            + Decimal(usage.cached_tokens) * cache_read
            + Decimal(usage.output_tokens) * price.output
            + price.request
            + Decimal(usage.audio_milliseconds) / 1000 * price.audio_second
            + Decimal(usage.characters) * price.character
            + Decimal(usage.pages) * price.page
        ) / 10**6
        assert cost(price, usage) == exact.to_integral_value(ROUND_CEILING)


@pytest.mark.parametrize(
    ("usage", "micro"),
    [
        (Usage(), 1_000),
        (Usage(audio_milliseconds=60_000), 7_000),
        (Usage(audio_milliseconds=1), 1_001),
        (Usage(characters=1_000_000), 15_001_000),
        (Usage(pages=3), 4_000),
        (Usage(audio_milliseconds=-1, characters=-1, pages=-1), 1_000),
    ],
)
def test_calls_seconds_characters_and_pages_have_prices_of_their_own(usage, micro):
    price = Price(request=10**9, audio_second=10**8, character=15_000_000, page=10**9)
    assert cost(price, usage) == micro


@pytest.mark.parametrize(
    ("usage", "micro"),
    [
        (Usage(input_tokens=1_000_000), 2_500_000),
        (Usage(output_tokens=1_000_000), 10_000_000),
        (Usage(input_tokens=1_000_000, cached_tokens=1_000_000), 1_250_000),
        (Usage(input_tokens=1), 3),
        (Usage(), 0),
        (Usage(input_tokens=10, cached_tokens=999), 13),
        (Usage(input_tokens=-5, output_tokens=-5, cached_tokens=-5), 0),
    ],
)
def test_costs_of_a_known_price(usage, micro):
    price = Price(input=2_500_000, output=10_000_000, cache_read=1_250_000)
    assert cost(price, usage) == micro
