"""A real HTTP server on the loopback, for what speaks to one."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[Any, ...]
"""(status, content), and with them, if need be, headers. Content that is no bytes is sent as JSON."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, *where: Any) -> None:
        """Silent on a client that has hung up, as some do on purpose: another test may be reading stderr by then."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(*where)


@contextmanager
def http_peer(get: Callable[[], Answer], post: Callable[[Any, Mapping[str, str]], Answer]) -> Iterator[int]:
    """Serve whatever path is asked for; the port.

    Args:
        get: what a GET is answered.
        post: what a POST is answered, by its body, which is JSON, and its headers.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(*get())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._send(*post(body, dict(self.headers)))

        def _send(self, status: int, content: object, headers: Mapping[str, str] | None = None) -> None:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()
