import asyncio
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from stellwerk.http.resolver import Resolver


async def test_the_resolver_gives_its_places_back_however_a_lookup_ends():
    resolver = Resolver()
    for _ in range(4):
        with pytest.raises(OSError):
            await resolver("fe80::1%no-such-interface", 80)
        assert await resolver("127.0.0.1", 80) == ["127.0.0.1"]


async def test_lookups_that_nobody_waits_for_do_not_take_all_threads():
    loop = asyncio.get_running_loop()
    release = Event()
    with ThreadPoolExecutor(1) as threads:
        # The only thread is busy, as with names whose servers do not answer.
        threads.submit(release.wait, 20)
        loop.set_default_executor(threads)
        resolver = Resolver()
        for _ in range(5):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await resolver("localhost", 80)
        assert resolver.running == 2
        release.set()
        async with asyncio.timeout(30):
            assert set(await resolver("localhost", 80)) <= {"127.0.0.1", "::1"}
    assert resolver.running == 0
