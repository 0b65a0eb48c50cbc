"""`Sandbox`: fresh kernels on demand, wherever their servers come from."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import zmq.asyncio

from sandbox.errors import SandboxError, SandboxLostError
from sandbox.launch import FoundLauncher, Launcher, LocalLauncher
from sandbox.limits import Limits
from sandbox.server import KernelServer
from sandbox.session import Session

FRAME_SLACK = 1 << 20
"""A message frame larger than this and 16 times the output limit (text as JSON takes up to 12 bytes for 2) is not
received: its connection is cut."""


def make_launcher(backend: str, limits: Limits, say: Callable[[str], None]) -> Launcher:
    """The source of kernel servers that ``backend`` names: ``docker``, ``local`` or ``unix:DIRECTORY``.

    Raises:
        ValueError: it names none of them.
    """
    if backend == "docker":
        from sandbox.docker_launcher import DockerLauncher

        return DockerLauncher(limits, say)
    if backend == "local":
        return LocalLauncher(limits)
    if backend.startswith("unix:"):
        return FoundLauncher(Path(backend.removeprefix("unix:")))
    raise ValueError(f"unknown sandbox backend {backend!r}: expected docker, local or unix:DIRECTORY")


class Sandbox:
    """Isolated Jupyter kernels for code that nobody trusts.

        async with Sandbox("docker") as sandbox:
            async with await sandbox.session() as session:
                result = await session.run("print(6 * 7)")

    Args:
        backend: ``docker`` (a hardened container), ``local`` (plain processes: no security boundary), or
            ``unix:DIR`` (kernel servers that run already, as the compose service does).
        limits: what every kernel may use.
        sessions: how many sessions may be open at once; more wait for their turn.
        say: gets a line when something takes long (the image is being built).

    Raises:
        ValueError: the backend is unknown.
    """

    def __init__(
        self,
        backend: str = "docker",
        limits: Limits | None = None,
        *,
        sessions: int = 64,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.backend = backend
        self.limits = limits or Limits()
        self._say = say or (lambda line: print(line, file=sys.stderr))
        self._launcher = make_launcher(backend, self.limits, self._say)
        self._slots = asyncio.Semaphore(sessions)
        self._servers: list[KernelServer] = []
        self._starting = asyncio.Lock()
        self._context: zmq.asyncio.Context | None = None

    async def __aenter__(self) -> Sandbox:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Start (or find) the kernel servers now, where it would otherwise happen with the first session.

        Raises:
            SandboxUnavailableError: there is no way to run code; the message says what to do.
        """
        try:
            await self._living_servers()
        except BaseException:
            await self.close()
            raise

    async def session(self) -> Session:
        """Open a session on a fresh kernel. Waits while as many are open as may be.

        Raises:
            SandboxError: no kernel could be had.
        """
        await self._slots.acquire()
        try:
            return await self._open()
        except BaseException:
            self._slots.release()
            raise

    async def close(self) -> None:
        """End every kernel and remove everything this sandbox made."""
        servers, self._servers = self._servers, []
        for server in servers:
            await server.close()
        await self._launcher.close()
        if self._context is not None:
            self._context.destroy(linger=0)
            self._context = None

    async def _open(self) -> Session:
        servers = await self._living_servers()
        server = min(servers, key=lambda each: each.kernels)
        server.kernels += 1
        try:
            answer = await server.request("spawn", limits=self.limits.for_kernel())
        except BaseException:
            server.kernels -= 1
            raise
        if self._context is None:
            self._context = zmq.asyncio.Context()
            self._context.setsockopt(zmq.MAXMSGSIZE, 16 * self.limits.output_bytes + FRAME_SLACK)
            self._context.setsockopt(zmq.LINGER, 0)
            self._context.set(zmq.MAX_SOCKETS, 16384)
        session = Session(server, answer["kernel"], answer["key"], self.limits, self._context)
        try:
            await session.open()
        except BaseException:
            await session.close()
            raise
        session.on_close = self._slots.release
        return session

    async def _living_servers(self) -> list[KernelServer]:
        async with self._starting:
            self._servers = [server for server in self._servers if not server.lost]
            if self._servers:
                return self._servers
            refusal: SandboxError | None = None
            for folder in await self._launcher.launch():
                try:
                    self._servers.append(await KernelServer.connect(folder))
                except SandboxError as error:
                    refusal = error  # killed a moment ago, or hung: try the others
            missing = sorted({name for server in self._servers for name in server.about["missing"]})
            if missing:
                self._say(
                    f"sandbox: not installed where code runs, so that it cannot be imported: {', '.join(missing)}"
                )
            if not self._servers:
                with contextlib.suppress(SandboxError):
                    await self._launcher.close()
                raise refusal or SandboxLostError("no kernel server")
            return self._servers
