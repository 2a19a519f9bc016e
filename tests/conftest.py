"""Fixtures that many tests share: a scripted upstream and a listener, both on real sockets."""

from collections.abc import AsyncIterator

import pytest

from tests.scripted_upstream import ScriptedUpstream


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the longer campaigns too")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow"):
        return
    slow = [item for item in items if "slow" in item.keywords]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if "slow" not in item.keywords]


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    server = ScriptedUpstream()
    await server.start()
    yield server
    await server.stop()
