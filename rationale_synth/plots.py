"""The few plots of the dataset cards. The same data gives the same file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genprm.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator


def bars(path: Path, x: str, y: str, names: Sequence[str], heights: Sequence[float]) -> None:
    """Write a bar chart.

    Raises:
        OutputError: it cannot be written.
    """
    with _axes(path, x, y) as axes:
        axes.bar(names, heights, color="#4878a8")


def lines(path: Path, x: str, y: str, curves: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """Write a chart of curves.

    Raises:
        OutputError: it cannot be written.
    """
    with _axes(path, x, y) as axes:
        for name, points in curves.items():
            axes.plot([point[0] for point in points], [point[1] for point in points], marker="o", label=name)
        axes.legend(frameon=False)


@contextmanager
def _axes(path: Path, x: str, y: str) -> Iterator[Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    yield axes
    staged = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(exist_ok=True)
        figure.savefig(staged, format="png", dpi=120, metadata={"Software": None})
        staged.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from error
    finally:
        staged.unlink(missing_ok=True)
