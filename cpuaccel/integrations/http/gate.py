"""What every request passes: limits of size and time for its body, a metric and a log line."""

import asyncio
import contextlib
import logging
import time
import uuid

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cpuaccel.integrations.http.errors import error_response

logger = logging.getLogger("cpuaccel.http")

GONE = 499
"""Status in metrics and logs of requests whose client disconnected, as of nginx."""

DISCARDED = 64 * 2**20
"""Most bytes of a refused body that are read and forgotten."""

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Gate:
    """Middleware that reads a body before the application runs, so that slow clients hold nothing.

    Where the client disconnects, the application's call is cancelled, with what it waits for.
    Bodies over ``max_bytes`` get 413, and those that take longer than ``body_timeout`` 408. The
    rest of them is read and forgotten, up to 64 MiB, so that clients see the answer.
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
        exchange = _Exchange(send)
        try:
            body = _Body(scope, receive)
            refused = await self._read(body)
            if refused is None:
                await self._serve(scope, bytes(body.data), receive, exchange)
            else:
                await self._refuse(refused, body, exchange)
        finally:
            self._record(scope, exchange, time.perf_counter() - begun)

    async def _serve(
        self, scope: Scope, body: bytes, receive: Receive, exchange: "_Exchange"
    ) -> None:
        """Call the application until it ends or the client disconnects."""
        gone = asyncio.create_task(_disconnect(receive))

        async def run() -> None:
            await self._app(scope, _replay(body, gone), exchange.send)

        call = asyncio.create_task(run())
        try:
            await asyncio.wait({call, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not call.done() and not exchange.ended:
                exchange.status = GONE
                call.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await call
        finally:
            call.cancel()
            gone.cancel()

    async def _read(self, body: "_Body") -> JSONResponse | None:
        """Read the body; return why it is refused."""
        headers = {"connection": "close"}  # the rest of the body is not read as a request
        try:
            async with asyncio.timeout(self._body_timeout):
                fits = await body.read(self._max_bytes)
        except TimeoutError:
            message = f"the body took longer than {self._body_timeout:g} seconds"
            return error_response(408, message, headers)
        if not fits:
            message = f"the body has more than {self._max_bytes} bytes"
            return error_response(413, message, headers)
        return None

    async def _refuse(self, response: JSONResponse, body: "_Body", exchange: "_Exchange") -> None:
        """Answer at once, and close when the client has sent all, within bounds.

        Closing a connection on which data arrives resets it, and most clients send all before they
        read: they would not see the answer.
        """
        start = {"status": response.status_code, "headers": response.raw_headers}
        await exchange.send({"type": "http.response.start", **start})
        sent = {"type": "http.response.body", "body": response.body, "more_body": True}
        await exchange.send(sent)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._body_timeout):
                await body.discard(DISCARDED)
        await exchange.send({"type": "http.response.body", "body": b""})

    def _record(self, scope: Scope, exchange: "_Exchange", seconds: float) -> None:
        route = scope.get("route")
        path = route.path if route is not None else "unknown"  # a label for each URL is too many
        self._requests.labels(path, str(exchange.status)).inc()
        self._seconds.labels(path).observe(seconds)
        logger.info(
            "request",
            extra={
                "method": scope["method"],
                "path": scope["path"],
                "status": exchange.status,
                "seconds": round(seconds, 6),
                "request_id": exchange.identity,
            },
        )


class _Body:
    """The body of a request.

    Attributes:
        data: what was read.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.data = bytearray()
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        self._declared = int(declared) if declared.isdigit() else 0
        self._receive = receive
        self._more = True

    async def read(self, most: int) -> bool:
        """Read all; return whether it has at most so many bytes."""
        if self._declared > most:
            return False
        while self._more:
            self.data += await self._next()
            if len(self.data) > most:
                return False
        return True

    async def discard(self, most: int) -> None:
        """Read the rest, or so many bytes of it, until the client disconnects."""
        while self._more and most > 0:
            most -= len(await self._next())

    async def _next(self) -> bytes:
        message = await self._receive()
        self._more = message.get("more_body", False)
        data: bytes = message.get("body", b"")
        return data


class _Exchange:
    """What was sent to a client.

    Attributes:
        identity: the id of the request, in its response and its log line.
        status: that of the response; 500 until it begins.
        ended: whether the response is complete.
    """

    def __init__(self, send: Send) -> None:
        self.identity = uuid.uuid4().hex
        self.status = 500
        self.ended = False
        self._send = send

    async def send(self, message: Message) -> None:
        """Send, with the id in the headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), (b"x-request-id", self.identity.encode())]
            message = {**message, "headers": headers}
        elif message["type"] == "http.response.body":
            self.ended = not message.get("more_body", False)
        await self._send(message)


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
