import asyncio
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from stellwerk.core.clock import SystemClock
from stellwerk.core.errors import Unavailable, UpstreamBroken, UpstreamTimeout
from stellwerk.engines.ocr.engine import OcrEngine, OcrSettings
from stellwerk.engines.orphans import PidFiles
from tests.real_engines import DEADLINE, ends, until
from tests.scanned_pages import letter_pdf

PDF = letter_pdf(3, paragraphs=0)


@asynccontextmanager
async def running(clock=None, pids=None, on_crash=None, **settings):
    engine = OcrEngine(
        OcrSettings(**{"page_seconds": 60, "start_seconds": 120} | settings),
        clock or SystemClock(),
        os.environ,
        pids,
        on_crash,
    )
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


def pid(engine, number=0):
    return engine.status().workers[number].pid


async def test_workers_start_when_they_are_needed():
    async with running(workers=2) as engine:
        assert [worker.state for worker in engine.status().workers] == ["off", "off"]
        await engine.open(PDF)
        assert [worker.state for worker in engine.status().workers] == ["idle", "off"]
        first = pid(engine)
    assert ends(first, DEADLINE)


async def test_a_worker_that_is_killed_fails_its_page_only():
    reasons = []
    async with running(on_crash=reasons.append) as engine:
        document = await engine.open(PDF)
        os.kill(pid(engine), signal.SIGSTOP)
        doomed, waiting = (asyncio.create_task(engine.draw(document, page)) for page in (0, 1))
        await until(lambda: engine.status().waiting == 1)
        os.kill(pid(engine), signal.SIGKILL)
        with pytest.raises(UpstreamBroken) as crashed:
            await doomed
        assert crashed.value.code == "ocr_crashed"
        assert (await waiting).width == 1240
        status = engine.status()
        assert (status.crashes, status.workers[0].restarts) == (1, 1)
        assert reasons == ["it was ended by SIGKILL"]


async def test_a_worker_that_hangs_is_ended_and_replaced():
    async with running(page_seconds=3) as engine:
        document = await engine.open(PDF)
        hung = pid(engine)
        os.kill(hung, signal.SIGSTOP)
        with pytest.raises(UpstreamTimeout) as late:
            await engine.draw(document, 0)
        assert late.value.code == "ocr_timeout"
        assert ends(hung, DEADLINE)
        await engine.draw(await engine.open(PDF), 0)


async def test_a_page_that_is_given_up_does_not_hold_its_worker():
    async with running(cancel_seconds=0.05) as engine:
        document = await engine.open(PDF)
        hung = pid(engine)
        os.kill(hung, signal.SIGSTOP)
        given_up = asyncio.create_task(engine.draw(document, 0))
        await until(lambda: engine.status().workers[0].state == "busy")
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        assert (await engine.draw(document, 1)).width == 1240
        assert pid(engine) != hung


async def test_who_gives_up_while_waiting_leaves_no_trace():
    async with running() as engine:
        document = await engine.open(PDF)
        os.kill(pid(engine), signal.SIGSTOP)
        first, second, third = (asyncio.create_task(engine.draw(document, page)) for page in range(3))
        await until(lambda: engine.status().waiting == 2)
        second.cancel()
        await until(lambda: engine.status().waiting == 1)
        os.kill(pid(engine), signal.SIGCONT)
        assert (await first).width == (await third).width
        assert engine.status().waiting == 0


async def test_the_line_is_bounded():
    async with running(max_waiting=1) as engine:
        document = await engine.open(PDF)
        os.kill(pid(engine), signal.SIGSTOP)
        tasks = [asyncio.create_task(engine.draw(document, page)) for page in range(2)]
        await until(lambda: engine.status().waiting == 1)
        with pytest.raises(Unavailable) as full:
            await engine.draw(document, 2)
        assert full.value.code == "queue_full"
        os.kill(pid(engine), signal.SIGCONT)
        await asyncio.gather(*tasks)


async def test_two_workers_work_at_the_same_time():
    async with running(workers=2) as engine:
        document = await engine.open(PDF)
        os.kill(pid(engine), signal.SIGSTOP)
        stuck = asyncio.create_task(engine.draw(document, 0))
        await until(lambda: engine.status().workers[0].state == "busy")
        assert (await engine.draw(document, 1)).width == 1240
        os.kill(pid(engine), signal.SIGCONT)
        await stuck


async def test_an_idle_worker_ends_and_starts_again(clock):
    async with running(clock=clock, idle_seconds=600) as engine:
        document = await engine.open(PDF)
        first = pid(engine)
        clock.at += 599
        await engine.end_idle()
        assert pid(engine) == first
        clock.at += 2
        await engine.end_idle()
        assert pid(engine) is None
        assert (await engine.draw(document, 2)).width == 1240
        assert engine.status().workers[0].restarts == 1


async def test_a_rest_lets_pages_end_and_the_next_one_starts_the_reader_again():
    async with running() as engine:
        document = await engine.open(PDF)
        first = pid(engine)
        os.kill(first, signal.SIGSTOP)
        page, next_page = (asyncio.create_task(engine.draw(document, number)) for number in range(2))
        await until(lambda: engine.status().waiting == 1)
        rest = asyncio.create_task(engine.rest(60))
        await until(lambda: engine.resting)
        os.kill(first, signal.SIGCONT)
        assert (await page).width == 1240
        await rest
        assert ends(first, DEADLINE)
        assert (await next_page).width == 1240
        assert not engine.resting
        assert pid(engine) not in (None, first)


async def test_a_rest_without_patience_ends_what_is_read_and_says_so():
    async with running() as engine:
        document = await engine.open(PDF)
        os.kill(pid(engine), signal.SIGSTOP)
        page = asyncio.create_task(engine.draw(document, 0))
        await until(lambda: engine.status().workers[0].state == "busy")
        await engine.rest(0)
        with pytest.raises(Unavailable, match="administrator"):
            await page
        assert (engine.resting, pid(engine)) == (True, None)
        await engine.wake()
        assert (engine.resting, engine.status().workers[0].state) == (False, "idle")
        assert (await engine.draw(document, 0)).width == 1240


async def test_an_idle_worker_ends_at_once_when_it_is_to_rest():
    async with running() as engine:
        await engine.open(PDF)
        await engine.rest(60)
        assert (engine.resting, pid(engine)) == (True, None)


async def test_stopping_refuses_who_waits_and_ends_who_works():
    async with running() as engine:
        document = await engine.open(PDF)
        os.kill(pid(engine), signal.SIGSTOP)
        tasks = [asyncio.create_task(engine.draw(document, page)) for page in range(2)]
        await until(lambda: engine.status().waiting == 1)
        await engine.stop()
        for task in tasks:
            with pytest.raises(Unavailable):
                await task
        with pytest.raises(Unavailable):
            await engine.open(PDF)


async def test_a_worker_is_written_down_while_it_runs(tmp_path):
    async with running(pids=PidFiles(tmp_path / "ocr")) as engine:
        await engine.open(PDF)
        assert [file.name for file in (tmp_path / "ocr").iterdir()] == ["0.json"]
    assert list((tmp_path / "ocr").iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere memory cannot be bounded")
async def test_a_page_that_needs_more_memory_than_allowed_fails_alone():
    async with running(memory_mib=700, dpi=600) as engine:
        document = await engine.open(letter_pdf(2))
        with pytest.raises(Exception, match=r"memory|could not be read"):
            await engine.read(document, 0, mode="gundam")
        assert (await engine.open(PDF)).pages == 3


def test_workers_end_with_the_gateway_also_when_it_is_killed():
    program = f"""
import asyncio, os, sys
sys.path.insert(0, {str(Path.cwd())!r})
from stellwerk.core.clock import SystemClock
from stellwerk.engines.ocr.engine import OcrEngine, OcrSettings
from tests.scanned_pages import letter_pdf
async def main():
    engine = OcrEngine(OcrSettings(), SystemClock(), os.environ)
    await engine.start()
    await engine.open(letter_pdf(1))
    print(engine.status().workers[0].pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as gateway:
        worker = int(gateway.stdout.readline())
        gateway.kill()
    assert ends(worker, DEADLINE)


def test_importing_the_engine_loads_no_native_library():
    heavy = ("numpy", "PIL", "cv2", "onnxruntime", "rapidocr", "pypdfium2")
    code = f"import sys, stellwerk.engines.ocr.engine; print([name for name in {heavy} if name in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
