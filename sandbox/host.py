"""Where one kernel server runs, as its client sees it: a place with named sockets that streams can be opened to."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Callable
from pathlib import Path


class Host(abc.ABC):
    """One running kernel server. Whoever got it from a launcher closes it."""

    name: str
    """For messages."""

    @abc.abstractmethod
    async def open(self, socket: str, make: Callable[[], asyncio.Protocol]) -> asyncio.Transport:
        """Connect to the server's socket of that name.

        Raises:
            OSError: nobody listens there.
        """

    @abc.abstractmethod
    async def close(self) -> None:
        """Remove what was made for it. Idempotent; never raises for what is gone already."""


class FolderHost(Host):
    """A kernel server whose sockets lie in a directory of this machine. By itself it belongs to somebody else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        """The directory with the ``control`` socket."""
        self.name = folder.name
        self.process_id: int | None = None
        """The server's process, if it is ours."""

    async def open(self, socket: str, make: Callable[[], asyncio.Protocol]) -> asyncio.Transport:
        transport, _ = await asyncio.get_running_loop().create_unix_connection(make, str(self.folder / socket))
        return transport

    async def close(self) -> None:
        """Nothing to remove."""
