"""Life and death: what is killed leaves nothing behind, and what is lost is said to be lost."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from sandbox import (
    Limits,
    RunStatus,
    Sandbox,
    SandboxLostError,
    SandboxTimeoutError,
    SandboxUnavailableError,
    Session,
    SessionClosedError,
)
from sandbox.daemon import in_daemon_thread
from sandbox.docker_launcher import LABEL, connect_engine, reap
from sandbox.guest.channels import PORTS
from sandbox.guest.starting import announce_to_starter
from sandbox.host import FolderHost
from sandbox.image import VERSION_LABEL, image_tag
from sandbox.launch import start_server
from sandbox.owner import OWNER_FILE, identity, is_gone, make_directory, reap_directories
from sandbox.server import KernelServer
from tests.conftest import LIMITS

pytestmark = pytest.mark.xdist_group("lifecycle")

STARTED = pytest.mark.parametrize("own_backend", ["local", pytest.param("docker", marks=pytest.mark.docker)])


def containers(pid: int | None = None) -> list[str]:
    """Those that this process, or another, has made: others make theirs at the same time."""
    client = connect_engine()
    try:
        found = client.containers.list(all=True, filters={"label": LABEL}, ignore_removed=True)
        return [each.id for each in found if made_by(each.labels[LABEL], pid)]
    finally:
        client.close()


def directories(pid: int | None = None) -> set[Path]:
    """The same of directories."""
    found = set()
    for mark in Path("/tmp").glob(f"genprm-*/{OWNER_FILE}"):
        try:
            if made_by(mark.read_text(), pid):
                found.add(mark.parent)
        except OSError:
            continue  # somebody else's, which is being removed at this moment
    return found


def made_by(owner: str, pid: int | None) -> bool:
    return owner.split(":")[3:4] == [str(pid or os.getpid())]


def eventually(check: Callable[[], bool], seconds: float = 15) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(0.1)
    return False


def kernel_servers(folder: Path) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if str(folder).encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                    found.append(int(name))
            except OSError:
                continue
    return found


@STARTED
async def test_closing_leaves_nothing(own_backend: str):
    before, others = directories(), containers() if own_backend == "docker" else []
    async with Sandbox(own_backend) as box:
        await box.session()  # not closed by us
        [mine] = directories() - before
    assert not mine.exists()
    assert eventually(lambda: kernel_servers(mine) == [])
    if own_backend == "docker":
        assert eventually(lambda: containers() == others)


CLIENT = """
import asyncio, sys
from sandbox import Sandbox
async def main():
    box = Sandbox(sys.argv[1])
    session = await box.session()
    print("running", flush=True)
    await session.run("import subprocess\\nsubprocess.Popen(['sleep', '" + sys.argv[2] + "'], start_new_session=True)")
    await session.run("while True: pass", timeout=600)
asyncio.run(main())
"""


@STARTED
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_killed_client_leaves_nothing(own_backend: str, number: signal.Signals):
    sleep = f"4321.{time.monotonic_ns()}"
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, own_backend, sleep], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert client.stdout.readline() == b"running\n"
    [mine] = directories(client.pid)
    owner = (mine / OWNER_FILE).read_text()
    client.send_signal(number)
    try:
        client.wait(20)
    finally:
        client.kill()  # its kernel computes for as long as it lives
        client.stdout.close()
    assert eventually(lambda: kernel_servers(mine) == [])
    assert eventually(lambda: not any(sleep.encode() in line for line in _command_lines()))
    if own_backend == "docker":
        assert eventually(lambda: containers(client.pid) == [])
    assert is_gone(owner)
    reap_directories()  # what the next start does first, be it another's
    assert eventually(lambda: not mine.exists())


def _command_lines() -> list[bytes]:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes())
        except OSError:
            continue
    return lines


@STARTED
async def test_killed_server_is_an_exception_and_the_next_session_works(own_backend: str):
    before = directories()
    async with Sandbox(own_backend) as box:
        session = await box.session()
        [mine] = directories() - before
        running = asyncio.create_task(session.run("import time\ntime.sleep(60)", timeout=60))
        await asyncio.sleep(0.3)
        _kill_server(own_backend, mine)
        with pytest.raises(SandboxLostError):
            await asyncio.wait_for(running, 20)
        assert not session.alive
        async with await asyncio.wait_for(box.session(), 60) as another:
            assert (await another.run("print(1)")).stdout == "1\n"


def _kill_server(backend: str, folder: Path) -> None:
    if backend == "local":
        for pid in kernel_servers(folder):
            os.kill(pid, signal.SIGKILL)
        return
    client = connect_engine()
    for each in client.containers.list(filters={"label": LABEL}, ignore_removed=True):
        if any(mount["Source"].startswith(str(folder)) for mount in each.attrs["Mounts"]):
            each.kill()
    client.close()


def test_a_restarted_server_removes_what_its_predecessor_left():
    """As a service whose directory of sockets outlives it."""
    with tempfile.TemporaryDirectory(prefix="genprm-test-", dir="/tmp") as folder:
        command = [sys.executable, "-m", "sandbox.guest", "--directory", folder]

        def start_and_kill(before: set[Path]) -> set[Path]:
            server = subprocess.Popen(command, start_new_session=True)
            assert eventually(lambda: set(Path(folder).glob("*/control")) - before)
            left = set(Path(folder).glob("*/control"))
            server.kill()
            server.wait(10)
            return left

        first = start_and_kill(set())
        second = start_and_kill(first)
        assert len(first) == len(second) == 1
        assert not first & second


@pytest.mark.docker
def test_containers_of_dead_owners_are_reaped():
    client = connect_engine()
    try:
        machine, boot, namespace, _, _ = identity().split(":")
        labels = {LABEL: f"{machine}:{boot}:{namespace}:999999999:1"}
        dead = client.containers.create("python:3.11-slim", ["sleep", "60"], labels=labels)
        reap(client)  # or another test's sandbox, as it starts
        assert eventually(lambda: not client.containers.list(all=True, ignore_removed=True, filters={"id": dead.id}))
    finally:
        client.close()


def test_owner_is_alive_until_it_ends():
    assert not is_gone(identity())
    assert not is_gone("somebody else's label")
    machine, boot, namespace, pid, started = identity().split(":")
    assert is_gone(f"{machine}:{boot}:{namespace}:{pid}:{int(started) - 1}")
    assert is_gone(f"{machine}:another-boot:{namespace}:{pid}:{started}")
    assert not is_gone(f"{machine}:{boot}:1:{pid}:1"), "another pid namespace may hold a living owner"
    assert not is_gone(f"another:another-boot:{namespace}:{pid}:1"), "nor is another machine's engine ours alone"


def test_reaping_spares_the_living():
    mine = make_directory()
    reap_directories()
    assert mine.exists()
    shutil.rmtree(mine)


@STARTED
@pytest.mark.alone
def test_many_sessions_leak_nothing(own_backend: str):
    """The short version of ``benchmarks/soak.py``."""
    script = Path(__file__).parents[2] / "benchmarks" / "soak.py"
    command = [sys.executable, str(script), "--backend", own_backend, "--sessions", "300"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["leaked"] == {}
    assert said["statuses"]["ok"] == 276  # those that left children or files among them


async def test_a_kernel_that_came_as_nobody_waited_any_more(local_sandbox: Sandbox):
    """The answer is there, and whoever asked is cancelled before it goes on."""
    [server] = local_sandbox.servers
    said: list[dict[str, Any]] = []

    class Line:
        def write(self, data: bytes) -> None:
            said.append(json.loads(data))

    asked = type(server)(server.host)
    asked._transport = Line()
    task = asyncio.create_task(asked.request("spawn"))
    await asyncio.sleep(0)
    asked.data_received(json.dumps({"id": said[0]["id"], "ok": True, "kernel": "k7", "key": "x"}).encode() + b"\n")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [(each["op"], each.get("kernel")) for each in said] == [("spawn", None), ("kill", "k7")]


@STARTED
async def test_a_start_that_nobody_waits_for_leaves_no_kernel(own_backend: str):
    async with Sandbox(own_backend, ready=0, sessions=2) as box, await box.session() as session:
        [server] = box._servers
        for delay in (0, 0.001, 0.002, 0.004, 0.008):
            task = asyncio.create_task(box.session())
            await asyncio.sleep(delay)
            task.cancel()
            for outcome in await asyncio.gather(task, return_exceptions=True):
                if isinstance(outcome, Session):
                    await outcome.close()
        folder = server.host._inner.folder if own_backend == "docker" else server.host.folder
        async with asyncio.timeout(20):
            while len([path for path in folder.iterdir() if path.is_socket()]) > len(("control", *PORTS)):
                await asyncio.sleep(0.1)
        assert session.alive
        async with asyncio.timeout(10), await box.session() as another:  # no slot is lost either
            assert (await another.run("1")).result == "1"


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense\n",
        b"[]\n",
        b'{"id": 1}\n',
        b'{"id": 1, "op": "spawn", "limits": {"memory_mib": "x"}}\n',
        b"x" * 100_000,
        b"[" * 60_000 + b"\n",
    ],
)
async def test_a_client_that_talks_nonsense_harms_nobody_else(local_sandbox: Sandbox, line: bytes):
    async with await local_sandbox.session() as session:
        [server] = local_sandbox._servers
        reader, writer = await asyncio.open_unix_connection(server.host.folder / "control")
        writer.write(line)
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        assert (await session.run("1")).result == "1"


async def test_sixty_four_live_kernels(local_sandbox: Sandbox):
    sessions = await asyncio.wait_for(asyncio.gather(*(local_sandbox.session() for _ in range(64))), 60)
    results = await asyncio.gather(*(session.run("import os; os.getpid()") for session in sessions))
    assert len({result.result for result in results}) == 64
    await asyncio.gather(*(session.close() for session in sessions))


@pytest.mark.alone
@STARTED
async def test_one_more_session_where_64_are_busy(own_backend: str):
    async with Sandbox(own_backend, Limits(memory_mib=128), sessions=80) as box:
        sessions = await asyncio.wait_for(asyncio.gather(*(box.session() for _ in range(64))), 60)
        busy = [asyncio.create_task(session.run("while True: pass", 5)) for session in sessions]
        await asyncio.sleep(0.5)
        async with asyncio.timeout(60), await box.session() as another, await another.fork() as branch:
            assert (await another.run("print(1)", 15)).stdout == "1\n"
            assert (await branch.run("print(2)", 15)).stdout == "2\n"
        async with asyncio.timeout(60):
            results = await asyncio.gather(*busy)
        assert {result.status for result in results} == {RunStatus.TIMEOUT}
        await asyncio.gather(*(session.close() for session in sessions))


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("unix:///nonexistent/docker.sock", "no Docker engine answers"),
        ("tcp://127.0.0.1:1", "no Docker engine answers"),
    ],
)
async def test_no_engine_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, host: str, words: str):
    monkeypatch.setenv("DOCKER_HOST", host)
    with pytest.raises(SandboxUnavailableError, match=words):
        await Sandbox("docker").start()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user without rights")
def test_engine_without_rights():
    """As another user, who may not open the engine's socket."""
    listener = socket.socket(socket.AF_UNIX)
    path = Path("/tmp") / f"no-rights-{os.getpid()}.sock"
    listener.bind(str(path))
    path.chmod(0o600)
    # Modules are imported first: the other user cannot read them.
    code = (
        "import os, docker\nfrom sandbox.docker_launcher import connect_engine\n"
        "try: connect_engine()\nexcept Exception: pass\n"
        "os.setuid(65534)\nconnect_engine()"
    )
    environment = {**os.environ, "DOCKER_HOST": f"unix://{path}", "HOME": "/tmp"}
    command = [sys.executable, "-c", code.replace("connect_engine()\nexcept", "docker.from_env(timeout=1)\nexcept")]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    finally:
        listener.close()
        path.unlink()
    assert "no right to talk to the Docker engine" in done.stderr.splitlines()[-1], done.stderr


async def test_directory_without_servers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    with pytest.raises(SandboxUnavailableError, match="no directory of kernel servers"):
        await Sandbox(f"unix:{tmp_path}/missing").start()
    monkeypatch.setattr("sandbox.launch.START_DEADLINE", 0.2)
    with pytest.raises(SandboxUnavailableError, match="no kernel server in"):
        await Sandbox(f"unix:{tmp_path}").start()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backend": "podman"}, "expected docker, local or unix:DIRECTORY"),
        ({"backend": "docker", "isolation": "vm"}, "expected container or kernel"),
        ({"backend": "local", "isolation": "kernel"}, "for the docker backend"),
        ({"backend": "local", "runtime": "runsc"}, "for the docker backend"),
        ({"backend": "unix:/x", "image": "x"}, "for the docker backend"),
        ({"backend": "unix:"}, "unknown sandbox backend"),
        ({"sessions": 0}, "sessions must be at least 1"),
        ({"ready": -1}, "ready at least 0"),
    ],
)
def test_options_that_do_not_go(options: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        Sandbox(**options)


@pytest.mark.parametrize("field", ["timeout", "memory_mib", "processes", "file_mib", "output_bytes", "disk_mib"])
def test_limits_are_positive(field: str):
    for value in (0, -1):
        with pytest.raises(ValueError, match=field):
            Limits(**{field: value})


def test_a_container_has_room_for_a_kernel():
    """Its end at the container's limit would be taken for everybody's."""
    with pytest.raises(ValueError, match="container_memory_mib is 512: expected at least 768"):
        Limits(memory_mib=512, container_memory_mib=512)
    assert Limits(memory_mib=100_000).container_memory_mib > 100_000


@STARTED
@pytest.mark.parametrize("field", ["memory_mib", "container_memory_mib"])
async def test_limits_of_more_than_the_machine_has(own_backend: str, field: str):
    with pytest.raises(SandboxUnavailableError, match=rf"limits.{field} is 99999999 MiB; the machine"):
        await Sandbox(own_backend, Limits(**{field: 99_999_999})).start()


@pytest.mark.docker
async def test_unknown_runtime_is_one_clear_line():
    with pytest.raises(SandboxUnavailableError, match=r"no runtime 'nope'; it has: .*runc"):
        await Sandbox("docker", runtime="nope").start()


@pytest.mark.docker
@pytest.mark.parametrize(
    ("label", "words"),
    [
        (None, "has no kernel server: make it FROM genprm-sandbox:"),
        ("0123456789ab", "of version 0123456789ab"),
    ],
)
async def test_an_image_that_is_not_ours(label: str | None, words: str):
    client = connect_engine()
    try:
        labels = {VERSION_LABEL: label} if label else {}
        dockerfile = io.BytesIO(b"FROM python:3.11-slim\n")
        tag = f"genprm-test-image:{label or 'none'}"
        client.images.build(fileobj=dockerfile, tag=tag, labels=labels, rm=True)
        with pytest.raises(SandboxUnavailableError, match=words):
            await Sandbox("docker", image=tag).start()
        client.images.remove(tag)
    finally:
        client.close()


@pytest.mark.docker
async def test_an_image_that_is_not_there():
    with pytest.raises(SandboxUnavailableError, match="no image 'genprm-nowhere:1'"):
        await Sandbox("docker", image="genprm-nowhere:1").start()


@pytest.mark.docker
async def test_an_image_made_from_ours():
    async with Sandbox("docker", ready=0):
        pass  # ours is built
    client = connect_engine()
    try:
        dockerfile = f"FROM {image_tag()}\nRUN echo 42 > /etc/answer\n"
        client.images.build(fileobj=io.BytesIO(dockerfile.encode()), tag="genprm-test-image:mine", rm=True)
        async with Sandbox("docker", image="genprm-test-image:mine") as box, await box.session() as session:
            assert (await session.run("print(open('/etc/answer').read())")).stdout == "42\n\n"
    finally:
        client.images.remove("genprm-test-image:mine")
        client.close()


async def test_a_server_of_another_version(monkeypatch: pytest.MonkeyPatch, found_servers: Path):
    monkeypatch.setattr("sandbox.server.version", lambda: "another")
    with pytest.raises(SandboxUnavailableError, match=r"is of version \w{12}, this is another: build its image anew"):
        await Sandbox(f"unix:{found_servers}").start()


async def test_a_socket_path_that_is_too_long(tmp_path: Path):
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    with pytest.raises(SandboxUnavailableError, match="longer than 107 bytes"):
        await Sandbox(f"unix:{folder}").start()
    command = [sys.executable, "-m", "sandbox.guest", "--directory", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, "longer than 107 bytes" in done.stderr.splitlines()[-1]) == (2, True)


def test_a_directory_nobody_can_write_to():
    command = [sys.executable, "-m", "sandbox.guest", "--directory", "/proc/self"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, "cannot write to /proc/self" in done.stderr.splitlines()[-1]) == (2, True)


@STARTED
async def test_a_state_directory_nobody_can_write_to(own_backend: str, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> str:
        raise OSError(errno.EROFS, "Read-only file system", "/tmp/genprm-x")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(SandboxUnavailableError, match="Read-only file system"):
        await Sandbox(own_backend).start()


async def test_the_hosts_clock_may_jump(local_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
    """No deadline and no duration is taken from a clock that somebody can set."""
    real = time.time
    async with await local_sandbox.session() as session:
        monkeypatch.setattr(time, "time", lambda: real() + 10**8)
        assert (await session.run("print(1)")).stdout == "1\n"
        monkeypatch.setattr(time, "time", lambda: real() - 10**8)
        result = await session.run("while True: pass", 0.3)
        assert (result.status.value, result.state_lost) == ("timeout", False)
        assert 0.2 < result.duration < 5
    for path in (Path(__file__).parents[2] / "sandbox").rglob("*.py"):
        assert "time.time()" not in path.read_text(), path


async def test_ready_kernels_are_fresh_and_made_anew(local_sandbox: Sandbox):
    async with Sandbox("local", ready=2, sessions=8) as box:
        seen = set()
        for _ in range(6):
            async with await box.session() as session:
                result = await session.run("import os\nprint('x' in globals(), os.getpid())\nx = 1")
                assert result.stdout.startswith("False ")
                seen.add(result.stdout)
        assert len(seen) == 6
        async with asyncio.timeout(10):
            while box.ready < 2:
                assert box.busy == 0  # a kernel that is only being got ready is in nobody's hands
                await asyncio.sleep(0.01)


async def test_a_ready_kernel_that_has_died_is_not_given_out():
    async with Sandbox("local", ready=1) as box:
        async with asyncio.timeout(10):
            while not box.ready:
                await asyncio.sleep(0.01)
        [waiting] = box._ready
        await box.servers[0].request("kill", kernel=waiting.name)
        async with asyncio.timeout(10), await box.session() as session:
            assert session is not waiting
            assert (await session.run("1")).result == "1"


@pytest.mark.docker
async def test_a_container_of_its_own_goes_with_its_session():
    before = set(containers())
    async with Sandbox("docker", isolation="kernel", ready=0) as box:
        first, second = await box.session(), await box.session()
        mine = set(containers()) - before
        assert len(mine) == 2
        branch = await first.fork()
        assert set(containers()) - before == mine
        await first.close()
        assert (await branch.run("1")).result == "1"
        await branch.close()
        assert eventually(lambda: len(set(containers()) - before) == 1)
        assert (await second.run("1")).result == "1"
    assert eventually(lambda: not set(containers()) - before)


@STARTED
async def test_cancelled_starts_leave_nothing(own_backend: str):
    before, others = directories(), set(containers()) if own_backend == "docker" else set()
    for delay in (0.02, 0.1, 0.3, 0.6, 1.0):
        box = Sandbox(own_backend)
        starting = asyncio.create_task(box.start())
        await asyncio.sleep(delay)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await box.close()
    assert directories() == before
    if own_backend == "docker":
        assert eventually(lambda: set(containers()) <= others)


async def test_a_server_that_is_ready_before_the_engine_says_that_it_runs():
    with tempfile.TemporaryDirectory(prefix="genprm-test-", dir="/tmp") as folder:

        async def start() -> None:
            await asyncio.to_thread(announce_to_starter, folder, "s1")
            await asyncio.sleep(0.2)

        found = await asyncio.wait_for(start_server(Path(folder), start, lambda: None), 10)
        assert found == Path(folder) / "s1"
        assert list(Path(folder).iterdir()) == []


async def test_a_closed_sandbox_says_so():
    box = Sandbox("local")
    await box.start()
    await box.close()
    with pytest.raises(SandboxUnavailableError, match="closed"):
        await box.session()


@pytest.mark.docker
@pytest.mark.gvisor
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_client_of_attached_containers_leaves_nothing(number: signal.Signals):
    code = CLIENT.replace("Sandbox(sys.argv[1])", "Sandbox('docker', runtime='runsc', isolation='kernel', ready=2)")
    client = subprocess.Popen(
        [sys.executable, "-c", code, "docker", "4321.5"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert client.stdout.readline() == b"running\n"
    client.send_signal(number)
    client.wait(20)
    client.stdout.close()
    assert eventually(lambda: containers(client.pid) == [], 30)


# A sandbox, or a session, that ends while somebody waits


async def test_who_waits_for_a_session_hears_that_the_sandbox_is_closed():
    box = Sandbox("local", LIMITS, sessions=1, ready=0)
    session = await box.session()
    waiting = [asyncio.create_task(box.session()) for _ in range(3)]
    await asyncio.sleep(0.1)
    await box.close()
    done = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)
    assert [type(each) for each in done] == [SandboxUnavailableError] * 3
    await session.close()
    assert box.busy == 0


async def test_a_session_that_is_closed_says_nothing_of_the_code(local_sandbox: Sandbox):
    session = await local_sandbox.session()
    running = asyncio.create_task(session.run("import time; time.sleep(30)", 60))
    await asyncio.sleep(0.3)
    await session.close()
    with pytest.raises(SessionClosedError, match="was closed while code was running"):
        await asyncio.wait_for(running, 10)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "5"])
async def test_a_timeout_that_is_none_runs_nothing(local_sandbox: Sandbox, timeout: Any):
    async with await local_sandbox.session() as session:
        with pytest.raises(ValueError, match="timeout is"):
            await session.run("ran = 1", timeout)
        assert (await session.run("ran")).error.name == "NameError"


# Servers that somebody else runs


@pytest.fixture
def start_server_in() -> Iterator[Callable[[Path], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(folder: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "sandbox.guest", "--directory", str(folder), "--memory-mib", "256"]
        before = set(folder.glob("*/control"))
        started.append(subprocess.Popen(command, start_new_session=True))
        deadline = time.monotonic() + 60
        while not set(folder.glob("*/control")) - before and time.monotonic() < deadline:
            time.sleep(0.05)
        return started[-1]

    yield start
    for server in started:
        server.send_signal(signal.SIGCONT)
        server.terminate()
        server.wait(20)


async def test_a_server_that_comes_later_is_found(
    monkeypatch: pytest.MonkeyPatch, start_server_in: Callable[[Path], subprocess.Popen[bytes]]
):
    monkeypatch.setattr("sandbox.launch.LOOK_AGAIN", 0)
    with tempfile.TemporaryDirectory(prefix="genprm-test-", dir="/tmp") as folder:
        first, _ = start_server_in(Path(folder)), start_server_in(Path(folder))
        async with Sandbox(f"unix:{folder}", LIMITS, ready=0) as box:
            assert len(box.servers) == 2
            first.terminate()
            first.wait(20)
            await asyncio.sleep(0.2)  # until word of it has come
            async with await box.session():
                assert len(box.servers) == 1
            start_server_in(Path(folder))
            async with await box.session(), await box.session():
                assert sorted(server.kernels for server in box.servers) == [1, 1]
        for server in (Path(folder)).glob("*/control"):
            assert server.is_socket()


async def test_a_server_that_hangs_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, start_server_in: Callable[[Path], subprocess.Popen[bytes]]
):
    with tempfile.TemporaryDirectory(prefix="genprm-test-", dir="/tmp") as folder:
        hung, _ = start_server_in(Path(folder)), start_server_in(Path(folder))
        async with Sandbox(f"unix:{folder}", LIMITS, ready=0) as box:
            hung.send_signal(signal.SIGSTOP)
            for server in box.servers:
                monkeypatch.setattr(server, "request", partial(server.request, deadline=2.0))
            outcomes = []
            async with AsyncExitStack() as open_sessions:
                for _ in range(4):
                    try:
                        session = await open_sessions.enter_async_context(await box.session())
                        outcomes.append((await session.run("6 * 7")).result)
                    except SandboxTimeoutError:
                        outcomes.append("hung")
            assert outcomes.count("hung") == 1
            assert outcomes.count("42") == 3


async def test_all_who_wait_for_a_server_are_told_at_once_that_there_is_none(monkeypatch: pytest.MonkeyPatch):
    looks = 0

    async def launch() -> list[Any]:
        nonlocal looks
        looks += 1
        await asyncio.sleep(0.2)
        raise SandboxUnavailableError("none")

    sandbox = Sandbox("local", LIMITS, ready=0)
    monkeypatch.setattr(sandbox._launcher, "launch", launch)
    told = await asyncio.gather(*(sandbox.session() for _ in range(8)), return_exceptions=True)
    assert [str(error) for error in told] == ["none"] * 8
    assert looks == 1
    with pytest.raises(SandboxUnavailableError, match="none"):
        await sandbox.session()
    waiting = asyncio.create_task(sandbox.session())
    await asyncio.sleep(0.1)
    await sandbox.close()
    with pytest.raises(SandboxUnavailableError, match="is closed"):
        await waiting


async def test_a_cancellation_is_one_where_the_server_is_lost_at_the_same_moment():
    server = KernelServer(FolderHost(Path("/nowhere")))
    server._transport = mock.Mock()
    asked = asyncio.create_task(server.request("hello"))
    await asyncio.sleep(0)
    server.connection_lost(None)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked


async def test_a_kernel_that_is_killed_for_its_neighbours_is_lost_however_late_that_is_known():
    async with Sandbox("local", LIMITS, ready=0) as sandbox, await sandbox.session() as session:
        session._broken = "it closed its sockets"
        session._on_exit({"event": "exit", "reason": "container memory", "signal": 9, "code": 0})
        assert session.lost


def test_a_call_that_hangs_keeps_nobody_who_is_cancelled():
    gate = threading.Event()

    async def hang() -> None:
        async with asyncio.timeout(0.1):
            await in_daemon_thread(gate.wait)

    with pytest.raises(TimeoutError):
        asyncio.run(hang())
    gate.set()
    assert asyncio.run(in_daemon_thread(gate.wait)) is True
    with pytest.raises(ZeroDivisionError):
        asyncio.run(in_daemon_thread(lambda: 1 / 0))
