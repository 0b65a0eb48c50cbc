"""The pictures that commands draw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genprm.errors import ConfigError, OutputError


@contextmanager
def picture(path: Path, width: float, height: float) -> Iterator[Any]:
    """Axes to draw on; what is on them at the end is at ``path``, a PNG unless its suffix says otherwise.

    Args:
        path: where it goes.
        width: in inches.
        height: in inches.

    Raises:
        ConfigError: matplotlib is not installed.
        OutputError: the picture cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("--plot needs matplotlib: pip install 'genprm[data]'") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    yield figure.add_subplot()
    try:
        figure.savefig(path, dpi=120, format=path.suffix.removeprefix(".") or "png")
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: {error}") from error
