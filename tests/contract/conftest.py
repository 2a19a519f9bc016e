from collections.abc import AsyncIterator

import pytest

from stellwerk.core.clock import SystemClock
from stellwerk.http.pool import Pools
from stellwerk.http.upstream import UpstreamSettings


class Watch:
    def connected(self) -> None: ...

    def reused(self) -> None: ...


@pytest.fixture
async def pools() -> AsyncIterator[Pools]:
    pools = Pools(UpstreamSettings(connect_seconds=2), Watch(), SystemClock())
    yield pools
    pools.close()
