"""The self-check fails closed."""

from __future__ import annotations

import pytest

from sandbox import Sandbox
from sandbox.check import check_isolation
from tests.conftest import CONTAINED, kinds


@pytest.mark.parametrize("kind", kinds(*CONTAINED), indirect=True)
async def test_every_wall_of_the_container_stands(sandbox: Sandbox):
    broken = {finding.wall for finding in await check_isolation(sandbox) if not finding.holds}
    # gVisor shows no control groups inside: what the engine limits cannot be shown from there.
    unseen = {"container memory limit", "container process limit"} if sandbox.runtime == "runsc" else set()
    assert broken == unseen


async def test_the_local_backend_is_not_called_isolated(local_sandbox: Sandbox):
    broken = {finding.wall for finding in await check_isolation(local_sandbox) if not finding.holds}
    assert {"container's seccomp profile", "read-only root", "own user per kernel", "neighbour's life"} <= broken


@pytest.mark.docker
@pytest.mark.parametrize(
    ("weakness", "wall"),
    [
        ({"network_mode": "bridge"}, "no network"),
        ({"read_only": False}, "read-only root"),
        ({"security_opt": ["no-new-privileges:true", "seccomp=unconfined"]}, "container's seccomp profile"),
        ({"mem_limit": None, "memswap_limit": None}, "container memory limit"),
        ({"pids_limit": -1}, "container process limit"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_a_missing_wall_is_found(monkeypatch: pytest.MonkeyPatch, weakness: dict[str, object], wall: str):
    from sandbox import docker_launcher

    whole = docker_launcher.container_options
    monkeypatch.setattr(docker_launcher, "container_options", lambda *given: {**whole(*given), **weakness})
    async with Sandbox("docker") as box:
        broken = {finding.wall for finding in await check_isolation(box) if not finding.holds}
    assert wall in broken
