"""All of it in one run, as one object."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sandbox.bench import measure, peers
from sandbox.sandbox import Sandbox

COUNTS = [1, 8, 64, 200]
HEADLINE = 8
"""The top-level figures are those at this many living kernels, or at the most that were asked for."""
CURVES = {"fresh_ms": "fresh kernel, ms", "cell_ms": "one cell, ms", "cells_per_s_per_core": "cells/s per core",
          "pss_mib": "PSS per kernel, MiB"}  # fmt: skip


async def run(
    make: Callable[..., Sandbox], counts: list[int], with_peers: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure. ``make`` makes a sandbox, given ``ready`` and ``sessions``.

    The result has ``cold_ms`` (stock ipykernel), ``fresh_ms``, ``pooled_ms``, ``fork_ms``, ``cell_ms``,
    ``cells_per_s_per_core``, ``pss_mib``, ``growth`` (a list of such figures), ``stock``, ``times_better`` and, if
    asked for, ``peers``. Times are medians in milliseconds, from the call until numpy, sympy and scipy are imported.

    Raises:
        SandboxError: there is no sandbox to measure.
    """
    say("our kernels")
    grown = await measure.growth(make, counts)
    headline = next((each for each in grown if each["kernels"] >= HEADLINE), grown[-1])
    found: dict[str, Any] = {
        name: headline[name] for name in ("fresh_ms", "cell_ms", "cell_p99_ms", "cells_per_s_per_core", "pss_mib")
    }
    found["pooled_ms"] = await measure.pooled(make)
    found["fork_ms"] = await measure.forked(make)
    say("stock ipykernel")
    stock = await peers.ipykernel()
    found["cold_ms"] = stock and stock["cold_ms"]
    found["stock"] = stock
    found["times_better"] = stock and {
        "fresh": _ratio(stock["cold_ms"], found["fresh_ms"]),
        "pooled": _ratio(stock["cold_ms"], found["pooled_ms"]),
        "cell": _ratio(stock["cell_ms"], found["cell_ms"]),
        "cells_per_s_per_core": _ratio(found["cells_per_s_per_core"], stock["cells_per_s_per_core"]),
        "pss": _ratio(stock["pss_mib"], found["pss_mib"]),
    }
    found["growth"] = grown
    if with_peers:
        found["peers"] = {}
        for name, work in (("docker_run_ipykernel", peers.ipykernel_in_docker), ("llm_sandbox", peers.llm_sandbox)):
            say(name)
            found["peers"][name] = await work()
    return found


def _ratio(above: float | None, below: float | None) -> float | None:
    return round(above / below, 1) if above and below else None


def plot(found: dict[str, Any], path: Path) -> None:
    """Draw how the figures grow with the number of kernels.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(9, 6), constrained_layout=True)
    for axis, (name, title) in zip(axes.flat, CURVES.items(), strict=True):
        points = [(each["kernels"], each[name]) for each in found["growth"] if each[name] is not None]
        axis.plot(*zip(*points, strict=True), marker="o", label="genprm") if points else None
        stock = (found["stock"] or {}).get("cold_ms" if name == "fresh_ms" else name)
        if stock:
            axis.axhline(stock, color="tab:red", linestyle="--", label="stock ipykernel")
            axis.set_yscale("log")
        axis.set_title(title)
        axis.set_xlabel("kernels alive")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
