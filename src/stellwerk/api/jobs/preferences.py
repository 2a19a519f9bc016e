"""The header `Prefer` (RFC 7240), as far as it says whether and for how long a client wants to wait."""

import math
import re

import msgspec

LONGEST_WAIT = 300.0
"""Seconds that one request waits for a job at most."""
_LONGEST = 1_000
_PART = re.compile(r'(?:"(?:\\.|[^"\\])*"|[^",])+')
"""One preference; commas in a quoted text part nothing."""
_WAIT = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,3})?")


class Preference(msgspec.Struct, frozen=True):
    respond_async: bool = False
    wait: float | None = None
    """Seconds; never more than `LONGEST_WAIT`."""

    def applied(self, *, later: bool) -> bytes:
        """What an answer says of it that comes `later`, or is the call's own."""
        wait = () if self.wait is None else (f"wait={math.floor(self.wait)}",)
        return ", ".join(("respond-async", *wait) if later and self.respond_async else wait).encode()


def read_preference(header: bytes | None) -> Preference:
    """Preferences that are not known here, or make no sense, are left alone, as the RFC wants it; the first counts."""
    if not header or len(header) > _LONGEST:
        return Preference()
    respond_async, wait = False, None
    for part in _PART.findall(header.decode("latin-1")):
        # Parameters of a preference follow after a semicolon.
        name, _, value = part.partition(";")[0].partition("=")
        name, value = name.strip().lower(), value.strip().strip('"').strip()
        if name == "respond-async":
            respond_async = True
        elif name == "wait" and wait is None and _WAIT.fullmatch(value):
            wait = min(float(value), LONGEST_WAIT)
    return Preference(respond_async, wait)
