# ruff: noqa: E501 - a cell is easier to read on one line
"""Hostile cells, on every backend. Each asserts the promised status, a bound on wall time, and that the next works.

Bounds are generous: they tell a hang from an answer, on a busy machine too.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass

import pytest

from sandbox import RunStatus, Sandbox

OK, ERROR, TIMEOUT = RunStatus.OK, RunStatus.ERROR, RunStatus.TIMEOUT
MEMORY, FLOOD, DIED = RunStatus.MEMORY, RunStatus.OUTPUT_LIMIT, RunStatus.DIED


@dataclass(frozen=True)
class Attack:
    """A cell and what must come of it."""

    name: str
    code: str
    expected: tuple[RunStatus, ...]
    timeout: float = 1.5
    bound: float = 12.0
    lost: bool | None = None
    """Whether the session's state must be lost (True), kept (False), or either (None)."""


ATTACKS = [
    Attack("endless loop", "while True: pass", (TIMEOUT,), lost=False),
    Attack(
        "ignored SIGINT", "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass", (TIMEOUT,), lost=True
    ),
    Attack("swallowed KeyboardInterrupt", "while True:\n try:\n  while True: pass\n except BaseException: pass", (TIMEOUT,)),
    Attack("uninterruptible C loop", "sum(range(10 ** 12))", (TIMEOUT,)),
    Attack("catastrophic regex", "import re\nre.match('(a+)+b', 'a' * 64)", (TIMEOUT,)),
    Attack("blocked signals", "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass", (TIMEOUT,)),
    Attack("fork bomb", "import os\nwhile True: os.fork()", (ERROR, DIED, TIMEOUT, MEMORY)),
    Attack("fork bomb that survives errors", "import os\nwhile True:\n try: os.fork()\n except OSError: pass", (TIMEOUT, DIED, MEMORY)),
    Attack("thread bomb", "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(60,)).start()", (ERROR, DIED, MEMORY)),
    Attack("memory bomb", "x = bytearray(1 << 31)", (MEMORY,), lost=False),
    Attack("slow memory bomb", "x = []\nwhile True: x.append(bytearray(1 << 20))", (MEMORY,), timeout=5),
    Attack("memory through children", "import os, time\nfor _ in range(6):\n if os.fork() == 0:\n  x = bytearray(100 << 20)\n  time.sleep(60)\ntime.sleep(60)", (MEMORY,), timeout=5, lost=True),
    Attack("deep recursion", "import sys\nsys.setrecursionlimit(10 ** 8)\ndef f(): f()\nf()", (MEMORY, DIED), timeout=10, bound=20),
    Attack("recursion within limits", "def f(): f()\nf()", (ERROR,), lost=False),
    Attack("endless output", "while True: print('x' * 100)", (FLOOD,), lost=False),
    Attack("endless stderr", "import sys\nwhile True: sys.stderr.write('x' * 100)", (FLOOD,), lost=False),
    Attack("one 100 MB line", "print('x' * (100 << 20))", (FLOOD,), lost=False),
    Attack("300k tiny flushed writes", "for _ in range(300_000): print('x', end='', flush=True)", (FLOOD,), timeout=10, lost=False),
    Attack("output limit swallowed", "while True:\n try: print('x' * 1000)\n except BaseException: pass", (TIMEOUT,)),
    Attack("huge repr", "'x' * (40 << 20)", (OK,), lost=False),
    Attack("endless repr", "class A:\n def __repr__(self):\n  while True: pass\nA()", (TIMEOUT,)),
    Attack("huge exception text", "raise ValueError('x' * (50 << 20))", (ERROR,), lost=False),
    Attack("exception whose text raises", "class E(Exception):\n def __str__(self): raise MemoryError\nraise E", (ERROR,), lost=False),
    Attack("lone surrogate", "print('\\ud800')", (OK,), lost=False),
    Attack("exception with a lone surrogate", "raise ValueError('\\ud800')", (ERROR,), lost=False),
    Attack("NUL bytes", "print('a\\0b')", (OK,), lost=False),
    Attack("os._exit", "import os\nos._exit(0)", (DIED,), lost=True),
    Attack("killing itself", "import os\nos.kill(os.getpid(), 9)", (DIED,), lost=True),
    Attack("stopping itself", "import os\nos.kill(os.getpid(), 19)", (TIMEOUT,), lost=True),
    Attack("segfault", "import ctypes\nctypes.string_at(0)", (DIED,), lost=True),
    Attack("abort", "import os\nos.abort()", (DIED,), lost=True),
    Attack("closed stdout", "import sys\nsys.stdout.close()\nsys.stderr.close()\nprint('still')", (OK,), lost=False),
    Attack("replaced stdout", "import sys\nsys.stdout = None\nsys.__stdout__ = None", (OK,), lost=False),
    Attack("closed descriptors", "import os\nos.closerange(0, 256)", (DIED, TIMEOUT, ERROR), lost=None),
    Attack("raw bytes to descriptor 1", "import os\nos.write(1, b'\\xff' * 1000)", (OK,), lost=False),
    Attack("making the server its tracer", "import ctypes, os, signal, time\nctypes.CDLL(None).ptrace(0, 0, 0, 0)\nos.kill(os.getpid(), signal.SIGUSR1)\ntime.sleep(60)", (DIED,), lost=True),
    Attack("a child that traces the kernel", "import ctypes, os, time\nlibc = ctypes.CDLL(None)\np = os.getpid()\nif os.fork() == 0:\n libc.ptrace(0x4206, p, 0, 0)\n time.sleep(60)\ntime.sleep(0.5)\nos._exit(1)", (DIED,), lost=True),
    Attack("memory in anonymous files", "import os\nos.memfd_create('m')", (ERROR,), lost=False),
    Attack("memory under a name that is no text", "import ctypes, os, time\nctypes.CDLL(None).prctl(15, b'\\xff', 0, 0, 0)\nfor _ in range(6):\n if os.fork() == 0:\n  x = bytearray(100 << 20)\n  time.sleep(60)\ntime.sleep(60)", (MEMORY,), timeout=5, lost=True),
    Attack("import that never ends", "import sys\nsys.modules['x'] = None\nimport time\ntime.sleep(3600)", (TIMEOUT,), lost=False),
    Attack("atexit hook", "import atexit\natexit.register(lambda: __import__('time').sleep(60))", (OK,), lost=False),
    Attack("hostile trace function", "import sys\ndef t(*a):\n while True: pass\nsys.settrace(t)\ndef f(): pass\nf()", (TIMEOUT,)),
    Attack("no more memory for the kernel itself", "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1, 1))\nx = [0] * 10 ** 6", (MEMORY, DIED, ERROR)),
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_attack(sandbox: Sandbox, attack: Attack):
    async with await sandbox.session() as session:
        started = time.monotonic()
        result = await session.run(attack.code, attack.timeout)
        took = time.monotonic() - started
        assert result.status in attack.expected, result
        assert took < attack.timeout + attack.bound
        assert len(result.stdout) + len(result.stderr) <= 2 * sandbox.limits.output_bytes
        assert result.state_lost is (not session.alive)
        if attack.lost is not None:
            assert result.state_lost is attack.lost, result
        if session.alive:
            assert (await session.run("print('same session')", 10)).stdout == "same session\n"
    assert time.monotonic() - started < attack.timeout + attack.bound + 10
    await _next_session_works(sandbox)


async def _next_session_works(sandbox: Sandbox) -> None:
    async with await sandbox.session() as session:
        assert (await session.run("print(6 * 7)", 10)).stdout == "42\n"


FORGE = """
import gc, json
kernel = next(o for o in gc.get_objects() if type(o).__name__ == "Kernel" and hasattr(o, "_wire"))
def send(kind, content, channel="iopub", route=None):
    kernel._wire.send(kernel._sockets[channel], kind, content, kernel._parent, route=route)
"""


@pytest.mark.parametrize(
    ("name", "code", "expected"),
    [
        ("forged idle does not end the cell", "send('status', {'execution_state': 'idle'})\nimport time\ntime.sleep(0.6)\nprint('end')", (OK,)),
        ("forged flood of streams", "while True: send('stream', {'name': 'stdout', 'text': 'x' * 60000})", (FLOOD,)),
        ("stream of a wrong type", "send('stream', {'name': 'stdout', 'text': {'a': []}})\nimport time\ntime.sleep(0.3)", (OK, DIED)),
        ("stream of a wrong name", "send('stream', {'name': 'shell', 'text': 'x'})\nimport time\ntime.sleep(3)", (DIED,)),
        ("message without content", "send('stream', None)\nimport time\ntime.sleep(3)", (DIED,)),
        ("lone surrogate", "send('stream', {'name': 'stdout', 'text': '\\ud800'})", (OK,)),
        ("lone surrogate in an error", "kernel._error = lambda e: {'status': 'error', 'ename': '\\ud800', 'evalue': '\\ud800', 'traceback': ['\\ud800']}\n1 / 0", (ERROR,)),
        ("one 30 MB frame", "kernel._sockets['iopub'].send(bytes(30 << 20))\nimport time\ntime.sleep(3)", (TIMEOUT, DIED)),
        ("unknown message type", "send('nonsense', {'x': 1})", (OK,)),
        ("message deeper than any parser", "kernel._sockets['iopub'].send_multipart([b'stream', b'<IDS|MSG>', b'sig', b'['*10**6, b'{}', b'{}', b'{}'])\nimport time\ntime.sleep(3)", (DIED,)),
        ("frames that are no message", "kernel._sockets['iopub'].send_multipart([b'x'])\nimport time\ntime.sleep(3)", (DIED,)),
        ("wrong signature", "kernel._wire.__init__(b'other')\nsend('stream', {'name': 'stdout', 'text': 'x'})\nimport time\ntime.sleep(3)", (DIED,)),
        ("sockets closed from inside", "kernel._context.destroy(linger=0)", (TIMEOUT, DIED)),
    ],
    ids=lambda value: value if isinstance(value, str) and "\n" not in value and "(" not in value else None,
)  # fmt: skip
async def test_forged_messages(sandbox: Sandbox, name: str, code: str, expected: tuple[RunStatus, ...]):
    started = time.monotonic()
    async with await sandbox.session() as session:
        result = await session.run(FORGE + code, 4)
        assert result.status in expected, (name, result)
        result.model_dump_json()
        if name.startswith("forged idle"):
            assert result.stdout == "end\n"
            assert result.duration > 0.5
    assert time.monotonic() - started < 20
    await _next_session_works(sandbox)


async def test_forged_reply_cannot_outlive_the_session(sandbox: Sandbox):
    """A guest that forges its own end fools itself only: the process is gone when the session is closed."""
    code = FORGE + (
        "send('execute_reply', {'status': 'ok'}, 'shell', [b'nobody'])\n"
        "while True: send('status', {'execution_state': 'idle'})"
    )
    async with await sandbox.session() as session:
        result = await session.run(code, 1.0)
        assert result.status in (TIMEOUT, DIED)
    await _next_session_works(sandbox)


CHILD = """
import os, subprocess, sys, time
marker = {marker!r}
child = subprocess.Popen(["sleep", marker], start_new_session=True, stdout=-3, stderr=-3)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", marker])
    os._exit(0)
time.sleep(0.3)
print("left behind")
"""


def _processes_with(argument: str) -> list[str]:
    found = []
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    if argument.encode() in file.read().split(b"\0"):
                        found.append(pid)
            except OSError:
                continue
    return found


@pytest.mark.parametrize(
    "ending", ["", "\nos._exit(1)", "\nwhile True:\n try: time.sleep(60)\n except BaseException: pass"]
)
async def test_children_in_sessions_of_their_own_are_killed(sandbox: Sandbox, ending: str):
    marker = f"98765.{time.monotonic_ns()}"
    async with await sandbox.session() as session:
        await session.run(CHILD.format(marker=marker) + ending, 2)
    deadline = time.monotonic() + 5
    while _processes_with(marker) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    assert _processes_with(marker) == []


async def test_host_secret_in_the_environment_is_not_visible(sandbox: Sandbox):
    os.environ["GENPRM_TEST_SECRET"] = "hunter2"
    # Without a container the guest can read the environment of every process of its user: only its own is clean.
    where = "/proc/[0-9]*/environ" if sandbox.backend == "docker" else "/proc/self/environ"
    code = (
        "import glob, os\n"
        "found = 'GENPRM_TEST_SECRET' in os.environ\n"
        f"for path in glob.glob({where!r}):\n"
        "    try: found |= b'hunter2' in open(path, 'rb').read()\n"
        "    except PermissionError: pass\n"
        "print(found)"
    )
    async with await sandbox.session() as session:
        assert (await session.run(code)).stdout == "False\n"


@pytest.mark.parametrize("path", ["/tmp", "/dev/shm"])
async def test_filling_a_writable_directory(sandbox: Sandbox, path: str):
    if sandbox.backend != "docker":
        pytest.skip("the local backend has no disk limit beyond the size of one file")
    code = (
        "import os\n"
        "total, n = 0, 0\n"
        "try:\n"
        "    while total < 1 << 30:\n"
        f"        with open('{path}/fill-%d' % n, 'wb') as f: total += f.write(bytes(1 << 20))\n"
        "        n += 1\n"
        "except OSError as e: print(e.strerror)\n"
        "print(total >> 20)"
    )
    async with await sandbox.session() as session:
        result = await session.run(code, 10)
        reason, size = result.stdout.split("\n")[:2]
        assert reason == "No space left on device"
        assert int(size) <= sandbox.limits.disk_mib
    async with await sandbox.session() as session:
        result = await session.run(
            f"open('{path}/mine', 'wb').write(bytes(8 << 20))\nimport os\nprint(os.listdir('{path}'))"
        )
        assert "fill-0" not in result.stdout
        assert result.status is OK, result


async def test_many_inodes(sandbox: Sandbox):
    if sandbox.backend != "docker":
        pytest.skip("the local backend has no inode limit")
    code = "import os\ntry:\n  for i in range(10 ** 6): os.mkdir(f'd{i}')\nexcept OSError as e: print(e.strerror)"
    async with await sandbox.session() as session:
        assert "No space left on device" in (await session.run(code, 20)).stdout
    await _next_session_works(sandbox)


async def test_file_size_limit(sandbox: Sandbox):
    code = f"f = open('big', 'wb')\nfor _ in range(64): f.write(bytes({sandbox.limits.file_mib} << 16)); f.flush()"
    async with await sandbox.session() as session:
        result = await session.run(code, 10)
        assert (result.status, result.error.name) == (ERROR, "OSError")


@pytest.mark.docker
@pytest.mark.parametrize("backend", ["docker"], indirect=True)
class TestWalls:
    """What only the container promises."""

    async def test_no_route_out(self, sandbox: Sandbox):
        code = (
            "import socket\n"
            "for address in ['192.0.2.1', '169.254.169.254']:\n"
            "    try: socket.create_connection((address, 80), timeout=2); print('connected')\n"
            "    except OSError as e: print(e.strerror)\n"
            "try: socket.getaddrinfo('example.com', 80); print('resolved')\n"
            "except OSError: print('no name')"
        )
        async with await sandbox.session() as session:
            lines = (await session.run(code, 8)).stdout.split("\n")
        assert lines[:3] == ["Network is unreachable", "Network is unreachable", "no name"]

    async def test_another_sessions_memory_and_files(self, sandbox: Sandbox):
        async with await sandbox.session() as victim, await sandbox.session() as spy:
            said = await victim.run(
                "secret = 'hunter2'\nopen('s.txt', 'w').write(secret)\nimport os\nprint(os.getpid(), os.getcwd())"
            )
            pid, home = said.stdout.split()
            for code in (
                f"open('/proc/{pid}/mem', 'rb').read(1)",
                f"open('/proc/{pid}/environ').read()",
                f"open('{home}/s.txt').read()",
                f"import os\nos.listdir('{home}')",
                f"import os\nos.listdir('/proc/{pid}/fd')",
                f"import os\nos.kill({pid}, 9)",
                "import os\nos.kill(1, 9)",
                "import os\nos.setuid(0)",
                "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
                f"assert libc.ptrace(16, {pid}, 0, 0) == 0, os.strerror(ctypes.get_errno())",
            ):
                result = await spy.run(code)
                assert result.status is ERROR, (code, result)
            assert (await victim.run("print(secret)")).stdout == "hunter2\n"

    async def test_sockets_are_out_of_reach(self, sandbox: Sandbox):
        async with await sandbox.session() as session:
            for code in (
                "import os\nos.listdir('/ipc')",
                "import os\nos.symlink('/etc/passwd', '/ipc/k1-1')",
                "import os\nos.mkdir('/ipc/evil')",
            ):
                result = await session.run(code)
                assert result.error.name == "PermissionError", result

    async def test_root_is_read_only(self, sandbox: Sandbox):
        async with await sandbox.session() as session:
            for path in (
                "/x",
                "/etc/x",
                "/opt/genprm/x",
                "/usr/lib/python3/x",
                "/var/tmp/x",
                "/dev/x",
                "/dev/mqueue/x",
            ):
                result = await session.run(f"open('{path}', 'w')")
                assert result.status is ERROR, (path, result)

    async def test_no_privileges_can_be_had(self, sandbox: Sandbox):
        code = (
            "import ctypes, os\n"
            "libc = ctypes.CDLL(None, use_errno=True)\n"
            "print([libc.unshare(0x10000000), libc.mount(b'x', b'/tmp', b'tmpfs', 0, 0), libc.setns(3, 0)])"
        )
        async with await sandbox.session() as session:
            assert (await session.run(code)).stdout == "[-1, -1, -1]\n"

    async def test_shared_memory_of_system_v_is_off(self, sandbox: Sandbox):
        code = "import ctypes\nlibc = ctypes.CDLL(None)\nprint(libc.shmget(1, 4096, 0o1666), libc.msgget(1, 0o1666))"
        async with await sandbox.session() as session:
            assert (await session.run(code)).stdout == "-1 -1\n"

    async def test_files_are_gone_with_the_session(self, sandbox: Sandbox):
        async with await sandbox.session() as session:
            await session.run(
                "import os\nos.makedirs('/tmp/left/behind')\nopen('/dev/shm/left', 'w')\nos.chmod('/tmp/left', 0)"
            )
        async with await sandbox.session() as session:
            result = await session.run("import os\nprint('left' in os.listdir('/tmp'), os.listdir('/dev/shm'))")
            assert result.stdout == "False []\n"

    async def test_who_stops_its_killer_is_killed_all_the_same(self, sandbox: Sandbox):
        """It sends signals to every process it may reach: never run this without a container around it."""
        assert sandbox.backend == "docker"
        code = (
            "import os, time, ctypes\n"
            "libc, p = ctypes.CDLL(None), os.getpid()\n"
            "assert os.getuid() > 100_000\n"
            "if os.fork() == 0:\n"
            "    os.setsid()\n"
            "    while libc.getppid() == p: pass\n"
            "    end = time.time() + 20\n"
            "    while time.time() < end: libc.kill(-1, 19)\n"
            "time.sleep(0.3)\nos._exit(0)"
        )
        started = time.monotonic()
        async with await sandbox.session() as session:
            assert (await session.run(code, 3)).status is DIED
        assert time.monotonic() - started < 25
        await _next_session_works(sandbox)

    async def test_files_in_a_neighbours_directory_are_gone_too(self, sandbox: Sandbox):
        async with await sandbox.session() as host:
            await host.run("import os\nos.umask(0)\nos.mkdir('/tmp/pub', 0o777)")
            async with await sandbox.session() as visitor:
                await visitor.run("import os\nos.mkdir('/tmp/pub/b', 0o700)\nopen('/tmp/pub/b/f', 'w')")
        async with await sandbox.session() as session:
            assert (await session.run("import os\nprint('pub' in os.listdir('/tmp'))")).stdout == "False\n"

    async def test_files_go_while_others_come_and_go(self, sandbox: Sandbox):
        churn = "import os\nwhile True:\n for i in range(200): open(f'/tmp/c{i}', 'w').close()\n for i in range(200): os.unlink(f'/tmp/c{i}')"
        async with await sandbox.session() as noisy:
            running = asyncio.create_task(noisy.run(churn, 60))
            for number in range(10):
                async with await sandbox.session() as quiet:
                    await quiet.run(f"open('/tmp/left{number}', 'w')")
            async with await sandbox.session() as session:
                found = (
                    await session.run("import os\nprint([n for n in os.listdir('/tmp') if n.startswith('left')])")
                ).stdout
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        assert found == "[]\n"

    async def test_message_queues_are_off(self, sandbox: Sandbox):
        code = "import ctypes, os\nlibc = ctypes.CDLL(None)\nprint(libc.mq_open(b'/q', os.O_RDWR | os.O_CREAT, 0o666, None))"
        async with await sandbox.session() as session:
            assert (await session.run(code)).stdout == "-1\n"


async def test_symlinks_in_the_socket_directory(found_servers):
    """What somebody else puts into the directory of sockets is not followed into a session."""
    os.symlink("/etc", found_servers / "evil")
    (found_servers / "stale").mkdir()
    os.symlink("/nonexistent", found_servers / "stale" / "control")
    try:
        async with Sandbox(f"unix:{found_servers}") as box, await box.session() as session:
            assert (await session.run("1")).result == "1"
    finally:
        (found_servers / "evil").unlink()
        (found_servers / "stale" / "control").unlink()
        (found_servers / "stale").rmdir()
