"""The kernel server in a hardened container, started through the Docker API.

The container has no network, a read-only root, sized in-memory file systems, no capability but the three that
switching users takes, no way to gain others, a seccomp profile of our own, and limits for memory and processes.
It shares one directory with the host, for its sockets, which kernels cannot enter; or nothing at all, where the
runtime or the engine is such that everything goes through its standard streams.
It ends itself when its owner hangs up; what even that misses (the engine was down) the next start removes.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandbox.attach import Link, attach
from sandbox.daemon import in_daemon_thread
from sandbox.errors import SandboxUnavailableError
from sandbox.guest.disk import SHARE
from sandbox.host import FolderHost, Host
from sandbox.image import build_image, check_image, has_image, image_tag
from sandbox.launch import START_DEADLINE, Launcher, check_memory, server_arguments, start_server
from sandbox.limits import Limits
from sandbox.owner import identity, is_gone, make_directory, reap_directories, remove_directory

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

LABEL = "genprm.sandbox.owner"
PROFILE = Path(__file__).with_name("seccomp.json")
"""Every system call that anything in the container may make; all others fail with EPERM."""
SHARING = ("runc", "crun", "io.containerd.runc.v2")
"""Runtimes whose containers can share unix sockets with the host. What is not known to is reached by other means."""
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

    disk = limits.disk_mib * SHARE
    return {
        "network_mode": "none",
        "read_only": True,
        "user": f"0:{group}",
        "cap_drop": ["ALL"],
        "cap_add": ["SETUID", "SETGID", "KILL"],
        "security_opt": ["no-new-privileges:true", f"seccomp={PROFILE.read_text()}"],
        "ipc_mode": "private",
        "mem_limit": f"{limits.container_memory_mib}m",
        "memswap_limit": f"{limits.container_memory_mib}m",
        "pids_limit": KERNELS_PER_CONTAINER * limits.processes + 64,
        "ulimits": [Ulimit(name="core", soft=0, hard=0), Ulimit(name="nofile", soft=8192, hard=8192)],
        "tmpfs": {
            "/tmp": f"size={disk}m,nr_inodes=262144,mode=1777,noexec,nosuid,nodev",
            # Nothing to write in what lists the message queues; the calls are denied by the filters.
            "/dev/mqueue": "size=4k,nr_inodes=1,mode=0555,noexec,nosuid,nodev",
            "/dev/shm": f"size={disk}m,nr_inodes=8192,mode=1777,noexec,nosuid,nodev",
        },
        "sysctls": {"kernel.shmall": "0", "kernel.msgmni": "0", "kernel.sem": "32 0 32 0"},
        "log_config": LogConfig(type="none"),
        "hostname": "sandbox",
    }


class ContainerHost(Host):
    """A kernel server in a container of ours: reached through a directory of sockets, or through what is attached."""

    def __init__(self, container: Container, folder: Path | None, inner: FolderHost | Link) -> None:
        self.name = str(container.name)
        self._container = container
        self._folder = folder
        self._inner = inner

    async def open(self, socket: str, make: Callable[[], asyncio.Protocol]) -> asyncio.Transport:
        if isinstance(self._inner, Link):
            return self._inner.open(socket, make())
        return await self._inner.open(socket, make)

    async def close(self) -> None:
        if isinstance(self._inner, Link):
            self._inner.close()
        await asyncio.to_thread(_remove, self._container)
        if self._folder:
            remove_directory(self._folder)


class DockerLauncher(Launcher):
    """Containers with one kernel server each, owned by this process.

    Args:
        limits: what kernels may use.
        runtime: the engine's runtime (``runsc`` is gVisor), None for its default.
        image: an image that is made from ours, None for ours itself, which is built where it is missing.
        say: gets a line when something takes long.
    """

    def __init__(self, limits: Limits, runtime: str | None, image: str | None, say: Callable[[str], None]) -> None:
        self._limits = limits
        self._runtime = runtime
        self._image = image
        self._say = say
        self._checked = False
        self._shares_sockets = False

    async def launch(self) -> list[Host]:
        client = await in_daemon_thread(connect_engine)
        folder: Path | None = None
        containers: list[Container] = []
        try:
            if not self._checked:
                await in_daemon_thread(explained, self._check, client)
                self._checked = True
            folder = make_directory() if self._shares_sockets else None
            # Where we are cancelled while the engine is at it, the thread goes on, and tells what it has made.
            creating = asyncio.create_task(asyncio.to_thread(self._create, client, folder, containers))
            try:
                await asyncio.shield(creating)
            except asyncio.CancelledError:
                await asyncio.gather(creating, return_exceptions=True)
                raise
            [container] = containers
            if folder is not None:
                place = await start_server(
                    folder / "ipc", lambda: _calling(container.start), lambda: _how_it_ended(container)
                )
                return [ContainerHost(container, folder, FolderHost(place))]
            link = await Link.over(await _calling(attach, container))
            await _calling(container.start)
            await link.wait_for_server(START_DEADLINE)
            return [ContainerHost(container, None, link)]
        except BaseException:
            for made in containers:
                await asyncio.to_thread(_remove, made)
            if folder:
                remove_directory(folder)
            raise
        finally:
            client.close()

    def _check(self, client: docker.DockerClient) -> None:
        """What is the same for every container: once.

        Raises:
            SandboxUnavailableError: the engine has not got what was asked for.
        """
        reap(client)
        about = client.info()
        check_memory(self._limits, about["MemTotal"] >> 20)
        runtimes = sorted(about.get("Runtimes", {}))
        if self._runtime is not None and self._runtime not in runtimes:
            raise SandboxUnavailableError(
                f"the Docker engine has no runtime {self._runtime!r}; it has: {', '.join(runtimes)}"
            )
        # Only an engine on this machine, with a runtime that lets sockets through, can share a directory of them.
        runtime = self._runtime or about.get("DefaultRuntime", "runc")
        self._shares_sockets = runtime in SHARING and str(client.api.base_url).startswith("http+docker://")
        if self._image is not None:
            check_image(client, self._image)
        elif not has_image(client):
            self._say(f"building the sandbox image {image_tag()} (once, about a minute)")
            build_image(client, lambda _line: None)

    def _create(self, client: docker.DockerClient, folder: Path | None, made: list[Container]) -> None:
        # Per-user process limits are counted by the host's kernel over all containers, so each gets a range of
        # its own, by chance.
        uid_base = 100_000_000 + random.SystemRandom().randrange(4000) * 1_000_000
        arguments = [*server_arguments("/ipc", self._limits)[2:], f"--uid-base={uid_base}"]
        options = container_options(self._limits, os.getgid())
        if self._runtime is not None:
            options["runtime"] = self._runtime
        if folder is not None:
            sockets = folder / "ipc"
            sockets.mkdir(mode=0o770)
            # Root in the container has no right to override file modes: it gets in by our group.
            os.chown(sockets, -1, os.getgid())
            sockets.chmod(0o770)
            options["volumes"] = {str(sockets): {"bind": "/ipc", "mode": "rw"}}
        else:
            arguments.append("--stdio")
            options["tmpfs"]["/ipc"] = "size=1m,nr_inodes=8192,mode=0700,noexec,nosuid,nodev"
            options["stdin_open"] = True
        container = explained(
            client.containers.create,
            self._image or image_tag(), arguments, auto_remove=True, labels={LABEL: identity()}, **options,
        )  # fmt: skip
        made.append(container)


def explained(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call into docker-py; its failures are the sandbox's, in one line."""
    from docker.errors import DockerException

    try:
        return call(*arguments, **options)
    except (DockerException, OSError) as error:
        raise SandboxUnavailableError(f"the Docker engine refused the sandbox: {_reason(error)}") from error


async def _calling(call: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(explained, call, *arguments)


def _how_it_ended(container: Container) -> str | None:
    from docker.errors import DockerException, NotFound

    try:
        container.reload()
    except NotFound:
        return "its container ended at once"
    except (DockerException, OSError) as error:
        return _reason(error)
    return None if container.status in ("created", "running") else f"its container {container.status}"


def container_pid(name: str) -> int:
    """The process of a container's kernel server, as the engine's machine numbers it."""
    client = connect_engine()
    try:
        return int(client.containers.get(name).attrs["State"]["Pid"])
    finally:
        client.close()


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
