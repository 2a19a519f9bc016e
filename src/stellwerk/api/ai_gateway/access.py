"""Who may use AI Gateway's listener: whoever shows a token of a login, or an API key in its place."""

from collections.abc import Callable

from stellwerk.api._guard import KnownKeys
from stellwerk.core.errors import Unauthenticated
from stellwerk.core.principal import Principal


class TokenKeys:
    """The keys of the gateway, which also says when the wrong one of a pair of tokens is shown."""

    def __init__(self, keys: KnownKeys, verify_refresh: Callable[[str], object]) -> None:
        """`verify_refresh` raises Unauthenticated for what is no refresh token of ours."""
        self._keys = keys
        self._verify_refresh = verify_refresh

    def authenticate(self, token: str) -> Principal:
        return self._keys.authenticate(token)

    async def authenticate_or_refresh(self, token: str) -> Principal:
        try:
            return await self._keys.authenticate_or_refresh(token)
        except Unauthenticated as error:
            if error.code == "invalid_token" and self._is_refresh_token(token):
                raise Unauthenticated("Invalid token type", code="invalid_token_type") from None
            raise

    def _is_refresh_token(self, token: str) -> bool:
        try:
            self._verify_refresh(token)
        except Unauthenticated:
            return False
        return True
