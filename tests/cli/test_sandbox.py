"""``genprm sandbox``, from outside."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest

from .conftest import Cli, command

BACKENDS = pytest.mark.parametrize("where", ["local", pytest.param("docker", marks=pytest.mark.docker)])


@BACKENDS
def test_run(cli: Cli, where: str):
    done = cli("sandbox", "run", "print(1)\n2", "--backend", where)
    assert (done.returncode, done.stdout) == (0, "1\n2\n")


@BACKENDS
def test_run_from_standard_input_as_json(cli: Cli, where: str):
    done = cli(
        "sandbox", "run", "-", "--backend", where, "--json", stdin="import sys\nprint(1, file=sys.stderr)\n1 / 0"
    )
    result = json.loads(done.stdout)
    assert done.returncode == 1
    assert {"status", "stdout", "stderr", "result", "error", "duration", "truncated"} <= result.keys()
    assert (result["status"], result["stderr"], result["error"]["name"]) == ("error", "1\n", "ZeroDivisionError")


def test_timeout(cli: Cli):
    done = cli("sandbox", "run", "while True: pass", "--backend", "local", "--timeout", "0.5")
    assert done.returncode == 1
    assert "still running after 0.5 s" in done.stderr
    assert "genprm: timeout after " in done.stderr


def test_check_fails_closed_on_the_local_backend(cli: Cli):
    done = cli("sandbox", "check", "--backend", "local")
    assert done.returncode == 1
    assert "NOT IN FORCE" in done.stdout
    assert "not isolated (local)" in done.stderr


@pytest.mark.docker
def test_check_and_build(cli: Cli):
    built = cli("sandbox", "build", timeout=600)
    assert built.returncode == 0
    assert built.stdout.splitlines()[-1].startswith("genprm-sandbox:")
    done = cli("sandbox", "check")
    assert done.returncode == 0, done.stdout
    assert "NOT IN FORCE" not in done.stdout


@pytest.mark.docker
@pytest.mark.parametrize(
    ("options", "unseen"),
    [
        (["--isolation", "kernel"], []),
        pytest.param(["--runtime", "runsc"], ["memory", "process"], marks=pytest.mark.gvisor),
    ],
)
def test_check_of_other_walls(cli: Cli, options: list[str], unseen: list[str]):
    done = cli("sandbox", "check", *options, timeout=200)
    broken = [line.split()[4] for line in done.stdout.splitlines() if "NOT IN FORCE" in line]
    assert broken == unseen, done.stdout
    assert done.returncode == (1 if unseen else 0)


@pytest.mark.docker
@pytest.mark.gvisor
def test_run_in_gvisor(cli: Cli):
    done = cli("sandbox", "run", "import os; print(os.uname().release)", "--runtime", "runsc", "--isolation", "kernel")
    assert (done.returncode, done.stdout) == (0, "4.4.0\n")  # the Linux version that gVisor says it is


@pytest.mark.alone
@BACKENDS
def test_bench(cli: Cli, where: str, tmp_path: Path):
    """That it measures; what it measures is not for a test to judge."""
    done = cli(
        "sandbox", "bench", "--backend", where, "--kernels", "1,3", "--plot", tmp_path / "growth.png", timeout=250
    )
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    found = json.loads(line)
    for name in ("cold_ms", "fresh_ms", "pooled_ms", "fork_ms", "cell_ms", "cells_per_s_per_core", "pss_mib"):
        assert found[name] > 0, name
    assert [each["kernels"] for each in found["growth"]] == [1, 3]
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")


def test_install_kernelspec(cli: Cli, tmp_path: Path):
    done = cli(
        "sandbox",
        "install-kernelspec",
        "--name",
        "mine",
        "--runtime",
        "runsc",
        "--memory-mib",
        "512",
        "--prefix",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert folder == tmp_path / "share" / "jupyter" / "kernels" / "mine"
    spec = json.loads((folder / "kernel.json").read_text())
    provisioner = spec["metadata"]["kernel_provisioner"]
    assert provisioner["provisioner_name"] == "genprm-sandbox"
    assert (provisioner["config"]["runtime"], provisioner["config"]["memory_mib"]) == ("runsc", 512)


def test_what_a_terminal_cannot_show(cli: Cli):
    done = cli("sandbox", "run", "print('é')", "--backend", "local", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, "\\xe9\n")


def test_a_terminal_is_not_told_what_to_do():
    ours, theirs = pty.openpty()
    code = "print('\\x1b]0;mine\\x07ok')"
    asked = command("sandbox", "run", code, "--backend", "local")
    subprocess.run(asked, stdout=theirs, stderr=subprocess.PIPE, check=True, timeout=60)
    assert os.read(ours, 1000) == b"\\x1b]0;mine\\x07ok\r\n"
    os.close(ours)
    os.close(theirs)


@pytest.mark.docker
def test_an_image_name_that_is_none(cli: Cli):
    done = cli("sandbox", "run", "1", "--image", "Bad Name!!")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["install-kernelspec", "--backend", "local", "--prefix", "/proc/x"], "/proc/x: No such file"),
        (["install-kernelspec", "--backend", "local", "--prefix", "k", "--name", "a b"], "Invalid kernel name 'a b'"),
        (["bench", "--backend", "local", "--plot", "nowhere/x.png"], "nowhere/x.png: no such folder"),
        (["bench", "--backend", "local", "--plot", "x.odd"], "x.odd: no kind of picture"),
    ],
)
def test_wrong_options_of_the_other_commands(cli: Cli, arguments: list[str], message: str):
    done = cli("sandbox", *arguments)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert message in done.stderr
