"""20,000 broken GGUF files: each is refused at once or is harmless for the engine, alone and in a running gateway."""

import asyncio
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from stellwerk.core.clock import SystemClock
from stellwerk.core.ports import EngineAddress
from stellwerk.engines.downloads import Downloads, DownloadSettings, RunSettings, TransferSettings
from stellwerk.engines.failure import EngineFailed
from stellwerk.engines.gguf import InvalidGguf
from stellwerk.engines.hub import Hub
from stellwerk.engines.llama_cpp import orders_for
from tests.fuzz import engine_trials, gguf_header_checks
from tests.fuzz.gguf_mutants import COUNT, Mutant, make_bases, mutants
from tests.fuzz.hostile_engines import prepare, serve
from tests.gateway_process import running_gateway, wait_until
from tests.raw_http import get, hello, post
from tests.real_engines import free_ports
from tests.small_hub import SmallHub
from tests.tiny_gguf import write_tiny_chat_model

SECONDS, BYTES = 0.1, 16 << 20
"""Of computing and of memory, for one header."""
CORES = 2
AT_ONCE = 2
SAMPLE = 36
WORST = 200
DEADLINE = 240.0


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return make_bases(tmp_path_factory.mktemp("bases"))


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """What came of all of them, in shares that two processes have taken."""
    folder = tmp_path_factory.mktemp("checked")
    program = [sys.executable, "-m", gguf_header_checks.__name__, str(folder), str(folder), str(COUNT)]
    shares = [subprocess.Popen([*program, str(share), str(CORES)], stdout=-1) for share in range(CORES)]
    try:
        return [json.loads(share.communicate(timeout=DEADLINE)[0]) for share in shares]
    finally:
        for share in shares:
            share.kill()
            share.wait()
            share.stdout.close()


@pytest.fixture(scope="module")
def accepted(checked, bases) -> "list[Mutant]":
    """Those that passed, each once."""
    makers = mutants(bases)
    found: dict[int, Mutant] = {}
    for number in sorted(number for share in checked for number in share["accepted"]):
        mutant = makers[number]()
        found.setdefault(hash((mutant.role, mutant.head, mutant.tail, mutant.data)), mutant)
    return list(found.values())


def test_every_one_of_20_000_broken_files_is_refused_or_read_and_nothing_else(checked):
    assert [share["wrong"] for share in checked] == [[], []]
    accepted, refused = (
        sum(len(share["accepted"]) for share in checked),
        sum(sum(share["reasons"].values()) for share in checked),
    )
    assert accepted + refused == COUNT
    assert refused > COUNT // 2
    assert sum((Counter(share["reasons"]) for share in checked), Counter()).keys() >= {
        "a key stands in it twice",
        "a tensor has too many dimensions",
        "a tensor is not where the one before it ends",
        "an array holds something unknown",
        "it does not begin like a GGUF file",
        "it is incomplete: a tensor lies past the end of the file",
        "its GGUF version is not supported",
        "the header does not fit into the file",
    }


def test_no_broken_header_costs_much_time_or_memory(checked):
    assert max(share["seconds"] for share in checked) < SECONDS
    assert max(share["bytes"] for share in checked) < BYTES


async def test_the_files_before_they_were_broken_are_served(bases, tmp_path):
    port = free_ports(1)
    for base in bases:
        whole = Mutant(base.role, "nothing", base.head, base.layout.data, len(base.layout.data))
        trial = await asyncio.to_thread(prepare, whole, bases, tmp_path / "one")
        assert trial is not None
        assert await serve(trial, port) == 200


async def test_what_passes_the_check_is_served_or_fails_in_an_ordinary_way(accepted, bases, tmp_path):
    sample = random.Random(1).sample(accepted, SAMPLE)
    ports = free_ports(AT_ONCE)
    came: list[str] = []
    crashes: list[tuple[str, str, str]] = []

    async def work(place: int) -> None:
        for mutant in sample[place::AT_ONCE]:
            try:
                trial = await asyncio.to_thread(prepare, mutant, bases, tmp_path / str(place))
                status = None if trial is None else await serve(trial, ports + place)
                came.append(f"answered {status}" if trial is not None else "not offered")
            except EngineFailed as failure:
                if "ended by" in failure.reason:
                    crashes.append((mutant.role, mutant.what, failure.reason))
                came.append("not loaded")

    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
        for place in range(AT_ONCE):
            group.create_task(work(place))
    assert crashes == []
    assert len(came) == SAMPLE
    assert {"not loaded", "answered 200"} <= set(came)


@pytest.mark.slow
def test_none_of_those_that_pass_ends_an_engine_by_a_signal(accepted, bases, tmp_path):
    crashes, came = [], Counter()
    program = subprocess.Popen([sys.executable, "-m", engine_trials.__name__], stdin=-1, stdout=-1, text=True)
    try:
        for mutant in accepted:
            status, text = try_in_engine(program, mutant, bases, tmp_path / "one")
            came[status] += 1
            if status not in {None, engine_trials.SERVED, engine_trials.NOT_LOADED}:
                crashes.append((status, mutant.role, mutant.what[:200], text[-300:]))
    finally:
        program.kill()
        program.wait()
        program.stdin.close()
        program.stdout.close()
    print(f"{len(accepted)} files: {came}")
    assert crashes == []


def try_in_engine(program, mutant: Mutant, bases, folder: Path) -> "tuple[int | None, str]":
    """The exit status of an engine that got it; None for what a load refuses before."""
    try:
        trial = prepare(mutant, bases, folder)
    except EngineFailed:
        trial = None
    if trial is None:
        return None, ""
    orders = orders_for(trial.file, trial.options, EngineAddress(host="127.0.0.1", port=0, key="key"))
    line = msgspec.to_builtins(orders) | {"question": trial.question, "seconds": 30}
    program.stdin.write(json.dumps(line) + "\n")
    program.stdin.flush()
    answer = json.loads(program.stdout.readline())
    return answer["status"], answer["text"]


def worst(bases, folder: Path, count: int) -> "list[Mutant]":
    """Refused ones of models, one after the other of every reason that there is."""
    path = folder / "one.gguf"
    by_reason: dict[str, list[Mutant]] = {}
    for make in random.Random(2).sample(mutants(bases), 3_000):
        mutant = make()
        if mutant.role not in {"chat", "embedding"}:
            continue
        try:
            gguf_header_checks.check(mutant.role, mutant.write(path, sparse=True))
        except InvalidGguf as error:
            by_reason.setdefault(str(error), []).append(mutant)
    path.unlink()
    found = []
    while len(found) < count:
        found += [listed.pop() for listed in by_reason.values() if listed]
    return found[:count]


def bombs(folder: Path) -> None:
    """Headers as large as they may be, and larger."""
    head = b"GGUF\x03\0\0\0" + bytes(8) + (1).to_bytes(8, "little") + (1).to_bytes(8, "little") + b"k"
    long_text = head + (8).to_bytes(4, "little") + (1 << 40).to_bytes(8, "little")
    (folder / "long-text.gguf").write_bytes(long_text)
    os.truncate(folder / "long-text.gguf", 4 << 30)
    many = head + (9).to_bytes(4, "little") + (8).to_bytes(4, "little") + (1 << 60).to_bytes(8, "little")
    (folder / "many-texts.gguf").write_bytes(many)
    os.truncate(folder / "many-texts.gguf", 4 << 30)
    (folder / "zeros.gguf").write_bytes(b"")
    os.truncate(folder / "zeros.gguf", 64 << 30)
    os.mkfifo(folder / "pipe.gguf")
    (folder / "link.gguf").symlink_to("/dev/zero")


async def test_a_folder_full_of_hostile_files_harms_nobody(bases, tmp_path):
    folder = tmp_path / "gateway" / "data" / "models"
    folder.mkdir(parents=True, mode=0o700)
    hostile = worst(bases, tmp_path, WORST)
    names = [f"hostile-{number:03}" for number in range(len(hostile))]
    for name, mutant in zip(names, hostile, strict=True):
        mutant.write(folder / f"{name}.gguf")
    bombs(folder)
    write_tiny_chat_model(folder / "good.gguf")
    engines = {"enabled": True, "demo": False, "slots": 2, "threads": 1, "context": 512, "first_port": free_ports(2)}
    async with running_gateway(tmp_path / "gateway", {"engines": engines}) as gateway:

        async def listed() -> "set[str]":
            return {model["id"] for model in (await get(gateway.port, gateway.key, "/v1/models")).json["data"]}

        await wait_until(listed)
        assert await listed() == {"good"}
        broken = (await get(gateway.port, gateway.key, "/health/details")).json["broken_models"]
        assert set(names) | {"link", "long-text", "many-texts", "zeros"} == set(broken)
        assert str(tmp_path) not in json.dumps(broken)
        before = gateway.resident_bytes
        for name in (*names[::10], "many-texts", "zeros", "pipe", "link"):
            answer = await post(gateway.port, gateway.key, hello(name))
            assert answer.status in {404, 503}, (name, answer.body)
            assert answer.error["code"] in {"model_not_found", "model_failed"}
        assert gateway.children == []
        assert (await get(gateway.port, None, "/health/readiness")).status == 200
        assert gateway.resident_bytes - before < 32 << 20
        answer = await post(gateway.port, gateway.key, hello("good", max_tokens=3))
        assert answer.status == 200, answer.body
        assert len(gateway.children) == 1


async def test_a_hostile_file_from_a_hub_never_gets_its_name(bases, tmp_path):
    hub = SmallHub()
    await hub.start()
    files = worst(bases, tmp_path, 12)
    for number, mutant in enumerate(files):
        data = mutant.write(tmp_path / "one").read_bytes()
        hub.add(f"stranger/model-{number}", {"model.gguf": data})
    folder = tmp_path / "models"
    folder.mkdir()
    settings = DownloadSettings(run=RunSettings(transfer=TransferSettings(backoff=(0, 0, 0)), reserve_bytes=0))
    downloads = Downloads(folder, Hub(hub.url, None), SystemClock(), settings=settings)
    await downloads.start()
    try:
        for number in range(len(files)):
            download = await downloads.add(f"stranger/model-{number}")
            async with asyncio.timeout(60):
                ended = [one async for one in downloads.follow(download.id)][-1]
            assert ended.state == "failed"
            assert "model.gguf cannot be used" in ended.error
            assert [path.name for path in folder.iterdir() if path.suffix in {".gguf", ".part"}] == []
    finally:
        await downloads.stop()
        await hub.stop()
