"""The API error tree: one class per thing that a caller does differently."""

from __future__ import annotations


class ApiError(Exception):
    """The API server refused or could not be reached.

    `status` is the HTTP status (0 when there was no answer), `reason` the machine-readable reason of the
    Status object, `message` one line for people, `retry_after_s` how long the server asks to wait, if it does.
    """

    def __init__(self, status: int, reason: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after_s = retry_after_s


class NotLeader(ApiError):
    """A write that was not sent: this process does not hold its Lease."""


class Unreachable(ApiError):
    """No answer: connection refused, reset or timed out."""


class Unauthorized(ApiError):
    """401: the credentials are missing or expired."""


class Forbidden(ApiError):
    """403: the message names verb and resource."""


class NotFound(ApiError):
    """404: no such object, or no such kind on this server."""


class Conflict(ApiError):
    """409: a stale resourceVersion or a failed precondition; read again and retry."""


class AlreadyExists(ApiError):
    """409 with reason AlreadyExists."""


class Gone(ApiError):
    """410: the resourceVersion or continue token expired; list again."""


class Invalid(ApiError):
    """422: the object breaks the schema."""


class TooManyRequests(ApiError):
    """429: come back later."""


_BY_STATUS: dict[int, type[ApiError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: TooManyRequests,
}


def error_for(status: int, reason: str, message: str, retry_after_s: float | None = None) -> ApiError:
    """The error of the tree that fits an answer."""
    known = AlreadyExists if status == 409 and reason == "AlreadyExists" else _BY_STATUS.get(status, ApiError)
    return known(status, reason, message, retry_after_s)
