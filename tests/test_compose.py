"""The compose stack with the real engine: server, viewer, jobs, a sandbox that is killed; nothing left behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PROJECT = "genprm-test"
PORT = 18000

pytestmark = [pytest.mark.compose, pytest.mark.alone, pytest.mark.timeout(2400)]


def compose(*arguments: object, timeout: float, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*_command(), *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=timeout,
        env=_environment() | environment,
    )  # fmt: skip


def _command() -> list[str]:
    command = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
    return [*command, "--project-name", PROJECT]


def _environment() -> dict[str, str]:
    return {**os.environ, "DOCKER_BUILDKIT": "0", "COMPOSE_DOCKER_CLI_BUILD": "0", "GENPRM_PORT": str(PORT)}


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


@pytest.fixture(scope="module")
def stack() -> Iterator[str]:
    """The stack with two sandboxes, and its address."""
    try:
        up = compose("up", "--build", "--detach", "--scale", "sandbox=2", timeout=2000)
        assert up.returncode == 0, up.stdout[-4000:] + up.stderr[-4000:]
        url = f"http://127.0.0.1:{PORT}"
        deadline = time.monotonic() + 300
        while not _is_up(url):
            assert time.monotonic() < deadline, compose("logs", timeout=60).stdout[-4000:]
            time.sleep(1)
        yield url
    finally:
        down = compose("down", "--volumes", timeout=120)
    assert down.returncode == 0, down.stderr
    assert left_over() == ""


def _is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def test_a_verification_by_http_as_it_is_written(stack: str):
    row = {"problem": "Ann has 6 pens and buys 7 more. How many has she?", "steps": ["6 + 7 = 13. She has 13 pens."]}
    names: list[str] = []
    with httpx.stream("POST", f"{stack}/v1/verify", json={**row, "stream": True}, timeout=240) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            if line.startswith("event: "):
                names.append(line.removeprefix("event: "))
            elif line.startswith("data: ") and names[-1] == "result":
                found = json.loads(line.removeprefix("data: "))
    assert names[0] == "begun"
    assert names[-1] == "result"
    assert "segment" in names
    assert (found["unscored"], found["usage"]["code_runs"] > 0) == (0, True)
    assert "<h1>Verify a solution</h1>" in httpx.get(stack).text
    assert httpx.get(f"{stack}/health", headers={"host": "evil.example"}).status_code == 421


def test_a_job_whose_sandbox_is_killed_ends_complete(stack: str):
    problems = "/opt/genprm/genprm/demo/problems.jsonl"
    job = [
        *_command(), "run", "--rm", "--no-deps", "-T", "api", "verify", problems, "--sandbox", "unix:/ipc",
        "--limit", "4", "--step-tokens", "320", "--analysis-tokens", "160", "-o", "/runs/verified.jsonl",
    ]  # fmt: skip
    process = subprocess.Popen(
        job, cwd=ROOT, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    time.sleep(25)
    victim = docker("ps", "-q", "--filter", f"name={PROJECT}.sandbox").decode().split()[0]
    docker("kill", victim)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    [api] = docker("ps", "-q", "--filter", f"name={PROJECT}.api").decode().split()
    with tarfile.open(fileobj=BytesIO(docker("cp", f"{api}:/runs/verified.jsonl", "-"))) as archive:
        rows = [json.loads(line) for line in archive.extractfile("verified.jsonl")]
    assert len(rows) == 4
    assert all(row["unscored"] == 0 for row in rows)
    assert sum(row["usage"]["code_runs"] for row in rows) > 3


def test_a_labelling_job(stack: str, tmp_path: Path):
    rows = [{"id": f"p{n}", "problem": f"What is {n} + 1?", "answer": f"{n + 1}"} for n in range(20)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    job = ("run", "--rm", "--no-deps", "-T", "-v", f"{tmp_path}:/data:ro", "api", "label", "/data/problems.jsonl")
    done = compose(*job, "-o", "/runs/labelled", "--policy", "simulated", timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Labels by" in done.stdout
    job = ("run", "--rm", "--no-deps", "-T", "-v", f"{tmp_path}:/data", "api", "label", "/data/problems.jsonl")
    refused = compose(*job, "-o", "/data/labelled", "--policy", "simulated", timeout=300)
    assert (refused.returncode, "genprm: /data/labelled: Permission denied" in refused.stderr) == (2, True)


def test_the_stack_is_hardened():
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert "docker.sock" not in json.dumps(service), name
        assert not service.get("privileged"), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert service["restart"] == "unless-stopped", name
        assert "build" in service or re.fullmatch(r"[\w/-]+:v?\d[\d.]+", service["image"]), f"{name}: not pinned"
        assert name == "vllm" or service["read_only"] is True, name
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
