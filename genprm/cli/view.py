"""`genprm view`: rows as pages, on this machine."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, Any

import typer

from genprm.cli import shared
from genprm.cli.shared import say
from genprm.extras import require
from genprm.serve import LIBRARIES

HOST = "127.0.0.1"


def view(
    path: Annotated[Path, typer.Argument(help="Rows of verify or eval, or the folder of a label or synth run.")],
    other: Annotated[Path | None, typer.Argument(help="A second file, to be shown beside the first.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any that is free.")] = 8001,
) -> None:
    """Look at results in a browser: page, filter, search, compare. Only this machine can reach it.

    Exit status 0: it was asked to end (Ctrl-C, SIGTERM). 2: it could not begin.
    """
    with shared.refusing():
        require("serve", LIBRARIES)
        from genprm.serve.server import listen
        from genprm.viewer.index import RowIndex
        from genprm.viewer.pages import create_viewer

        app = create_viewer([RowIndex(each) for each in (path, other) if each])
        place = listen(HOST, port)
    with place:
        shared.run(_view(app, place, path))


async def _view(app: Any, place: socket.socket, path: Path) -> None:
    from genprm.serve.server import run, url

    await run(app, place, 1, begun=lambda: say(f"{path} is at {url(place)}; Ctrl-C ends it"), ending=lambda: None)
