"""A real vLLM, on the CPU and in a virtual environment of its own: SmolLM2 with a LoRA adapter that was not trained."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from genprm import AsyncVerifier, Sampling
from genprm.models.base import ModelBackend
from genprm.models.embedded import embedded_folder
from genprm.models.transformers_backend import TransformersModel
from genprm.styles import Direct
from tests.conftest import VLLM_PYTHON
from tests.vllm.work import PROMPT, SOLUTIONS, WORDS

ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"},  # it has the machine to itself
    "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # its first core may be busy
}  # fmt: skip
START_SECONDS = 400
ADAPTER = "mine"


class Server:
    """A ``vllm serve``."""

    def __init__(self, model: Path, adapter: Path, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/v1"
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._command = [
            VLLM_PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--port", self._port, "--model", model,
            "--served-model-name", "smol", "--enable-lora", "--max-lora-rank", 8,
            "--lora-modules", f"{ADAPTER}={adapter}",
            "--dtype", "float32", "--enforce-eager", "--no-enable-chunked-prefill", "--max-model-len", 4096,
            "--max-logprobs", 20, "--gpu-memory-utilization", 0.2,
        ]  # fmt: skip

    def start(self) -> None:
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                list(map(str, self._command)), stdout=log, stderr=log, env=ENVIRONMENT, start_new_session=True
            )

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self._process is not None
            assert self._process.poll() is None, self._log.read_text()[-3000:]
            try:
                if httpx.get(f"{self.url}/models", timeout=2).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.5)
        raise AssertionError(f"no server after {START_SECONDS} s: {self._log.read_text()[-3000:]}")

    def kill(self) -> None:
        """As a crash does, with all its processes."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    return embedded_folder()


@pytest.fixture(scope="session")
def adapter(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random, and strong enough to be seen in every score."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter") / ADAPTER
    torch.manual_seed(0)
    wanted = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(smollm2), wanted).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def server(smollm2: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    it = Server(smollm2, adapter, tmp_path_factory.mktemp("server") / "log")
    it.start()
    try:
        it.wait()
        yield it
    finally:
        it.kill()


@pytest.fixture(scope="session")
async def reference(smollm2: Path, adapter: Path) -> AsyncIterator[dict[str | None, ModelBackend]]:
    models = {None: TransformersModel.load(str(smollm2)), ADAPTER: TransformersModel.load(str(smollm2), str(adapter))}
    yield models
    for model in models.values():
        await model.close()


async def scores(model: ModelBackend) -> list[float | None]:
    verifier = AsyncVerifier(model, None, style=Direct(), sampling=Sampling(temperature=0))
    reports = [await verifier.verify_solution(solution) for solution in SOLUTIONS]
    return [step.score for report in reports for step in report.steps]


async def word_scores(model: ModelBackend) -> list[float]:
    return await model.score(model.render([{"role": "user", "content": PROMPT}], ""), WORDS)
