"""Where a job runs: options that both jobs have."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer


class Engine(str, Enum):
    """Where a job runs."""

    LOCAL = "local"
    RAY = "ray"


LIBRARIES = ("math_verify", "matplotlib", "numpy", "pebble", "pyarrow")
"""What both jobs need besides the engine's own: the extra ``data``."""
Decontaminate = Annotated[
    list[str] | None,
    typer.Option(metavar="FILE", help="Leave out problems that share ten words in a row with one of FILE. Repeatable."),
]
EngineOption = Annotated[Engine, typer.Option("--engine", help="Where the job runs.")]
RayAddress = Annotated[
    str | None, typer.Option(help="With --engine ray: the cluster's address. Default: one on this machine.")
]
Actors = Annotated[int, typer.Option(min=1, help="With --engine ray: how many, each with a model and kernels.")]
