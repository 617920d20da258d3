"""How the application says that something is wrong: `{"error": {"code", "message"}}`, always.

What belongs here: from exceptions to answers. What is wrong is said where it is found.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from personas_dagster.errors import Busy, PersonasError, StoreError

_CODES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    409: "conflict",
    429: "rate_limit_error",
    500: "internal_error",
    503: "unavailable",
}


class ErrorFacts(BaseModel):
    """What is wrong: a fixed word for programs, a sentence for people."""

    code: str
    message: str


class ErrorBody(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorFacts


class ApiError(PersonasError):
    """An answer other than 200. `code` is by default the usual one of the status."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        self.status, self.code = status, code or _CODES[status]
        self.headers, self.details = dict(headers or {}), dict(details or {})
        super().__init__(message)


def body(code: str, message: str) -> dict[str, Any]:
    """The JSON of an error."""
    return {"error": {"code": code, "message": message}}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors that a route declares in the OpenAPI description."""
    said = {400: "Bad request", 401: "Unknown key or token", 403: "Not allowed",
            404: "Not found", 408: "The body did not arrive in time", 409: "Conflict",
            429: "Too much at once: try again after `Retry-After` seconds",
            503: "A store does not answer: try again"}  # fmt: skip
    found: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        found[status] = {"model": ErrorBody, "description": said[status]}
        if status == 429:
            found[status]["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    return found


def answer(error: ApiError) -> JSONResponse:
    """An error as a response."""
    headers = error.headers
    if error.status == 401:
        headers = {"WWW-Authenticate": 'Basic realm="personas"', **headers}
    content = body(error.code, str(error))
    content["error"].update(error.details)
    return JSONResponse(content, error.status, headers)


def translate(error: Exception) -> ApiError:
    """What an exception means to the client. Nothing of the inside is told."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException):
        code = _CODES.get(error.status_code, "error")
        detail = str(error.detail)
        return ApiError(error.status_code, detail, code=code, headers=error.headers)
    if isinstance(error, RequestValidationError):
        return ApiError(400, _first(error), code="validation_error")
    if isinstance(error, Busy):
        return ApiError(409, "another process is at work on this; try again later")
    if isinstance(error, StoreError):
        return ApiError(
            503, "a store does not answer; try again later", headers={"Retry-After": "5"}
        )
    if isinstance(error, PersonasError):
        return ApiError(400, str(error))
    return ApiError(500, "something went wrong on our side; the log has it under the Request-Id")


def _first(error: RequestValidationError) -> str:
    """The first thing wrong with a request, without its value."""
    found = error.errors()[0]
    place = ".".join(str(part) for part in found["loc"][1:]) or str(found["loc"][0])
    return f"{place}: {found['msg']}"


def add_to(app: FastAPI) -> None:
    """Answer errors on purpose in the one form; others are `operations.Operations`'s."""

    async def handle(request: Request, error: Exception) -> Response:
        found = translate(error)
        if found.status == 405:
            found.headers |= _allowed(app, request)
        return answer(found)

    for kind in (PersonasError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, handle)


def _allowed(app: FastAPI, request: Request) -> dict[str, str]:
    """`Allow` with the methods of every route of the path; the router knows the first one's."""
    path = str(getattr(request.scope.get("route"), "path", "")).replace(":path}", "}")
    methods = app.openapi()["paths"].get(path, {})
    return {"Allow": ", ".join(sorted(method.upper() for method in methods))} if methods else {}
