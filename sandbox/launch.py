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
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sandbox.errors import SandboxUnavailableError
from sandbox.limits import Limits
from sandbox.owner import make_directory, reap_directories

START_DEADLINE = 120.0
"""Seconds a server may take to import its modules and open its socket."""
POLL = 0.02
"""Seconds between two looks for the socket of a server that is starting."""


class Launcher(abc.ABC):
    """Makes kernel servers available as directories of sockets."""

    @abc.abstractmethod
    async def launch(self) -> list[Path]:
        """Start or find servers; returns each one's directory, with a ``control`` socket that can be connected to.

        Raises:
            SandboxUnavailableError: there is none to be had.
        """

    @abc.abstractmethod
    async def close(self) -> None:
        """Remove what `launch` made. Idempotent."""


def server_arguments(directory: str, limits: Limits) -> list[str]:
    """The command line of an owned kernel server, after the interpreter."""
    options = [f"--{name.replace('_', '-')}={value}" for name, value in limits.for_kernel().items()]
    return ["-m", "sandbox.guest", "--directory", directory, "--owned", *options]


async def wait_for_server(directory: Path, ended: Callable[[], str | None]) -> Path:
    """Wait until a server has opened its control socket below ``directory``.

    ``ended`` tells, whenever asked, how the server ended, or None while it lives.

    Raises:
        SandboxUnavailableError: it ended, or is not there after `START_DEADLINE` seconds.
    """
    deadline = time.monotonic() + START_DEADLINE
    while time.monotonic() < deadline:
        for control in directory.glob("*/control"):
            return control.parent
        how = await asyncio.to_thread(ended)
        if how is not None:
            report = directory / "error.txt"
            detail = report.read_text().strip().splitlines()[-1] if report.exists() else how
            raise SandboxUnavailableError(f"the kernel server did not start: {detail}")
        await asyncio.sleep(POLL)
    raise SandboxUnavailableError(f"the kernel server did not start within {START_DEADLINE:g} s")


class LocalLauncher(Launcher):
    """The kernel server as a plain process. No security boundary: the guest runs with this user's rights."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None

    async def launch(self) -> list[Path]:
        await self.close()
        reap_directories()
        self._folder = make_directory()
        root = Path(__file__).resolve().parent.parent
        # The server starts with an allow-list too: kernels see an environment of their own, but a guest that
        # runs as the same user can read its parent's from /proc.
        environment = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": str(root), "PYTHONHASHSEED": "0"}
        self._process = subprocess.Popen(
            [sys.executable, *server_arguments(str(self._folder), self._limits)],
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return [await wait_for_server(self._folder, self._how_it_ended)]

    def _how_it_ended(self) -> str | None:
        code = self._process.poll() if self._process else None
        return None if code is None else f"it exited with status {code}"

    async def close(self) -> None:
        process, self._process = self._process, None
        if process:
            process.terminate()
            try:
                await asyncio.to_thread(process.wait, 5)
            except subprocess.TimeoutExpired:
                process.kill()
                await asyncio.to_thread(process.wait, 5)
        folder, self._folder = self._folder, None
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


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

    async def launch(self) -> list[Path]:
        deadline = time.monotonic() + START_DEADLINE
        if not self._directory.is_dir():
            raise SandboxUnavailableError(f"no directory of kernel servers at {self._directory}")
        while time.monotonic() < deadline:
            found = [control.parent for control in sorted(self._directory.glob("*/control")) if _answers(control)]
            if found:
                return found
            await asyncio.sleep(POLL)
        raise SandboxUnavailableError(f"no kernel server in {self._directory} after {START_DEADLINE:g} s")

    async def close(self) -> None:
        """Nothing to remove: the servers belong to somebody else."""
