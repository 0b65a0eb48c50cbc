"""The pictures that commands draw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genprm.errors import ConfigError, OutputError


def check_picture(path: Path) -> None:
    """Refuse a picture that cannot be drawn, before there is anything to draw.

    Raises:
        ConfigError: matplotlib is not installed.
        OutputError: its suffix is that of no kind of picture.
    """
    kinds = _figure_class()(layout="constrained").canvas.get_supported_filetypes()
    if _kind(path) not in kinds:
        raise OutputError(f"{path}: no kind of picture: expected one of {', '.join(sorted(kinds))}")


def _figure_class() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("--plot needs matplotlib: pip install 'genprm[data]'") from error
    return Figure


def _kind(path: Path) -> str:
    return path.suffix.removeprefix(".").lower() or "png"


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
    figure = _figure_class()(figsize=(width, height), layout="constrained")
    yield figure.add_subplot()
    try:
        figure.savefig(path, dpi=120, format=_kind(path))
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: {error}") from error
