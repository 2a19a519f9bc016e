"""Many clients that queue jobs as fast as they are acknowledged, in a process of their own.

    python -m tests.job_flood <port> <model> <clients> <jobs>     the keys come on its input, one a line

Says on its output in JSON how long it took, how many answers had which status, and how long the slow ones took.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from tests.raw_http import CHAT, hello, write_request


async def read_answer(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length))
    return int(head[9:12])


async def queue(port: int, request: bytes, turns: Iterator[int], times: list[float]) -> Counter[int]:
    """One client on one connection, one job after the other as long as there are turns."""
    statuses: Counter[int] = Counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in turns:
        began = time.perf_counter()
        writer.write(request)
        statuses[await read_answer(reader)] += 1
        times.append(time.perf_counter() - began)
    writer.close()
    return statuses


async def flood(port: int, model: str, clients: int, jobs: int, keys: Sequence[str]) -> dict[str, object]:
    turns, times = iter(range(jobs)), []
    body = json.dumps(hello(model)).encode()
    requests = [
        write_request(
            "POST",
            CHAT,
            body,
            {
                "Authorization": f"Bearer {keys[number % len(keys)]}",
                "Prefer": "respond-async",
                "X-Client-Id": f"client-{number}",
            },
        )
        for number in range(clients)
    ]
    began = time.perf_counter()
    counts = await asyncio.gather(*(queue(port, request, turns, times) for request in requests))
    seconds = time.perf_counter() - began
    times.sort()
    return {
        "seconds": seconds,
        "statuses": sum(counts, Counter[int]()),
        "median": times[len(times) // 2],
        "p99": times[len(times) * 99 // 100],
    }


if __name__ == "__main__":
    _, port, model, clients, jobs = sys.argv
    keys = sys.stdin.read().split()
    print(json.dumps(asyncio.run(flood(int(port), model, int(clients), int(jobs), keys))))
