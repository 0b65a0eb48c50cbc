"""Imports done once, in the server, so that every kernel is born with them.

The order matters: thread counts are read by the BLAS libraries when they are loaded, and a process that has
started BLAS threads can not be forked safely.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import os
import threading

MODULES = (
    "asyncio", "bisect", "cmath", "collections", "copy", "ctypes", "datetime", "decimal", "fractions", "functools",
    "heapq", "inspect", "itertools", "json", "math", "multiprocessing", "operator", "pdb", "pickle", "random", "re",
    "shutil", "signal", "socket", "statistics", "string", "subprocess", "tempfile", "textwrap", "time", "typing",
    "uuid",
    "numpy", "numpy.linalg", "sympy", "mpmath", "scipy", "scipy.optimize", "scipy.special", "scipy.stats",
    # What `sympy.solve`, `integrate` and `simplify` would import when they are first called.
    "sympy.assumptions.wrapper", "sympy.codegen.ast", "sympy.combinatorics", "sympy.integrals.heurisch",
    "sympy.integrals.manualintegrate", "sympy.integrals.risch", "sympy.physics.units", "sympy.sets.setexpr",
    "sympy.tensor.tensor",
)  # fmt: skip
"""What model-written checks import, in the order of their cost: the last ones are what makes a cold start slow."""


def preload() -> list[str]:
    """Import `MODULES` and freeze them out of the garbage collector's sight. Returns the names that are missing.

    Raises:
        RuntimeError: an import started a thread, so that forking from here on would be unsafe.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        os.environ[name] = "1"
    missing = []
    for name in MODULES:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name.partition(".")[0])
    if threading.active_count() != 1:
        raise RuntimeError(f"an imported module started threads: {threading.enumerate()}")
    gc.collect()
    gc.freeze()
    return sorted(set(missing))
