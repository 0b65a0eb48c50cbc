"""`genprm serve`: the HTTP server."""

from __future__ import annotations

import ipaddress
import math
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from genprm.cli import shared
from genprm.cli.shared import say
from genprm.errors import ConfigError
from genprm.extras import require
from genprm.options import RunOptions, open_verifier
from genprm.serve import LIBRARIES

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PATIENCE = 60.0
"""Seconds for which a model's server that is gone is asked again: who waits for an answer is to hear of it."""
serve_app = typer.Typer(invoke_without_command=True)


@serve_app.callback()
@shared.with_run_options
def serve(
    context: typer.Context,
    options: RunOptions,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any that is free.")] = 8000,
    api_keys: Annotated[
        Path | None, typer.Option(help="File with the hashes of API keys (`genprm serve key`). Needed off loopback.")
    ] = None,
    no_api_keys: Annotated[
        bool, typer.Option("--no-api-keys", help="Off loopback without keys: something else must keep others out.")
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Name in the Host header that is answered to; may be repeated. Default on loopback: its names."
        ),
    ] = None,
    max_waiting: Annotated[int, typer.Option(min=0, help="Rows that may wait; more are answered with 429.")] = 256,
    deadline: Annotated[float, typer.Option(min=0.001, help="Longest time of a request, in seconds.")] = 600.0,
    max_body_mib: Annotated[float, typer.Option(min=0.001, help="Size of a request's body.")] = 4.0,
    drain_seconds: Annotated[int, typer.Option(min=0, help="On SIGTERM: time for requests to end.")] = 30,
    unscored_reward: Annotated[
        float | None, typer.Option(help="/get_reward: what an unscored response gets. Default: the request fails.")
    ] = None,
) -> None:
    """Verify over HTTP: /v1/verify, /v1/score, /get_reward, /health, /metrics.

    Exit status 0: it was asked to end (SIGTERM, Ctrl-C), and let requests end. 2: it could not begin.
    """
    if context.invoked_subcommand is not None:
        return
    with shared.refusing():
        require("serve", LIBRARIES)
        from genprm.serve.app import ServeSettings
        from genprm.serve.keys import read_keys
        from genprm.serve.server import listen

        if api_keys is None and not no_api_keys and not _is_loopback(host):
            raise ConfigError(f"--host {host} is reached from elsewhere: --api-keys is needed, or --no-api-keys")
        if not math.isfinite(deadline + max_body_mib + (unscored_reward or 0.0)):
            raise ConfigError("--deadline, --max-body-mib, --unscored-reward: expected finite numbers")
        settings = ServeSettings(
            max_waiting=max_waiting, deadline_seconds=deadline, max_body=int(max_body_mib * 2**20),
            keys=read_keys(api_keys) if api_keys else frozenset(), hosts=answered_to(host, allow_host or []),
            unscored_reward=unscored_reward,
        )  # fmt: skip
        place = listen(host, port)
    with place:
        shared.run(_serve(options, settings, place, drain_seconds))


@serve_app.command()
def key() -> None:
    """Make an API key: the key for the client, and its hash, a line for the file of --api-keys."""
    from genprm.serve.keys import new_key

    made, line = new_key()
    print(f"key:  {made}\nhash: {line}")


def answered_to(host: str, allowed: Sequence[str]) -> tuple[str, ...]:
    """The names by which it may be asked; none: any. A page elsewhere may have a name of its own for loopback."""
    names = (*allowed, *((*LOOPBACK, host) if _is_loopback(host) else ()))
    return tuple(dict.fromkeys(name.lower() for name in names))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _serve(options: RunOptions, settings: Any, place: socket.socket, drain_seconds: int) -> None:
    from genprm.serve.app import create_app
    from genprm.serve.middleware import log
    from genprm.serve.server import run, url

    tell = say

    def begun() -> None:
        nonlocal tell
        log("listening", url=url(place), model=verifier.model.name, style=verifier.style.name)
        tell = lambda line: log("notice", message=line)  # noqa: E731 - from here on all is JSON

    async with open_verifier(options, lambda line: tell(line), patience=PATIENCE) as verifier:
        await run(
            create_app(verifier, settings), place, drain_seconds,
            begun=begun, ending=lambda: log("draining", seconds=drain_seconds),
        )  # fmt: skip
        log("ended")
