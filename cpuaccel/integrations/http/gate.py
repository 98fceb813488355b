"""What every request passes: limits of size and time for its body, a metric and a log line."""

import asyncio
import contextlib
import logging
import time
import uuid

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cpuaccel.integrations.http.errors import error_response

logger = logging.getLogger("cpuaccel.http")

GONE = 499
"""Status in metrics and logs of requests whose client disconnected, as of nginx."""

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Gate:
    """Middleware that reads a body before the application runs, so that slow clients hold nothing.

    Where the client disconnects, the application's call is cancelled, with what it waits for.
    Bodies over ``max_bytes`` get 413, and those that take longer than ``body_timeout`` 408.
    """

    def __init__(
        self, app: ASGIApp, registry: CollectorRegistry, max_bytes: int, body_timeout: float
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._body_timeout = body_timeout
        labels = ("path", "status")
        self._requests = Counter(
            "cpuaccel_http_requests", "Requests by status", labels, registry=registry
        )
        self._seconds = Histogram(
            "cpuaccel_http_seconds",
            "Seconds from a request's headers to the end of its response",
            ("path",),
            registry=registry,
            buckets=BUCKETS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        status = 500
        identity = uuid.uuid4().hex

        ended = False

        async def sending(message: Message) -> None:
            nonlocal status, ended
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), (b"x-request-id", identity.encode())]
                message = {**message, "headers": headers}
            await send(message)

        try:
            refusal: tuple[int, str] | None = None
            try:
                async with asyncio.timeout(self._body_timeout):
                    body = await self._read(scope, receive)
                if body is None:
                    refusal = 413, f"the body has more than {self._max_bytes} bytes"
            except TimeoutError:
                refusal = 408, f"the body took longer than {self._body_timeout:g} seconds"
            if refusal is not None:
                await error_response(*refusal, {"connection": "close"})(scope, receive, sending)
            else:
                gone = asyncio.create_task(_disconnect(receive))
                call = asyncio.create_task(
                    self._app(scope, _replay(body or b"", gone), sending)  # type: ignore[arg-type]
                )
                try:
                    await asyncio.wait({call, gone}, return_when=asyncio.FIRST_COMPLETED)
                    if not call.done() and not ended:
                        status = GONE
                        call.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await call
                finally:
                    call.cancel()
                    gone.cancel()
        finally:
            self._record(scope, status, time.perf_counter() - begun, identity)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """Read the body; None if it is too large."""
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            return None
        body = bytearray()
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > self._max_bytes:
                return None
            more = message.get("more_body", False)
        return bytes(body)

    def _record(self, scope: Scope, status: int, seconds: float, identity: str) -> None:
        route = scope.get("route")
        path = route.path if route is not None else "unknown"  # a label for each URL is too many
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)
        logger.info(
            "request",
            extra={
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "seconds": round(seconds, 6),
                "request_id": identity,
            },
        )


async def _disconnect(receive: Receive) -> Message:
    """Wait until the client disconnects."""
    while (message := await receive())["type"] != "http.disconnect":
        pass
    return message


def _replay(body: bytes, gone: "asyncio.Task[Message]") -> Receive:
    """Return a ``receive`` for a body that was read already, and the end of the connection."""
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await asyncio.shield(gone)
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
