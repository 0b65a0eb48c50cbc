"""How a kernel server is started, and how whoever started it hears that it is ready."""

from __future__ import annotations

import argparse
import dataclasses
import os
import socket

from sandbox.guest.confine import KernelLimits, remove_zero
from sandbox.guest.relay import start_relay
from sandbox.guest.server import Server

READY = "ready"
"""The socket in the server's directory on which the client that started it waits for word."""
SOCKET_PATH = 107
"""Longest path of a unix socket, bytes (unix(7))."""


def main() -> None:
    """Parse the command line and run the server."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.guest")
    parser.add_argument("--directory", required=True, help="where the server makes its directory of sockets")
    parser.add_argument(
        "--stdio", action="store_true", help="carry clients' connections over standard input and output"
    )
    parser.add_argument("--uid-base", type=int, help="give every kernel a user of its own, counting from here")
    parser.add_argument("--owned", action="store_true", help="end when the first client leaves")
    parser.add_argument("--starting", type=int, default=2 * (os.cpu_count() or 1), help="kernels starting at once")
    for field in dataclasses.fields(KernelLimits):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=int, default=field.default)
    options = vars(parser.parse_args())
    limits = KernelLimits(**{field.name: options.pop(field.name) for field in dataclasses.fields(KernelLimits)})
    directory = options.pop("directory")
    if sockets_would_be_too_long(directory):
        parser.error(f"--directory: the path of a socket in {directory} is longer than {SOCKET_PATH} bytes")
    if not os.access(directory, os.W_OK | os.X_OK):
        parser.error(f"--directory: cannot write to {directory}")
    announce = start_relay() if options.pop("stdio") else lambda text: announce_to_starter(directory, text)
    try:
        if options["uid_base"] is not None:
            remove_zero()
        Server(directory, limits, **options, announce=announce).run()
    except BaseException as error:
        announce(f"- {type(error).__name__}: {error}")
        raise


def announce_to_starter(directory: str, text: str) -> None:
    """Tell whoever started this server, and listens in ``directory``, that it is ready; or "- ", and why it is not."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        try:
            line.connect(os.path.join(directory, READY))
            line.sendall(text.replace("\n", " ").encode() + b"\n")
        except OSError:
            return  # nobody is waiting: the server was not started by a client


def sockets_would_be_too_long(directory: str) -> bool:
    """Whether the paths of sockets of servers in ``directory`` could be longer than paths of sockets may be."""
    return len(os.fsencode(os.path.join(directory, "s00000000", "k1000000-5"))) > SOCKET_PATH
