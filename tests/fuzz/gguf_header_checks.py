"""Shows broken files to the check, one after the other. Run as a program, so that its memory can be bounded.

Arguments: the folder of the bases, a folder to write in, how many mutants there are, and which share of how many is
wanted. The answer is one JSON object on standard output.
"""

import json
import resource
import sys
import time
import tracemalloc
from collections import Counter
from pathlib import Path

from stellwerk.engines.gguf import InvalidGguf, check_part
from stellwerk.engines.model_files import read_whole
from stellwerk.engines.projectors import read_projector_file
from tests.fuzz.gguf_mutants import Mutant, make_bases, mutants

_MEMORY = 512 << 20
"""Of the whole process, the mutants among it."""
_MEASURED = 4
"""Every so-manieth is measured, which takes its time; the others only have the bound of the process."""
_NUMBERS = ("context_length", "parameter_count")


def check(role: str, path: Path) -> None:
    """What the gateway does before a file may be loaded. Raises InvalidGguf."""
    if role == "part":
        check_part(path)
    elif role in {"vision", "audio"}:
        read_projector_file(path)
    else:
        facts = read_whole(path)
        assert facts.architecture
        assert facts.name.isprintable() or len(facts.name) <= 200
        assert all(getattr(facts, name) is None or 0 < getattr(facts, name) < 1 << 63 for name in _NUMBERS)


def watched(mutant: Mutant, path: Path, *, measured: bool) -> tuple[str, float, int]:
    """What came of it ("" for accepted), seconds of computing, and if `measured` bytes at the peak."""
    mutant.write(path, sparse=True)
    if measured:
        tracemalloc.start()
    began = time.thread_time()
    try:
        check(mutant.role, path)
        reason = ""
    except InvalidGguf as error:
        reason = str(error)
    seconds = time.thread_time() - began
    peak = tracemalloc.get_traced_memory()[1] if measured else 0
    tracemalloc.stop()
    return reason, seconds, peak


def main() -> None:
    folder, scratch, count, share, shares = Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:])
    bases = make_bases(folder / str(share))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    path = scratch / f"mutant-{share}.gguf"
    accepted, wrong, reasons = [], [], Counter()
    slowest, most = 0.0, 0
    shared = list(enumerate(mutants(bases, count)))[share::shares]
    for place, (number, make) in enumerate(shared):
        mutant = make()
        try:
            reason, seconds, peak = watched(mutant, path, measured=place % _MEASURED == 0)
        except Exception as error:  # noqa: BLE001 — that nothing else comes is what is shown
            wrong.append(f"{mutant.role}: {mutant.what[:200]}: {error!r}"[:500])
            tracemalloc.stop()
            continue
        slowest, most = max(slowest, seconds), max(most, peak)
        if reason:
            reasons[reason] += 1
        else:
            accepted.append(number)
    print(
        json.dumps({"accepted": accepted, "reasons": reasons, "wrong": wrong, "seconds": slowest, "bytes": most}),
    )


if __name__ == "__main__":
    main()
