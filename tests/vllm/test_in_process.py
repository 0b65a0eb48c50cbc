"""SmolLM2 in vLLM's engine in process, before a server takes its share: the same as with transformers."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from genprm import Verification
from genprm.models.base import ModelBackend
from tests.conftest import VLLM_PYTHON
from tests.vllm.conftest import ADAPTER, ENVIRONMENT, scores, word_scores

pytestmark = [pytest.mark.vllm, pytest.mark.alone, pytest.mark.timeout(600)]


async def test_in_process(smollm2: Path, adapter: Path, reference: dict[str | None, ModelBackend]):
    command = [str(VLLM_PYTHON), "-m", "tests.vllm.in_process", str(smollm2), str(adapter)]
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        cwd=Path(__file__).parents[2],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    in_process = [score for each in found["scores"] for score in each]
    assert in_process == pytest.approx(await scores(reference[ADAPTER]), abs=1e-3)
    assert found["words"] == pytest.approx(await word_scores(reference[ADAPTER]), abs=2e-3)
    assert found["one_token"] == [True, False]
    assert len(set(found["drawn"])) == 3
    assert found["again"] == found["drawn"], "n samples have the seeds of n single ones"
    assert found["after_cancelling"] == found["drawn"][:1]
    report = Verification.model_validate(found["code"])
    assert report.usage.completion_tokens > 50
    assert report.style == "genprm"
    assert "Exception ignored" not in done.stderr
