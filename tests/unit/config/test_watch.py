import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from stellwerk.config.problems import ConfigError, ConfigProblem
from stellwerk.config.reading import load
from stellwerk.config.settings import Config
from stellwerk.config.watch import ConfigWatch

DEADLINE = 30.0
REFUSED = ConfigProblem(file="f", line=1, column=1, key="drain_seconds", code="bad_key")


class Seen:
    """Records what the watch reports, in order."""

    def __init__(self) -> None:
        self._reports: asyncio.Queue[Config | Sequence[ConfigProblem]] = asyncio.Queue()
        self.refuse: float | None = None

    def change(self, config: Config) -> None:
        if config.drain_seconds == self.refuse:
            raise ConfigError([REFUSED])
        self._reports.put_nowait(config)

    def error(self, problems: Sequence[ConfigProblem]) -> None:
        self._reports.put_nowait(problems)

    async def drain_seconds(self) -> float:
        report = await asyncio.wait_for(self._reports.get(), DEADLINE)
        assert isinstance(report, Config)
        return report.drain_seconds

    async def problems(self) -> Sequence[ConfigProblem]:
        report = await asyncio.wait_for(self._reports.get(), DEADLINE)
        assert not isinstance(report, Config)
        return report


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
async def watching(write: Callable[[str], Path], seen: Seen) -> AsyncIterator[Callable[..., ConfigWatch]]:
    tasks: list[asyncio.Task[None]] = []

    def start(interval: float = 0.01) -> ConfigWatch:
        path = write("drain_seconds: 1")
        watch = ConfigWatch(path, {}, load(path, {}), seen.change, seen.error, interval)
        tasks.append(asyncio.create_task(watch.run()))
        return watch

    yield start
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_changed_file_is_taken_over(
    watching: Callable[..., ConfigWatch], write: Callable[[str], Path], seen: Seen
):
    watching()
    write("drain_seconds: 2")
    assert await seen.drain_seconds() == 2
    write("drain_seconds: 3.5")
    assert await seen.drain_seconds() == 3.5


async def test_a_file_put_in_place_of_the_old_one_is_taken_over(
    watching: Callable[..., ConfigWatch], tmp_path: Path, seen: Seen
):
    watching()
    new = tmp_path / "new"
    new.write_text("drain_seconds: 9")
    os.utime(new, ns=(0, (tmp_path / "stellwerk.yaml").stat().st_mtime_ns))
    new.replace(tmp_path / "stellwerk.yaml")
    assert await seen.drain_seconds() == 9


async def test_a_wrong_file_is_reported_once_and_changes_nothing(
    watching: Callable[..., ConfigWatch], write: Callable[[str], Path], seen: Seen
):
    watching()
    write("drain_secs: 2")
    assert [problem.code for problem in await seen.problems()] == ["unknown_key_near"]
    write("drain_seconds: 1 # as it was")
    write("drain_seconds: 4")
    assert await seen.drain_seconds() == 4


async def test_a_file_that_is_gone_is_reported(watching: Callable[..., ConfigWatch], tmp_path: Path, seen: Seen):
    watching()
    (tmp_path / "stellwerk.yaml").unlink()
    assert [problem.code for problem in await seen.problems()] == ["cannot_read"]


async def test_a_poke_reads_at_once_also_without_a_change(
    watching: Callable[..., ConfigWatch], write: Callable[[str], Path], seen: Seen
):
    watch = watching(interval=3600)
    write("drain_seconds: wrong")
    watch.poke()
    assert len(await seen.problems()) == 1
    watch.poke()
    assert len(await seen.problems()) == 1
    write("drain_seconds: 6")
    watch.poke()
    assert await seen.drain_seconds() == 6


async def test_a_config_that_the_gateway_refuses_is_reported_and_not_in_use(
    watching: Callable[..., ConfigWatch], write: Callable[[str], Path], seen: Seen
):
    watch = watching(interval=3600)
    seen.refuse = 7
    write("drain_seconds: 7")
    watch.poke()
    assert list(await seen.problems()) == [REFUSED]
    seen.refuse = None
    watch.poke()
    assert await seen.drain_seconds() == 7


async def test_without_a_file_the_watch_only_waits(seen: Seen):
    watch = ConfigWatch(None, {}, Config(), seen.change, seen.error, 0.01)
    task = asyncio.create_task(watch.run())
    watch.poke()
    done, _ = await asyncio.wait([task], timeout=0.05)
    assert not done
    task.cancel()
