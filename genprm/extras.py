"""Libraries that only some of the commands need."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

from genprm.errors import ConfigError


def require(extra: str, libraries: Iterable[str]) -> None:
    """Refuse to begin a job that could not be finished.

    Args:
        extra: what they are installed by.
        libraries: the modules it takes.

    Raises:
        ConfigError: one is missing.
    """
    missing = next((name for name in libraries if not _there(name)), None)
    if missing:
        raise ConfigError(f"the extra '{extra}' is not installed ({missing} is missing): pip install 'genprm[{extra}]'")


def _there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # it stands among the loaded modules, as none
        return False
