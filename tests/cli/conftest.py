"""The command line as a user runs it: a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = [
    {"when": r"```python\n$", "text": "print(6 * 7)\n```\n"},
    {"when": "step by step: $", "text": "It looks right.</analyze>\n"},
    {"when": r"(?s)wrong step.*boxed\{$", "yes": 0.1},
    {"when": r"boxed\{$", "yes": 0.9},
    {"text": "So it is.\n</verify>\n<output>\n"},
]

PROGRESS = re.compile(r"(?m)^\d+ of \d+ \w+, .*\n")
"""What `genprm.progress` says every ten seconds: how much of it there is depends on the machine."""

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", "from genprm.cli import main; main()", *map(str, arguments)]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A model script that finds a step wrong when the problem says "wrong step"."""
    path = tmp_path / "script.json"
    path.write_text(json.dumps(SCRIPT))
    return path


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    """Six rows with labels, two of them wrong."""
    rows = [
        {
            "id": f"r{n}",
            "problem": "A wrong step here" if n % 3 == 2 else "All is well",
            "steps": ["one", "two"],
            "label": 0 if n % 3 == 2 else -1,
        }
        for n in range(6)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Run ``genprm`` with arguments, in an empty folder; its output as text, without the lines of progress."""

    def run(*arguments: object, stdin: str = "", timeout: float = 120, **environment: str):
        done = subprocess.run(
            command(*arguments), input=stdin, capture_output=True, text=True, timeout=timeout, cwd=tmp_path,
            env={**os.environ, **environment},
        )  # fmt: skip
        done.stderr = PROGRESS.sub("", done.stderr)
        return done

    return run
