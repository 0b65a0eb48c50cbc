"""Figures of a summary, as a user sees them."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table


def print_figures(figures: Iterable[tuple[str, str]]) -> None:
    """Print names and figures, but those that are nothing."""
    grid = Table(box=None, padding=(0, 1), show_header=False)
    grid.add_column()
    grid.add_column(justify="right")
    for name, figure in figures:
        if figure not in ("0", "-"):
            grid.add_row(name, figure)
    Console(highlight=False).print(grid)
