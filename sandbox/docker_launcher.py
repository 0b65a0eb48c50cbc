"""The kernel server in a hardened container, started through the Docker API.

The container has no network, a read-only root, sized in-memory file systems, no capability but the three that
switching users takes, no way to gain others, the engine's seccomp profile, and limits for memory and processes.
It shares one directory with the host, for its sockets; kernels cannot enter that.
It ends itself when its owner hangs up; what even that misses (the engine was down) the next start removes.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandbox.errors import SandboxUnavailableError
from sandbox.image import build_image, has_image, image_tag
from sandbox.launch import Launcher, server_arguments, wait_for_server
from sandbox.limits import Limits
from sandbox.owner import identity, is_gone, make_directory, reap_directories

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

LABEL = "genprm.sandbox.owner"
API_TIMEOUT = 60
"""Seconds for one call to the engine."""
KERNELS_PER_CONTAINER = 256
"""Kernels that the container's process limit has room for."""


def connect_engine() -> docker.DockerClient:
    """A client of the Docker engine that answers.

    Raises:
        SandboxUnavailableError: docker-py is missing, no engine runs, or this user may not talk to it.
    """
    try:
        import docker
        from docker.errors import DockerException
    except ImportError as error:
        raise SandboxUnavailableError("the docker backend needs the package 'docker': pip install docker") from error
    try:
        client = docker.from_env(timeout=API_TIMEOUT)
        client.ping()
    except (DockerException, OSError) as error:
        text = str(error)
        if "Permission denied" in text or "PermissionError" in text:
            raise SandboxUnavailableError(
                "no right to talk to the Docker engine: add this user to the group 'docker' and log in again"
            ) from error
        raise SandboxUnavailableError(
            "no Docker engine answers: start it (Debian: apt-get install docker.io), or ask for the local backend"
        ) from error
    return client


def container_options(limits: Limits, group: int) -> dict[str, Any]:
    """Every restriction the container runs under, as keyword arguments for docker-py."""
    from docker.types import LogConfig, Ulimit

    disk = limits.disk_mib
    return {
        "network_mode": "none",
        "read_only": True,
        "user": f"0:{group}",
        "cap_drop": ["ALL"],
        "cap_add": ["SETUID", "SETGID", "KILL"],
        "security_opt": ["no-new-privileges:true"],
        "ipc_mode": "private",
        "mem_limit": f"{limits.container_memory_mib}m",
        "memswap_limit": f"{limits.container_memory_mib}m",
        "pids_limit": KERNELS_PER_CONTAINER * limits.processes + 64,
        "ulimits": [Ulimit(name="core", soft=0, hard=0), Ulimit(name="nofile", soft=8192, hard=8192)],
        "tmpfs": {
            "/tmp": f"size={disk}m,nr_inodes=16384,mode=1777,noexec,nosuid,nodev",
            # Nothing to write in what lists the message queues; the calls are denied by an rlimit and a filter.
            "/dev/mqueue": "size=4k,nr_inodes=1,mode=0555,noexec,nosuid,nodev",
            "/dev/shm": "size=16m,nr_inodes=1024,mode=1777,noexec,nosuid,nodev",
        },
        "sysctls": {"kernel.shmall": "0", "kernel.msgmni": "0", "kernel.sem": "32 0 32 0"},
        "log_config": LogConfig(type="json-file", config={"max-size": "1m", "max-file": "1"}),
        "hostname": "sandbox",
    }


class DockerLauncher(Launcher):
    """One container with one kernel server, owned by this process."""

    def __init__(self, limits: Limits, say: Callable[[str], None]) -> None:
        self._limits = limits
        self._say = say
        self._container: Container | None = None
        self._folder: Path | None = None

    async def launch(self) -> list[Path]:
        await self.close()
        await asyncio.to_thread(self._start)
        assert self._folder is not None
        return [await wait_for_server(self._folder / "ipc", self._how_it_ended)]

    def _start(self) -> None:
        from docker.errors import DockerException

        client = connect_engine()
        try:
            reap(client)
            if not has_image(client):
                self._say(f"building the sandbox image {image_tag()} (once, about a minute)")
                build_image(client, lambda _line: None)
            folder = self._folder = make_directory()
            shared = folder / "ipc"
            shared.mkdir(mode=0o770)
            # Root in the container has no right to override file modes: it gets in by our group.
            os.chown(shared, -1, os.getgid())
            shared.chmod(0o770)
            # Per-user process limits are counted by the host's kernel over all containers, so each gets a range of
            # its own, by chance.
            uid_base = 100_000_000 + random.SystemRandom().randrange(100_000) * 10_000
            self._container = client.containers.run(
                image_tag(),
                [*server_arguments("/ipc", self._limits)[2:], f"--uid-base={uid_base}"],
                detach=True,
                auto_remove=True,
                labels={LABEL: identity()},
                volumes={str(shared): {"bind": "/ipc", "mode": "rw"}},
                **container_options(self._limits, os.getgid()),
            )
        except (DockerException, OSError) as error:
            raise SandboxUnavailableError(f"the Docker engine refused the sandbox: {_reason(error)}") from error
        finally:
            client.close()

    def _how_it_ended(self) -> str | None:
        from docker.errors import DockerException, NotFound

        assert self._container is not None
        try:
            self._container.reload()
        except NotFound:
            return "its container ended at once"
        except (DockerException, OSError) as error:
            return _reason(error)
        return None if self._container.status in ("created", "running") else f"its container {self._container.status}"

    async def close(self) -> None:
        container, self._container = self._container, None
        if container:
            await asyncio.to_thread(_remove, container)
        folder, self._folder = self._folder, None
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _remove(container: Container) -> None:
    """Remove a container that may be gone, or about to go, or out of reach (then the next start reaps it)."""
    from docker.errors import DockerException

    try:
        container.remove(force=True)
    except (DockerException, OSError):
        return


def reap(client: docker.DockerClient) -> int:
    """Remove the containers and directories whose owners have ended; returns the number of containers."""
    reap_directories()
    gone = [
        container
        for container in client.containers.list(all=True, filters={"label": LABEL}, ignore_removed=True)
        if is_gone(container.labels[LABEL])
    ]
    for container in gone:
        _remove(container)
    return len(gone)


def _reason(error: Exception) -> str:
    """The engine's own explanation, on one line."""
    return " ".join(str(getattr(error, "explanation", None) or error).split())
