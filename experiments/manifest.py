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
from genprm.report import write_text
from genprm.train.folder import fingerprint

MAY_BE_UNSCORED = ("eval", "label", "synth")
"""Commands that have done their work also where some of it failed."""
PUT_AWAY_SECONDS = 300
"""How long an interrupted command may take to end."""


class Manifest:
    """What was run, on what, and for how long: the starts, and the commands of each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found = json.loads(path.read_text()) if path.exists() else {"starts": [], "commands": []}
        commit = ["git", "describe", "--always", "--dirty"]
        self._found["starts"].append(
            {
                "commit": subprocess.run(commit, capture_output=True, text=True, check=False).stdout.strip(),
                "machine": f"{platform.machine()}, Python {platform.python_version()}",
                "versions": {name: version(name) for name in ("torch", "transformers", "peft", "trl")},
                "inputs": {},
            }
        )

    def inputs(self, files: list[str]) -> None:
        """Note the fingerprints of files."""
        found = {"/".join(Path(file).parts[-2:]): fingerprint(file) for file in files}
        self._found["starts"][-1]["inputs"] = found

    def genprm(self, *arguments: object) -> None:
        """Run a command of ours, and note it with its time; one that was cut off has no status.

        Raises:
            subprocess.CalledProcessError: nothing was done. Rows without a score, or that failed, are noted only.
        """
        words = [str(argument) for argument in arguments]
        noted: dict[str, object] = {
            "start": len(self._found["starts"]) - 1, "command": " ".join(["genprm", *words]), "seconds": None,
            "status": None,
        }  # fmt: skip
        self._found["commands"].append(noted)
        self._write()
        begun = time.monotonic()
        status = finished([str(Path(sys.executable).with_name("genprm")), *words])
        noted |= {"seconds": round(time.monotonic() - begun, 1), "status": status}
        self._write()
        if status and (status != EXIT_UNSCORED or words[0] not in MAY_BE_UNSCORED or words[:2] == ["synth", "plant"]):
            raise subprocess.CalledProcessError(status, words)

    def _write(self) -> None:
        write_text(self._path, json.dumps(self._found, indent=1) + "\n")


def finished(command: list[str]) -> int:
    """The exit status of a command. It gets an interrupt of ours as a SIGTERM, and time to put its work away."""
    process = subprocess.Popen(command, start_new_session=True)  # else it would also get the terminal's own
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        try:
            process.wait(PUT_AWAY_SECONDS)
        finally:
            process.kill()
        raise
