"""Notebooks in our kernels, by way of Jupyter's own clients."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import KernelManager, start_new_kernel
from nbclient import NotebookClient

from sandbox.docker_launcher import LABEL, connect_engine
from sandbox.keeper import _status
from sandbox.limits import Limits
from sandbox.provisioner import install_kernelspec

pytestmark = pytest.mark.xdist_group("keepers")  # one after the other: they count what keepers there are

CONFIGS = {
    "local": {"backend": "local"},
    "docker": {"backend": "docker"},
    "gvisor": {"backend": "docker", "runtime": "runsc", "isolation": "kernel"},
}


@pytest.fixture(
    params=[
        "local",
        pytest.param("docker", marks=pytest.mark.docker),
        pytest.param("gvisor", marks=[pytest.mark.docker, pytest.mark.gvisor]),
    ]
)
def kernel_name(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An installed kernelspec."""
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share" / "jupyter"))
    name = f"isolated-{request.param}"
    folder = install_kernelspec(name, name, CONFIGS[request.param], str(tmp_path))
    assert Path(folder, "kernel.json").exists()
    return name


def keepers() -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"\0sandbox.keeper\0" in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def notebook(*cells: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])


def test_a_notebook_through_nbclient(kernel_name: str):
    book = notebook(
        "import os, sympy\nx = sympy.factorint(2026)\nprint('user', os.getuid())",
        "x",
        "import socket\nsocket.socket()",
        "for i in range(3): print(i)",
    )
    NotebookClient(book, timeout=60, kernel_name=kernel_name, allow_errors=True).execute()
    printed, value, denied, last = (cell.outputs for cell in book.cells)
    user = int("".join(output.text for output in printed).split()[1])
    assert (user >= 100_000_000) is (kernel_name != "isolated-local")
    assert value[0].data["text/plain"] == "{2: 1, 1013: 1}"
    assert denied[0].ename == "PermissionError"
    assert "".join(output.text for output in last) == "0\n1\n2\n"
    assert keepers() == []


def test_interrupt_restart_and_shutdown(kernel_name: str):
    manager, client = start_new_kernel(startup_timeout=60, kernel_name=kernel_name)
    try:
        client.execute_interactive("x = 1", timeout=20)
        request = client.execute("while True: pass")
        time.sleep(0.5)
        manager.interrupt_kernel()
        reply = client.get_shell_msg(timeout=20)
        assert (reply["parent_header"]["msg_id"], reply["content"]["ename"]) == (request, "KeyboardInterrupt")
        assert client.execute_interactive("x", timeout=20)["content"]["status"] == "ok"
        client.stop_channels()
        manager.restart_kernel()
        client = manager.client()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        assert client.execute_interactive("x", timeout=20)["content"]["ename"] == "NameError"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert keepers() == []


def test_a_kernel_that_dies_is_seen_to_be_dead(kernel_name: str):
    manager, client = start_new_kernel(startup_timeout=60, kernel_name=kernel_name)
    try:
        client.execute("import os\nos._exit(3)")
        deadline = time.monotonic() + 15
        while manager.is_alive() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not manager.is_alive()
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_a_kernel_that_ends_well_has_no_status_of_a_signal():
    assert [_status({"code": code, "signal": number}) for code, number in ((0, 0), (3, 0), (0, 9))] == [0, 3, 137]


@pytest.mark.docker
async def test_a_container_for_a_kernel_is_one_container():
    options = {"backend": "docker", "isolation": "kernel", "limits": Limits().model_dump(mode="json")}
    command = [sys.executable, "-m", "sandbox.keeper", json.dumps(options)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as keeper:
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        assert "key" in json.loads(keeper.stdout.readline())
        client = connect_engine()
        labels = [each.labels[LABEL] for each in client.containers.list(filters={"label": LABEL})]
        client.close()
        assert sum(label.split(":")[3] == str(keeper.pid) for label in labels) == 1
        keeper.stdin.close()


def test_a_kernel_that_cannot_be_had_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share" / "jupyter"))
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent.sock")
    install_kernelspec("nowhere", "nowhere", {"backend": "docker"}, str(tmp_path))
    with pytest.raises(Exception, match="no isolated kernel: no Docker engine answers"):
        KernelManager(kernel_name="nowhere").start_kernel()
    assert keepers() == []


def test_jupyter_run(kernel_name: str, tmp_path: Path):
    """`jupyter run`: a script on the command line, in a kernel of ours."""
    script = tmp_path / "script.py"
    script.write_text("import os\nprint(6 * 7, os.getuid() >= 0)\n")
    command = [sys.executable, "-m", "jupyter_client.runapp", f"--kernel={kernel_name}", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=dict(os.environ))
    assert done.stdout == "42 True\n", done.stderr


CLIENT = """
import subprocess, sys, time
keeper = subprocess.Popen(
    [sys.executable, "-m", "sandbox.keeper", sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    start_new_session=True,
)
print(keeper.pid, keeper.stdout.readline(), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_keeper_whose_client_is_killed_ends(number: signal.Signals):
    """As with every client of ours: kill -9 leaves no kernel."""
    options = json.dumps({"backend": "local", "limits": {"memory_mib": 256}})
    client = subprocess.Popen([sys.executable, "-c", CLIENT, options], stdout=subprocess.PIPE, text=True)
    pid, _, line = client.stdout.readline().partition(" ")
    said = json.loads(line)
    assert Path(said["ip"] + "-1").is_socket()
    client.send_signal(number)
    client.wait(20)
    client.stdout.close()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists()
    assert not Path(said["ip"]).parent.exists()


def test_a_keeper_that_is_told_to_end(tmp_path: Path):
    options = json.dumps({"backend": "local", "limits": {"memory_mib": 256}})
    keeper = subprocess.Popen(
        [sys.executable, "-m", "sandbox.keeper", options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    said = json.loads(keeper.stdout.readline())
    keeper.send_signal(signal.SIGTERM)
    assert keeper.wait(20) == 0
    assert not Path(said["ip"]).parent.exists()
    keeper.stdin.close()
    keeper.stdout.close()
