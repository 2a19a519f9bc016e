"""Everything that can go wrong with a call, as one tree.

GatewayError                500 internal_error
├── BadRequest              400 the request cannot be understood; `param` names the field
├── Unauthenticated         401 no key, or one that we do not know
├── InsufficientCredit      402 the balance or budget is used up
├── Forbidden               403 known, but not allowed
├── NotFound                404 no such model, route or object
├── MethodNotAllowed        405
├── RequestTimeout          408 the client took too long to send
├── Conflict                409
├── TooLarge                413
├── UnsupportedMedia        415
├── Unprocessable           422 understood, but not acceptable; only ever an upstream's word
├── HeaderTooLarge          431
├── RateLimited             429 ours or the upstream's; `retry_after` says when
├── ClientLeft              499 never rendered, only recorded
├── Unavailable             503 overloaded, draining, loading, storage down
└── UpstreamError           502 the upstream failed
    ├── UpstreamRefused         the upstream refused our credentials or our request
    ├── UpstreamBroken          it stopped in the middle of its answer
    └── UpstreamTimeout     504

An error is made where it is found, travels unchanged and is rendered once, by the API that the client speaks.
The message is written for the client: it never carries a secret, a path or an upstream address.
"""

from collections.abc import Mapping
from typing import Any


class GatewayError(Exception):
    """The gateway failed in a way that nobody foresaw."""

    status = 500
    code = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        may_fall_back: bool = False,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        self.param = param
        self.retry_after = retry_after
        """Seconds after which the same request may succeed."""
        self.may_fall_back = may_fall_back
        """Whether another target may be tried: the fault lies with this target, not with the request."""
        self.headers = headers
        self.metadata = metadata


class BadRequest(GatewayError):
    status = 400
    code = "invalid_value"


class Unauthenticated(GatewayError):
    status = 401
    code = "invalid_api_key"


class InsufficientCredit(GatewayError):
    status = 402
    code = "insufficient_credits"


class Forbidden(GatewayError):
    status = 403
    code = "permission_denied"


class NotFound(GatewayError):
    status = 404
    code = "not_found"


class MethodNotAllowed(GatewayError):
    status = 405
    code = "method_not_allowed"


class RequestTimeout(GatewayError):
    status = 408
    code = "request_timeout"


class Conflict(GatewayError):
    status = 409
    code = "conflict"


class TooLarge(GatewayError):
    status = 413
    code = "request_too_large"


class UnsupportedMedia(GatewayError):
    status = 415
    code = "unsupported_media_type"


class Unprocessable(GatewayError):
    status = 422
    code = "invalid_value"


class HeaderTooLarge(GatewayError):
    status = 431
    code = "header_too_large"


class RateLimited(GatewayError):
    status = 429
    code = "rate_limit_exceeded"


class ClientLeft(GatewayError):
    status = 499
    code = "client_closed_request"


class Unavailable(GatewayError):
    status = 503
    code = "overloaded"


class UpstreamError(GatewayError):
    status = 502
    code = "upstream_error"


class UpstreamRefused(UpstreamError):
    code = "upstream_refused"


class UpstreamBroken(UpstreamError):
    code = "upstream_broken"


class UpstreamTimeout(UpstreamError):
    status = 504
    code = "upstream_timeout"
