from collections.abc import Callable
from typing import Any

import pytest

from stellwerk.core.call import Operation
from stellwerk.core.outcome import Outcome, Usage


@pytest.fixture
def make_outcome() -> Callable[..., Outcome]:
    def make(**changes: Any) -> Outcome:
        values: dict[str, Any] = {
            "id": "req_0123456789abcdef01234567",
            "at": 1_790_000_000.25,
            "key_id": "key_1",
            "user_id": 7,
            "operation": Operation.CHAT,
            "model": "fast",
            "provider": "openai",
            "target": "gpt-5-mini",
            "stream": True,
            "status": 200,
            "error": None,
            "attempts": 1,
            "usage": Usage(input_tokens=12, output_tokens=34, cached_tokens=8, reasoning_tokens=20),
            "estimated": False,
            "cost": 1_500,
            "duration": 1.5,
            "first_byte": 0.03,
        }
        return Outcome(**values | changes)

    return make
