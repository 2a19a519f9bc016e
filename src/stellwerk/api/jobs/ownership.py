"""Whose job, file or batch something is: people see their own, administrators see all."""

from collections.abc import Callable
from typing import Protocol

from stellwerk.core.principal import Principal, Role


class Owned(Protocol):
    @property
    def key_id(self) -> str: ...

    @property
    def user_id(self) -> int: ...


class Ownership:
    def __init__(self, is_shared: Callable[[int], bool]) -> None:
        """`is_shared` says of a user's number whether his keys are strangers to each other."""
        self._is_shared = is_shared

    def may_see(self, caller: Principal, owned: Owned) -> bool:
        return caller.role is Role.ADMIN or self.owns(caller, owned)

    def owns(self, caller: Principal, owned: Owned) -> bool:
        if self._is_shared(caller.user_id):
            return caller.key_id == owned.key_id
        return caller.user_id == owned.user_id

    def filter_of(self, caller: Principal) -> dict[str, str | int]:
        """What a list has to be asked for so that it holds only what is the caller's."""
        if self._is_shared(caller.user_id):
            return {"key_id": caller.key_id}
        return {"user_id": caller.user_id}
