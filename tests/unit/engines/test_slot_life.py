"""Loading, unloading and making room, with real engines and small models."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from stellwerk.core.call import Place
from stellwerk.core.clock import SystemClock
from stellwerk.core.errors import BadRequest, Conflict, NotFound, Unavailable
from stellwerk.engines.command_engine import EngineCommand
from stellwerk.engines.launching import EnginePrograms
from stellwerk.engines.machine_memory import MachineMemory
from stellwerk.engines.memory import estimate
from stellwerk.engines.model_types import ModelType
from stellwerk.engines.options import EngineOverrides
from stellwerk.engines.slot import Lease, SlotStatus
from stellwerk.engines.slots import Slots
from tests.real_engines import (
    DEADLINE,
    ask,
    chat,
    ends,
    free_ports,
    running_slots,
    small,
    soon,
    until,
    write_fake_server,
)
from tests.tiny_gguf import write_tiny_chat_model

HUNDRED = {"look": lambda: MachineMemory(total=None, available=None), "measure": lambda _engine: 100.0}
"""Every engine takes 100 MiB once it is loaded, and the machine sets no bound."""


class AheadClock(SystemClock):
    """The machine's clock, put forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> float:
        return SystemClock.now() + self.ahead

    def monotonic(self) -> float:
        return SystemClock.monotonic() + self.ahead


@pytest.fixture
def third(models: Path) -> Path:
    write_tiny_chat_model(models / "third.gguf")
    return models


@asynccontextmanager
async def slots_with_room_for(count: int, folder: Path, **said: Any) -> AsyncIterator[Slots]:
    """Seven slots, and memory for so many models."""
    usual = {"count": 7, "memory_mib": count * 100.0 + 50, "seams": HUNDRED, "turn_seconds": 0.0}
    async with running_slots(folder, **{**usual, **said}) as slots:
        yield slots


def loaded(slots: Slots) -> set[str]:
    return {status.model for status in slots.status() if status.model is not None}


def of(slots: Slots, model: str) -> SlotStatus:
    return next(status for status in slots.status() if status.model == model)


async def use(slots: Slots, model: str, **more: Any) -> Lease:
    return await slots.acquire(model, deadline=soon(), **more)


# --- memory


async def test_under_a_small_budget_the_one_unused_for_longest_makes_room(third: Path):
    async with slots_with_room_for(2, third) as slots:
        for model in ("chat", "embedding", "chat"):
            (await use(slots, model)).release()
        pid = of(slots, "embedding").pid
        (await use(slots, "third")).release()
        assert loaded(slots) == {"chat", "third"}
        assert pid is not None
        assert ends(pid, 30.0)
        assert (await slots.memory()).reserved_mib == 200.0


async def test_a_pinned_model_never_makes_room(third: Path):
    async with slots_with_room_for(2, third) as slots:
        for model in ("chat", "embedding"):
            (await use(slots, model)).release()
        await slots.pin("chat", True)
        (await use(slots, "third")).release()
        assert loaded(slots) == {"chat", "third"}
        await slots.pin("third", True)
        with pytest.raises(Unavailable) as caught:
            await use(slots, "embedding")
        assert caught.value.code == "memory_short"
        assert "100 MiB of memory, 50 MiB are free and 0 MiB could be freed" in caught.value.message
        await slots.pin("chat", False)
        (await use(slots, "embedding")).release()
        assert loaded(slots) == {"embedding", "third"}


async def test_a_model_that_does_not_fit_even_alone_is_refused_with_the_figures(models: Path):
    async with slots_with_room_for(0, models, memory_mib=1.0) as slots:
        with pytest.raises(Unavailable) as caught:
            await use(slots, "chat")
        assert caught.value.code == "memory_short"
        assert "1 MiB are free and 0 MiB could be freed" in caught.value.message
        assert loaded(slots) == set()


async def test_what_was_measured_counts_at_the_next_load_also_after_a_restart(models: Path, tmp_path: Path):
    seams = {**HUNDRED, "measure": lambda _engine: 700.0}
    state = tmp_path / "engines"
    async with running_slots(models, state=state, seams=seams) as slots:
        (await use(slots, "chat")).release()
        assert of(slots, "chat").reserved_mib == 700.0
        await slots.unload(model="chat")
    (state / "placements.json").unlink()
    async with running_slots(models, state=state, seams=HUNDRED, memory_mib=750.0) as slots:
        (await use(slots, "embedding")).release()
        (await use(slots, "chat")).release()
        # Together they would have taken 800.
        assert loaded(slots) == {"chat"}


async def test_a_real_engine_is_measured(models: Path):
    async with running_slots(models) as slots:
        (await use(slots, "chat")).release()
        status = of(slots, "chat")
        assert status.memory_mib is not None
        assert 5 < status.memory_mib < 500
        assert status.reserved_mib == status.memory_mib


async def test_a_real_budget_holds_as_many_as_fit(third: Path):
    async with running_slots(third, count=3) as slots:
        for model in ("chat", "embedding"):
            (await use(slots, model)).release()
        measured = [of(slots, model).memory_mib or 0.0 for model in ("chat", "embedding")]
        needed = estimate(slots.files()["third"], slots.options("third")).total
    # Enough for the third after two others only if it took less than it is taken to need.
    async with running_slots(third, count=3, memory_mib=measured[0] + measured[1] / 2 + needed) as slots:
        for model in ("chat", "embedding", "third"):
            (await use(slots, model)).release()
        assert "third" in loaded(slots)
        assert len(loaded(slots)) == 2


async def test_two_models_that_do_not_fit_together_are_served_one_after_the_other(models: Path):
    async with slots_with_room_for(1, models) as slots:
        served: list[str] = []

        async def client(model: str) -> None:
            for _ in range(3):
                lease = await use(slots, model)
                assert loaded(slots) == {model}
                assert (await ask(lease.address, "/v1/models"))[0] == 200
                served.append(model)
                lease.release()

        await asyncio.gather(client("chat"), client("embedding"))
        assert sorted(served) == ["chat"] * 3 + ["embedding"] * 3


async def test_nobody_starves_behind_a_model_that_is_always_busy(models: Path):
    async with slots_with_room_for(1, models) as slots:
        held = [await use(slots, "chat")]
        done = asyncio.Event()

        async def keep_busy() -> None:
            # Each request begins before the one before it has ended.
            while not done.is_set():
                following = asyncio.create_task(use(slots, "chat"))
                await asyncio.sleep(0.02)
                held.pop().release()
                held.append(await following)
            held.pop().release()

        busy = asyncio.create_task(keep_busy())
        lease = await use(slots, "embedding")
        assert loaded(slots) == {"embedding"}
        done.set()
        lease.release()
        await busy


async def test_a_busy_model_keeps_its_place_for_a_turn(models: Path):
    async with slots_with_room_for(1, models, turn_seconds=600.0) as slots:
        first = await use(slots, "chat")
        waiting = asyncio.create_task(use(slots, "embedding"))
        await until(lambda: slots.waiting() and slots.waiting()[0].model == "embedding")
        second = await asyncio.wait_for(use(slots, "chat"), DEADLINE)
        for lease in (first, second):
            assert not waiting.done()
            lease.release()
        (await waiting).release()


async def test_two_busy_models_do_not_change_places_after_every_answer(models: Path):
    async with slots_with_room_for(1, models, turn_seconds=600.0) as slots:
        (await use(slots, "chat")).release()
        waiting = asyncio.create_task(use(slots, "embedding"))
        await until(lambda: slots.waiting() and slots.waiting()[0].model == "embedding")
        # A client asks again as soon as it has its answer: in between, nobody holds the model.
        for _ in range(30):
            (await asyncio.wait_for(use(slots, "chat"), DEADLINE)).release()
            await asyncio.sleep(0.01)
        assert loaded(slots) == {"chat"}
        (await waiting).release()
        assert loaded(slots) == {"embedding"}


async def test_who_gives_up_waiting_for_room_takes_nothing_from_the_others(models: Path):
    async with slots_with_room_for(1, models) as slots:
        held = await use(slots, "chat")
        with pytest.raises(Unavailable) as caught:
            await slots.acquire("embedding", deadline=soon(0.1))
        assert caught.value.code == "slots_busy"
        await until(lambda: not slots.waiting())
        (await asyncio.wait_for(use(slots, "chat"), DEADLINE)).release()
        held.release()
        assert of(slots, "chat").state == "ready"


async def test_after_a_lack_of_memory_all_idle_ones_leave_and_it_is_tried_once_more(models: Path, tmp_path: Path):
    marker = tmp_path / "tried"
    trouble = (
        "if option('--alias') == 'embedding':\n"
        f"    first = not os.path.exists({str(marker)!r}); open({str(marker)!r}, 'a').write('x')\n"
        "    if first: sys.exit('error: failed to allocate buffer of size 99')"
    )
    server = write_fake_server(tmp_path / "llama-server", trouble)
    async with running_slots(models, **small(server)) as slots:
        (await use(slots, "chat")).release()
        (await use(slots, "embedding")).release()
        assert loaded(slots) == {"embedding"}
        assert marker.read_text() == "xx"


async def test_a_lasting_lack_of_memory_is_an_answer_and_then_a_pause(models: Path, tmp_path: Path):
    marker = tmp_path / "tried"
    trouble = f"open({str(marker)!r}, 'a').write('x'); sys.exit('error: failed to allocate buffer of size 99')"
    server = write_fake_server(tmp_path / "llama-server", trouble)
    async with running_slots(models, **small(server)) as slots:
        for _ in range(2):
            with pytest.raises(Unavailable, match="failed to allocate") as caught:
                await use(slots, "chat")
            assert caught.value.retry_after
        assert marker.read_text() == "xx"


# --- what an operator does


async def test_a_load_into_a_named_slot_replaces_what_is_there_once_it_is_drained(models: Path):
    async with running_slots(models, count=3) as slots:
        port = slots.status()[2].port
        first = await slots.load("chat", port=port)
        assert (first.state, first.model, first.port, first.type) == ("ready", "chat", port, "text")
        lease = await use(slots, "chat")
        loading = asyncio.create_task(slots.load("embedding", port=port))
        await until(lambda: of(slots, "chat").state == "draining")
        lease.release()
        second = await loading
        assert (second.model, second.port, second.type) == ("embedding", port, "embedding")
        assert loaded(slots) == {"embedding"}


async def test_a_port_that_is_no_slot_is_refused(models: Path):
    async with running_slots(models) as slots:
        for action in (slots.load("chat", port=1), slots.unload(port=1), slots.unload()):
            with pytest.raises(BadRequest) as caught:
                await action
            assert caught.value.param == "slot"
        with pytest.raises(NotFound):
            await slots.load("nothing")


async def test_a_named_slot_whose_port_belongs_to_a_stranger_is_a_conflict(models: Path):
    first = free_ports(2)
    with socket.create_server(("127.0.0.1", first)):
        async with running_slots(models, first_port=first) as slots:
            with pytest.raises(Conflict) as caught:
                await slots.load("chat", port=first)
            assert caught.value.code == "port_taken"
            assert slots.status()[0].error == f"port {first} is used by another program"
            assert (await slots.load("chat")).port == first + 1


async def test_options_of_a_load_hold_for_later_ones_until_they_are_taken_back(models: Path):
    async with running_slots(models) as slots:
        assert (await slots.load("chat", overrides=EngineOverrides(context=1024, parallel=2))).context == 1024
        await slots.unload(model="chat")
        (await use(slots, "chat")).release()
        assert (of(slots, "chat").context, of(slots, "chat").parallel) == (1024, 2)
        pid = of(slots, "chat").pid
        assert (await slots.load("chat")).pid == pid
        assert (await slots.load("chat", overrides=EngineOverrides())).context == 512
        assert of(slots, "chat").pid != pid
        assert next(model for model in slots.models() if model.name == "chat").context_length == 512


async def test_who_loads_a_model_whose_file_has_been_replaced_gets_the_new_one(models: Path):
    async with running_slots(models) as slots:
        before = await slots.load("chat")
        assert (await slots.load("chat")).pid == before.pid
        write_tiny_chat_model(models / "new", context=512).rename(models / "chat.gguf")
        await slots.rescan()
        after = await slots.load("chat")
        assert (after.port, after.context) == (before.port, 512)
        assert after.pid != before.pid
        assert ends(before.pid, 30.0)


async def test_options_that_cannot_work_are_a_bad_request(models: Path):
    async with running_slots(models) as slots:
        with pytest.raises(BadRequest, match="projector"):
            await slots.load("chat", overrides=EngineOverrides(type=ModelType.VISION))
        assert slots.options("chat").type is ModelType.TEXT


async def test_an_unload_lets_requests_end_and_new_ones_load_it_again(models: Path):
    async with running_slots(models) as slots:
        lease = await use(slots, "chat")
        pid = of(slots, "chat").pid
        unloading = asyncio.create_task(slots.unload(model="chat"))
        await until(lambda: of(slots, "chat").state == "draining")
        following = asyncio.create_task(use(slots, "chat"))
        await until(lambda: of(slots, "chat").waiting == 1)
        assert await chat(lease.address) == 200
        assert not following.done()
        lease.release()
        assert await unloading is not None
        again = await following
        assert await chat(again.address) == 200
        assert of(slots, "chat").pid != pid
        assert await slots.unload(model="embedding") is None


async def test_an_unload_does_not_wait_for_ever(models: Path):
    async with running_slots(models) as slots:
        await use(slots, "chat")
        status = await slots.unload(port=of(slots, "chat").port, drain_seconds=0.05)
        assert status is not None
        assert (status.state, status.model) == ("empty", None)
        assert await slots.unload(port=status.port) is None


async def test_an_unload_calls_off_a_load(models: Path, tmp_path: Path):
    server = write_fake_server(tmp_path / "llama-server", "import time; time.sleep(600)")
    async with running_slots(models, **small(server)) as slots:
        waiting = [asyncio.create_task(use(slots, model)) for model in ("chat", "embedding")]
        await until(lambda: len(slots.waiting()) == 2 and "chat" in loaded(slots) and of(slots, "chat").pid)
        pid = of(slots, "chat").pid
        # One of them still stands in line.
        for model in ("embedding", "chat"):
            await slots.unload(model=model)
        for task in waiting:
            with pytest.raises(Unavailable) as caught:
                await task
            assert caught.value.code == "model_unloaded"
        assert pid is not None
        assert ends(pid, 30.0)
        assert loaded(slots) == set()
        assert slots.waiting() == ()


async def test_an_ordered_load_goes_on_when_nobody_waits_for_it_any_more(models: Path):
    async with running_slots(models) as slots:
        with pytest.raises(Unavailable) as caught:
            await slots.load("chat", wait_until=soon(0.0), overrides=EngineOverrides(context=768))
        assert caught.value.code == "model_loading"
        await until(lambda: loaded(slots) == {"chat"} and of(slots, "chat").state == "ready")
        assert of(slots, "chat").context == 768
        await until(lambda: slots.options("chat").context == 768)


async def test_a_model_outside_the_folder_has_the_id_of_the_configuration(models: Path, tmp_path: Path):
    elsewhere = write_tiny_chat_model(tmp_path / "file.gguf")
    async with running_slots(models, named={"own": elsewhere}) as slots:
        lease = await use(slots, "own")
        assert await chat(lease.address) == 200
        # Not that it is loaded: nobody shall unload it for nothing.
        with pytest.raises(Conflict) as caught:
            await slots.remove("own")
        assert caught.value.code == "model_protected"


async def test_a_loaded_model_is_not_removed(models: Path):
    async with running_slots(models) as slots:
        lease = await use(slots, "chat")
        with pytest.raises(Conflict) as caught:
            await slots.remove("chat")
        assert caught.value.code == "model_loaded"
        lease.release()
        await slots.unload(model="chat")
        await slots.remove("chat")
        assert not (models / "chat.gguf").exists()


async def test_a_file_that_cannot_be_used_can_be_removed(models: Path):
    (models / "half.gguf").write_bytes((models / "chat.gguf").read_bytes()[:5000])
    async with running_slots(models) as slots:
        assert set(slots.broken()) == {"half"}
        await slots.remove("half")
        assert slots.broken() == {}
        assert not (models / "half.gguf").exists()
        with pytest.raises(NotFound):
            await slots.remove("half")


async def test_a_copied_model_answers_and_a_removed_one_is_not_found(models: Path):
    async with running_slots(models) as slots:
        await slots.copy("chat", "other")
        await slots.remove("chat")
        with pytest.raises(NotFound):
            await use(slots, "chat")
        assert await chat((await use(slots, "other")).address) == 200
        with pytest.raises(Conflict) as caught:
            await slots.copy("embedding", "other")
        assert caught.value.code == "model_exists"


async def test_what_the_configuration_says_of_a_model_counts(models: Path):
    said = {"chat": EngineOverrides(context=256, threads=1)}
    async with running_slots(models, overrides=said) as slots:
        status = await slots.load("chat")
        assert (status.context, status.threads) == (256, 1)


# --- time


async def test_a_model_that_nobody_uses_is_unloaded_and_a_pinned_one_is_not(models: Path):
    clock = AheadClock()
    pinned = {"embedding": EngineOverrides(pinned=True)}
    quick = small(idle_seconds=60.0)
    async with running_slots(models, clock=clock, overrides=pinned, sweep_interval=0.01, **quick) as slots:
        lease = await use(slots, "chat")
        await until(lambda: loaded(slots) == {"chat", "embedding"} and of(slots, "embedding").state == "ready")
        clock.ahead = 1000.0
        await asyncio.sleep(0.05)
        assert loaded(slots) == {"chat", "embedding"}
        lease.release()
        clock.ahead += 30.0
        await asyncio.sleep(0.05)
        expires = of(slots, "chat").expires_at
        assert expires is not None
        assert 0 < expires - clock.now() <= 30.5
        assert of(slots, "embedding").expires_at is None
        clock.ahead += 31.0
        await until(lambda: loaded(slots) == {"embedding"})


async def test_a_client_may_keep_a_model_for_a_shorter_time_than_configured_but_not_longer(models: Path):
    clock = AheadClock()
    async with running_slots(models, clock=clock, sweep_interval=0.01, **small(idle_seconds=60.0)) as slots:
        lease = await use(slots, "chat")
        for seconds, counted in ((30.0, 30.0), (90.0, 60.0), (-1.0, 60.0), (None, 60.0)):
            slots.keep("chat", seconds)
            expires = of(slots, "chat").expires_at
            assert expires is not None
            assert expires - clock.now() == pytest.approx(counted, abs=0.5)
        slots.keep("chat", 0)
        await asyncio.sleep(0.05)
        assert of(slots, "chat").state == "ready"
        lease.release()
        await until(lambda: loaded(slots) == set())
        slots.keep("nothing", 0)


async def test_who_waits_for_a_load_is_told_their_place(models: Path, tmp_path: Path):
    server = write_fake_server(
        tmp_path / "llama-server",
        f"import time\nwhile not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)",
    )
    heard: dict[str, list[int]] = {"chat": [], "embedding": []}
    async with running_slots(models, place_interval=0.02, **small(server)) as slots:
        waiting = []
        for model in ("chat", "embedding"):
            place = Place()
            place.listener = heard[model].append
            waiting.append(asyncio.create_task(use(slots, model, place=place)))
        await until(lambda: len(heard["chat"]) > 3 and len(heard["embedding"]) > 3)
        assert set(heard["chat"]) == {1}
        assert set(heard["embedding"]) == {2}
        (tmp_path / "go").touch()
        await asyncio.gather(*waiting)
        assert heard["embedding"][-1] == 1
        loaded_place = Place()
        await use(slots, "chat", place=loaded_place)
        assert loaded_place.first is None


async def test_a_crash_names_the_requests_that_ran(models: Path, tmp_path: Path):
    crashes: list[Any] = []
    async with running_slots(models, seams={"on_crash": crashes.append}) as slots:
        await use(slots, "chat", request_id="req_1")
        (await use(slots, "chat", request_id="req_2")).release()
        await use(slots, "chat", request_id="req_3")
        pid = of(slots, "chat").pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: crashes)
        assert (crashes[0].model, crashes[0].request_ids) == ("chat", ("req_1", "req_3"))


# --- models that do not become ready


async def test_a_model_that_never_becomes_ready_ends_with_a_reason_and_holds_up_nobody_for_longer(
    models: Path, tmp_path: Path
):
    silent = EngineCommand(command=(sys.executable, "-c", "import time; time.sleep(600)", "{port}"))
    said = {"chat": EngineOverrides(engine="silent", load_seconds=0.3)}
    programs = EnginePrograms(commands={"silent": silent})
    async with running_slots(models, overrides=said, programs=programs) as slots:
        never = asyncio.create_task(use(slots, "chat"))
        await until(lambda: of(slots, "chat").pid if "chat" in loaded(slots) else None)
        pid = of(slots, "chat").pid
        assert pid is not None
        (await use(slots, "embedding")).release()
        with pytest.raises(Unavailable, match=r"not ready after 0\.3 s") as caught:
            await never
        assert caught.value.code == "model_failed"
        assert of(slots, "chat").state == "failed"
        assert ends(pid, 30.0)
        # It is not tried again at once.
        with pytest.raises(Unavailable, match=r"not ready after 0\.3 s"):
            await slots.acquire("chat", deadline=soon(0.1))


async def test_an_operator_need_not_wait_until_a_failed_model_may_be_tried_again(models: Path, tmp_path: Path):
    server = write_fake_server(tmp_path / "llama-server", "sys.exit('error: bad luck')")
    async with running_slots(models, **small(server)) as slots:
        with pytest.raises(Unavailable, match="bad luck"):
            await use(slots, "chat")
        write_fake_server(server)
        with pytest.raises(Unavailable, match="bad luck"):
            await use(slots, "chat")
        assert (await slots.load("chat")).state == "ready"
        (await use(slots, "chat")).release()


async def test_an_engine_that_is_not_installed_says_so(models: Path):
    said = {"chat": EngineOverrides(engine="nothing")}
    async with running_slots(models, overrides=said) as slots:
        with pytest.raises(Unavailable, match="there is no engine nothing"):
            await use(slots, "chat")


# --- restarts


def at_ports(slots: Slots) -> dict[int, str]:
    return {status.port: status.model for status in slots.status() if status.model and status.state == "ready"}


async def test_after_a_restart_everything_is_loaded_again_as_it_was(models: Path, tmp_path: Path):
    said = {"count": 3, "first_port": free_ports(3), "state": tmp_path / "engines"}
    async with running_slots(models, **said) as slots:
        ports = [status.port for status in slots.status()]
        await slots.load("chat", port=ports[2], overrides=EngineOverrides(context=768))
        await slots.load("embedding", port=ports[0])
        await slots.pin("chat", True)
        before = at_ports(slots)
        assert before == {ports[2]: "chat", ports[0]: "embedding"}
    async with running_slots(models, **said) as slots:
        await until(lambda: at_ports(slots) == before)
        assert (of(slots, "chat").context, of(slots, "chat").pinned) == (768, True)
        await slots.unload(model="embedding")
    async with running_slots(models, **said) as slots:
        await until(lambda: at_ports(slots) == {ports[2]: "chat"})
        await until(lambda: not slots.waiting())
        assert loaded(slots) == {"chat"}


async def test_a_model_that_is_gone_or_broken_does_not_keep_the_others_from_coming_back(third: Path, tmp_path: Path):
    said = {"count": 3, "first_port": free_ports(3), "state": tmp_path / "engines"}
    async with running_slots(third, **said) as slots:
        for model in ("chat", "third", "embedding"):
            await slots.load(model)
    (third / "chat.gguf").unlink()
    write_tiny_chat_model(third / "third.gguf", architecture="wonder")
    async with running_slots(third, **said) as slots:
        await until(lambda: "embedding" in at_ports(slots).values())
        await until(lambda: slots.broken() == {"chat": "its file is gone since the last start"})
        await until(lambda: "third" in loaded(slots) and of(slots, "third").state == "failed")
        assert loaded(slots) == {"third", "embedding"}
    async with running_slots(third, **said) as slots:
        await until(lambda: "embedding" in at_ports(slots).values())
        # It has been reported once, and is forgotten.
        assert slots.broken() == {}


async def test_a_restart_in_the_middle_of_a_restart_forgets_nothing(third: Path, tmp_path: Path):
    said = {"count": 3, "first_port": free_ports(3), "state": tmp_path / "engines"}
    async with running_slots(third, **said) as slots:
        for model in ("chat", "embedding", "third"):
            await slots.load(model)
        before = at_ports(slots)
    async with running_slots(third, **said) as slots:
        assert len(at_ports(slots)) < 3
    async with running_slots(third, **said) as slots:
        await until(lambda: at_ports(slots) == before)


async def test_a_model_whose_port_was_taken_meanwhile_comes_back_elsewhere(models: Path, tmp_path: Path):
    said = {"count": 2, "first_port": free_ports(2), "state": tmp_path / "engines"}
    async with running_slots(models, **said) as slots:
        port = (await slots.load("chat")).port
    with socket.create_server(("127.0.0.1", port)):
        async with running_slots(models, **said) as slots:
            await until(lambda: "chat" in at_ports(slots).values())
            assert of(slots, "chat").port != port


async def test_pinned_models_are_loaded_at_the_start_and_nothing_leaves_for_a_model_that_comes_back(
    third: Path, tmp_path: Path
):
    said = {"state": tmp_path / "engines", "count": 7, "seams": HUNDRED}
    async with running_slots(third, **said) as slots:
        for model in ("chat", "third"):
            await slots.load(model)
    pinned = {"embedding": EngineOverrides(pinned=True)}
    async with running_slots(third, overrides=pinned, memory_mib=250.0, **said) as slots:
        await until(lambda: len(at_ports(slots)) == 2 and not slots.waiting())
        assert loaded(slots) == {"embedding", "chat"}


async def test_the_bundled_model_comes_by_itself_unless_somebody_unloaded_it(models: Path, tmp_path: Path):
    bundled = write_tiny_chat_model(tmp_path / "bundled.gguf")
    said = {"bundled": (bundled,), "preload": ("bundled",), "state": tmp_path / "engines"}
    async with running_slots(models, **said) as slots:
        await until(lambda: "bundled" in at_ports(slots).values())
        await slots.unload(model="bundled")
    async with running_slots(models, **said) as slots:
        await slots.load("chat")
        assert loaded(slots) == {"chat"}
        await slots.load("bundled")
        await slots.unload(model="chat")
    async with running_slots(models, **said) as slots:
        await until(lambda: "bundled" in at_ports(slots).values())


async def test_requests_are_served_while_models_come_back(third: Path, tmp_path: Path):
    said = {"count": 3, "first_port": free_ports(3), "state": tmp_path / "engines"}
    async with running_slots(third, **said) as slots:
        for model in ("chat", "embedding"):
            await slots.load(model)
    async with running_slots(third, **said) as slots:
        (await use(slots, "third")).release()
        await until(lambda: set(at_ports(slots).values()) == {"chat", "embedding", "third"})
