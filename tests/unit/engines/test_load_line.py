import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from stellwerk.core.call import Place
from stellwerk.core.clock import SystemClock
from stellwerk.core.errors import Unavailable
from stellwerk.engines.load_line import LoadLine, LoadOrder, Wish
from tests.real_engines import until

REFUSAL = Unavailable("unloaded")


class Loaded:
    """A loaded model that counts who has booked it."""

    def __init__(self, model: str, at_booking: Callable[[], object]) -> None:
        self.model = model
        self.booked = 0
        self._at_booking = at_booking

    def book(self) -> None:
        self.booked += 1
        self._at_booking()

    def give_up(self) -> None:
        self.booked -= 1


class Loads:
    """Loads what it is told to, once somebody lets it."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.free = asyncio.Event()
        self.failure: Exception | None = None
        self.starts = False
        self.at_booking: Callable[[], object] = lambda: None

    async def load(self, wish: Wish) -> Loaded:
        self.begun.append(wish.model)
        wish.started = self.starts
        await self.free.wait()
        if self.failure is not None:
            raise self.failure
        self.ended.append(wish.model)
        return Loaded(wish.model, self.at_booking)


@asynccontextmanager
async def running() -> AsyncIterator[tuple[LoadLine, Loads]]:
    line, loads = LoadLine(SystemClock()), Loads()
    task = asyncio.create_task(line.run(loads.load))
    try:
        yield line, loads
    finally:
        task.cancel()
        await asyncio.wait({task})


def waiter(line: LoadLine, model: str, **more) -> asyncio.Task:
    return asyncio.create_task(line.wait(model, **more))


async def test_models_are_loaded_one_by_one_in_the_order_in_which_they_were_wanted():
    async with running() as (line, loads):
        tasks = [waiter(line, model) for model in ("a", "b", "a", "c", "b")]
        await until(lambda: loads.begun)
        assert [(wish.model, wish.place, wish.requests) for wish in line.status()] == [
            ("a", 1, 2), ("b", 2, 2), ("c", 3, 1),
        ]  # fmt: skip
        assert loads.begun == ["a"]
        loads.free.set()
        found = await asyncio.gather(*tasks)
        assert [each.model for each in found] == ["a", "b", "a", "c", "b"]
        assert found[0] is found[2]
        # Nobody who waited can lose the model before they use it.
        assert [each.booked for each in found] == [2, 2, 2, 1, 2]
        assert line.status() == ()


async def test_who_leaves_the_line_leaves_no_trace():
    async with running() as (line, loads):
        first, second, third = (waiter(line, model) for model in ("a", "b", "c"))
        await until(lambda: loads.begun)
        second.cancel()
        await asyncio.wait({second})
        assert [wish.model for wish in line.status()] == ["a", "c"]
        # What is in work, but has not begun to load, is given up too.
        first.cancel()
        await asyncio.wait({first})
        loads.free.set()
        assert (await third).model == "c"
        assert loads.begun == ["a", "c"]
        assert loads.ended == ["c"]


async def test_a_load_that_has_begun_and_one_that_was_ordered_go_on_without_anybody():
    async with running() as (line, loads):
        loads.starts = True
        tasks = [waiter(line, "a"), waiter(line, "b", order=LoadOrder())]
        await until(lambda: loads.begun and len(line.status()) == 2)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        loads.free.set()
        await until(lambda: loads.ended == ["a", "b"])


async def test_who_is_cancelled_in_the_moment_of_success_gives_the_booking_back():
    async with running() as (line, loads):
        task, other = waiter(line, "a"), waiter(line, "a")
        await until(lambda: loads.begun)
        # Runs after the model is there and before the one who waits for it goes on.
        loads.at_booking = lambda: asyncio.get_running_loop().call_soon(task.cancel)
        loads.free.set()
        found = await other
        await asyncio.wait({task})
        assert task.cancelled()
        assert found.booked == 1


async def test_a_failure_reaches_everybody_who_waits():
    async with running() as (line, loads):
        loads.failure = Unavailable("broken")
        tasks = [waiter(line, "a") for _ in range(3)]
        loads.free.set()
        for task in tasks:
            with pytest.raises(Unavailable, match="broken"):
                await task


async def test_a_wish_that_is_called_off_ends_and_who_comes_after_it_begins_anew():
    async with running() as (line, loads):
        task, behind = waiter(line, "a"), waiter(line, "b")
        await until(lambda: loads.begun and len(line.status()) == 2)
        calling = asyncio.create_task(line.call_off("a", REFUSAL))
        late = waiter(line, "a")
        await calling
        await line.call_off("b", REFUSAL)
        await line.call_off("nothing", REFUSAL)
        for refused in (task, behind):
            with pytest.raises(Unavailable, match="unloaded"):
                await refused
        loads.free.set()
        assert (await late).model == "a"
        assert loads.ended == ["a"]


async def test_places_move_up_and_a_bad_listener_harms_nobody():
    async with running() as (line, loads):
        heard: list[int] = []
        bad, good = Place(), Place()

        def fail(_number: int) -> None:
            raise ValueError("the client is gone")

        bad.listener, good.listener = fail, heard.append
        tasks = [waiter(line, "a", place=bad), waiter(line, "b", place=good)]
        await until(lambda: heard)
        line.tell_places()
        assert heard == [2, 2]
        loads.free.set()
        await asyncio.gather(*tasks)
        assert heard == [2, 2, 1]


async def test_a_gentle_order_is_gentle_only_as_long_as_nobody_else_wants_the_model():
    line = LoadLine(SystemClock())
    tasks = [waiter(line, "a", order=LoadOrder(port=1, gentle=True))]
    await until(lambda: line.find("a"))
    wish = line.find("a")
    assert wish is not None
    assert wish.gentle
    tasks.append(waiter(line, "a"))
    await until(lambda: line.requests("a") == 2)
    assert not wish.gentle
    assert line.ordered_at(1) == "a"
    assert line.ordered_at(2) is None
    line.close(REFUSAL)
    for task in tasks:
        with pytest.raises(Unavailable):
            await task
