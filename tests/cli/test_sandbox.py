"""``genprm sandbox``, from outside."""

from __future__ import annotations

import json

import pytest

from .conftest import Cli

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
    assert "timeout after 0.5" in done.stderr


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
