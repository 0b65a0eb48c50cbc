"""What a model's files hold, so that a run does not go on with others that have taken their place."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

END = 1 << 20
"""Bytes at both ends of a file that are looked at: all of a configuration, and of weights enough to tell them apart."""
KINDS = (".json", ".safetensors", ".bin", ".gguf", ".jinja")


def files_mark(name: str) -> str | None:
    """A digest of a model's or an adapter's folder, or of a file; None where there is nothing of that name here."""
    path = Path(name)
    try:
        files = sorted(each for each in path.iterdir() if each.suffix in KINDS) if path.is_dir() else [path]
        found = hashlib.sha256()
        for file in files:
            with open(file, "rb") as opened:
                size = opened.seek(0, os.SEEK_END)
                found.update(f"{file.name} {size}\n".encode())
                for start in sorted({0, max(0, size - END)}):
                    opened.seek(start)
                    found.update(opened.read(END))
    except OSError:
        return None
    return found.hexdigest()
