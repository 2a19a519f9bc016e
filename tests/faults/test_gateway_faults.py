"""The gateway and what it stands on: killed, stopped, locked out, misconfigured."""

import asyncio
import json
import os
import resource
import signal
import socket
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.gateway_process import (
    ADMIN_KEY,
    ALONE,
    DEADLINE,
    GatewayProcess,
    end,
    merged,
    running_gateway,
    start_gateway,
    wait_until,
)
from tests.raw_http import Exchange, begin, get, hello, post
from tests.real_engines import ends, free_ports
from tests.scripted_upstream import ScriptedUpstream, Talk, chunk, usage_chunk

TAKEN_OVER = "the configuration has been taken over"


def at(upstream: ScriptedUpstream, **more) -> dict:
    """A config with one provider."""
    return {"providers": {"up": {"base_url": upstream.url, "models": ["up"], "api_key": ""}}, **more}


def with_engines(models: Path) -> dict:
    engines = {"enabled": True, "demo": False, "models_folder": str(models), "slots": 2, "context": 8192, "threads": 1}
    return {"engines": {**engines, "first_port": free_ports(2)}}


async def ask(gateway: GatewayProcess, model: str = "up/up", key: str = ADMIN_KEY, **more) -> int:
    return (await post(gateway.port, key, hello(model, max_tokens=4), **more)).status


async def obstacles(gateway: GatewayProcess) -> tuple[int, list[str]]:
    answer = await get(gateway.port, None, "/health/readiness")
    return answer.status, answer.json["obstacles"]


async def reaches(gateway: GatewayProcess, wanted: tuple[int, list[str]]) -> None:
    async def has_come() -> bool:
        return await obstacles(gateway) == wanted

    await wait_until(has_come)


async def slots(gateway: GatewayProcess) -> dict[str, int]:
    """The process of each loaded model."""
    answer = await get(gateway.port, ADMIN_KEY, "/health/details")
    return {slot["model"]: slot["pid"] for slot in answer.json["slots"] if slot["pid"]}


def refuses_connections(gateway: GatewayProcess) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", gateway.port)) != 0


# --- processes that are killed


async def test_the_request_after_a_killed_engine_is_answered(tmp_path, models):
    async with running_gateway(tmp_path, with_engines(models)) as gateway:
        assert await ask(gateway, "chat") == 200
        pid = (await slots(gateway))["chat"]
        os.kill(pid, signal.SIGKILL)
        assert await ask(gateway, "chat") == 200
        assert (await slots(gateway))["chat"] != pid


async def test_an_engine_killed_in_the_middle_of_a_stream_ends_it_with_an_error(tmp_path, models):
    async with running_gateway(tmp_path, with_engines(models)) as gateway:
        # Long enough that no machine comes to its end before the kill.
        body = hello("chat", stream=True, max_tokens=8_000, ignore_eos=True)
        exchange = await begin(gateway.port, ADMIN_KEY, body, x_request_id="cut")
        await exchange.read_head()
        os.kill((await slots(gateway))["chat"], signal.SIGKILL)
        answer = await exchange.read()
        assert "error" in json.loads(answer.events[-1])
        assert "[DONE]" not in answer.events
        assert (await gateway.call("cut"))["error"] == "upstream_broken"


async def test_no_child_outlives_a_gateway_that_is_killed(tmp_path, models):
    async with running_gateway(tmp_path, with_engines(models)) as gateway:
        assert await ask(gateway, "chat") == 200
        body = {"model": "embedding", "input": "a"}
        assert (await post(gateway.port, ADMIN_KEY, body, "/v1/embeddings")).status == 200
        children = gateway.children
        assert set((await slots(gateway)).values()) <= set(children)
        assert len(children) >= 2
        gateway.signal(signal.SIGKILL)
        for pid in children:
            assert await asyncio.to_thread(ends, pid, DEADLINE)


async def test_no_child_is_left_when_the_gateway_has_stopped(tmp_path, models):
    async with running_gateway(tmp_path, with_engines(models)) as gateway:
        assert await ask(gateway, "chat") == 200
        children = gateway.children
        await gateway.stop()
        assert children
        assert all(ends(pid, 0.5) for pid in children)


async def test_a_killed_gateway_starts_again_on_its_folder_and_has_its_rows(tmp_path, upstream):
    async with running_gateway(tmp_path, at(upstream)) as gateway:
        assert await ask(gateway, x_request_id="before") == 200
        await gateway.call("before")
        gateway.signal(signal.SIGKILL)
        await gateway.wait()
    async with running_gateway(tmp_path, at(upstream)) as gateway:
        assert await ask(gateway, x_request_id="after") == 200
        await gateway.call("after")
        assert [row["id"] for row in gateway.calls()] == ["before", "after"]


# --- stopping


class Paused:
    """An upstream whose streams wait in their middle until they are told to go on."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def __call__(self, talk: Talk) -> None:
        await talk.start_stream()
        await talk.event(chunk("Hel"))
        waiting = {asyncio.ensure_future(event.wait()) for event in (self.go_on, talk.left)}
        _, others = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for other in others:
            other.cancel()
        await talk.event(chunk("lo", finish="stop"))
        await talk.event(usage_chunk())
        await talk.finish_stream()


async def begin_streams(gateway: GatewayProcess, count: int) -> list[Exchange]:
    exchanges = [
        await begin(gateway.port, ADMIN_KEY, hello(stream=True), x_request_id=f"stream-{number}")
        for number in range(count)
    ]
    for exchange in exchanges:
        await exchange.read_head()
    return exchanges


async def test_running_streams_are_finished_before_it_stops(tmp_path, upstream):
    upstream.script = script = Paused()
    async with running_gateway(tmp_path, at(upstream)) as gateway:
        exchanges = await begin_streams(gateway, 20)
        gateway.signal(signal.SIGTERM)
        await wait_until(lambda: refuses_connections(gateway))
        assert not gateway.ended
        script.go_on.set()
        answers = [await exchange.read() for exchange in exchanges]
        assert {answer.events[-1] for answer in answers} == {"[DONE]"}
        assert await gateway.wait() == 0
        rows = {row["id"]: (row["status"], row["error"], row["output_tokens"]) for row in gateway.calls()}
        assert rows == {f"stream-{number}": (200, None, 2) for number in range(20)}
        assert "Traceback" not in gateway.log


async def test_a_whole_answer_under_way_is_finished_before_it_stops(tmp_path, upstream):
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def script(talk: Talk) -> None:
        reached.set()
        await go_on.wait()
        await talk.answer({"object": "chat.completion", "model": "up", "choices": []})

    upstream.script = script
    async with running_gateway(tmp_path, at(upstream)) as gateway:
        exchange = await begin(gateway.port, ADMIN_KEY, hello())
        async with asyncio.timeout(30):
            await reached.wait()
        gateway.signal(signal.SIGTERM)
        await wait_until(lambda: refuses_connections(gateway))
        go_on.set()
        assert (await exchange.read()).status == 200
        assert await gateway.wait() == 0


async def test_ctrl_c_lets_a_model_of_our_own_finish_its_answer(tmp_path, models):
    async with running_gateway(tmp_path, with_engines(models)) as gateway:
        assert await ask(gateway, "chat") == 200
        body = hello("chat", stream=True, max_tokens=450, ignore_eos=True)
        exchange = await begin(gateway.port, ADMIN_KEY, body, x_request_id="last")
        await exchange.read_head()
        # A terminal tells every process of the group.
        os.killpg(gateway.pid, signal.SIGINT)
        assert (await exchange.read()).events[-1] == "[DONE]"
        assert await gateway.wait() == 0
        [row] = [row for row in gateway.calls() if row["id"] == "last"]
        assert (row["error"], row["output_tokens"]) == (None, 450)


async def test_a_second_signal_stops_at_once(tmp_path, upstream):
    upstream.script = Paused()
    async with running_gateway(tmp_path, at(upstream, drain_seconds=600)) as gateway:
        exchanges = await begin_streams(gateway, 3)
        gateway.signal(signal.SIGTERM)
        await wait_until(lambda: refuses_connections(gateway))
        assert not gateway.ended
        gateway.signal(signal.SIGTERM)
        assert await gateway.wait() == 0
        assert {row["error"] for row in gateway.calls()} == {"client_closed_request"}
        assert len(gateway.calls()) == 3
        for exchange in exchanges:
            exchange.close()


async def test_streams_that_never_end_are_ended_after_the_drain_time(tmp_path, upstream):
    upstream.script = Paused()
    async with running_gateway(tmp_path, at(upstream, drain_seconds=1)) as gateway:
        [exchange] = await begin_streams(gateway, 1)
        gateway.signal(signal.SIGTERM)
        assert await gateway.wait() == 0
        assert len(gateway.calls()) == 1
        exchange.close()


# --- storage


async def test_a_locked_database_stops_no_call_and_no_row_is_lost(tmp_path, upstream):
    async with running_gateway(tmp_path, at(upstream)) as gateway:
        with closing(sqlite3.connect(gateway.data / "stellwerk.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            for number in range(5):
                assert await ask(gateway, x_request_id=f"locked-{number}") == 200
            await reaches(gateway, (503, ["storage_unavailable"]))
            assert await ask(gateway, x_request_id="locked-5") == 200
            other.execute("ROLLBACK")
        await reaches(gateway, (200, []))
        for number in range(6):
            assert (await gateway.call(f"locked-{number}"))["status"] == 200


async def test_a_full_disk_stops_no_call_and_no_row_is_lost(tmp_path, upstream):
    async with running_gateway(tmp_path, at(upstream)) as gateway:
        assert await ask(gateway, x_request_id="before") == 200
        await gateway.call("before")
        # No file of the process may grow any more, which is what a full disk does.
        soft, hard = resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE, (1, hard))
        for number in range(5):
            assert await ask(gateway, x_request_id=f"full-{number}") == 200
        await reaches(gateway, (503, ["storage_unavailable"]))
        health = (await get(gateway.port, None, "/health")).json
        assert health["status"] == "degraded"
        resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE, (soft, hard))
        await reaches(gateway, (200, []))
        for number in range(5):
            assert (await gateway.call(f"full-{number}"))["status"] == 200


async def test_a_restart_keeps_keys_and_ledger(tmp_path, upstream):
    async with running_gateway(tmp_path, at(upstream), chosen_key=False) as gateway:
        created = await gateway.run("keys", "create", "program")
        key = created.output.strip()
        assert await ask(gateway, key=key, x_request_id="first") == 200
        await gateway.stop()
        admin_key = gateway.key
    async with running_gateway(tmp_path, at(upstream), chosen_key=False) as gateway:
        assert gateway.key == admin_key
        assert await ask(gateway, key=key, x_request_id="second") == 200
        assert await ask(gateway, key=admin_key) == 200
        await gateway.call("second")
        first, second, *_ = gateway.calls()
        assert (first["id"], second["id"]) == ("first", "second")
        assert first["key_id"] == second["key_id"]


# --- starting


async def test_a_taken_port_is_named_and_ends_it(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        gateway = start_gateway(tmp_path, port=port)
        assert await gateway.wait() == 1
        [line] = [line for line in gateway.log.splitlines() if str(port) in line]
        assert "Cannot listen on 127.0.0.1" in line
        assert "Traceback" not in gateway.log
        assert "answers on" not in gateway.output


async def test_a_second_process_on_the_same_folder_is_refused_and_names_the_first(tmp_path, upstream):
    async with running_gateway(tmp_path / "first", at(upstream)) as gateway:
        second = start_gateway(tmp_path / "second", at(upstream), data=gateway.data)
        try:
            assert await second.wait() == 78
        finally:
            end(second.process)
        assert f"process {gateway.pid}" in second.log
        assert str(gateway.data) in second.log
        assert "Traceback" not in second.log
        assert await ask(gateway) == 200


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"], ids=["closed", "full"])
async def test_an_output_that_cannot_be_written_does_not_keep_it_from_starting(tmp_path, redirection):
    port = free_ports(1)
    gateway = start_gateway(tmp_path, port=port, redirection=redirection, chosen_key=False)
    gateway.port = port
    try:
        await wait_until(lambda: gateway.ended or not refuses_connections(gateway))
        assert (await get(port, None, "/health/readiness")).status == 200
        assert "Traceback" not in gateway.log
    finally:
        end(gateway.process)


async def test_a_damaged_database_is_refused_and_stays_as_it_is(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "stellwerk.db").write_bytes(b"this is not a database" * 100)
    gateway = start_gateway(tmp_path)
    assert await gateway.wait() == 78
    assert "stellwerk.db" in gateway.log
    assert "Traceback" not in gateway.log
    assert (data / "stellwerk.db").read_bytes() == b"this is not a database" * 100


# --- a changed config


async def test_a_changed_file_is_taken_over(tmp_path, upstream):
    async with running_gateway(tmp_path, at(upstream)) as gateway:
        assert await ask(gateway, "quick") == 404
        gateway.write_config(at(upstream, models={"quick": {"targets": ["up/up"]}}))
        await wait_until(lambda: TAKEN_OVER in gateway.log)
        assert await ask(gateway, "quick") == 200


async def test_a_hangup_signal_reads_the_file_again_also_when_it_looks_unchanged(tmp_path, upstream):
    old, new = ({"models": {name: {"targets": ["up/up"]}}} for name in ("old", "new"))
    async with running_gateway(tmp_path, at(upstream, **old)) as gateway:
        status = gateway.config.stat()
        gateway.config.write_text(json.dumps(merged(ALONE, at(upstream, **new))))
        os.utime(gateway.config, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert gateway.config.stat().st_size == status.st_size
        gateway.signal(signal.SIGHUP)
        await wait_until(lambda: TAKEN_OVER in gateway.log)
        assert await ask(gateway, "new") == 200
        assert await ask(gateway, "old") == 404


async def test_a_wrong_config_changes_nothing_and_is_told_with_its_line(tmp_path, upstream):
    async with running_gateway(tmp_path, at(upstream)) as gateway:
        gateway.config.write_text("limits:\n  requests_per_minute: many\n")
        gateway.signal(signal.SIGHUP)
        await wait_until(lambda: "the configuration is wrong" in gateway.log)
        [line] = [line for line in gateway.log.splitlines() if "the configuration is wrong" in line]
        assert "stellwerk.yaml:2" in line
        assert "limits.requests_per_minute" in line
        assert await ask(gateway) == 200
        gateway.write_config(at(upstream, models={"right": {"targets": ["up/up"]}}))
        gateway.signal(signal.SIGHUP)
        await wait_until(lambda: TAKEN_OVER in gateway.log)
        assert await ask(gateway, "right") == 200


async def test_changed_times_and_attempts_count_from_the_next_call_on(tmp_path, upstream):
    async def hang(talk: Talk) -> None:
        await talk.left.wait()

    upstream.script = hang
    targets = {"twice": {"targets": ["nobody/up", "up/up"]}}
    nobody = {"base_url": "http://127.0.0.1:9/v1", "models": ["up"], "api_key": ""}
    config = merged(at(upstream, models=targets), {"providers": {"nobody": nobody}})
    async with running_gateway(tmp_path, config) as gateway:
        gateway.write_config(merged(config, {"upstream": {"attempts": 1, "total_seconds": 3}}))
        gateway.signal(signal.SIGHUP)
        await wait_until(lambda: TAKEN_OVER in gateway.log)
        assert await ask(gateway, "twice") == 502
        assert await ask(gateway, "up/up") == 504
        await wait_until(lambda: upstream.requests)
        assert len(upstream.requests) == 1


async def test_changed_limits_count_from_the_next_call_on(tmp_path, upstream):
    async with running_gateway(tmp_path, at(upstream)) as gateway:
        assert await ask(gateway) == 200
        gateway.write_config(at(upstream, limits={"requests_per_minute": 1}))
        gateway.signal(signal.SIGHUP)
        await wait_until(lambda: TAKEN_OVER in gateway.log)
        assert [await ask(gateway) for _ in range(2)] == [200, 429]


async def test_aliases_in_a_circle_are_a_wrong_config_and_stop_nothing(tmp_path, upstream):
    async with running_gateway(tmp_path, at(upstream)) as gateway:
        gateway.write_config(at(upstream, models={"a": {"targets": ["b"]}, "b": {"targets": ["a"]}}))
        gateway.signal(signal.SIGHUP)
        await wait_until(lambda: "the configuration is wrong" in gateway.log)
        assert await ask(gateway) == 200
        assert not gateway.ended


async def test_running_streams_survive_a_changed_config(tmp_path, upstream):
    upstream.script = script = Paused()
    async with running_gateway(tmp_path, at(upstream)) as gateway:
        [exchange] = await begin_streams(gateway, 1)
        gateway.write_config({})
        gateway.signal(signal.SIGHUP)
        await wait_until(lambda: TAKEN_OVER in gateway.log)
        assert await ask(gateway) == 404
        script.go_on.set()
        assert (await exchange.read()).events[-1] == "[DONE]"
