"""`Sandbox`: fresh kernels on demand, wherever their servers come from."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

from sandbox.errors import SandboxError, SandboxLostError, SandboxUnavailableError
from sandbox.host import Host
from sandbox.launch import FoundLauncher, Launcher, LocalLauncher
from sandbox.limits import Limits
from sandbox.server import REQUEST_DEADLINE, KernelServer
from sandbox.session import Session

Isolation = Literal["container", "kernel"]
FURTHER_DEADLINE = 3.0
"""Seconds within which a server that is found while others work must say hello."""


class Sandbox:
    """Isolated Jupyter kernels for code that nobody trusts.

        async with Sandbox("docker") as sandbox:
            async with await sandbox.session() as session:
                result = await session.run("print(6 * 7)")

    Args:
        backend: ``docker`` (hardened containers), ``local`` (plain processes: no security boundary), or
            ``unix:DIR`` (kernel servers that run already, as the compose service does).
        limits: what every kernel may use.
        isolation: ``container`` (all kernels in one container, each as a user of its own) or ``kernel`` (a container
            for each; docker only).
        runtime: the Docker runtime, None for the engine's default; ``runsc`` is gVisor.
        image: a Docker image made FROM ours, None for ours itself.
        sessions: how many sessions may be open at once; more wait for their turn.
        ready: kernels that are kept ready, so that a session starts at once. They are begun anew in the background.
        say: gets a line when something takes long (the image is being built).

    Raises:
        ValueError: the backend or the isolation is unknown, or an option is not one of this backend's.
    """

    def __init__(
        self,
        backend: str = "docker",
        limits: Limits | None = None,
        *,
        isolation: Isolation = "container",
        runtime: str | None = None,
        image: str | None = None,
        sessions: int = 64,
        ready: int = 4,
        say: Callable[[str], None] | None = None,
    ) -> None:
        if sessions < 1 or ready < 0:
            raise ValueError(f"sessions must be at least 1 and ready at least 0; they are {sessions} and {ready}")
        self.backend = backend
        self.limits = limits or Limits()
        self.isolation = isolation
        self.runtime = runtime
        self._say = say or (lambda line: print(line, file=sys.stderr))
        self._launcher = self._make_launcher(image)
        self._ready_count = ready
        self._ready: deque[Session] = deque()
        self._filling: asyncio.Task[None] | None = None
        self._opening = 0
        self.capacity = sessions
        """How many sessions may be open at once."""
        self._slots = asyncio.Semaphore(sessions)
        self._busy = 0
        self._servers: list[KernelServer] = []
        self._looking: asyncio.Task[list[KernelServer]] | None = None
        """For servers; all who need one wait for the same look, and hear the same if there is none."""
        # An engine that is asked for many containers at once takes longer for each of them.
        self._launching = asyncio.Semaphore(max(2, os.cpu_count() or 1))
        self._closed = False

    def _make_launcher(self, image: str | None) -> Launcher:
        if self.isolation not in get_args(Isolation):
            raise ValueError(f"unknown isolation {self.isolation!r}: expected container or kernel")
        if self.backend == "docker":
            from sandbox.docker_launcher import DockerLauncher

            return DockerLauncher(self.limits, self.runtime, image, self._say)
        if self.backend != "local" and not (self.backend.startswith("unix:") and self.backend != "unix:"):
            raise ValueError(f"unknown sandbox backend {self.backend!r}: expected docker, local or unix:DIRECTORY")
        if self.isolation != "container" or self.runtime is not None or image is not None:
            raise ValueError(f"isolation, runtime and image are for the docker backend, not for {self.backend!r}")
        if self.backend == "local":
            return LocalLauncher(self.limits)
        return FoundLauncher(Path(self.backend.removeprefix("unix:")))

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
            if self.isolation == "kernel":
                self._ready.append(await self._open())
            else:
                await self._living_servers()
        except BaseException:
            await self.close()
            raise
        self._fill()

    async def session(self) -> Session:
        """Open a session on a fresh kernel. Waits while as many are open as may be.

        Raises:
            SandboxError: no kernel could be had.
        """
        await self._occupy()
        try:
            session = await self._take() or await self._open()
        except BaseException:
            self._vacate()
            raise
        session.on_close = self._vacate
        self._fill()
        return session

    async def close(self) -> None:
        """End every kernel and remove everything this sandbox made. Who waits for a session is told."""
        if not self._closed:
            self._closed = True
            self._slots.release()  # the first who waits hands it on
        for task in (self._filling, self._looking):
            if task:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        servers, self._servers = self._servers, []
        await asyncio.gather(*(server.close() for server in servers))
        while self._ready:
            await self._ready.popleft().close()

    @property
    def ready(self) -> int:
        """How many kernels are ready right now."""
        return len(self._ready)

    @property
    def busy(self) -> int:
        """How many sessions are open, or being opened for somebody, right now."""
        return self._busy

    @property
    def servers(self) -> list[KernelServer]:
        """The kernel servers that are connected."""
        return [server for server in self._servers if not server.lost]

    # What sessions call

    async def branch(self, origin: Session, seed: int | None) -> Session:
        """See `Session.fork`."""
        await self._occupy()
        try:
            answer = await origin.ask_to_fork(seed)
            origin.server.kernels += 1
            session = await self._connect(origin.server, answer["kernel"], answer["key"])
        except BaseException:
            self._vacate()
            raise
        session.on_close = self._vacate
        return session

    async def discard(self, session: Session) -> None:
        """A session is being closed: end its kernel, and the container that was its own."""
        server = session.server
        server.kernels -= 1
        if self.isolation == "kernel" and not server.kernels:
            self._forget(server)
            await server.close()
            return
        with contextlib.suppress(SandboxError):  # a lost server has no kernels left
            await server.request("kill", kernel=session.name)

    def _forget(self, server: KernelServer) -> None:
        with contextlib.suppress(ValueError):  # the sandbox was closed meanwhile
            self._servers.remove(server)

    # Kernels

    async def _occupy(self) -> None:
        await self._slots.acquire()
        if self._closed:
            self._slots.release()
        self._check_open()
        self._busy += 1

    def _vacate(self) -> None:
        self._busy -= 1
        self._slots.release()

    async def _take(self) -> Session | None:
        """A kernel that is ready, if there is one."""
        while self._ready:
            session = self._ready.popleft()
            if session.alive:
                return session
            await session.close()
        return None

    def _fill(self) -> None:
        """Begin kernels for those to come, unless somebody is waiting for one right now."""
        if self._closed or self._opening or len(self._ready) >= self._ready_count:
            return
        if self._filling is None or self._filling.done():
            self._filling = asyncio.create_task(self._keep_ready(), name="ready kernels")

    async def _keep_ready(self) -> None:
        while len(self._ready) < self._ready_count and not self._opening:
            try:
                session = await self._open(waited_for=False)
            except SandboxError:
                return  # whoever needs a kernel next will be told why there is none
            if self._closed:
                await session.close()
                return
            self._ready.append(session)

    async def spawn(self) -> tuple[KernelServer, str, str]:
        """A fresh kernel for somebody who speaks Jupyter to it by other means than a `Session`: server, name, key.

        It counts neither among the sessions nor among the ready. It ends with the sandbox, or when the server is asked.

        Raises:
            SandboxError: no kernel could be had.
        """
        server = await self._own_server() if self.isolation == "kernel" else await self._freest_server()
        server.kernels += 1
        try:
            answer = await server.request("spawn", limits=self.limits.for_kernel())
        except BaseException:
            server.kernels -= 1
            if self.isolation == "kernel":
                self._forget(server)
                await server.close()
            raise
        return server, answer["kernel"], answer["key"]

    async def _open(self, *, waited_for: bool = True) -> Session:
        self._opening += waited_for
        try:
            return await self._connect(*await self.spawn())
        finally:
            self._opening -= waited_for

    async def _connect(self, server: KernelServer, name: str, key: str) -> Session:
        session = Session(self, server, name, key, self.limits)
        try:
            await session.open()
        except BaseException:
            await session.close()
            raise
        return session

    async def _own_server(self) -> KernelServer:
        async with self._launching:
            [server] = await self._launch()
        return server

    async def _freest_server(self) -> KernelServer:
        return min(await self._living_servers(), key=lambda each: each.kernels)

    async def _living_servers(self) -> list[KernelServer]:
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="kernel servers")
            self._looking.add_done_callback(_heard)
        looking = self._looking
        try:
            return await asyncio.shield(looking)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if looking.cancelled() and task is not None and not task.cancelling():
                self._check_open()  # it was not us that were cancelled
            raise

    async def _look(self) -> list[KernelServer]:
        for server in [each for each in self._servers if each.lost]:
            self._servers.remove(server)
            await server.close()
        if self._servers:
            further = self._launcher.further(server.name for server in self._servers)
            self._servers += await self._connect_all(further, deadline=FURTHER_DEADLINE)
        return [server for server in self._servers if not server.silent] or await self._launch()

    async def _launch(self) -> list[KernelServer]:
        """Launch servers, connect to them, and count them among ours."""
        self._check_open()
        refusals: list[SandboxError] = []
        servers = await self._connect_all(await self._launcher.launch(), refusals)
        if not servers:
            raise refusals[-1] if refusals else SandboxLostError("no kernel server")
        self._servers += servers
        return servers

    async def _connect_all(
        self, hosts: Sequence[Host], refusals: list[SandboxError] | None = None, deadline: float = REQUEST_DEADLINE
    ) -> list[KernelServer]:
        """Connect to servers; those that were killed a moment ago, or hang, are left out."""
        servers: list[KernelServer] = []
        try:
            for host in hosts:
                try:
                    servers.append(await KernelServer.connect(host, deadline))
                except SandboxError as error:
                    if refusals is not None:
                        refusals.append(error)
            self._check_open()
        except BaseException:
            await asyncio.gather(*(server.close() for server in servers))
            raise
        missing = sorted({name for server in servers for name in server.about["missing"]})
        if missing:
            self._say(f"sandbox: not installed where code runs, so that it cannot be imported: {', '.join(missing)}")
        return servers

    def _check_open(self) -> None:
        if self._closed:
            raise SandboxUnavailableError("the sandbox is closed")


def _heard(task: asyncio.Task[Any]) -> None:
    """Look at how a task ended, which nobody may be waiting for any more."""
    if not task.cancelled():
        task.exception()
