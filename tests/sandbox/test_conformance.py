"""What a session promises, on every backend alike. One property each."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

import pytest
from jupyter_client.asynchronous.client import AsyncKernelClient

from sandbox import RunStatus, Sandbox, SessionClosedError
from sandbox.guest.channels import PORTS
from sandbox.host import FolderHost
from tests.conftest import LIMITS, kinds, needs_libraries


async def run(sandbox: Sandbox, *cells: str, timeout: float | None = None):
    """Run cells in one fresh session; the last one's result."""
    async with await sandbox.session() as session:
        for cell in cells[:-1]:
            first = await session.run(cell)
            assert first.status is RunStatus.OK, first
        return await session.run(cells[-1], timeout)


async def test_prints_are_captured(sandbox: Sandbox):
    result = await run(sandbox, "print(6 * 7)")
    assert (result.status, result.stdout, result.stderr, result.result) == (RunStatus.OK, "42\n", "", None)
    assert result.error is None
    assert 0 < result.duration < 5
    assert not result.truncated
    assert not result.state_lost


async def test_stderr_is_apart_from_stdout(sandbox: Sandbox):
    result = await run(sandbox, "import sys\nprint('out')\nprint('err', file=sys.stderr)")
    assert (result.stdout, result.stderr) == ("out\n", "err\n")


async def test_value_of_last_expression(sandbox: Sandbox):
    assert (await run(sandbox, "x = 5\nx ** 2")).result == "25"


async def test_no_value_for_none_or_a_statement(sandbox: Sandbox):
    assert (await run(sandbox, "None")).result is None
    assert (await run(sandbox, "x = 5")).result is None


async def test_state_persists_over_cells(sandbox: Sandbox):
    assert (await run(sandbox, "x = 5", "def f(): return x", "print(f())")).stdout == "5\n"


async def test_state_never_leaves_its_session(sandbox: Sandbox):
    await run(sandbox, "import builtins, math\nx = 5\nbuiltins.y = 6\nmath.pi = 3")
    result = await run(sandbox, "import math\nprint('x' in globals(), hasattr(__builtins__, 'y'), math.pi > 3.1)")
    assert result.stdout == "False False True\n"


async def test_error_has_name_text_and_guest_lines_only(sandbox: Sandbox):
    result = await run(sandbox, "def f():\n    return 1 / 0\nf()")
    assert result.status is RunStatus.ERROR
    assert (result.error.name, result.error.value) == ("ZeroDivisionError", "division by zero")
    assert "return 1 / 0" in result.error.traceback
    assert "kernel.py" not in result.error.traceback


async def test_output_before_an_error_is_kept(sandbox: Sandbox):
    result = await run(sandbox, "print('before')\nraise ValueError('x')")
    assert (result.stdout, result.error.value) == ("before\n", "x")


async def test_error_leaves_state(sandbox: Sandbox):
    async with await sandbox.session() as session:
        await session.run("x = 5\n1 / 0")
        assert (await session.run("print(x)")).stdout == "5\n"


async def test_syntax_error(sandbox: Sandbox):
    result = await run(sandbox, "def f(:")
    assert (result.status, result.error.name) == (RunStatus.ERROR, "SyntaxError")
    assert result.error.traceback.splitlines()[0] == '  File "<cell 1>", line 1'


async def test_empty_cell(sandbox: Sandbox):
    assert (await run(sandbox, "")).status is RunStatus.OK


async def test_exit_ends_the_cell_not_the_session(sandbox: Sandbox):
    async with await sandbox.session() as session:
        assert (await session.run("x = 1\nexit()")).status is RunStatus.OK
        assert (await session.run("import sys\nsys.exit(3)")).error.value == "3"
        odd = (
            "class Odd:\n    def __eq__(self, other):\n        raise ValueError('not to be compared')\nsys.exit(Odd())"
        )
        assert (await session.run(odd)).error.name == "SystemExit"
        assert (await session.run("print(x)")).stdout == "1\n"


async def test_a_cell_is_interrupted_however_early(sandbox: Sandbox):
    """Also before the kernel has come to it, as on a busy machine, and what is idle is not."""
    async with await sandbox.session() as session:
        for _ in range(10):
            running = asyncio.create_task(session.run("x = 1\nwhile True: pass", 30))
            await asyncio.sleep(0)
            await session.interrupt()
            result = await running
            assert (result.status, result.error and result.error.name) == (RunStatus.ERROR, "KeyboardInterrupt")
            await session.interrupt()
            assert (await session.run("print('on')")).stdout == "on\n"
        for _ in range(10):
            result = await session.run("while True: pass", 0.001)
            assert (result.status, result.state_lost) == (RunStatus.TIMEOUT, False)
        assert (await session.run("x", 10)).status in (RunStatus.OK, RunStatus.ERROR)


async def test_timeout_keeps_output_and_state(sandbox: Sandbox):
    async with await sandbox.session() as session:
        await session.run("x = 5")
        started = time.monotonic()
        result = await session.run("print('begun')\nwhile True: pass", timeout=0.5)
        assert time.monotonic() - started < 5
        assert (result.status, result.stdout, result.state_lost) == (RunStatus.TIMEOUT, "begun\n", False)
        assert (await session.run("print(x)")).stdout == "5\n"


async def test_text_arrives_before_the_cell_ends(sandbox: Sandbox):
    code = "import time\nfor i in range(3):\n    print(i)\n    time.sleep(0.15)\ntime.sleep(60)"
    result = await run(sandbox, code, timeout=1.5)
    assert result.stdout == "0\n1\n2\n"


async def test_lost_session_says_so(sandbox: Sandbox):
    async with await sandbox.session() as session:
        result = await session.run("import os\nos._exit(3)")
        assert result.state_lost
        assert not session.alive
        with pytest.raises(SessionClosedError):
            await session.run("1")


async def test_closed_session_takes_no_cell(sandbox: Sandbox):
    session = await sandbox.session()
    await session.close()
    await session.close()
    with pytest.raises(SessionClosedError):
        await session.run("1")


async def test_unicode_survives(sandbox: Sandbox):
    text = "π ≤ ∑ 你好 🙂"
    assert (await run(sandbox, f"print({text!r})")).stdout == text + "\n"


async def test_code_with_a_lone_surrogate_is_run(sandbox: Sandbox):
    assert (await run(sandbox, "print(len('\ud800'))")).stdout == "1\n"


@needs_libraries
async def test_numpy_sympy_scipy_are_there(sandbox: Sandbox):
    code = "import numpy, sympy, scipy.optimize\nprint(numpy.dot([1, 2], [3, 4]), sympy.factorint(720))"
    result = await run(sandbox, code)
    assert result.stdout == "11 {2: 4, 3: 2, 5: 1}\n", result


async def test_long_integers_print(sandbox: Sandbox):
    assert len((await run(sandbox, "print(10 ** 5000)")).stdout) == 5002


async def test_asyncio_run_works(sandbox: Sandbox):
    result = await run(sandbox, "import asyncio\nasync def f(): return 7\nprint(asyncio.run(f()))")
    assert result.stdout == "7\n"


async def test_name_is_main_and_pickle_works(sandbox: Sandbox):
    code = "import pickle\nclass A: pass\nprint(__name__, type(pickle.loads(pickle.dumps(A()))).__name__)"
    assert (await run(sandbox, code)).stdout == "__main__ A\n"


async def test_future_imports_are_not_inherited(sandbox: Sandbox):
    assert (await run(sandbox, "def f(x: int): pass\nprint(f.__annotations__)")).stdout == "{'x': <class 'int'>}\n"


@needs_libraries
async def test_random_numbers_are_the_same_in_every_session(sandbox: Sandbox):
    code = "import random, numpy\nprint(random.random(), numpy.random.rand(), hash('a'))"
    assert (await run(sandbox, code)).stdout == (await run(sandbox, code)).stdout


async def test_input_fails_at_once(sandbox: Sandbox):
    result = await run(sandbox, "input()")
    assert (result.status, result.error.name) == (RunStatus.ERROR, "EOFError")


async def test_subprocess_output_can_be_captured(sandbox: Sandbox):
    code = "import subprocess\nprint(subprocess.run(['echo', 'hi'], capture_output=True, text=True).stdout)"
    assert (await run(sandbox, code)).stdout == "hi\n\n"


async def test_files_can_be_written_in_the_home(sandbox: Sandbox):
    code = "import tempfile\ntempfile.TemporaryFile().write(b'x')\nopen('a', 'w').write('x')\nprint(open('a').read())"
    assert (await run(sandbox, code)).stdout == "x\n"


async def test_environment_is_an_allow_list(sandbox: Sandbox):
    from sandbox.check import ALLOWED_ENVIRONMENT

    os.environ["FAKE_TOKEN"] = "secret"
    names = (await run(sandbox, "import os\nprint(' '.join(os.environ))")).stdout.split()
    assert set(names) <= ALLOWED_ENVIRONMENT


async def test_threads_print(sandbox: Sandbox):
    code = (
        "import threading\n"
        "threads = [threading.Thread(target=print, args=(i,)) for i in range(4)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]; None"
    )
    # A print writes its text and its line end apart, so that threads may come in between.
    assert sorted((await run(sandbox, code)).stdout) == ["\n"] * 4 + ["0", "1", "2", "3"]


async def test_late_output_of_a_thread_is_not_the_next_cells(sandbox: Sandbox):
    async with await sandbox.session() as session:
        await session.run(
            "import threading, time\n"
            "def late():\n    time.sleep(0.2)\n    print('late')\n"
            "threading.Thread(target=late).start()"
        )
        await asyncio.sleep(0.5)
        assert (await session.run("print('next')")).stdout == "next\n"


async def test_sessions_run_side_by_side(sandbox: Sandbox):
    sessions = await asyncio.gather(*(sandbox.session() for _ in range(8)))
    started = time.monotonic()
    results = await asyncio.gather(*(session.run("import time\ntime.sleep(2)\nprint('ok')") for session in sessions))
    assert time.monotonic() - started < 12  # one after the other they take 16
    assert [result.stdout for result in results] == ["ok\n"] * 8
    await asyncio.gather(*(session.close() for session in sessions))


async def test_cancelling_a_run_closes_its_session(sandbox: Sandbox):
    session = await sandbox.session()
    task = asyncio.create_task(session.run("while True: pass", timeout=60))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not session.alive


async def test_more_sessions_than_allowed_wait_their_turn(make_sandbox: Callable[..., Sandbox]):
    async with make_sandbox(sessions=1, ready=0) as box:
        first = await box.session()
        second = asyncio.create_task(box.session())
        await asyncio.sleep(0.2)
        assert not second.done()
        await first.close()
        async with await asyncio.wait_for(second, 10) as session:
            assert (await session.run("1")).result == "1"


@pytest.mark.parametrize("kind", kinds("local", "unix", "docker"), indirect=True)
async def test_a_kernel_speaks_to_stock_jupyter_client(sandbox: Sandbox):
    """Over libzmq: every request that jupyter_client knows, its heartbeat, and a cell with its output."""
    async with await sandbox.session() as session:
        host = session.server.host
        folder = (host if isinstance(host, FolderHost) else host._inner).folder
        ports = {f"{channel}_port": port for channel, port in PORTS.items()}
        client = AsyncKernelClient(transport="ipc", ip=str(folder / session.name), **ports)
        client.session.key = session.key.encode()
        client.start_channels()
        try:
            await client.wait_for_ready(timeout=30)
            for request, kind in (
                (client.kernel_info(), "kernel_info_reply"),
                (client.is_complete("for i in x:"), "is_complete_reply"),
                (client.complete("prin"), "complete_reply"),
                (client.inspect("print"), "inspect_reply"),
                (client.history(), "history_reply"),
                (client.comm_info(), "comm_info_reply"),
            ):
                reply = await asyncio.wait_for(client.shell_channel.get_msg(), 10)
                assert (reply["msg_type"], reply["parent_header"]["msg_id"]) == (kind, request)
                assert reply["content"]["status"] in ("ok", "incomplete")
            printed = []
            reply = await client.execute_interactive(
                "print(6 * 7)\n1 / 0", timeout=10, output_hook=lambda message: printed.append(message["msg_type"])
            )
            assert reply["content"]["ename"] == "ZeroDivisionError"
            assert {"stream", "error"} <= set(printed)
            assert await client._async_is_alive()
        finally:
            client.stop_channels()


async def test_lone_surrogates_count_as_they_are_spelled_out(sandbox: Sandbox):
    for count in (20_000, 60_000):
        result = await run(sandbox, f"print('\\ud800' * {count})")
        assert (result.status, result.state_lost) == (RunStatus.OUTPUT_LIMIT, False)
        assert result.stdout == ("\\ud800" * count)[: LIMITS.output_bytes]


async def test_bytes_and_settings_of_standard_output(sandbox: Sandbox):
    code = "import sys\nsys.stdout.reconfigure(line_buffering=True)\nsys.stdout.buffer.write(b'a\\xff')\nprint('b')"
    assert (await run(sandbox, code)).stdout == "a\\xffb\n"


WRITING_WHILE_FORKED = """
import os, sys, threading
held, done = threading.Event(), threading.Event()
def hold():
    with sys.stdout._lock:
        held.set()
        done.wait()
holder = threading.Thread(target=hold)
holder.start()
held.wait()
child = os.fork()
if child == 0:
    for _ in range(10):
        print("x" * 100_000)
    os._exit(7)
_, status = os.waitpid(child, 0)
done.set()
holder.join()
print(os.waitstatus_to_exitcode(status))
"""


async def test_a_process_that_the_code_forks_can_print_for_nobody(sandbox: Sandbox):
    """Not even a lock that another thread held when it was born keeps it, nor how much it prints."""
    result = await run(sandbox, WRITING_WHILE_FORKED, timeout=20)
    assert (result.status, result.stdout) == (RunStatus.OK, "7\n")


async def test_a_process_that_the_code_forks_has_no_value(sandbox: Sandbox):
    async with await sandbox.session() as session:
        for _ in range(5):
            result = await session.run("import os\nos.fork()", 20)
            assert result.result is not None
            assert int(result.result) > 0


async def test_a_host_that_stood_still_hears_of_the_end_all_the_same(sandbox: Sandbox):
    async with await sandbox.session() as session:
        running = asyncio.create_task(session.run("import time\ntime.sleep(0.2)\n6 * 7", 1))
        await asyncio.sleep(0.1)
        time.sleep(2)  # the whole process, as where it is stopped or swapped out
        result = await running
        assert (result.status, result.result) == (RunStatus.OK, "42")
