"""What can go wrong between the console and the gateway."""

from typing import Any


class ConsoleTrouble(Exception):
    """`key` is a text of `tui.language`, `values` fill its placeholders; `status` is the answer's, 0 without one."""

    def __init__(self, key: str, status: int = 0, **values: Any) -> None:
        super().__init__(key, values)
        self.key = key
        self.status = status
        self.values = values
        self.code = ""
        """The gateway's word for a refusal, where it has one."""
