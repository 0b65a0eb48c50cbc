"""What an experiment ran, on what, for how long, and with which versions."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

from genprm.cli.shared import EXIT_UNSCORED
from genprm.train.folder import fingerprint


class Manifest:
    """What was run, on what, and for how long."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found = json.loads(path.read_text()) if path.exists() else {"inputs": {}, "commands": []}
        self._found["commit"] = subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
        ).stdout.strip()
        self._found["machine"] = f"{platform.machine()}, Python {platform.python_version()}"
        self._found["versions"] = {name: version(name) for name in ("torch", "transformers", "peft", "trl")}

    def inputs(self, files: list[str]) -> None:
        """Note the fingerprints of files."""
        self._found["inputs"] = {"/".join(Path(file).parts[-2:]): fingerprint(file) for file in files}

    def genprm(self, *arguments: object) -> None:
        """Run a command of ours, and note it with its time.

        Raises:
            subprocess.CalledProcessError: nothing was done. Rows without a score, or that failed, are noted only.
        """
        words = [str(argument) for argument in arguments]
        begun = time.monotonic()
        done = subprocess.run([Path(sys.executable).with_name("genprm"), *words], check=False)
        seconds = round(time.monotonic() - begun, 1)
        noted = {"command": " ".join(["genprm", *words]), "seconds": seconds, "status": done.returncode}
        self._found["commands"].append(noted)
        self._path.write_text(json.dumps(self._found, indent=1) + "\n")
        if done.returncode != EXIT_UNSCORED:
            done.check_returncode()
