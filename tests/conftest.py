"""Fixtures that many tests share: upstreams and pools on real sockets, databases and models in real files."""

import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from stellwerk.core.clock import SystemClock
from stellwerk.http.pool import Pools
from stellwerk.http.upstream import UpstreamSettings
from stellwerk.storage.database import FILE_NAME, open_database
from tests.scripted_upstream import ScriptedUpstream
from tests.tiny_gguf import write_tiny_chat_model, write_tiny_embedding_model

# How long an example takes is a property of the machine. By default the examples are the same in every run, so that a
# change is judged by what it changes; the longer campaigns draw others each time.
settings.register_profile("exploring", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeatable", settings.get_profile("exploring"), derandomize=True)


def pytest_configure(config):
    settings.load_profile("exploring" if config.getoption("--slow") else "repeatable")
    # A shell's background job ignores Ctrl+C, and so would every program that tests start and interrupt.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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


class SetClock:
    """Both clocks stand still until somebody sets them."""

    def __init__(self):
        self.at = 1_000_000.0

    def now(self):
        return self.at

    def monotonic(self):
        return self.at


@pytest.fixture
def clock():
    return SetClock()


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """A fresh database, made once for all tests."""
    folder = tmp_path_factory.mktemp("made-once")
    open_database(folder).close()
    return folder / FILE_NAME


@pytest.fixture
def folder(tmp_path, made_once):
    """A data folder with a database in it."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    shutil.copy(made_once, folder / FILE_NAME)
    return folder


@pytest.fixture
def database(folder):
    database = open_database(folder)
    yield database
    database.close()


class Unwatched:
    def connected(self) -> None: ...

    def reused(self) -> None: ...


@pytest.fixture
async def pools() -> AsyncIterator[Pools]:
    pools = Pools(UpstreamSettings(connect_seconds=2), Unwatched(), SystemClock())
    yield pools
    pools.close()


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_chat_model(folder / "chat.gguf")
    write_tiny_embedding_model(folder / "embedding.gguf")
    return folder


@pytest.fixture
def models(tiny_models, tmp_path) -> Path:
    """A models folder of the test's own with `chat` and `embedding` in it."""
    return Path(shutil.copytree(tiny_models, tmp_path / "models"))
