"""Where kernel servers come from: one interface, three sources.

- `LocalLauncher` starts one as a plain process (backend ``local``);
- `sandbox.docker_launcher.DockerLauncher` starts one in a container (backend ``docker``);
- `FoundLauncher` uses those that already run and left their sockets in a directory (backend ``unix:DIR``):
  a compose service offers them that way, and nobody needs the Docker socket.
"""

from __future__ import annotations

import abc
import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from sandbox.errors import SandboxUnavailableError
from sandbox.guest.starting import READY, SOCKET_PATH, sockets_would_be_too_long
from sandbox.host import FolderHost, Host
from sandbox.limits import Limits
from sandbox.owner import make_directory, reap_directories, remove_directory

START_DEADLINE = 120.0
"""Seconds a server may take to import its modules and open its socket."""
LOOK = 0.5
"""Seconds between two looks whether a server that should be starting still lives."""
LOOK_AGAIN = 5.0
"""Seconds between two looks whether there are more servers than the known ones."""


class Launcher(abc.ABC):
    """Makes kernel servers available."""

    @abc.abstractmethod
    async def launch(self) -> list[Host]:
        """Start one server, or find those that run. Leaves nothing behind if it fails or is cancelled.

        Raises:
            SandboxUnavailableError: there is none to be had.
        """

    def further(self, known: Iterable[str]) -> list[Host]:
        """Servers that somebody else has started meanwhile, beside those of the names that are ``known``."""
        return []


def check_memory(limits: Limits, machine_mib: int) -> None:
    """Refuse limits that are no limits.

    Raises:
        SandboxUnavailableError: a limit is more than the machine has.
    """
    for name in ("memory_mib", "container_memory_mib"):
        if getattr(limits, name) > machine_mib:
            raise SandboxUnavailableError(
                f"limits.{name} is {getattr(limits, name)} MiB; the machine where code would run has {machine_mib} MiB"
            )


def server_arguments(directory: str, limits: Limits) -> list[str]:
    """The command line of an owned kernel server, after the interpreter."""
    options = [f"--{name.replace('_', '-')}={value}" for name, value in limits.for_kernel().items()]
    return ["-m", "sandbox.guest", "--directory", directory, "--owned", *options]


async def start_server(directory: Path, start: Callable[[], Awaitable[None]], ended: Callable[[], str | None]) -> Path:
    """Start a server in ``directory`` and wait until it says that it is ready; returns its own directory in it.

    It is listened to before it is started: on a busy machine it may be ready before the engine has said that it runs.

    Args:
        directory: where it says so.
        start: starts it.
        ended: tells, whenever asked, how the server ended, or None while it lives.

    Raises:
        SandboxUnavailableError: it ended, or is not ready after `START_DEADLINE` seconds.
    """
    said: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = (await reader.readline()).decode("utf-8", "replace").strip()
        writer.close()
        if not said.done():
            said.set_result(line)

    listener = await asyncio.start_unix_server(listen, directory / READY)
    (directory / READY).chmod(0o770)
    try:
        await start()
        deadline = time.monotonic() + START_DEADLINE
        while time.monotonic() < deadline:
            await asyncio.wait([said], timeout=LOOK)
            if said.done():
                name, _, error = said.result().partition(" ")
                if error:
                    raise SandboxUnavailableError(f"the kernel server did not start: {error}")
                return directory / Path(name).name
            how = await asyncio.to_thread(ended)
            if how is not None:
                raise SandboxUnavailableError(f"the kernel server did not start: {how}")
    finally:
        listener.close()
        (directory / READY).unlink(missing_ok=True)
    raise SandboxUnavailableError(f"the kernel server did not start within {START_DEADLINE:g} s")


class LocalHost(FolderHost):
    """A kernel server that is our own child process."""

    def __init__(self, folder: Path, control: Path, process: subprocess.Popen[bytes]) -> None:
        super().__init__(control)
        self._private = folder
        self._process = process
        self.process_id = process.pid

    async def close(self) -> None:
        await end_process(self._process)
        remove_directory(self._private)


async def end_process(process: subprocess.Popen[bytes]) -> None:
    """Terminate a process and wait for its end; kill it if it does not come."""
    process.terminate()
    try:
        await asyncio.to_thread(process.wait, 5)
    except subprocess.TimeoutExpired:
        process.kill()
        await asyncio.to_thread(process.wait, 5)


class LocalLauncher(Launcher):
    """The kernel server as a plain process. No security boundary: the guest runs with this user's rights."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    async def launch(self) -> list[Host]:
        check_memory(self._limits, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20)
        reap_directories()
        folder = make_directory()
        root = Path(__file__).resolve().parent.parent
        # The server starts with an allow-list too: kernels see an environment of their own, but a guest that
        # runs as the same user can read its parent's from /proc.
        environment = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": str(root), "PYTHONHASHSEED": "0"}
        started: list[subprocess.Popen[bytes]] = []

        async def start() -> None:
            process = subprocess.Popen(
                [sys.executable, *server_arguments(str(folder), self._limits)],
                env=environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            started.append(process)

        def how_it_ended() -> str | None:
            code = started[0].poll()
            return None if code is None else f"it exited with status {code}"

        try:
            control = await start_server(folder, start, how_it_ended)
        except BaseException:
            for process in started:
                process.kill()
                process.wait()
            remove_directory(folder)
            raise
        return [LocalHost(folder, control, started[0])]


def _answers(control: Path) -> bool:
    """Whether somebody listens: a server that was killed leaves its socket behind."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(control))
        except OSError:
            return False
    return True


class FoundLauncher(Launcher):
    """Kernel servers that run already, each with a directory of its own below ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._looked = 0.0

    def further(self, known: Iterable[str]) -> list[Host]:
        if time.monotonic() - self._looked < LOOK_AGAIN:
            return []
        names = set(known)
        return [host for host in self._find() if host.name not in names]

    def _find(self) -> list[Host]:
        self._looked = time.monotonic()
        return [FolderHost(each.parent) for each in sorted(self._directory.glob("*/control")) if _answers(each)]

    async def launch(self) -> list[Host]:
        deadline = time.monotonic() + START_DEADLINE
        if not self._directory.is_dir():
            raise SandboxUnavailableError(f"no directory of kernel servers at {self._directory}")
        if sockets_would_be_too_long(str(self._directory)):
            raise SandboxUnavailableError(
                f"the path of a socket in {self._directory} would be longer than {SOCKET_PATH} bytes"
            )
        while time.monotonic() < deadline:
            if found := self._find():
                return found
            await asyncio.sleep(LOOK)
        raise SandboxUnavailableError(f"no kernel server in {self._directory} after {START_DEADLINE:g} s")
