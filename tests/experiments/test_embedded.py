"""The recipe's command line; what it runs is tested where it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from experiments.embedded import EVALUATION, MAX_LENGTH, up_to_length
from genprm.models.chat import load_tokenizer
from genprm.models.embedded import EMBEDDED, model_source
from genprm.records import NO_ERROR
from genprm.train.record import ChatMessage, Masked, TrainingRecord
from genprm.train.tokens import encode
from tests.docs.world import LABELLED, WORKED, write_rows

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in EVALUATION:
        write_rows(tmp_path / "data" / name, LABELLED)
    write_rows(tmp_path / "data" / "gsm8k" / "train.jsonl", [{**WORKED[0], "id": f"row {n}"} for n in range(150)])
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("options", "found", "message"),
    [
        (("--gsm8k", "11"), None, "DATA/gsm8k/train.jsonl has 10 rows to train on, not 11"),
        (
            ("--gsm8k", "10"),
            '{"base": "other", "gsm8k": 10, "families": 205}',
            "RUN/recipe.json is there already, and is",
        ),
    ],
)
def test_what_it_refuses(data: Path, tmp_path: Path, options: tuple[str, ...], found: str | None, message: str):
    run = tmp_path / "run"
    run.mkdir()
    if found:
        (run / "recipe.json").write_text(found)
    command = [sys.executable, "-m", "experiments.embedded", str(data), "-o", str(run), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert done.stderr.replace(str(data), "DATA").replace(str(run), "RUN").startswith(message)
    assert not list(run.glob("*-data"))


@pytest.mark.parametrize(("words", "kept", "label"), [(10, 4, 3), (400, 2, NO_ERROR), (2000, 0, None)])
def test_a_long_record_is_cut_behind_a_step(words: int, kept: int, label: int | None):
    steps = ("He has 2.", "She has 3.", "That makes 5.", "The answer is 6.")
    turns = [(("user", step), ("assistant", "word " * words)) for step in steps]
    messages = tuple(ChatMessage(role=role, content=text) for turn in turns for role, text in turn)
    masked = tuple(Masked(message=place, start=0, end=4) for place in (1, 3, 5, 7))
    record = TrainingRecord(
        id="r", style="genprm", messages=messages, masked=masked, problem="p", steps=steps, label=3, model="m"
    )  # fmt: skip
    tokenizer = load_tokenizer(model_source(EMBEDDED))
    cut = up_to_length(record, tokenizer)
    if cut is None:
        assert not kept
        return
    assert TrainingRecord.model_validate_json(cut.model_dump_json()) == cut
    assert (cut.steps, cut.messages, cut.masked) == (steps[:kept], messages[: 2 * kept], masked[:kept])
    assert cut.label == label
    assert len(encode(tokenizer, cut.messages, cut.masked).input_ids) <= MAX_LENGTH
