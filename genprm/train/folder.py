"""The folder of a training run: while it is under way, and what came of it when it is done."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from genprm.errors import InputError, OutputError
from genprm.report import write_text

CONFIG = "training.json"
CHECKPOINTS = "checkpoints"
CARD = "README.md"
"""It is written last: where it is, the run is done."""


class TrainFolder(NamedTuple):
    """Where a run keeps its checkpoints, and in the end what it trained."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """What the run can go on from; gone when it is done."""
        return self.path / CHECKPOINTS

    @property
    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint that is whole."""
        whole = [path for path in self.checkpoints.glob("checkpoint-*") if _is_whole(path)]
        return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)

    def finish(self, staged: Path) -> None:
        """Take what was trained, and let go of the checkpoints."""
        for path in sorted(staged.iterdir(), key=lambda path: path.name == CARD):
            shutil.copymode(staged / CARD, path)  # safetensors lets nobody else read what it writes
            path.replace(self.path / path.name)
        shutil.rmtree(self.checkpoints)


def _is_whole(checkpoint: Path) -> bool:
    """Whether the file that is written last is there to its end."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_bytes())
    except (OSError, ValueError):
        return False
    return True


def process() -> int:
    """Which of a run's processes this is; torch's launchers number them from 0."""
    return int(os.environ.get("RANK", "0"))


def on_first(say: Callable[[str], None]) -> Callable[[str], None]:
    """To say something once, and not in every process."""
    return say if process() == 0 else lambda _: None


def processes() -> int:
    """How many processes the run has."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def open_train_folder(path: Path, config: dict[str, Any]) -> Iterator[TrainFolder]:
    """Begin a run in a folder, or go on with one; it is nobody else's meanwhile.

    A run that has come to no checkpoint is begun anew, with other options perhaps.

    Of the processes of one run (``accelerate launch``) the first does this for all.

    Args:
        path: the folder; made if need be.
        config: everything that decides what comes of the run.

    Raises:
        InputError: there is an adapter already, another run, or something else.
        OutputError: it cannot be written.
    """
    if process() != 0:
        yield TrainFolder(path)
        return
    target = path / CONFIG
    if (path / CARD).exists() and target.exists():
        raise InputError(f"{path}: a finished training is in it: choose another folder")
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file, expected a folder")
    if path.exists() and not target.exists() and any(path.iterdir()):
        raise InputError(f"{path}: is not empty, and no run of ours: choose another folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            write_text(target, json.dumps(config, indent=1) + "\n")
        lock = open(target, "r+b")  # noqa: SIM115 - closed below, around what is none of this block's business
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{path}: another process is training in this folder") from None
        folder = TrainFolder(path)
        if folder.last_checkpoint:
            _check_same(path, json.load(lock), json.loads(json.dumps(config)))
        else:
            lock.truncate()
            lock.write(json.dumps(config, indent=1).encode() + b"\n")
            lock.flush()
        yield folder


def _check_same(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise InputError(
                f"{path}: a run with {name} = {found.get(name)!r} was begun here, not {wanted.get(name)!r}: "
                "choose another folder"
            )


def fingerprint(path: str) -> str:
    """The SHA-256 of a file's bytes.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
