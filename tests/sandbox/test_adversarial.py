# ruff: noqa: E501 - a cell is easier to read on one line
"""Hostile cells, on every backend. Each asserts the promised status, a bound on wall time, and that the next works.

Bounds are generous: they tell a hang from an answer, on a busy machine too.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from dataclasses import dataclass

import pytest

from sandbox import Limits, RunStatus, Sandbox, SandboxError, Session
from tests.conftest import CONTAINED, kinds

OK, ERROR, TIMEOUT = RunStatus.OK, RunStatus.ERROR, RunStatus.TIMEOUT
MEMORY, FLOOD, DIED = RunStatus.MEMORY, RunStatus.OUTPUT_LIMIT, RunStatus.DIED


@dataclass(frozen=True)
class Attack:
    """A cell and what must come of it."""

    name: str
    code: str
    expected: tuple[RunStatus, ...]
    bound: float = 13.5
    """Seconds in which there must be a result."""
    lost: bool | None = None
    """Whether the session's state must be lost (True), kept (False), or either (None)."""

    @property
    def timeout(self) -> float:
        """Short where it may be what ends the cell, generous where the cell must end before it."""
        return 1.5 if TIMEOUT in self.expected else max(10, self.bound - 10)


every_guest = pytest.mark.parametrize("kind", kinds("local", "docker", "docker-kernel", "gvisor"), indirect=True)
"""All kinds but `unix`, which is `local` reached by another way."""
every_reader = pytest.mark.parametrize("kind", kinds("local", "docker"), indirect=True)
"""For what only the guest's messages do: those who read them are the same behind every wall."""
SYSTEM = re.compile(r"\b(os|ctypes|signal|resource|subprocess|threading)\b|\bopen\(")
"""Code that asks something of the kernel underneath, which is another one in gVisor."""
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
    Attack("thread bomb", "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(60,)).start()", (ERROR, DIED, MEMORY), bound=50),
    Attack("memory bomb", "x = bytearray(1 << 31)", (MEMORY,), lost=False),
    Attack("slow memory bomb", "x = []\nwhile True: x.append(bytearray(1 << 20))", (MEMORY,), bound=17),
    Attack("memory through children", "import os, time\nfor _ in range(6):\n if os.fork() == 0:\n  x = bytearray(100 << 20)\n  time.sleep(60)\ntime.sleep(60)", (MEMORY,), bound=17, lost=True),
    Attack("deep recursion", "import sys\nsys.setrecursionlimit(10 ** 8)\ndef f(): f()\nf()", (MEMORY, DIED), bound=60),
    Attack("recursion within limits", "def f(): f()\nf()", (ERROR,), lost=False),
    Attack("endless output", "while True: print('x' * 100)", (FLOOD,), lost=False),
    Attack("endless stderr", "import sys\nwhile True: sys.stderr.write('x' * 100)", (FLOOD,), lost=False),
    Attack("one 100 MB line", "print('x' * (100 << 20))", (FLOOD,), lost=False),
    Attack("300k tiny flushed writes", "for _ in range(300_000): print('x', end='', flush=True)", (FLOOD,), bound=22, lost=False),
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
    Attack("memory under a name that is no text", "import ctypes, os, time\nctypes.CDLL(None).prctl(15, b'\\xff', 0, 0, 0)\nfor _ in range(6):\n if os.fork() == 0:\n  x = bytearray(100 << 20)\n  time.sleep(60)\ntime.sleep(60)", (MEMORY,), bound=17, lost=True),
    Attack("falling allocation of a huge file", "import os\nf = os.open('x', os.O_RDWR | os.O_CREAT)\nos.posix_fallocate(f, 0, 1 << 40)", (ERROR,), lost=False),
    Attack("huge sparse file", "open('x', 'wb').truncate(1 << 40)", (ERROR,), lost=False),
    Attack("tree deeper than a path is long", "import os\nfor _ in range(3000): os.mkdir('d'); os.chdir('d')", (OK,), bound=30, lost=False),
    Attack("names that are no text", "open(b'\\xff\\xfe\\n*; rm -rf', 'w').close()\nimport os\nos.symlink('/', b'\\x80')\nos.mkfifo('f')", (OK,), lost=False),
    Attack("home nobody may enter", "import os\nos.mkdir('d'); os.mkdir('d/e'); os.chmod('d', 0); os.chmod('.', 0)", (OK,), lost=False),
    Attack("every descriptor taken", "import os\nl = []\nwhile True: l.append(os.dup(0))", (ERROR, DIED)),
    Attack("raising its own limits", "import resource\nresource.setrlimit(resource.RLIMIT_DATA, (1 << 60, 1 << 60))" , (ERROR, OK)),
    Attack("timers that fire for ever", "import signal\nsignal.signal(signal.SIGALRM, lambda *a: None)\nsignal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)\nwhile True: pass", (TIMEOUT,)),
    Attack("an alarm that kills", "import signal, time\nsignal.setitimer(signal.ITIMER_REAL, 0.05)\ntime.sleep(60)", (DIED,), lost=True),
    Attack("clock that lies", "import time\ntime.time = time.monotonic = time.perf_counter = lambda: 0\nwhile True: pass", (TIMEOUT,), lost=False),
    Attack("print replaced", "import builtins, json, threading\nbuiltins.print = builtins.repr = builtins.str = None", (OK, ERROR, DIED), lost=None),
    Attack("json replaced", "import json\njson.dumps = lambda *a, **k: 1 / 0", (DIED, TIMEOUT), lost=True),
    Attack("cell of ten megabytes", "x = '" + "a" * (10 << 20) + "'", (OK,), lost=False),
    Attack("source too deep for the compiler", "x = " + "(" * 5000 + ")" * 5000, (ERROR, MEMORY), lost=False),
    Attack("integer that takes for ever", "x = 7 ** (7 ** 12)", (TIMEOUT, MEMORY)),
    Attack("gc callback that never ends", "import gc\ndef c(*a):\n while True: pass\ngc.callbacks.append(c)\ngc.collect()", (TIMEOUT,)),
    Attack("destructor that never ends", "class A:\n def __del__(self):\n  while True: pass\nA()\nx = 1", (TIMEOUT, ERROR)),
    Attack("excepthook and audit hook", "import sys\nsys.excepthook = lambda *a: sys.exit(3)\nsys.addaudithook(lambda *a: None)\n1 / 0", (ERROR,), lost=False),
    Attack("exec of another program", "import os\nos.execvp('sleep', ['sleep', '60'])", (DIED, TIMEOUT), lost=True),
    Attack("a child that outlives its cell", "import os, time\nif os.fork() == 0: time.sleep(600)", (OK,), lost=False),
    Attack("children that print", "import subprocess\nsubprocess.run('yes | head -c 5000000', shell=True)", (OK,), lost=False),
    Attack("a fork that goes on as the kernel", "import os\nif os.fork() == 0: pass\nprint('x')", (OK,), lost=False),
    Attack("fast death by a signal is no timeout", "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)", (DIED,), lost=True),
    Attack("interpreter without its output encoding", "import os, sys\ndel os.environ['PATH']\nos.environ['PYTHONIOENCODING'] = 'ascii'\nprint('\u00e9')", (OK,), lost=False),
    Attack("warnings without end", "import warnings\nwarnings.simplefilter('always')\nwhile True: warnings.warn('x' * 100)", (FLOOD,), lost=False),
    Attack("breakpoint and help", "breakpoint()", (ERROR, OK), lost=False),
    Attack("signal in the middle of output", "import threading, os, signal, time\ndef f():\n for _ in range(50): os.kill(os.getpid(), signal.SIGINT); time.sleep(0.01)\nthreading.Thread(target=f, daemon=True).start()\nwhile True:\n try:\n  while True: print('x' * 10); time.sleep(0.001)\n except KeyboardInterrupt: pass", (TIMEOUT, FLOOD, ERROR)),
    Attack("import that never ends", "import sys\nsys.modules['x'] = None\nimport time\ntime.sleep(3600)", (TIMEOUT,), lost=False),
    Attack("atexit hook", "import atexit\natexit.register(lambda: __import__('time').sleep(60))", (OK,), lost=False),
    Attack("hostile trace function", "import sys\ndef t(*a):\n while True: pass\nsys.settrace(t)\ndef f(): pass\nf()", (TIMEOUT,)),
    Attack("no more memory for the kernel itself", "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1, 1))\nx = [0] * 10 ** 6", (MEMORY, DIED, ERROR)),
]  # fmt: skip


CASES = [
    pytest.param(*kind.values, attack, marks=kind.marks, id=f"{kind.values[0]}-{attack.name}")
    for kind in kinds("local", "docker", "docker-kernel", "gvisor")
    for attack in ATTACKS
    if kind.values != ("docker-kernel",) or attack.lost is not False
    if kind.values not in (("local",), ("gvisor",)) or MEMORY in attack.expected or SYSTEM.search(attack.code)
]
"""What a session survives is the same in a container of its own: there, only attacks that may end it. And what only
Python has to do with is the same without a container, and in gVisor."""


@pytest.mark.parametrize(("kind", "attack"), CASES, indirect=["kind"], scope="session")
async def test_attack(sandbox: Sandbox, attack: Attack):
    async with await sandbox.session() as session:
        started = time.monotonic()
        result = await session.run(attack.code, attack.timeout)
        took = time.monotonic() - started
        assert result.status in attack.expected, result
        assert took < attack.bound
        assert len(result.stdout) + len(result.stderr) <= 2 * sandbox.limits.output_bytes
        assert result.state_lost is (not session.alive)
        if attack.lost is not None:
            assert result.state_lost is attack.lost, result
        if session.alive:
            await _same_session_works(session, attack)
    assert time.monotonic() - started < attack.bound + 10
    await _next_session_works(sandbox)


async def _same_session_works(session: Session, attack: Attack) -> None:
    # On a busy machine a thread that the attack started may still be sending signals, or its memory still be held.
    for _ in range(5):
        result = await session.run("x = None\nprint('same session')", 10)
        if result.stdout == "same session\n" or (MEMORY in attack.expected and result.state_lost):
            return  # a kernel that is full to the brim may be ended for its next cell
        await asyncio.sleep(0.5)
    pytest.fail(f"the session does not work on: {result}")


async def _next_session_works(sandbox: Sandbox) -> None:
    async with await sandbox.session() as session:
        assert (await session.run("print(6 * 7)", 10)).stdout == "42\n"


FORGE = """
import gc, time
from sandbox.guest import zmtp
kernel = next(o for o in gc.get_objects() if type(o).__name__ == "Kernel" and hasattr(o, "_wire"))
def raw(data, channel="iopub"):
    for peer in kernel._channels._peers:
        if peer.channel == channel: peer.connection.sendall(data)
def frames(*parts, channel="iopub"): raw(zmtp.encode(list(parts)), channel)
def send(kind, content, channel="iopub", parent=None):
    _, parts = kernel._wire.pack(kind, content, kernel._parent if parent is None else parent)
    frames(*([kind.encode()] if channel == "iopub" else []), *parts, channel=channel)
"""


@every_reader
@pytest.mark.parametrize(
    ("name", "code", "expected"),
    [
        ("forged idle does not end the cell", "send('status', {'execution_state': 'idle'})\ntime.sleep(0.6)\nprint('end')", (OK,)),
        ("forged flood of streams", "while True: send('stream', {'name': 'stdout', 'text': 'x' * 60000})", (FLOOD,)),
        ("flood of messages that mean nothing", "while True: send('nonsense', {'x': 'x' * 1000})", (FLOOD,)),
        ("flood of messages for another cell", "while True: send('stream', {'name': 'stdout', 'text': 'x' * 1000}, parent={'msg_id': 'other'})", (FLOOD,)),
        ("flood of empty frames that end no message", "while True: raw(b'\\1\\0' * 1000)", (DIED, FLOOD)),
        ("flood of ZMTP commands", "while True: raw(b'\\4\\5\\4PING' * 1000)", (FLOOD,)),
        ("one endless message in small frames", "while True: raw(b'\\1\\xff' + bytes(255))", (DIED, FLOOD)),
        ("a frame that claims to be huge", "raw(b'\\2' + b'\\xff' * 8)\ntime.sleep(3)", (DIED,)),
        ("half a frame, and silence", "raw(b'\\0\\xff')\ntime.sleep(0.2)\nraw(bytes(255))\ntime.sleep(3)", (DIED,)),
        ("bytes that are no ZMTP", "raw(b'GET / HTTP/1.1')\ntime.sleep(3)", (DIED,)),
        ("stream of a wrong type", "send('stream', {'name': 'stdout', 'text': {'a': []}})\ntime.sleep(0.3)", (OK, DIED)),
        ("stream of a wrong name", "send('stream', {'name': 'shell', 'text': 'x'})\ntime.sleep(3)", (DIED,)),
        ("message without content", "send('stream', None)\ntime.sleep(3)", (DIED,)),
        ("message whose parent is a list", "send('stream', {}, parent=[1])\ntime.sleep(3)", (DIED,)),
        ("reply of a wrong type", "send('execute_reply', [], channel='shell')\ntime.sleep(3)", (DIED,)),
        ("lone surrogate", "send('stream', {'name': 'stdout', 'text': '\\ud800'})", (OK,)),
        ("lone surrogate in an error", "kernel._error = lambda e: {'status': 'error', 'ename': '\\ud800', 'evalue': '\\ud800', 'traceback': ['\\ud800']}\n1 / 0", (ERROR,)),
        ("one 30 MB frame", "frames(bytes(30 << 20))\ntime.sleep(3)", (DIED,)),
        ("unknown message type", "send('nonsense', {'x': 1})", (OK,)),
        ("message deeper than any parser", "frames(b'stream', b'<IDS|MSG>', b'sig', b'['*10**6, b'{}', b'{}', b'{}')\ntime.sleep(3)", (DIED,)),
        ("signed message deeper than any parser", "deep = [b'{}', b'{}', b'{}', b'['*10**5]\nframes(b'stream', b'<IDS|MSG>', kernel._wire._sign(deep), *deep)\ntime.sleep(3)", (DIED,)),
        ("number of ten million digits", "big = [b'{}', b'{}', b'{}', b'1' * 10**6]\nframes(b'x', b'<IDS|MSG>', kernel._wire._sign(big), *big)\ntime.sleep(3)", (DIED, FLOOD)),
        ("frames that are no message", "frames(b'x')\ntime.sleep(3)", (DIED,)),
        ("wrong signature", "kernel._wire.__init__(b'other', 'guest')\nsend('stream', {'name': 'stdout', 'text': 'x'})\ntime.sleep(3)", (DIED,)),
        ("sockets closed from inside", "kernel._channels.close()", (DIED,)),
        ("reply before the end of the cell", "send('execute_reply', {'status': 'ok'}, channel='shell')\nsend('status', {'execution_state': 'idle'})\nwhile True: pass", (OK,)),
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


@every_reader
async def test_forged_reply_cannot_outlive_the_session(sandbox: Sandbox):
    """A guest that forges its own end fools itself only: the process is gone when the session is closed."""
    code = FORGE + (
        "send('execute_reply', {'status': 'ok'}, channel='shell')\n"
        "while True: send('status', {'execution_state': 'idle'})"
    )
    async with await sandbox.session() as session:
        assert (await session.run(code, 1.0)).status is OK
        assert (await session.run("1", 1.0)).status in (TIMEOUT, DIED, FLOOD)
    await _next_session_works(sandbox)


TETHER = """
import gc, os, socket, time
kernel = next(o for o in gc.get_objects() if type(o).__name__ == "Kernel" and hasattr(o, "_wire"))
line = kernel._channels.tether
"""


@every_reader
@pytest.mark.parametrize(
    "code",
    [
        "line.send(b'[' * 16000)",
        "line.send(b'{}')",
        "line.send(b'1' * 16000)",
        "line.send(b'T' + bytes(2048))",
        "line.send(b'\\xff' * 100)",
        "line.send(b'{\"ready\": 1}')",
        "line.send(b'{\"ready\": [1]}')",
        "line.send(b'{\"refused\": null}')",
        "line.send(b'{\"forked\": true}')",
        "line.send(b'{\"failed\": {}}')",
        "line.shutdown(socket.SHUT_RDWR)",
        "line.close()",
        "socket.send_fds(line, [b'{}'], list(range(3)) * 50)",
        "try:\n    while True: line.send(b'{}')\nexcept OSError: pass",
        "try:\n    while True: line.send(b'x' * 60000, socket.MSG_DONTWAIT)\nexcept OSError: pass",
    ],
)
async def test_lies_to_the_kernel_server(sandbox: Sandbox, code: str):
    """What a guest says on the line that its kernel shares with the server harms nobody else, and no later fork of it."""
    async with await sandbox.session() as neighbour, await sandbox.session() as session:
        await session.run(TETHER + code, 3)
        await asyncio.sleep(0.1)
        if session.alive:
            try:
                async with asyncio.timeout(20), await session.fork():
                    pass
            except SandboxError:
                pass  # it has made itself unfit for that
        assert (await neighbour.run("6 * 7")).result == "42"
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


@every_guest
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


@every_guest
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


@every_guest
async def test_many_inodes(sandbox: Sandbox):
    if sandbox.backend != "docker" or sandbox.runtime == "runsc":
        pytest.skip("neither the local backend nor gVisor has an inode limit")
    code = "import os\nfor i in range(10 ** 7): os.mkdir(f'd{i}')"
    async with await sandbox.session() as session:
        assert (await session.run(code, 20)).status is DIED
    await _next_session_works(sandbox)


@every_guest
async def test_a_process_whose_name_forges_its_status(sandbox: Sandbox):
    names = ["a\\nb", "x\\nUid:\\t0", "\\nVmRSS: x", "State:\\nZ", "\\xff\\xfe"]
    code = f"import ctypes, time\nfor n in {names!r}:\n    ctypes.CDLL(None).prctl(15, n.encode('latin-1').decode('unicode_escape').encode('latin-1'), 0, 0, 0)\n    time.sleep(0.3)"
    async with await sandbox.session() as neighbour, await sandbox.session() as session:
        assert (await session.run(code)).status is OK
        assert (await neighbour.run("1")).result == "1"
    await _next_session_works(sandbox)


@every_guest
async def test_file_size_limit(sandbox: Sandbox):
    code = f"f = open('big', 'wb')\nfor _ in range(64): f.write(bytes({sandbox.limits.file_mib} << 16)); f.flush()"
    async with await sandbox.session() as session:
        result = await session.run(code, 10)
        assert (result.status, result.error.name) == (ERROR, "OSError")


CLONE3 = "l.syscall(435, ctypes.create_string_buffer(88), 88)"
"""Said not to exist, so that the C library takes clone, which the profile looks into."""
TAKEN_BACK = ("l.prctl(38, 0, 0, 0, 0)", "l.prctl(22, 0, 0, 0, 0)")
"""No new privileges, and the filter: Linux lets nobody take them back."""
SYSTEM_CALLS = [
    "l.mount(b'x', b'/tmp', b'tmpfs', 0, 0)", "l.umount2(b'/proc', 2)", "l.pivot_root(b'/', b'/tmp')",
    "l.chroot(b'/tmp')", "l.sethostname(b'x', 1)", "l.settimeofday(ctypes.create_string_buffer(16), None)",
    "l.reboot(0x1234567)", "l.swapon(b'/tmp/x', 0)", "l.init_module(0, 0, 0)", "l.syscall(246, 0, 0, 0, 0)",
    "l.syscall(425, 1, ctypes.create_string_buffer(256))", "l.syscall(323, 0)", "l.syscall(321, 0, 0, 0)",
    "l.syscall(298, 0, 0, 0, 0, 0)", "l.syscall(250, 0, 0, 0)", "l.unshare(0x20000)", "l.unshare(0x40000000)",
    "l.syscall(56, 0x10000000 | 17, 0, 0, 0, 0)", CLONE3,
    "l.memfd_create(b'x', 0)", "l.syscall(447, 0)", "l.klogctl(3, ctypes.create_string_buffer(99), 99)", "l.shmget(1, 4096, 0o1666)",
    "l.msgget(1, 0o1666)", "l.semget(1, 1, 0o1666)", "-1 if l.mknod(b'd', 0o60666, 0x800) or l.open(b'd', 2) < 0 else 0",
    "l.name_to_handle_at(-100, b'/', ctypes.create_string_buffer(200), ctypes.create_string_buffer(8), 0)",
    "l.acct(b'/tmp/x')", "l.quotactl(0, b'/', 0, 0)", "l.setns(3, 0)", "l.iopl(3)", "l.ptrace(0, 0, 0, 0)",
    *TAKEN_BACK,
]  # fmt: skip


@pytest.mark.parametrize("kind", kinds(*CONTAINED), indirect=True)
class TestWalls:
    """What only the container promises."""

    async def test_no_socket_and_no_route_out(self, sandbox: Sandbox):
        code = (
            "import socket\n"
            "for family in [1, 2, 10, 16, 17, 38, 40]:\n"
            "    for kind in [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET]:\n"
            "        try: socket.socket(family, kind, 0); print('opened', family, kind)\n"
            "        except OSError as e: pass\n"
            "try: socket.getaddrinfo('example.com', 80); print('resolved')\n"
            "except OSError: print('no name')\n"
            "print(sorted(l.split(':')[0].strip() for l in open('/proc/net/dev') if ':' in l))"
        )
        async with await sandbox.session() as session:
            assert (await session.run(code, 8)).stdout in ("no name\n['lo']\n", "no name\n[]\n")

    async def test_another_sessions_memory_files_and_life(self, sandbox: Sandbox):
        async with await sandbox.session() as victim, await sandbox.session() as spy:
            said = await victim.run(
                "import os\nsecret = 'hunter2'\nos.environ['SECRET'] = secret\nf = open('s.txt', 'w')\nf.write(secret)\n"
                "f.flush()\nprint(os.getpid(), os.getcwd(), f.fileno())"
            )
            pid, home, number = said.stdout.split()
            if sandbox.isolation == "kernel":
                pid = f"{pid}999"  # in a container of its own, that number is the spy's
            for code in (
                f"open('/proc/{pid}/mem', 'rb').read(1)",
                f"open('/proc/{pid}/root/etc/passwd').read()",
                f"open('/proc/{pid}/cwd/s.txt').read()",
                f"open('/proc/{pid}/fd/{number}').read()",
                f"open('/proc/{pid}/environ', 'rb').read(1)",
                f"open('{home}/s.txt').read()",
                f"import os\nos.listdir('{home}')",
                f"import os\nos.link('{home}/s.txt', 'mine')",
                f"import os\nos.rename('{home}', '/tmp/mine')",
                f"import os\nos.rmdir('{home}')",
                f"import os\nos.kill({pid}, 9)",
                f"import os\nos.kill({pid}, 19)",
                f"import os\nos.killpg({pid}, 9)",
                f"import os\nos.sched_setaffinity({pid}, [0])",
                f"import os\nos.setpriority(os.PRIO_PROCESS, {pid}, 19)",
                f"import resource\nresource.prlimit({pid}, resource.RLIMIT_AS, (1, 1))",
                f"import signal, os\nsignal.pidfd_send_signal(os.pidfd_open({pid}), 9)",
                "import os\nos.kill(1, 9)",
                "import os\nos.setuid(0)",
                "import os\nos.setresuid(0, 0, 0)",
                "import os\nos.setresuid(-1, os.getuid() + 1, -1)",
                "import os\nos.setgid(0)",
                "import os\nos.setgroups([0])",
                "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
                f"assert libc.ptrace(16, {pid}, 0, 0) == 0, os.strerror(ctypes.get_errno())",
                "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\nb = ctypes.create_string_buffer(8)\n"
                "v = (ctypes.c_uint64 * 2)(ctypes.addressof(b), 8)\n"
                f"assert libc.process_vm_readv({pid}, v, 1, v, 1, 0) >= 0, os.strerror(ctypes.get_errno())",
            ):
                if sandbox.runtime == "runsc" and any(
                    word in code for word in ("setaffinity", "setpriority", "environ'")
                ):
                    continue  # gVisor lets them: two mean nothing there, and the third is what the server was begun with
                result = await spy.run(code)
                assert result.status is ERROR, (code, result)
            assert (await victim.run("print(secret)")).stdout == "hunter2\n"

    async def test_system_calls_that_nobody_needs(self, sandbox: Sandbox):
        async with await sandbox.session() as session:
            await session.run("import ctypes\nl = ctypes.CDLL(None, use_errno=True)")
            said = {
                code: (await session.run(f"(ctypes.set_errno(0) and 0) or ({code}), ctypes.get_errno()")).result
                for code in SYSTEM_CALLS
            }
        # A call that fails for its arguments might well succeed with others. (gVisor has few of them, and says so.)
        refused = [f"(-1, {number})" for number in range(1, 134 if sandbox.runtime == "runsc" else 2)]
        others = {CLONE3: "(-1, 38)", **dict.fromkeys(TAKEN_BACK, "(-1, 22)")}
        assert {code: each for code, each in said.items() if each not in (*refused, others.get(code))} == {}

    async def test_who_fills_the_disk_is_ended_before_others_notice(self, sandbox: Sandbox):
        if sandbox.runtime == "runsc":
            pytest.skip("gVisor is too slow to be watched as closely: see the next test")
        fill = (
            "import itertools\nfor n in itertools.count():\n"
            "    with open(f'/tmp/fill-{n}', 'wb') as f: f.write(bytes(1 << 20))"
        )
        hidden = (
            "import itertools, os\nkept = []\nfor n in itertools.count():\n"
            "    kept.append(open('x', 'wb')); kept[-1].write(bytes(1 << 20)); kept[-1].flush(); os.unlink('x')"
        )
        write = "import os\nopen('a', 'wb').write(bytes(1 << 20)); os.unlink('a')"

        async def ended_in_time(neighbour: Session, code: str) -> bool:
            async with await sandbox.session() as session:
                running = asyncio.create_task(session.run(code, 20))
                fine = True
                while not running.done():
                    fine &= (await neighbour.run(write)).status is OK
                result = await running
                return fine and (result.status, result.error.value) == (
                    DIED, "the kernel was killed for too much on disk",
                )  # fmt: skip

        async with await sandbox.session() as neighbour:
            for code in (fill, hidden, fill.replace("/tmp/", "/dev/shm/")):
                # A busy machine may not let the watch look for the tenth of a second that filling takes.
                for _ in range(3):
                    if await ended_in_time(neighbour, code):
                        break
                else:
                    pytest.fail(code)

    @pytest.mark.parametrize("where", ["/tmp", "/dev/shm"])
    async def test_a_full_disk_is_empty_again_when_its_filler_is_closed(self, sandbox: Sandbox, where: str):
        fill = (
            "import itertools\nfor n in itertools.count():\n"
            f"    with open('{where}/fill-%d' % n, 'wb') as f: f.write(bytes(1 << 20))"
        )
        async with await sandbox.session() as session:
            assert (await session.run(fill, 20)).status in (DIED, ERROR)
        async with await sandbox.session() as session:
            assert (await session.run(f"open('{where}/x', 'wb').write(bytes(16 << 20))")).result == str(16 << 20)

    async def test_names_that_the_next_kernels_would_need(self, sandbox: Sandbox):
        code = (
            "import os, re\nbase, n = re.match(r'(.*-k)(\\d+)', os.environ['HOME']).groups()\n"
            "for i in range(int(n), int(n) + 300):\n    for name in (base + str(i), base + str(i) + '-'):\n        os.mkdir(name)"
        )
        async with await sandbox.session() as neighbour, await sandbox.session() as session:
            await session.run(code, 10)
            async with await neighbour.fork():
                pass
            await _next_session_works(sandbox)

    async def test_a_tree_that_everybody_may_read_harms_nobody(self, sandbox: Sandbox):
        code = (
            "import os\nos.umask(0)\nos.mkdir('/tmp/d')\nos.chdir('/tmp/d')\n"
            "for i in range(1500): os.mkdir('a'); os.chdir('a')\n"
            "for i in range(3): open(f'/tmp/q{i}', 'wb').write(b'x' * (15 << 20))"
        )
        async with await sandbox.session() as neighbour, await sandbox.session() as session:
            await session.run(code, 10)
            started = time.monotonic()
            assert (await neighbour.run("import time\ntime.sleep(1)\n1")).result == "1"
            async with await sandbox.session() as another:
                stubborn = "import signal\nsignal.signal(2, signal.SIG_IGN)\nwhile True: pass"
                assert (await another.run(stubborn, 0.5)).status is TIMEOUT
            assert time.monotonic() - started < 10

    async def test_directories_closed_to_be_overlooked(self, sandbox: Sandbox):
        if sandbox.runtime == "runsc":
            pytest.skip("gVisor is too slow to be watched as closely")
        code = (
            "import os, time\nos.mkdir('/tmp/h')\nfs = [open(f'/tmp/h/{i}', 'wb') for i in range(20)]\n"
            "os.chmod('/tmp/h', 0)\nfor f in fs: f.write(b'x' * (15 << 20)); f.flush()\ntime.sleep(3)"
        )
        async with await sandbox.session() as session:
            result = await session.run(code, 10)
            assert "too much on disk" in result.error.value or "No space" in result.error.value, result
            assert not session.alive or result.status is ERROR

    async def test_memory_of_a_process_whose_first_thread_has_ended(self, sandbox: Sandbox):
        code = (
            "import ctypes, os, threading, time\ndef hold():\n    x = bytearray(100 << 20)\n    time.sleep(60)\n"
            "for _ in range(6):\n    if os.fork() == 0:\n        threading.Thread(target=hold).start()\n"
            "        time.sleep(0.2)\n        ctypes.CDLL(None).syscall(60, 0)\ntime.sleep(60)"
        )
        if sandbox.runtime == "runsc":
            pytest.skip("gVisor ends the whole process")
        async with await sandbox.session() as session:
            assert (await session.run(code, 8)).status is MEMORY

    async def test_shared_memory_that_nobody_counts(self, sandbox: Sandbox):
        async with await sandbox.session() as session:
            assert (await session.run("import mmap\nmmap.mmap(-1, 4096)")).error.name == "PermissionError"
            zero = "mmap.mmap(open('/dev/zero', 'r+b', buffering=0).fileno(), 4096)"
            assert (await session.run(zero)).error.name == "FileNotFoundError"
            assert (await session.run("import mmap\nlen(mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE))")).result == "4096"

    async def test_making_the_server_the_likelier_victim(self, sandbox: Sandbox):
        if sandbox.runtime == "runsc":
            pytest.skip("gVisor has no such score")
        async with await sandbox.session() as session:
            result = await session.run(
                "open('/proc/self/oom_score_adj', 'w').write('0')\nimport time\ntime.sleep(3)", 5
            )
            assert result.status is DIED, result

    async def test_hiding_one_s_files_from_the_measure(self, sandbox: Sandbox):
        async with await sandbox.session() as session:
            hidden = await session.run("import ctypes\nctypes.CDLL(None).prctl(4, 0, 0, 0, 0)")
            assert hidden.result == "-1"
            assert (await session.run("ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)")).result == "0"

    async def test_a_child_that_would_be_spared(self, sandbox: Sandbox):
        """Its parent has the score that it was born with."""
        if sandbox.runtime == "runsc":
            pytest.skip("gVisor has no such score")
        async with await sandbox.session() as session:
            code = (
                "import os, time\nif os.fork() == 0:\n    open('/proc/self/oom_score_adj', 'w').write('0')\n"
                "    time.sleep(30)\ntime.sleep(3)"
            )
            assert (await session.run(code, 5)).status is DIED

    async def test_neighbours_cannot_meet_at_an_abstract_address(self, sandbox: Sandbox):
        for call in ("a.bind('\\0meet')", "a.connect('\\0meet')", "a.listen()"):
            for kind in ("SOCK_DGRAM", "SOCK_STREAM"):
                async with await sandbox.session() as session:
                    result = await session.run(
                        f"import socket\na, b = socket.socketpair(socket.AF_UNIX, socket.{kind})\n{call}"
                    )
                    assert result.status is ERROR, (call, kind, result)

    async def test_the_hosts_memory_devices_and_settings(self, sandbox: Sandbox):
        code = (
            "import glob, os\n"
            "def opens(path, mode):\n"
            "    try: open(path, mode).close(); return True\n"
            "    except OSError: return False\n"
            "for path in ['/dev/mem', '/dev/kmem', '/dev/port', '/proc/kcore', '/proc/kmsg', '/dev/kvm']:\n"
            "    if opens(path, 'rb'): print('read', path)\n"
            "for path in ['/proc/sysrq-trigger', '/proc/sys/kernel/core_pattern', '/proc/sys/kernel/hostname',\n"
            "             '/proc/sys/vm/drop_caches', '/sys/power/state', '/proc/1/oom_score_adj', '/proc/1/mem',\n"
            "             *glob.glob('/sys/fs/cgroup/**/*.procs', recursive=True),\n"
            "             *glob.glob('/dev/sd*'), *glob.glob('/dev/vd*'), *glob.glob('/dev/nvme*')]:\n"
            "    if opens(path, 'r+b'): print('wrote', path)\n"
            "try: os.write(os.open('/proc/self/uid_map', os.O_WRONLY), b'0 0 1'); print('mapped')\n"
            "except OSError: pass\n"
            "for path in ['/var/run/docker.sock', '/run/docker.sock', '/run/containerd', '/root/.ssh', '/home']:\n"
            "    if os.path.exists(path) and os.access(path, os.W_OK): print('there', path)"
        )
        async with await sandbox.session() as session:
            assert (await session.run(code, 10)).stdout == ""

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

    async def test_files_do_not_persist(self, sandbox: Sandbox):
        """Twice the same code, in every directory that anybody could hope to write to."""
        code = (
            "import os\nfor d in ('/dev/shm', '/run/lock', '/run', '/tmp', '/var/tmp', '/var/lock', '/home', '/ipc'):\n"
            "    try:\n        if os.path.exists(d + '/evidence'): print('found', d)\n        open(d + '/evidence', 'w')\n"
            "    except OSError: pass"
        )
        for _ in range(2):
            async with await sandbox.session() as session:
                assert (await session.run(code)).stdout == ""


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


@pytest.mark.docker
async def test_programs_that_share_nothing_with_the_server():
    """Each of them holds less than the server has, which is not counted; together they would fill the container.

    One after the other: what fills it between two looks of the server is found by the Linux kernel, whoever it ends.
    """
    code = (
        "import subprocess, sys, time\n"
        "held = []\n"
        "for _ in range(24):\n"
        "    held.append(subprocess.Popen([sys.executable, '-S', '-E', '-c',\n"
        "        'x = bytearray(b\"x\") * (90 << 20)\\nimport time\\ntime.sleep(60)']))\n"
        "    time.sleep(0.2)\n"
        "time.sleep(60)"
    )
    limits = Limits(timeout=5, memory_mib=256, container_memory_mib=2048)
    async with (
        Sandbox("docker", limits, ready=0) as sandbox, await sandbox.session() as victim, await sandbox.session() as session
    ):  # fmt: skip
        await victim.run("x = 7")
        assert (await session.run(code, 20)).status is MEMORY
        assert (await victim.run("x", 20)).result == "7"
