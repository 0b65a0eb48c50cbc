"""Around every request: an id, a limit on the body, a key, a line in the log, a count."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Collection
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from genprm.serve.api import ErrorResponse, Fault
from genprm.serve.connections import READ_SECONDS
from genprm.serve.errors import BodyError
from genprm.serve.keys import is_known

OPEN_PATHS = re.compile(r"/|/health|/code\.css|/static/.*")
"""They need no key: the page of a live verification holds nothing, and asks for the key itself."""
CLIENT_GONE = 499
"""The status in log and metrics of a request whose client has left."""
INTERNAL = Fault(type="internal", message="this should not have happened; the server's log says more")
ENDING = Fault(type="ending", message="the server is ending")
"""Of a request that has not ended when the server must."""
STREAMED = "streamed"
"""Among a request's notes, the status of an answer whose header had said 200 before that was known."""
_ID = re.compile(r"[\w.:-]{1,64}")


class RequestMiddleware:
    """Everything around a request.

    Args:
        app: what answers it.
        max_body: bytes of a body.
        keys: hashes of API keys; none: no key is asked for.
        hosts: names that it is asked by, none: any. A page of another site could have a name of its own point here.
        routes: the paths that are counted by name.
        counted: gets path, status and seconds of each request.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body: int,
        keys: Collection[str],
        hosts: Collection[str],
        routes: Collection[str],
        counted: Callable[[str, int, float], None],
    ) -> None:
        self._app = app
        self._max_body = max_body
        self._keys = keys
        self._hosts = hosts
        self._routes = routes
        self._counted = counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        sent_id = headers.get("x-request-id", "")
        exchange = _Exchange(sent_id if _ID.fullmatch(sent_id) else uuid.uuid4().hex, receive, send, self._max_body)
        notes: dict[str, Any] = {}
        scope["state"] = {**scope.get("state", {}), "request_id": exchange.id, "notes": notes}
        begun = time.monotonic()
        try:
            if refused := self._refused(scope["path"], headers):
                await exchange.refuse(scope, *refused)
                return
            exchange.expect(headers.get("content-length", ""))
            if exchange.refused is None:
                await self._app(scope, exchange.receive, exchange.send)
            if exchange.refused is not None:
                await exchange.refuse(scope, *exchange.refused, {"connection": "close"})
        except asyncio.CancelledError:  # the server ends, and this request has had its time
            if not exchange.begun:
                await exchange.refuse(scope, 503, ENDING, {"connection": "close"})
        except Exception as error:  # noqa: BLE001 - a fault of ours: the client is told so, and the log where
            log("broken", id=exchange.id, error=f"{type(error).__name__}: {error}", traceback=traceback.format_exc())
            if not exchange.begun:
                await exchange.refuse(scope, 500, INTERNAL)
        finally:
            seconds, status, path = time.monotonic() - begun, notes.pop(STREAMED, exchange.status), scope["path"]
            self._counted(path if path in self._routes else "other", status, seconds)
            log("request", id=exchange.id, method=scope["method"], path=path, status=status, seconds=seconds, **notes)

    def _refused(self, path: str, headers: Headers) -> tuple[int, Fault, dict[str, str]] | None:
        """Why a request is not looked at, if it is not."""
        if self._hosts and _host(headers) not in self._hosts:
            return 421, Fault(type="host", message=f"asked by another name than {', '.join(self._hosts)}"), {}
        if self._keys and not OPEN_PATHS.fullmatch(path) and not is_known(headers.get("authorization"), self._keys):
            fault = Fault(type="unauthorized", message="expected the header Authorization: Bearer KEY")
            return 401, fault, {"www-authenticate": "Bearer"}
        return None


class _Exchange:
    """A request's body as it comes in, up to a limit, and its answer as it goes out."""

    def __init__(self, id: str, receive: Receive, send: Send, max_body: int) -> None:
        self.id = id
        self.status = CLIENT_GONE
        self.refused: tuple[int, Fault] | None = None
        """What is wrong with the body."""
        self._receive = receive
        self._send = send
        self._max_body = self._left = max_body
        self._whole = False
        self._until = asyncio.get_running_loop().time() + READ_SECONDS

    @property
    def begun(self) -> bool:
        """Whether there is an answer already."""
        return self.status != CLIENT_GONE

    def expect(self, length: str) -> None:
        """The body's length, as its header says."""
        if length.isdecimal() and int(length) > self._left:
            self._refuse_size()

    async def receive(self) -> Message:
        if self._whole:
            return await self._receive()  # that the client has left
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            self.refused = 408, Fault(type="slow", message=f"the body has not come in {READ_SECONDS:g} s")
            raise BodyError from None
        self._left -= len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._left < 0:
            self._refuse_size()
            raise BodyError
        return message

    async def send(self, message: Message) -> None:
        if self.refused and self.refused[0] not in (message.get("status"), self.status):
            return  # what the framework makes of a body that broke off
        if message["type"] == "http.response.start":
            self.status = message["status"]
            MutableHeaders(scope=message)["x-request-id"] = self.id
        await self._send(message)

    def _refuse_size(self) -> None:
        self.refused = 413, Fault(type="too_large", message=f"the body is over {self._max_body} bytes")

    async def refuse(self, scope: Scope, status: int, fault: Fault, headers: dict[str, str] | None = None) -> None:
        await refusal(status, fault, self.id, headers)(scope, self._receive, self.send)


def _host(headers: Headers) -> str | None:
    """The name in the Host header, without its port."""
    try:
        return urlsplit(f"//{headers.get('host', '')}").hostname
    except ValueError:
        return None


def refusal(status: int, fault: Fault, request_id: str | None, headers: dict[str, str] | None = None) -> JSONResponse:
    """An answer that says what is wrong."""
    body = ErrorResponse(error=fault, request_id=request_id).model_dump(mode="json")
    return JSONResponse(body, status_code=status, headers=headers)


def log(event: str, **fields: Any) -> None:
    """A line of the server's log: one JSON object, on standard error."""
    shown = {name: round(value, 4) if isinstance(value, float) else value for name, value in fields.items()}
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with contextlib.suppress(OSError):  # nobody reads it any more, or the disk is full: requests go on
        print(json.dumps({"time": moment, "event": event, **shown}), file=sys.stderr, flush=True)


class LogHandler(logging.Handler):
    """What libraries log, as lines of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        log("library", logger=record.name, level=record.levelname.lower(), message=record.getMessage())
