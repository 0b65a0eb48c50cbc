"""An application on a port, from its first connection to the end of its last."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import uvicorn
from fastapi import FastAPI

from genprm.errors import ConfigError
from genprm.serve.connections import Connection, backlog
from genprm.serve.middleware import LogHandler

KEEP_ALIVE = 75
"""Seconds that an idle connection is kept: longer than a client waits after a 429, which else finds it just closed."""


def listen(host: str, port: int) -> socket.socket:
    """Take a port, before a model is loaded for minutes.

    Raises:
        ConfigError: it cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        place = socket.socket(family, kind, protocol)
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(address)
        place.listen(backlog())  # bound alone, it could be taken by a second server, too
    except OSError as error:
        raise ConfigError(f"--host {host} --port {port}: {error.strerror or error}") from error
    return place


def url(place: socket.socket) -> str:
    """Where a browser finds it."""
    address, port = place.getsockname()[:2]
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


class _Server(uvicorn.Server):
    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """Ours end it in order, and with status 0."""
        return nullcontext()


async def run(
    app: FastAPI, place: socket.socket, drain_seconds: int, begun: Callable[[], None], ending: Callable[[], None]
) -> None:
    """Answer until SIGTERM or Ctrl-C; then let requests end, for so many seconds, or until it comes again.

    Args:
        app: what answers.
        place: a port, from `listen`.
        drain_seconds: how long.
        begun: called when connections are taken.
        ending: called when it is to end.
    """
    logging.getLogger().addHandler(LogHandler(logging.WARNING))
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=drain_seconds,
        server_header=False, timeout_keep_alive=KEEP_ALIVE, http=Connection, backlog=backlog(),
    )  # fmt: skip
    server = _Server(config)

    def stop() -> None:
        if server.should_exit:
            for request in server.server_state.tasks:
                request.cancel()  # it is told so
        else:
            server.should_exit = True
            ending()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    begun()
    await server.serve(sockets=[place])
