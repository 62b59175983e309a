"""An error of the Messages API, on its way to the client."""

from __future__ import annotations

from typing import Any, Final

TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""The error type that goes with each status."""


class Problem(Exception):  # noqa: N818 - it never leaves the fake: it becomes an answer
    """A request that is answered with an error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str | None = None,  # noqa: A002 - the field's name in the API
        code: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.type = type or TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")  # noqa: PLR2004
        self.message = message
        self.code = code
        self.headers = headers

    def body(self, request_id: str) -> dict[str, Any]:
        """The JSON of the answer; `error.details.error_code` names the cause where there is a code."""
        error: dict[str, Any] = {"type": self.type, "message": self.message}
        if self.code is not None:
            error["details"] = {"error_code": self.code}
        return {"type": "error", "error": error, "request_id": request_id}


def invalid(message: str) -> Problem:
    """A 400 `invalid_request_error`."""
    return Problem(400, message)
