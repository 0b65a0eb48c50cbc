"""The compose stack with the real engine: the demo's rows come out, and nothing is left after ``down``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PROJECT = "genprm-test"

pytestmark = [pytest.mark.compose, pytest.mark.alone, pytest.mark.timeout(2400)]


def compose(*arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
    command = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
    return subprocess.run(
        [*command, "--project-name", PROJECT, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=timeout,
        env={**os.environ, "DOCKER_BUILDKIT": "0", "COMPOSE_DOCKER_CLI_BUILD": "0",
             "DEMO_ROWS": "4"},
    )  # fmt: skip


def docker(*arguments: str) -> bytes:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, timeout=120).stdout


def left_over() -> str:
    label = f"label=com.docker.compose.project={PROJECT}"
    kinds = (("ps", "-aq"), ("volume", "ls", "-q"), ("network", "ls", "-q"))
    return "".join(docker(*kind, "--filter", label).decode() for kind in kinds)


@pytest.fixture(scope="module", autouse=True)
def wheel() -> None:
    """The torch build that this machine installs goes into the build context, as `make wheels` does it."""
    subprocess.run(["make", "wheels"], cwd=ROOT, check=True, timeout=600)


def test_the_demo_in_two_containers():
    try:
        up = compose("up", "--build", "--abort-on-container-exit", "--exit-code-from", "demo", timeout=2000)
        assert up.returncode == 0, up.stdout[-4000:] + up.stderr[-4000:]
        [demo] = docker("ps", "-aq", "--filter", f"name={PROJECT}.demo").decode().split()
        with tarfile.open(fileobj=BytesIO(docker("cp", f"{demo}:/out/results.jsonl", "-"))) as archive:
            rows = [json.loads(line) for line in archive.extractfile("results.jsonl")]
        assert len(rows) == 4
        assert all(row["unscored"] == 0 for row in rows)
        assert sum(row["usage"]["code_runs"] for row in rows) > 3
        assert "4 solutions" in up.stdout
    finally:
        down = compose("down", "--volumes", timeout=120)
    assert down.returncode == 0, down.stderr
    assert left_over() == ""


def test_the_stack_is_hardened():
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert "docker.sock" not in json.dumps(service), name
        assert not service.get("privileged"), name
        assert "ports" not in service, name
    assert services["sandbox"]["network_mode"] == "none"


def test_compose_and_launcher_agree():
    """The two ways to start a sandbox container keep the same walls."""
    from sandbox import Limits
    from sandbox.docker_launcher import PROFILE, container_options

    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["sandbox"]
    options = container_options(Limits(), 1000)
    assert service["cap_add"] == options["cap_add"]
    assert service["pids_limit"] == options["pids_limit"]
    assert {name: str(value) for name, value in service["sysctls"].items()} == options["sysctls"]
    assert dict(mount.split(":", 1) for mount in service["tmpfs"]) == options["tmpfs"]
    assert service["user"] == options["user"]
    assert f"seccomp:{PROFILE.relative_to(ROOT)}" in service["security_opt"]
