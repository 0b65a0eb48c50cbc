"""`Session.fork`: the same state, then lives of their own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable

import pytest

from sandbox import RunStatus, Sandbox, SandboxRefusedError, SessionClosedError, SessionForkError
from sandbox.guest.users import BRANCHES
from tests.conftest import CONTAINED, kinds, needs_libraries

STATE = """
import sympy, collections
x = [1, 2]
counter = collections.Counter("aab")
def f(n): return n + len(x)
generator = iter(range(10)); next(generator)
y = sympy.Symbol("y")
class Point:
    def __init__(self): self.a = 5
p = Point()
"""


async def value(session, expression: str, timeout: float | None = None) -> str | None:
    result = await session.run(expression, timeout)
    assert result.status is RunStatus.OK, result
    return result.result


@needs_libraries
async def test_everything_python_holds_is_there(sandbox: Sandbox):
    async with await sandbox.session() as session:
        await session.run(STATE)
        async with await session.fork() as branch:
            assert await value(branch, "x, counter['a'], f(1), next(generator), y + y, p.a, __name__") == (
                "([1, 2], 2, 3, 1, 2*y, 5, '__main__')"
            )
            assert await value(session, "next(generator)") == "1"


@needs_libraries
async def test_from_then_on_neither_sees_the_other(sandbox: Sandbox):
    async with await sandbox.session() as session:
        await session.run(STATE)
        async with await session.fork() as branch:
            await branch.run("x.append(3); p.a = 6; import builtins; builtins.only = 1; del f")
            await session.run("x.append(4)")
            assert await value(session, "x, p.a, f(0), hasattr(__builtins__, 'only')") == "([1, 2, 4], 5, 3, False)"
            assert await value(branch, "x, p.a, 'f' in globals()") == "([1, 2, 3], 6, False)"


@needs_libraries
async def test_random_numbers_go_on_or_begin_anew(sandbox: Sandbox):
    draw = "import random, numpy; random.random(), float(numpy.random.rand())"
    async with await sandbox.session() as session:
        await value(session, draw)
        same, other, again = [await session.fork(seed) for seed in (None, 7, 7)]
        numbers = [await value(each, draw) for each in (session, same, other, again)]
        assert numbers[0] == numbers[1]
        assert numbers[2] == numbers[3] != numbers[0]
        for each in (same, other, again):
            await each.close()


async def test_files_and_the_working_directory_come_along(sandbox: Sandbox):
    async with await sandbox.session() as session:
        await session.run("import os\nos.makedirs('a/b')\nos.chdir('a')\nopen('b/f', 'w').write('1')")
        async with await session.fork() as branch:
            await session.run("open('b/f', 'w').write('2')\nopen('mine', 'w')")
            code = (
                "import os, tempfile\ntempfile.TemporaryFile().close()\n"
                "print(open('b/f').read(), os.listdir('.'), os.getcwd() == os.path.expanduser('~/a'))"
            )
            assert (await branch.run(code)).stdout == "1 ['b'] True\n"
            await branch.run("open('b/f', 'w').write('3')")
            assert await value(session, "open('b/f').read()") == "'2'"


async def test_branches_of_branches_outlive_their_origins(sandbox: Sandbox):
    session = await sandbox.session()
    await session.run("depth = 0")
    for depth in range(1, 9):
        branch = await session.fork()
        await branch.run("depth += 1")
        await session.close()
        session = branch
        assert await value(session, "depth") == str(depth)
    await session.close()


async def test_an_origin_outlives_its_branches_and_their_deaths(sandbox: Sandbox):
    async with await sandbox.session() as session:
        await session.run("x = 1")
        branch = await session.fork()
        assert (await branch.run("import os\nos._exit(3)")).status is RunStatus.DIED
        assert not branch.alive
        await branch.close()
        branch = await session.fork()
        assert (await branch.run("import signal\nsignal.signal(2, signal.SIG_IGN)\nwhile True: pass", 0.5)).state_lost
        assert await value(session, "x") == "1"


async def test_an_origins_death_is_not_its_branches(sandbox: Sandbox):
    async with await sandbox.session() as session:
        await session.run("x = 1")
        async with await session.fork() as branch:
            assert (await session.run("import os\nos.kill(os.getpid(), 9)")).status is RunStatus.DIED
            await session.close()
            await asyncio.sleep(0.5)
            assert await value(branch, "x") == "1"


async def test_many_at_once(sandbox: Sandbox):
    async with await sandbox.session() as session:
        await session.run("x = 1")
        branches = await asyncio.gather(*(session.fork(seed) for seed in range(10)))
        drawn = await asyncio.gather(*(value(each, "import random; random.random()") for each in branches))
        assert len(set(drawn)) == 10
        await asyncio.gather(*(each.close() for each in branches))
        assert await value(session, "x") == "1"


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("import threading as t\nt.Thread(target=t.Event().wait, name='busy').start()", "threads (busy)"),
        ("f = open('a', 'w')", "open file"),
        ("f = [open('\\U0001f40d' * 60 + str(n), 'w') for n in range(200)]", "open file"),
        ("import socket\na, b = socket.socketpair()", "open socket"),
        ("import os\nr, w = os.pipe()", "open pipe"),
        ("import subprocess\np = subprocess.Popen(['sleep', '60'])", "child processes"),
        ("for i in range(5): open(f'big{i}', 'wb').truncate(15 << 20)", "bytes of files"),
    ],
    ids=lambda value: value if "(" not in value.replace(" (", "") else "",
)  # fmt: skip
async def test_a_state_that_cannot_be_forked_is_named(sandbox: Sandbox, code: str, named: str):
    async with await sandbox.session() as session:
        result = await session.run(code, 10)
        if result.status is not RunStatus.OK:
            pytest.skip(f"not to be had in this sandbox: {result.error}")
        with pytest.raises(SessionForkError) as error:
            await session.fork()
        assert named in str(error.value)
        assert await value(session, "1 + 1") == "2"


async def test_what_was_in_the_way_can_be_cleared(sandbox: Sandbox):
    async with await sandbox.session() as session:
        await session.run("f = open('a', 'w')")
        with pytest.raises(SessionForkError):
            await session.fork()
        await session.run("f.close()\nimport asyncio\nasync def g(): print('a')\nasyncio.run(g()); print('b')")
        async with await session.fork() as branch:
            assert await value(branch, "f.closed") == "True"


async def test_a_closed_session_cannot_be_forked(sandbox: Sandbox):
    session = await sandbox.session()
    await session.close()
    with pytest.raises(SessionClosedError):
        await session.fork()


async def test_forking_waits_for_the_cell_that_runs(sandbox: Sandbox):
    async with await sandbox.session() as session:
        running = asyncio.create_task(session.run("import time\ntime.sleep(0.5)\nx = 1"))
        await asyncio.sleep(0.1)
        async with await session.fork() as branch:
            assert running.done()
            assert await value(branch, "x") == "1"


async def test_a_hook_that_never_lets_fork_return(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
    async with await sandbox.session() as session:
        await session.run("import os\ndef hook():\n while True: pass\nos.register_at_fork(before=hook)")
        with pytest.raises(SessionForkError, match="did not fork"):
            await asyncio.wait_for(session.fork(), 30)


async def test_a_fork_that_nobody_waits_for_leaves_nothing(make_sandbox: Callable[..., Sandbox]):
    async with make_sandbox(sessions=2, ready=0) as box, await box.session() as session:
        for delay in (0, 0.001, 0.005, 0.01):
            forking = asyncio.create_task(session.fork())
            await asyncio.sleep(delay)
            forking.cancel()
            for outcome in await asyncio.gather(forking, return_exceptions=True):
                if not isinstance(outcome, BaseException):
                    await outcome.close()
        async with asyncio.timeout(20), await session.fork() as branch:
            assert await value(branch, "1") == "1"


async def test_forks_count_among_the_sessions(make_sandbox: Callable[..., Sandbox]):
    async with make_sandbox(sessions=1, ready=0) as box, await box.session() as session:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(session.fork(), 0.3)
        assert await value(session, "1") == "1"


@pytest.mark.parametrize("kind", kinds("docker"), indirect=True)
async def test_a_session_can_be_forked_so_often_and_no_oftener(sandbox: Sandbox):
    async with await sandbox.session() as session:
        for _ in range(BRANCHES // 8):
            branches = await asyncio.gather(*(session.fork() for _ in range(8)))
            await asyncio.gather(*(each.close() for each in branches))
        with pytest.raises(SessionForkError, match=f"{BRANCHES} times"):
            await session.fork()


@pytest.mark.parametrize("kind", kinds(*CONTAINED), indirect=True)
class TestWalls:
    """Between the branches of one session, too."""

    async def test_memory_files_and_life(self, sandbox: Sandbox):
        async with await sandbox.session() as session:
            await session.run("import os, ctypes\nlibc = ctypes.CDLL(None, use_errno=True)")
            async with await session.fork() as branch, await session.fork() as sibling, await branch.fork() as child:
                facts = {}
                for each in (session, branch, sibling, child):
                    said = await each.run("open('s', 'w').write('x')\nprint(os.getpid(), os.getuid(), os.getcwd())")
                    facts[each] = said.stdout.split()
                assert len({user for _, user, _ in facts.values()}) == 4
                for spy in facts:
                    for victim in facts.keys() - {spy}:
                        pid, user, home = facts[victim]
                        for code in (
                            f"open('/proc/{pid}/mem', 'rb')",
                            f"open('/proc/{pid}/cwd/s')",
                            f"open('{home}/s')",
                            f"os.kill({pid}, 9)",
                            f"os.setuid({user})",
                            f"os.setresuid({user}, {user}, {user})",
                            f"assert libc.syscall(117, {user}, {user}, {user}, 0) == 0",
                        ):
                            result = await spy.run(code)
                            assert result.status is RunStatus.ERROR, (code, result)

    async def test_a_ticket_is_in_nobodys_memory(self, sandbox: Sandbox):
        """The one thing that would let an origin become its branch is not to be found in it, even by brute force."""
        hunt = """
import ctypes, os, re
libc = ctypes.CDLL(None, use_errno=True)
user = os.getuid() + 1
header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(128, 128, 0, 0, 0, 0)
assert libc.capset(header, data) == 0
from sandbox.guest import users
# The filter denies a wrong ticket, so trying is free: every aligned word of every writable page of this process.
tried = set()
with open("/proc/self/maps") as maps:
    areas = [line.split() for line in maps]
with open("/proc/self/mem", "rb", 0) as memory:
    for area in areas:
        if not area[1].startswith("rw"): continue
        low, high = (int(each, 16) for each in area[0].split("-"))
        try:
            memory.seek(low)
            page = memory.read(min(high - low, 1 << 22))
        except (OSError, OverflowError):
            continue
        tried.update(memoryview(page[: len(page) // 8 * 8]).cast("Q"))
for word in [each for each in tried if bin(each).count("1") > 16][:200_000]:
    if libc.syscall(117, user, user, user, ctypes.c_uint64(word)) == 0:
        print("became", user)
        break
print(len(tried) > 10_000, os.getuid() == user)
"""
        async with await sandbox.session() as session, await session.fork():
            result = await session.run(hunt, 60)
            assert result.stdout == "True False\n", result

    async def test_a_ticket_that_was_kept_is_worth_nothing(self, sandbox: Sandbox):
        """An origin that was hostile before the fork can know a ticket. What it becomes with it does not last."""
        evil = """
import os, socket, sys, time
from sandbox.guest import kernel, tether, users
kept = []
def make_branch(channels):
    request, descriptors = tether.receive(channels.tether, 6)
    own = socket.socket(fileno=descriptors[-1])
    kept.append(tether.receive(own)[0])
    own.close()
    for number in descriptors[:-1]: os.close(number)
    tether.send(channels.tether, {"refused": "no \\ud800"})
kernel.make_branch = make_branch
"""
        become = """
if os.fork() == 0:
    users.become_next(kept[0]["uid"], kept[0]["ticket"])
    for _ in range(3):
        if os.fork() == 0: os.setsid()
    open("/tmp/survivor", "w").write("x")
    time.sleep(60)
time.sleep(0.2)
"""
        async with await sandbox.session() as session:
            await session.run(evil)
            with pytest.raises(SessionForkError, match="no "):
                await session.fork()
            await session.run(become)
        await asyncio.sleep(2)
        async with await sandbox.session() as session:
            seen = await session.run(
                "import os\nprint(os.path.exists('/tmp/survivor'), sum(p.isdigit() for p in os.listdir('/proc')))"
            )
            survivor, count = seen.stdout.split()
            assert (survivor, int(count) < 12) == ("False", True), seen

    async def test_each_has_its_own_process_limit(self, sandbox: Sandbox):
        bomb = (
            "import os, time\nn = 0\ntry:\n  while n < 500:\n    if os.fork() == 0: time.sleep(60); os._exit(0)\n"
            "    n += 1\nexcept OSError: pass\nn"
        )
        async with await sandbox.session() as session, await session.fork() as branch:
            for each in (session, branch):
                assert 0 < int(await value(each, bomb, 30) or 0) <= sandbox.limits.processes


async def test_no_more_processes_is_refused_and_the_session_goes_on(sandbox: Sandbox):
    """What is missing belongs to the sandbox or to the guest; either way it is said, and nothing is lost."""
    async with await sandbox.session() as session:
        await session.run("import resource\nresource.setrlimit(resource.RLIMIT_NPROC, (1, 1))")
        if (await session.run("import os\nif os.fork() == 0: os._exit(0)\nos.wait()")).status is RunStatus.OK:
            pytest.skip("root's processes are not counted")
        with pytest.raises((SessionForkError, SandboxRefusedError)):
            await session.fork()
        assert await value(session, "1") == "1"


def test_a_thread_that_python_has_joined_is_none():
    """The system shows it a moment longer: on a busy machine nearly always."""
    code = """
import threading
from sandbox.guest.branch import obstacles
for _ in range(1000):
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    assert not [each for each in obstacles(set()) if "threads" in each]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
