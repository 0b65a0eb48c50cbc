"""A model's layers compiled one by one: they are alike, so that one compilation does for all of them."""

from __future__ import annotations

import os
import shutil
from typing import Any

from genprm.errors import ConfigError


def require_compiler() -> None:
    """What is compiled for a CPU is C++.

    Raises:
        ConfigError: there is nothing to compile it with.
    """
    import torch

    compiler = os.environ.get("CXX", "g++")
    if not torch.cuda.is_available() and shutil.which(compiler) is None:
        raise ConfigError(f"--compile needs a C++ compiler, and there is no {compiler}: install it, or name one in CXX")


def compile_layers(model: Any) -> None:
    """Let each layer be compiled when it first runs, for sequences of any length.

    Args:
        model: transformers' or peft's.

    Raises:
        ConfigError: it does not say which of its modules are layers.
    """
    kinds = set(getattr(model, "_no_split_modules", None) or ())
    layers = [module for module in model.modules() if type(module).__name__ in kinds]
    if not layers:
        raise ConfigError("--compile: this model does not say which of its modules are layers: leave the option out")
    for layer in layers:
        layer.compile(dynamic=True)
