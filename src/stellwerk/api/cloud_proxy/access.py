"""Who may use the listener for Ollama Cloud Proxy's clients without a key of the gateway's own."""

import hmac
from collections.abc import Callable, Container

from stellwerk.api._guard import check_no_foreign_page, read_key
from stellwerk.auth.tokens import PREFIX
from stellwerk.core.errors import Unauthenticated
from stellwerk.core.principal import Principal
from stellwerk.core.secrets import Secret
from stellwerk.http.cors import NOBODY, Origins
from stellwerk.http.exchange import Exchange
from stellwerk.http.guard import asks_by_name_of
from stellwerk.http.peer import read_address

_FORWARDED = (b"x-forwarded-for", b"forwarded", b"x-real-ip")


class Door:
    """Lets in who shows the listener's token and, where that is allowed, who sits at this machine."""

    def __init__(
        self,
        token: Secret | None,
        *,
        unauthenticated: bool,
        trusted: Callable[[], Principal],
        names: Container[str] = (),
        origins: Origins = NOBODY,
    ) -> None:
        """`unauthenticated` lets programs on this machine in that show nothing. `trusted` is whom their calls are
        booked to; it raises GatewayError when there is nobody. `names` are those of this machine, `origins` whose
        pages count as programs on it."""
        self._token = token.reveal().encode("utf-8") if token else None
        self._unauthenticated = unauthenticated
        self._trusted = trusted
        self._names = names
        self._origins = origins

    @property
    def configured(self) -> bool:
        """Whether anybody can come in at all without a key of the gateway's own."""
        return self._token is not None or self._unauthenticated

    def admit(self, exchange: Exchange) -> Principal | None:
        """Who it is; None asks for a key. Raises Forbidden for what a page of another site sends."""
        shown = _shown(exchange)
        if self._is_token(shown):
            return self._trusted()
        if self._unauthenticated and not shown.startswith(PREFIX) and is_at_this_machine(exchange, self._names):
            check_no_foreign_page(exchange, self._origins)
            return self._trusted()
        return None

    def admit_to_statistics(self, exchange: Exchange) -> Principal | None:
        """The same for what costs nothing and tells nothing of anybody: programs on this machine may always see it."""
        shown = _shown(exchange)
        if self._is_token(shown):
            return self._trusted()
        if not shown.startswith(PREFIX) and is_at_this_machine(exchange, self._names):
            # A link from another site is a person who wants to see it; only a page says where it is from.
            if b"origin" in exchange.headers:
                check_no_foreign_page(exchange, self._origins)
            return self._trusted()
        return None

    def _is_token(self, shown: str) -> bool:
        return self._token is not None and hmac.compare_digest(shown.encode("latin-1"), self._token)


def is_at_this_machine(exchange: Exchange, names: Container[str]) -> bool:
    """Whether the other end is a program here, and none that passes on what others have sent.

    It asks by one of the `names` of this machine or by an address: by any other, a browser asks for a page whose own
    name has come to lead here.
    """
    address, headers = read_address(exchange.peer), exchange.headers
    if address is None or not address.is_loopback or any(name in headers for name in _FORWARDED):
        return False
    return asks_by_name_of(headers.get(b"host"), names)


def _shown(exchange: Exchange) -> str:
    try:
        return read_key(exchange)
    except Unauthenticated:
        return ""
