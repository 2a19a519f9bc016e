import asyncio
import socket
from pathlib import Path

import msgspec
import pytest

from stellwerk.core.errors import NotFound, Unavailable
from tests.real_engines import (
    DEADLINE,
    QUICK,
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


async def test_a_model_is_loaded_on_its_first_request_and_stays(models: Path):
    async with running_slots(models) as slots:
        lease = await slots.acquire("chat", deadline=soon())
        assert await chat(lease.address) == 200
        lease.release()
        pid = slots.status()[1].pid
        again = await slots.acquire("chat", deadline=soon())
        assert again.address == lease.address
        assert slots.status()[1].pid == pid


async def test_an_engine_answers_only_to_its_key(models: Path):
    async with running_slots(models) as slots:
        lease = await slots.acquire("chat", deadline=soon())
        assert (await ask(lease.address, "/v1/models"))[0] == 200
        assert (await ask(lease.address, "/v1/models", key=None))[0] == 401
        assert (await ask(lease.address, "/v1/chat/completions", {"messages": []}, key="guess"))[0] == 401


async def test_an_embedding_model_embeds(models: Path):
    async with running_slots(models) as slots:
        lease = await slots.acquire("embedding", deadline=soon())
        status, body = await ask(lease.address, "/v1/embeddings", {"input": "hello", "model": "embedding"})
        assert (status, len(body["data"][0]["embedding"])) == (200, 96)


async def test_twenty_requests_at_once_share_one_load(models: Path):
    async with running_slots(models) as slots:
        leases = await asyncio.gather(*(slots.acquire("chat", deadline=soon()) for _ in range(20)))
        assert len({lease.address for lease in leases}) == 1
        assert [status.leases for status in slots.status()] == [0, 20]
        for lease in leases:
            lease.release()
            lease.release()
        assert [status.leases for status in slots.status()] == [0, 0]


async def test_more_leases_than_allowed_wait_for_one_to_be_given_back(models: Path):
    async with running_slots(models, **small(max_requests=1)) as slots:
        first = await slots.acquire("chat", deadline=soon())
        waiting = asyncio.create_task(slots.acquire("chat", deadline=soon()))
        with pytest.raises(Unavailable) as caught:
            await slots.acquire("chat", deadline=soon(0.05))
        assert caught.value.code == "slots_busy"
        assert not waiting.done()
        first.release()
        (await waiting).release()


async def test_the_model_unused_for_longest_makes_room(models: Path):
    write_tiny_chat_model(models / "third.gguf")
    async with running_slots(models) as slots:
        (await slots.acquire("chat", deadline=soon())).release()
        (await slots.acquire("embedding", deadline=soon())).release()
        (await slots.acquire("chat", deadline=soon())).release()
        pid = slots.status()[0].pid
        assert pid is not None
        lease = await slots.acquire("third", deadline=soon())
        assert {status.model for status in slots.status()} == {"chat", "third"}
        assert await chat(lease.address) == 200
        assert ends(pid, 30.0)


async def test_a_model_in_use_is_never_moved_out(models: Path):
    write_tiny_chat_model(models / "third.gguf")
    async with running_slots(models) as slots:
        held = [await slots.acquire(model, deadline=soon()) for model in ("chat", "embedding")]
        with pytest.raises(Unavailable) as caught:
            await slots.acquire("third", deadline=soon(0.2))
        assert caught.value.code == "slots_busy"
        assert caught.value.retry_after
        held[0].release()
        await slots.acquire("third", deadline=soon())


async def test_an_unknown_model_is_not_found_and_a_new_file_is(models: Path):
    async with running_slots(models) as slots:
        with pytest.raises(NotFound):
            await slots.acquire("new", deadline=soon())
        write_tiny_chat_model(models / "new.gguf")
        lease = await slots.acquire("new", deadline=soon())
        assert await chat(lease.address) == 200
        assert {model.id for model in slots.models()} == {"chat", "embedding", "new"}


async def test_a_file_that_is_no_gguf_says_what_is_wrong_with_it(models: Path):
    (models / "broken.gguf").write_bytes(b"<!doctype html>" * 100)
    async with running_slots(models) as slots:
        with pytest.raises(Unavailable) as caught:
            await slots.acquire("broken", deadline=soon())
        assert caught.value.code == "model_failed"
        assert "it does not begin like a GGUF file" in caught.value.message
        assert str(models) not in caught.value.message
        assert set(slots.broken()) == {"broken"}


async def test_a_model_that_llama_cpp_refuses_says_why_and_is_held_back(models: Path):
    write_tiny_chat_model(models / "odd.gguf", architecture="wonder")
    async with running_slots(models) as slots:
        for _ in range(2):
            with pytest.raises(Unavailable) as caught:
                await slots.acquire("odd", deadline=soon())
            assert caught.value.code == "model_failed"
            assert "unknown model architecture: 'wonder'" in caught.value.message
            assert caught.value.retry_after is not None
            assert 0 < caught.value.retry_after <= 1.0
            assert caught.value.may_fall_back
        status = slots.status()[1]
        assert (status.state, status.model, status.pid) == ("failed", "odd", None)
        assert any("wonder" in line for line in slots.output("odd"))
        write_tiny_chat_model(models / "odd.gguf")
        await slots.rescan()
        assert await chat((await slots.acquire("odd", deadline=soon())).address) == 200


async def test_a_load_that_outlasts_the_request_goes_on_without_it(models: Path, tmp_path: Path):
    server = write_fake_server(tmp_path / "llama-server", "import time; time.sleep(2)")
    async with running_slots(models, **small(server)) as slots:
        with pytest.raises(Unavailable) as caught:
            await slots.acquire("chat", deadline=soon(0.1))
        assert caught.value.code == "model_loading"
        pid = slots.status()[1].pid
        lease = await slots.acquire("chat", deadline=soon())
        assert slots.status()[1].pid == pid
        status, body = await ask(lease.address, "/v1/models")
        assert (status, body["id"]) == (200, "chat")


async def test_a_load_that_takes_too_long_fails(models: Path, tmp_path: Path):
    server = write_fake_server(tmp_path / "llama-server", "import time; time.sleep(600)")
    async with running_slots(models, **small(server, load_seconds=0.2)) as slots:
        with pytest.raises(Unavailable, match=r"not ready after 0\.2 s") as caught:
            await slots.acquire("chat", deadline=soon())
        assert caught.value.code == "model_failed"


async def test_a_port_of_another_program_is_never_trusted(models: Path):
    first = free_ports(2)
    with socket.create_server(("127.0.0.1", first + 1)):
        async with running_slots(models, first_port=first) as slots:
            lease = await slots.acquire("chat", deadline=soon())
            assert lease.address.port == first
            taken = slots.status()[1]
            assert (taken.state, taken.error) == ("failed", f"port {first + 1} is used by another program")


async def test_the_bundled_model_is_loaded_at_the_start_into_the_first_slot(models: Path, tmp_path: Path):
    bundled = write_tiny_chat_model(tmp_path / "bundled.gguf")
    async with running_slots(models, bundled=(bundled,), preload=("bundled", "missing")) as slots:
        await until(lambda: slots.status()[0].state == "ready")
        assert slots.status()[0].model == "bundled"
        assert [model.id for model in slots.models()] == ["bundled", "chat", "embedding"]


async def test_a_request_that_is_given_up_gives_its_place_back(models: Path, tmp_path: Path):
    server = write_fake_server(tmp_path / "llama-server", "import time; time.sleep(600)")
    async with running_slots(models, **small(server)) as slots:
        waiting = asyncio.create_task(slots.acquire("chat", deadline=soon()))
        await until(lambda: slots.status()[1].leases == 1)
        waiting.cancel()
        await asyncio.wait({waiting})
        assert waiting.cancelled()
        assert slots.status()[1].leases == 0


async def test_after_the_stop_no_process_is_left_and_nothing_is_loaded(models: Path):
    # The polite signal is enough: nobody waits until it counts as unheard.
    async with running_slots(models, supervisor=msgspec.structs.replace(QUICK, grace=600.0)) as slots:
        for model in ("chat", "embedding"):
            await slots.acquire(model, deadline=soon())
        pids = [status.pid for status in slots.status()]
        async with asyncio.timeout(DEADLINE):
            await slots.stop()
        assert all(pid is not None and ends(pid, 0.0) for pid in pids)
        with pytest.raises(Unavailable) as caught:
            await slots.acquire("chat", deadline=soon())
        assert caught.value.code == "shutting_down"
