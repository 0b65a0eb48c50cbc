"""Fixtures that all tests share. What cannot run here is skipped, but never where ``CI`` is set: there it fails."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sandbox import Limits, Sandbox, SandboxUnavailableError
from sandbox.docker_launcher import connect_engine

BACKENDS = ("local", "unix", pytest.param("docker", marks=pytest.mark.docker))
LIMITS = Limits(timeout=5.0, memory_mib=256)


def docker_problem() -> str | None:
    """Why there is no Docker engine here, or None."""
    try:
        connect_engine().close()
    except SandboxUnavailableError as error:
        return str(error)
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    needing = [item for item in items if item.get_closest_marker("docker") or item.get_closest_marker("compose")]
    if needing and not os.environ.get("CI") and (problem := docker_problem()):
        for item in needing:
            item.add_marker(pytest.mark.skip(reason=problem))


@pytest.fixture(scope="session")
def found_servers() -> Iterator[Path]:
    """A directory with two kernel servers that were started by somebody else."""
    with tempfile.TemporaryDirectory(prefix="genprm-test-", dir="/tmp") as folder:
        command = [sys.executable, "-m", "sandbox.guest", "--directory", folder, "--memory-mib", "256"]
        clean = {"PATH": os.defpath, "PYTHONHASHSEED": "0"}
        servers = [subprocess.Popen(command, start_new_session=True, env=clean) for _ in range(2)]
        yield Path(folder)
        for server in servers:
            server.terminate()
            assert server.wait(10) == 0
        assert list(Path(folder).iterdir()) == [], "a server left its sockets behind"


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """The name of each sandbox backend in turn, as `Sandbox` takes it."""
    if request.param == "unix":
        return f"unix:{request.getfixturevalue('found_servers')}"
    return str(request.param)


@pytest.fixture(scope="session")
async def sandbox(backend: str) -> AsyncIterator[Sandbox]:
    """One running sandbox per backend, shared by all tests: sessions must not see each other anyway."""
    async with asyncio.timeout(300):
        box = Sandbox(backend, LIMITS)
        await box.start()
    yield box
    await box.close()


@pytest.fixture(scope="session")
async def local_sandbox() -> AsyncIterator[Sandbox]:
    """A local sandbox, for tests that are not about isolation."""
    async with Sandbox("local", LIMITS) as box:
        yield box
