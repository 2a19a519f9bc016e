import os

import pytest_asyncio

from stellwerk.core.clock import SystemClock
from stellwerk.engines.ocr.engine import OcrEngine, OcrSettings


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine():
    """One for all tests of a module: loading the models takes a second."""
    engine = OcrEngine(OcrSettings(page_seconds=240, start_seconds=240), SystemClock(), os.environ)
    await engine.start()
    yield engine
    await engine.stop()
