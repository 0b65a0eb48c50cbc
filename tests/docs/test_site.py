"""The documentation builds as a site, without a broken link, its reference made from the code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.docs.pages import ROOT


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
