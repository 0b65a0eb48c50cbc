"""Fixtures that all tests share. What cannot run here is skipped, but never where ``CI`` is set: there it fails."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from sandbox import Limits, Sandbox, SandboxUnavailableError
from sandbox.docker_launcher import connect_engine
from tests.images import BARE, build_missing_images

# A script's ``command &`` ignores SIGINT from birth, and so would all that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Torch's threads wait for each other by spinning, which takes the processor from whatever runs beside them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes, other tests decide.
hypothesis.settings.register_profile("genprm", deadline=None)
hypothesis.settings.load_profile("genprm")

DATA = Path(os.environ.get("GENPRM_DATA", Path(__file__).parents[2] / "shared" / "data"))
"""Data sets that are not the project's own; tests that need one are skipped without it."""
LIMITS = Limits(timeout=5.0, memory_mib=256)
KINDS: dict[str, dict[str, Any]] = {
    "local": {"backend": "local"},
    "unix": {},
    "docker": {"backend": "docker"},
    "docker-kernel": {"backend": "docker", "isolation": "kernel", "ready": 3, "image": BARE},
    "docker-kernel-libraries": {"backend": "docker", "isolation": "kernel", "ready": 0},
    "gvisor": {"backend": "docker", "runtime": "runsc"},
}
"""Every kind of sandbox, as arguments of `Sandbox`."""
CONTAINED = ("docker", "docker-kernel", "gvisor")
"""Those that are walls."""


VLLM_PYTHON = Path(os.environ.get("GENPRM_VLLM", Path(__file__).parents[1] / ".venv-vllm")) / "bin" / "python"
"""What runs vLLM: ``make test-alone`` sets it up."""


def docker_problem() -> str | None:
    """Why there is no Docker engine here, or None."""
    try:
        connect_engine().close()
    except SandboxUnavailableError as error:
        return str(error)
    return None


def gvisor_problem() -> str | None:
    """Why the Docker engine cannot run gVisor, or None."""
    if problem := docker_problem():
        return problem
    client = connect_engine()
    try:
        return None if "runsc" in client.info().get("Runtimes", {}) else "the Docker engine has no runtime runsc"
    finally:
        client.close()


def browser_problem() -> str | None:
    """Why there is no browser here, or None."""
    return None if shutil.which("chromium") else "there is no Chromium: apt-get install chromium"


def vllm_problem() -> str | None:
    """Why there is no vLLM here, or None."""
    return None if VLLM_PYTHON.exists() else f"there is no vLLM at {VLLM_PYTHON}"


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.option.collectonly:
        return
    if any(item.get_closest_marker("docker") for item in session.items) and not docker_problem():
        build_missing_images()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # Two kinds of tests compute all the time: each kind is run by one process, from the beginning on.
        for marker in ("model", "gvisor"):
            if item.get_closest_marker(marker) and not item.get_closest_marker("xdist_group"):
                item.add_marker(pytest.mark.xdist_group(marker))
    if os.environ.get("CI"):
        return
    kinds = (
        (("docker", "compose"), docker_problem),
        (("gvisor",), gvisor_problem),
        (("vllm",), vllm_problem),
        (("browser",), browser_problem),
    )
    for markers, problem_of in kinds:
        needing = [item for item in items if any(item.get_closest_marker(marker) for marker in markers)]
        if needing and (problem := problem_of()):
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


def kinds(*names: str) -> list[Any]:
    """Parameters for the fixture `kind`, with the markers that each needs."""
    marks = {
        "docker": [pytest.mark.docker],
        "docker-kernel": [pytest.mark.docker],
        "docker-kernel-libraries": [pytest.mark.docker],
        "gvisor": [pytest.mark.docker, pytest.mark.gvisor],
    }
    return [pytest.param(name, marks=marks.get(name, [])) for name in names]


needs_libraries = pytest.mark.parametrize(
    "kind", kinds("local", "unix", "docker", "docker-kernel-libraries", "gvisor"), indirect=True
)
"""For a test of every kind whose code imports numpy and the like."""


@pytest.fixture(scope="session", params=kinds("local", "unix", "docker", "docker-kernel", "gvisor"))
def kind(request: pytest.FixtureRequest) -> str:
    """The name of each kind of sandbox in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def make_sandbox(kind: str, request: pytest.FixtureRequest) -> Callable[..., Sandbox]:
    """Makes another sandbox of this kind, with further arguments."""
    arguments = dict(KINDS[kind])
    if kind == "unix":
        arguments["backend"] = f"unix:{request.getfixturevalue('found_servers')}"

    def make(limits: Limits = LIMITS, **further: Any) -> Sandbox:
        return Sandbox(limits=limits, **{**arguments, **further})

    return make


@pytest.fixture(scope="session")
async def sandbox(make_sandbox: Callable[..., Sandbox]) -> AsyncIterator[Sandbox]:
    """One running sandbox per kind, shared by all tests: sessions must not see each other anyway."""
    async with asyncio.timeout(300):
        box = make_sandbox()
        await box.start()
    yield box
    await box.close()


@pytest.fixture(scope="session")
async def local_sandbox() -> AsyncIterator[Sandbox]:
    """A local sandbox, for tests that are not about isolation."""
    async with Sandbox("local", LIMITS) as box:
        yield box
