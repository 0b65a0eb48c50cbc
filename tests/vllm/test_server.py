"""SmolLM2 behind a real vLLM server: the same as with transformers; every style; a server that dies."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from genprm import Sampling, Verification, parse_row
from genprm.errors import ModelError
from genprm.models.base import ModelBackend
from genprm.models.openai_backend import OpenAIModel
from tests.conftest import DATA
from tests.vllm.conftest import ADAPTER, Server, scores, word_scores
from tests.vllm.work import LONG_WORD, PROMPT, SOLUTIONS

pytestmark = [pytest.mark.vllm, pytest.mark.alone, pytest.mark.timeout(600)]
ROWS = DATA / "processbench_dev" / "gsm8k.jsonl"
ROW_COUNT = 2
STYLES = {
    "genprm": ["--sandbox", "local", "--example", "--step-tokens", "40", "--runs", "1"],
    "thinkprm": ["--chain-tokens", "40"],
    "stepwiser": ["--step-tokens", "24"],
    "judge": ["--chain-tokens", "40"],
    "direct": [],
    "discriminative": ["--prm-format", "rlhflow"],
}


@pytest.mark.parametrize("adapter_name", [None, ADAPTER])
async def test_a_servers_scores_are_those_of_transformers(
    server: Server, smollm2: Path, reference: dict[str | None, ModelBackend], adapter_name: str | None
):
    model = await OpenAIModel.connect(server.url, "smol", tokenizer=str(smollm2), adapter=adapter_name)
    assert await scores(model) == pytest.approx(await scores(reference[adapter_name]), abs=1e-3)
    await model.close()


async def test_the_adapter_is_seen_in_the_scores(reference: dict[str | None, ModelBackend]):
    bare, adapted = await word_scores(reference[None]), await word_scores(reference[ADAPTER])
    assert all(abs(one - other) > 0.01 for one, other in zip(bare, adapted, strict=True))


async def test_words_of_several_tokens_are_scored_whole(
    server: Server, smollm2: Path, reference: dict[str | None, ModelBackend]
):
    model = await OpenAIModel.connect(server.url, "smol", tokenizer=str(smollm2))
    assert not model.is_token(LONG_WORD)
    assert await word_scores(model) == pytest.approx(await word_scores(reference[None]), abs=2e-3)
    await model.close()


async def test_an_adapter_that_the_server_does_not_have(server: Server, smollm2: Path):
    with pytest.raises(ModelError, match="does not serve the adapter 'yours', but smol, mine"):
        await OpenAIModel.connect(server.url, "smol", tokenizer=str(smollm2), adapter="yours")


async def test_samples_have_seeds_of_their_own(server: Server, smollm2: Path):
    model = await OpenAIModel.connect(server.url, "smol", tokenizer=str(smollm2))
    prompt = model.render([{"role": "user", "content": PROMPT}], "")

    async def draw(n: int, seed: int) -> list[str]:
        how = Sampling(temperature=1, seed=seed)
        return [each.text for each in await model.complete(prompt, stop=["."], max_tokens=12, n=n, sampling=how)]

    drawn = await draw(3, 5)
    assert len(set(drawn)) == 3
    assert await draw(3, 5) == drawn
    await model.close()


def verify(server: Server, smollm2: Path, rows: Path, out: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-c", "from genprm.cli import main; main()", "verify", str(rows), "-o", str(out),
        "--base-url", server.url, "--model", "smol", "--tokenizer", str(smollm2), "--temperature", "0", *more,
    ]  # fmt: skip


def test_a_server_that_dies_and_comes_back_loses_no_row(server: Server, smollm2: Path, tmp_path: Path):
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    texts = [SOLUTIONS[number % 2].model_copy(update={"id": f"r{number}"}).model_dump_json() for number in range(8)]
    rows.write_text("\n".join(texts))
    command = verify(server, smollm2, rows, out, "--style", "thinkprm", "--chain-tokens", "40", "--in-flight", "2")
    log = tmp_path / "stderr"
    with open(log, "wb") as stderr:
        run = subprocess.Popen(command, stderr=stderr, stdout=subprocess.DEVNULL)
        partial = tmp_path / "out.jsonl.partial"
        deadline = time.monotonic() + 120
        while not (partial.exists() and partial.read_bytes().count(b"\n") >= 3):
            assert time.monotonic() < deadline, log.read_text()
            assert run.poll() is None, log.read_text()
            time.sleep(0.1)
        server.kill()
        server.start()
        assert run.wait(400) in (0, 1), log.read_text()  # 1: this model leaves steps without a verdict
    assert "does not answer" in log.read_text()
    found = [parse_row(line) for line in out.read_bytes().splitlines()]
    assert [row.id for row in found] == [f"r{number}" for number in range(8)]
    assert all(isinstance(row, Verification) and row.usage.completion_tokens >= 20 for row in found)


@pytest.mark.skipif(not ROWS.exists(), reason="needs ProcessBench's rows")
@pytest.mark.parametrize("style", STYLES)
def test_every_style_on_real_rows(server: Server, smollm2: Path, tmp_path: Path, style: str):
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    rows.write_text("".join(ROWS.read_text().splitlines(keepends=True)[:ROW_COUNT]))
    command = verify(server, smollm2, rows, out, "--style", style, *STYLES[style])
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode in (0, 1), done.stderr  # 1: this model leaves steps without a verdict
    found = [parse_row(line) for line in out.read_bytes().splitlines()]
    assert len(found) == ROW_COUNT
    assert all(isinstance(row, Verification) for row in found)
    assert all(step.parse is not None for row in found if isinstance(row, Verification) for step in row.steps)
