"""Everything that can go wrong between a program and its gateway, as one tree.

StellwerkError
├── BadAddress          the URL, the key or an argument cannot be sent
├── Unreachable         nobody answers there; nothing was asked
├── TimedOut            nothing came for as long as the client waits
├── BrokenOff           the answer ended before it was complete
├── NotUnderstood       the answer is not one of this gateway's
├── Refused             the gateway answered with an error; `status` says which
│   ├── BadRequest          400, 405, 411, 413, 414, 415, 422, 431
│   ├── Unauthenticated     401
│   ├── InsufficientCredit  402
│   ├── Forbidden           403
│   ├── NotFound            404, 410
│   ├── Conflict            409
│   ├── RateLimited         429
│   └── Unavailable         500 and above
├── StillRunning        a job had not ended when the time for waiting was over
└── JobFailed           a job ended otherwise than well; `job` tells how
"""

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from stellwerk.client.jobs import Job

_LONGEST_MESSAGE = 2000
_LONGEST_WORD = 200


class StellwerkError(Exception):
    """Something went wrong; the tree above says what kinds there are."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str = "",
        retry_after: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        """The HTTP status; None when there was no answer."""
        self.code = code
        """The gateway's word for it; empty when it has none."""
        self.retry_after = retry_after
        """Seconds after which the same request may succeed."""
        self.request_id = request_id
        """The id under which the gateway logged the request."""


class BadAddress(StellwerkError):
    pass


class Unreachable(StellwerkError):
    pass


class TimedOut(StellwerkError):
    pass


class BrokenOff(StellwerkError):
    pass


class NotUnderstood(StellwerkError):
    pass


class Refused(StellwerkError):
    pass


class BadRequest(Refused):
    pass


class Unauthenticated(Refused):
    pass


class InsufficientCredit(Refused):
    pass


class Forbidden(Refused):
    pass


class NotFound(Refused):
    pass


class Conflict(Refused):
    pass


class RateLimited(Refused):
    pass


class Unavailable(Refused):
    pass


class _OfJob(StellwerkError):
    def __init__(self, message: str, job: "Job", *, status: int | None = None, code: str = "") -> None:
        super().__init__(message, status=status, code=code)
        self.job = job


class StillRunning(_OfJob):
    pass


class JobFailed(_OfJob):
    pass


_BY_STATUS: dict[int, type[Refused]] = {
    401: Unauthenticated,
    402: InsufficientCredit,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: NotFound,
    429: RateLimited,
}


def refusal(status: int, headers: dict[str, str], body: bytes) -> Refused:
    """The error that an answer of 300 and above stands for. `headers` have names in lower case."""
    message, code = _said(body)
    return _kind(status)(
        message or f"The gateway answered with status {status}.",
        status=status,
        code=code,
        retry_after=read_retry_after(headers),
        request_id=headers.get("x-request-id", "")[:_LONGEST_WORD],
    )


def refusal_in_stream(error: Any) -> Refused:
    """The error that came as an event, after an answer had begun well."""
    message, code = _words(error)
    return Refused(message or "The answer failed.", code=code)


def read_retry_after(headers: dict[str, str]) -> float | None:
    """Seconds; None when nothing useful is said. Dates are not read: this gateway sends none."""
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        said = headers.get(name, "")
        if said.isascii() and said.isdigit() and len(said) <= 12:
            return int(said) / scale
    return None


def _kind(status: int) -> type[Refused]:
    if status >= 500:
        return Unavailable
    return _BY_STATUS.get(status, BadRequest if status >= 400 else Refused)


def _said(body: bytes) -> tuple[str, str]:
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "", ""
    if not isinstance(said, dict):
        return "", ""
    return _words(said.get("error") or said.get("detail") or "")


def _words(error: Any) -> tuple[str, str]:
    """Message and code, in each of the forms in which this gateway's APIs say them."""
    if isinstance(error, dict):
        message, code = error.get("message"), error.get("code")
    else:
        message, code = error, None
    said = message if isinstance(message, str) else ""
    word = code if isinstance(code, str) else ""
    return said[:_LONGEST_MESSAGE], word[:_LONGEST_WORD]
