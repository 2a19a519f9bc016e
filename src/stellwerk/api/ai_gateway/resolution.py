"""How finely pages are looked at when a request does not say."""

from stellwerk.api.ai_gateway.requests import read_resolution


class Resolution:
    """Owns what an administrator has switched to; a restart goes back to the configured one."""

    def __init__(self, configured: str) -> None:
        self._now = configured

    @property
    def now(self) -> str:
        return self._now

    def switch(self, given: str) -> str:
        """Returns it as it counts. Raises BadRequest in the documented words."""
        self._now = read_resolution(given)
        return self._now
