"""How well and how fast the embedded reader reads a scanned page in each of its modes."""

import argparse
import asyncio
import os
import platform
import sys
from pathlib import Path

from stellwerk.core.clock import SystemClock
from stellwerk.engines.ocr.engine import OcrEngine, OcrSettings
from stellwerk.engines.ocr.modes import LONG_SIDES, MODES
from tests.scanned_pages import character_errors, scanned_letter

PAGES = {
    "10 pt": (10.0, 4),
    "6 pt": (6.0, 4),
    "4.5 pt": (4.5, 4),
    "7 lines of 10 pt": (10.0, 1),
}
"""Size of the letters, and paragraphs: a full page has four, of 26 lines in all."""


async def measure(rounds: int, dpi: int, threads: int) -> None:
    engine = OcrEngine(OcrSettings(threads=threads, page_seconds=600), SystemClock(), os.environ)
    await engine.start()
    try:
        pages = {name: scanned_letter(points=p, paragraphs=n, dpi=dpi) for name, (p, n) in PAGES.items()}
        first = await engine.open(next(iter(pages.values()))[0])
        await engine.read(first, 0, mode="large")
        rows = []
        for mode in MODES:
            cells = []
            for scanned, text in pages.values():
                document = await engine.open(scanned)
                pid = engine.status().workers[0].pid
                seconds = []
                for _ in range(rounds):
                    before = _processor_seconds(pid)
                    page = await engine.read(document, 0, mode=mode)
                    seconds.append(_processor_seconds(pid) - before)
                errors = 100 * character_errors(text, page.text)
                cells.append(f"{errors:.1f} % · {min(seconds):.1f} s")
            rows.append(f"| {mode} | {LONG_SIDES.get(mode, 'all')} | " + " | ".join(cells) + " |")
            print(rows[-1], file=sys.stderr, flush=True)
        memory = engine.status().workers[0].memory_mib
    finally:
        await engine.stop()
    letters = len(next(iter(pages.values()))[1])
    cores = os.cpu_count() or 1
    print(f"| mode | pixels | {' | '.join(pages)} |\n| --- | --- |{' --- |' * len(pages)}")
    print("\n".join(rows))
    print(
        f"\nA4 at {dpi} dpi, {letters} characters on a full page; processor seconds, least of {rounds}; "
        f"{_processor()}, {cores} cores, of which {threads or max(1, cores - 1)} used; {memory:.0f} MiB afterwards"
    )


def _processor_seconds(pid: int) -> float:
    """What a process has computed so far, all threads together: the machine may be busy with other things."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dpi", type=int, default=200)
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    asyncio.run(measure(given.rounds, given.dpi, given.threads))
    return 0
