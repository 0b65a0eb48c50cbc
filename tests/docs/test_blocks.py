"""Every command and every line of Python of the README and the pages runs, in the order in which it stands there.

What a command needs lies there: rows, a model server that answers by a script, and models of a few kilobytes under the
names of the released ones, one of which also stands for the embedded model. What is not run here says where it is.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from typer.testing import CliRunner

from genprm.cli.main import app
from tests.cli.conftest import command
from tests.docs.model_server import RULES, model_server
from tests.docs.pages import PAGES, ROOT, blocks, commands
from tests.docs.world import LABELLED, PROBLEM, WORKED, make_world, write_rows
from tests.train.conftest import make_tiny, tokenizer  # noqa: F401 - a fixture

pytestmark = [pytest.mark.docker, pytest.mark.alone, pytest.mark.timeout(600)]

ELSEWHERE = {
    "make demo": "tests/test_demo.py",
    "make test": "tests/docs/test_blocks.py",
    "make wheels": "tests/test_compose.py",
    "pip install ": "Makefile",
    "docker-compose": "tests/test_compose.py",
    "vllm serve ": "tests/vllm/conftest.py",
    "--backend vllm": "tests/vllm/test_in_process.py",
    "sandbox bench": "tests/cli/test_sandbox.py",
    "experiments.embedded": "experiments/embedded.py",  # hours; the tests run the commands that it consists of
    "experiments.filters": "experiments/filters.py",
    "experiments.small_scale": "tests/experiments/test_small_scale.py",
}
"""Parts of commands that take too much to be run here, and what runs them."""
STAND_IN = "GenPRM/GenPRM-7B"
SERVED = {
    "README.md": ["launch/ThinkPRM-7B"],
    "train.md": ["HuggingFaceTB/SmolLM2-135M-Instruct", "verifier"],
    "embedded.md": ["genprm"],
    "results.md": ["smol", "thinkprm"],
}
"""What the model server serves, where it is not the stand-in."""
FURTHER = {
    "genprm verify": f"--model {STAND_IN} --limit 1",
    "genprm eval processbench": f"--model {STAND_IN} --sandbox local",
    "genprm search curves": "",
    "genprm search": f"--model {STAND_IN} --policy-tokens 30",
    "genprm serve": f"--model {STAND_IN} --port 0",
    "genprm view": "--port 0",
    "genprm train grpo": f"--base {STAND_IN} --steps 1 --questions 2",
    "genprm train": f"--base {STAND_IN}",
    "python -m benchmarks.engine": "--in-flight 2 --solutions 2 --alone 1 --token-ms 1 --sandbox local",
    "python -m benchmarks.interference": "--limit 1",
    "python -m benchmarks.parallel_or_sequential": "--limit 1",
    "python -m benchmarks.adaptive_votes": "--solutions 20",
    "python -m benchmarks.adaptive_rollouts": "--problems 2 --plot plot.png",
    "python -m benchmarks.label_throughput": "--rows 20",
    "python -m benchmarks.serve_load": "--seconds 1 --clients 2 --sandbox local",
    "python -m benchmarks.soak": "--sessions 2",
}
"""What commands get besides, where the page does not give it, or where what it gives would take too long."""


def run_elsewhere(line: str) -> str | None:
    return next((where for part, where in ELSEWHERE.items() if part in line), None)


def further(line: str) -> str:
    words = next((words for begin, words in FURTHER.items() if line.startswith(begin)), "")
    served = "--base-url" in line or "--model" in line
    return words.replace(f"--model {STAND_IN}", "") if served else words


@pytest.fixture(scope="module")
def world(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:  # noqa: F811
    """A model, results, and training data."""
    folder = tmp_path_factory.mktemp("world")
    write_rows(folder / "labelled.jsonl", LABELLED)
    write_rows(folder / "worked.jsonl", WORKED)
    (folder / "model.json").write_text("[" + ",".join(rule.model_dump_json() for rule in RULES) + "]")
    model = ("--backend", "scripted", "--model", "model.json", "--sandbox", "local")
    for arguments in (
        ("eval", "processbench", "labelled.jsonl", "-o", "rows", *model),
        ("synth", "plant", "worked.jsonl", "-o", "planted", "--sandbox", "local"),
    ):
        subprocess.run(command(*arguments), cwd=folder, check=True, capture_output=True, timeout=120)
    return (
        make_tiny(tokenizer, folder / "tiny", context=32768, end=4.0),
        folder / "rows" / "rows.jsonl",
        folder / "planted",
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands(page: Path, world: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make_world(page.name, tmp_path, *world)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with ExitStack() as stack:
        models = stack.enter_context(model_server(str(world[0]), *SERVED.get(page.name, [STAND_IN])))
        ours = None
        for line in filter(lambda line: run_elsewhere(line) is None, commands(page)):
            own = line.startswith("curl ")
            line = re.sub(r"\[(--[^]]*)\]", r"\1", line)
            line = re.sub(r"localhost:800[01]", f"localhost:{ours if own else models}", line)
            line = line.replace("FOLDER", STAND_IN)
            line = re.sub(r"^python benchmarks/(\w+)\.py", r"python -m benchmarks.\1", line)
            line = f"{line} {further(line)}"
            if re.match(r"genprm (serve|view)\b", line):
                port = stack.enter_context(listening(line))
                ours = ours or port
            elif line.startswith("genprm "):
                done = CliRunner().invoke(app, shlex.split(line)[1:])
                assert done.exit_code == 0, (line, done.output[-3000:], done.exception)
            else:
                said = subprocess.run(shlex.split(line), capture_output=True, text=True, timeout=120)
                assert said.returncode == 0, (line, said.stdout[-1000:], said.stderr[-3000:])
                assert not said.stdout.startswith('{"error"')
                assert "stream" not in line or "event: result" in said.stdout


@contextmanager
def listening(line: str) -> Iterator[int]:
    """A command that serves, until it is told to end; its port."""
    process = subprocess.Popen(shlex.split(line), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        said = ""
        for text in process.stderr:
            said += text
            if found := re.search(r"http://[\w.]+:(\d+)", text):
                yield int(found[1])
                process.send_signal(signal.SIGTERM)
                process.stderr.read()
                assert process.wait(30) in (0, -signal.SIGTERM)
                return
        raise AssertionError((line, said))
    finally:
        process.kill()
        process.wait()


def test_where_the_others_run():
    for line in {line for page in PAGES for line in commands(page)}:
        where = run_elsewhere(line)
        assert where is None or (ROOT / where).is_file()


PARSED = [line for page in PAGES for line in commands(page) if line.startswith("genprm ") and run_elsewhere(line)]


@pytest.mark.parametrize("line", PARSED, ids=lambda line: line[:60])
def test_a_command_that_is_not_run_is_one_that_there_is(line: str):
    done = CliRunner().invoke(app, [*shlex.split(line)[1:], "--help"])
    assert done.exit_code == 0, done.output[-600:]


PYTHON = [(page.name, code) for page in PAGES for code in blocks(page, "python")]


@pytest.mark.parametrize(("page", "code"), PYTHON, ids=lambda value: value[:30])
def test_python(page: str, code: str, world: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As a notebook would run it: a block may await."""
    make_world(page, tmp_path, *world)
    monkeypatch.chdir(tmp_path)
    given: dict[str, Any] = {"questions": [PROBLEM], "outputs": [["So it is 13."]]}
    if "trl." in code:
        given |= training(monkeypatch)
    with model_server(str(world[0]), "launch/ThinkPRM-7B") as port:
        code = code.replace("localhost:8000", f"localhost:{port}")
        compiled = compile(code, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        made = FunctionType(compiled, given)()
        if inspect.iscoroutine(made):
            asyncio.run(made)


def training(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a page that trains has made before; without further words, TRL takes it that there is a GPU."""
    import datasets
    import trl

    arguments = trl.GRPOConfig(output_dir="out", use_cpu=True, bf16=False)
    monkeypatch.setattr(trl, "GRPOTrainer", partial(trl.GRPOTrainer, args=arguments))
    return {
        "trl": trl, "model": STAND_IN, "problems": datasets.Dataset.from_list([{"prompt": PROBLEM}]),
        "dataset": datasets.Dataset.from_list([{"problem": PROBLEM, "steps": ["It is 42."]}]),
    }  # fmt: skip
