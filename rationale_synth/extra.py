"""The libraries that the data factory needs besides the engine's own."""

from __future__ import annotations

import importlib.util

from genprm.errors import ConfigError

LIBRARIES = ("math_verify", "matplotlib", "numpy", "pebble", "pyarrow")


def require() -> None:
    """Refuse to begin a job that could not be finished.

    Raises:
        ConfigError: a library is missing.
    """
    missing = [name for name in LIBRARIES if not _there(name)]
    if missing:
        raise ConfigError(f"the extra 'data' is not installed ({missing[0]} is missing): pip install 'genprm[data]'")


def _there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # it stands among the loaded modules, as none
        return False
