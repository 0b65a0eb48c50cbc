"""API keys: only their hashes are kept, and comparing takes the same time whatever is sent."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

from genprm.errors import InputError

PREFIX = "genprm-"
_HASH = re.compile(r"[0-9a-f]{64}")


def new_key() -> tuple[str, str]:
    """A key, and the line for the server's file."""
    key = PREFIX + secrets.token_urlsafe(32)
    return key, _hash(key)


def read_keys(path: Path) -> frozenset[str]:
    """The hashes in a file: one SHA-256 in hex per line; what follows a space is a note.

    Raises:
        InputError: it cannot be read, has none, or a line is none.
    """
    found = set()
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        word = line.split()[0]
        if not _HASH.fullmatch(word):
            raise InputError(f"{path}, line {number}: expected the SHA-256 of a key, as `genprm serve key` prints it")
        found.add(word)
    if not found:
        raise InputError(f"{path}: no keys in it")
    return frozenset(found)


def is_known(header: str | None, hashes: Iterable[str]) -> bool:
    """Whether an Authorization header carries a key whose hash is among these."""
    scheme, _, key = (header or "").partition(" ")
    sent = _hash(key.strip())
    known = False
    for each in hashes:
        known |= hmac.compare_digest(each, sent)
    return known and scheme.lower() == "bearer"


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()
