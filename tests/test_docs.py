"""The documentation: it builds without a broken link, and every command and every line of Python in it is one."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from genprm.cli.main import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[tuple[str, str]]:
    return [(page.name, text) for page in PAGES for found, text in BLOCK.findall(page.read_text()) if found == language]


def commands() -> list[tuple[str, str]]:
    found = []
    for name, text in blocks(""):
        for line in text.replace("\\\n", " ").splitlines():
            words = line.removeprefix("$ ")
            match = re.match(r"(?:[A-Z_]+=\S+ )*(genprm .*)", words)
            if match and "──" not in line:
                found.append((name, match[1]))
    return found


@pytest.mark.parametrize(("page", "command"), commands(), ids=lambda value: value[:60])
def test_a_command_in_the_docs_is_one_that_there_is(page: str, command: str):
    """Parsed as it stands there, with all its options; not run."""
    words = [word for word in shlex.split(command, comments=True)[1:] if word not in ("...", "[...]")]
    optional = [word.strip("[]").removesuffix("...") for word in words]
    done = CliRunner().invoke(app, [*(word for word in optional if word), "--help"])
    assert done.exit_code == 0, (page, done.output[-600:], done.stderr[-600:])


@pytest.mark.parametrize(("page", "code"), blocks("python"), ids=lambda value: value[:30])
def test_python_in_the_docs_is_python(page: str, code: str):
    compile(code, page, "exec", flags=__import__("ast").PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_the_site_builds(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    commands = (tmp_path / "site" / "reference" / "commands.html").read_text()
    assert "genprm train grpo" in commands
    assert "--step-tokens" in commands
    assert "verify_solution" in (tmp_path / "site" / "reference" / "python.html").read_text()
