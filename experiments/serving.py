"""A trained adapter behind vLLM while it is measured: on a CPU, many chains at once cost little more than a few.

vLLM runs an adapter beside its base at a fifth of the speed that both have as one model, so they are merged.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from genprm.models.chat import load_tokenizer
from genprm.models.embedded import model_source
from genprm.models.transformers_backend import with_adapter

START_SECONDS = 400
PORT = 8137
"""Always the same, as the address is part of what a run that goes on is known by."""
OPTIONS = (
    "--host", "127.0.0.1", "--port", PORT, "--enforce-eager", "--max-logprobs", 20, "--max-num-seqs", 128,
    "--block-size", 32,  # a turn's end is computed anew with each turn behind it
    "--no-enable-chunked-prefill",  # vLLM 0.32 on a CPU fails at a chunk of a request that has a seed
    "--gpu-memory-utilization", 0.2,
)  # fmt: skip
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "3", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


@contextmanager
def reached(
    python: Path | None, base: str, adapter: Path | None = None, role: str = "--model"
) -> Iterator[tuple[object, ...]]:
    """The options by which `genprm` reaches a model: served, if there is a Python that has vLLM.

    Args:
        python: the Python that has vLLM, or None.
        base: hub id, folder, or `EMBEDDED`.
        adapter: the folder of a LoRA adapter for it.
        role: the option that names the model.
    """
    if python is None:
        yield (role, base, *(("--adapter", adapter) if adapter else ()))
        return
    name = (adapter or Path(base)).name
    with served(python, name, base, adapter) as url:
        yield ("--base-url", url, role, name, "--tokenizer", model_source(base))


@contextmanager
def served(python: Path, name: str, base: str, adapter: Path | None = None) -> Iterator[str]:
    """A model behind vLLM, in bfloat16; gives the address.

    Args:
        python: the Python that has vLLM.
        name: what the server calls the model.
        base: hub id, folder, or `EMBEDDED`.
        adapter: the folder of a LoRA adapter, to be merged into it.

    Raises:
        OSError: something else listens on `PORT`.
        RuntimeError: vLLM does not come up.
    """
    folder = Path(tempfile.mkdtemp(prefix="genprm-merged-"))
    try:
        merge(base, adapter, folder)
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", PORT))  # else another server's answers would be taken for this one's
        command = [
            python, "-m", "vllm.entrypoints.openai.api_server", "--model", folder, "--served-model-name", name,
            *OPTIONS,
        ]  # fmt: skip
        log = folder / "vllm.log"
        with open(log, "wb") as lines:
            process = subprocess.Popen(
                list(map(str, command)), stdout=lines, stderr=lines, env={**os.environ, **ENVIRONMENT},
                start_new_session=True,
            )  # fmt: skip
        try:
            url = f"http://127.0.0.1:{PORT}/v1"
            _wait(process, url, log)
            yield url
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    finally:
        shutil.rmtree(folder)


def merge(base: str, adapter: Path | None, folder: Path) -> None:
    """Write ``base``, with ``adapter`` merged into its weights if there is one."""
    source = model_source(base)
    network: PreTrainedModel = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    merged = with_adapter(network, base, str(adapter)) if adapter else network
    merged.to(torch.bfloat16).save_pretrained(folder)
    load_tokenizer(source).save_pretrained(folder)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/models", timeout=2).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise RuntimeError(f"vLLM does not come up: {log.read_text(errors='replace')[-2000:]}")
