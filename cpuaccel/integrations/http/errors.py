"""Errors as responses, in OpenAI's form."""

import logging
import math

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from cpuaccel.errors import ClosedError, QueueFullError

logger = logging.getLogger("cpuaccel.http")


def too_large(message: str) -> HTTPException:
    """Return the error for a request that is larger than the server accepts."""
    return HTTPException(413, message)


def error_response(
    status: int, message: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    """Return an error in OpenAI's form."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    body = {"error": {"message": message, "type": kind, "param": None, "code": status}}
    return JSONResponse(body, status, headers)


def error_of(error: Exception) -> tuple[int, str, dict[str, str]]:
    """Return status, message and headers for what a call raised."""
    if isinstance(error, QueueFullError):
        return 429, str(error), {"retry-after": str(max(1, math.ceil(error.retry_after)))}
    if isinstance(error, ClosedError):
        return 503, "the server is shutting down", {"retry-after": "1"}
    if isinstance(error, TimeoutError):
        return 504, "there was no answer in time", {}
    logger.error("a request failed", exc_info=error)
    return 500, "internal error; the server's log has the details", {}


def add_error_handlers(app: FastAPI) -> None:
    """Turn exceptions into responses."""

    async def handle(request: Request, error: Exception) -> JSONResponse:
        status, message, headers = error_of(error)
        return error_response(status, message, headers)

    async def handle_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, StarletteHTTPException)
        return error_response(error.status_code, str(error.detail))

    async def handle_invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        problems = (
            f"{'.'.join(map(str, problem['loc'][1:]))}: {problem['msg']}"
            for problem in error.errors()[:10]
        )
        return error_response(422, "; ".join(problems))

    for known in (QueueFullError, ClosedError, TimeoutError):
        app.add_exception_handler(known, handle)
    app.add_exception_handler(Exception, handle)
    app.add_exception_handler(StarletteHTTPException, handle_http)
    app.add_exception_handler(RequestValidationError, handle_invalid)
