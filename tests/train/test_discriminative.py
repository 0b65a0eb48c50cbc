"""The baselines: signs and a head, from labelled solutions to scores."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from genprm import AsyncVerifier, Solution
from genprm.errors import ConfigError, InputError
from genprm.models.base import ModelBackend
from genprm.models.reward_head import RewardHead
from genprm.models.transformers_backend import TransformersModel
from genprm.styles import Direct, Discriminative, PRMFormat, Style
from genprm.styles.discriminative import QWEN_TAG
from genprm.train.data import data_file
from genprm.train.lora import train
from genprm.train.options import Machine, TrainOptions
from genprm.train.recipes import Recipe
from genprm.train.tasks import Task
from genprm.train.tokens import IGNORED

pytestmark = pytest.mark.model
STYLES = {
    Task.DIRECT: Direct(),
    Task.SIGNS: Discriminative(PRMFormat.RLHFLOW),
    Task.HEAD: Discriminative(PRMFormat.QWEN),
}
"""How what comes of each task is asked."""
RECIPE = Recipe(epochs=30, batch=4, learning_rate=1e-2, rank=8)
"""Enough for the tiny model to see what tells a wrong step."""


def solution(number: int) -> dict[str, Any]:
    """Its wrong step, where there is one, says so, and steps behind it look right."""
    wrong = number % 3 - 1
    steps = ["so it is wrong" if step == wrong else f"so it is {number % 7}" for step in range(3)]
    return {"id": f"s{number}", "problem": "What comes of it?", "steps": steps, "label": wrong}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(solution(number)) + "\n" for number in range(24)))
    return path


def test_a_folder_is_its_training_data_or_else_its_labels(tmp_path: Path):
    assert data_file(str(tmp_path)) == str(tmp_path / "train.jsonl")
    for name in ("labelled.jsonl", "train.jsonl"):
        (tmp_path / name).touch()
        assert data_file(str(tmp_path)) == str(tmp_path / name)


def targets(tokenizer: Any, task: Task, rows: Path) -> list[list[tuple[str, int]]]:
    """Of each row the tokens that the loss looks at, with their labels."""
    return [
        [
            (tokenizer.decode([token]), label)
            for token, label in zip(example.input_ids, example.labels, strict=True)
            if label != IGNORED
        ]
        for example, _ in task.read(str(rows), tokenizer, 3)
    ]


def test_the_signs_of_the_steps_up_to_the_first_error(tokenizer: Any, rows: Path):
    found = targets(tokenizer, Task.SIGNS, rows)
    assert [[text for text, _ in row] for row in found] == [["+", "+", "+"], ["-"], ["+", "-"]]


def test_the_verdicts_of_the_steps_up_to_the_first_error(tokenizer: Any, rows: Path):
    found = targets(tokenizer, Task.DIRECT, rows)
    assert [[text for text, _ in row] for row in found] == [["Yes", "Yes", "Yes"], ["No"], ["Yes", "No"]]


def test_the_marks_of_the_steps_up_to_the_first_error(tokenizer: Any, rows: Path):
    from copy import deepcopy

    marking = deepcopy(tokenizer)
    marking.add_special_tokens({"additional_special_tokens": [QWEN_TAG]})
    tag = QWEN_TAG
    assert targets(marking, Task.HEAD, rows) == [[(tag, 1)] * 3, [(tag, 0)], [(tag, 1), (tag, 0)]]


async def scores(model: ModelBackend, style: Style) -> list[list[float | None]]:
    verifier = AsyncVerifier(model, None, style=style)
    reports = [await verifier.verify_solution(Solution(**solution(number))) for number in (0, 1, 2)]
    await model.close()
    return [[step.score for step in report.steps] for report in reports]


@pytest.mark.alone
@pytest.mark.parametrize("task", list(STYLES))
async def test_it_tells_right_from_wrong_afterwards(rows: Path, tiny: Path, tmp_path: Path, task: Task):
    options = TrainOptions(base=str(tiny), task=task, recipe=RECIPE)
    measured = train(str(rows), tmp_path / "out", options, say=lambda _: None)
    assert measured.final_loss < measured.first_loss
    load = RewardHead.load if task.has_head else partial(TransformersModel.load, str(tiny))
    none, first, second = await scores(load(str(tmp_path / "out")), STYLES[task])
    assert first[0] < none[0]
    assert second[1] < none[1]
    assert first[0] < 0.5
    assert none[0] > 0.5
    assert "baseline" in (tmp_path / "out" / "README.md").read_text()


def test_a_head_learns_the_same_however_many_fit_the_memory(rows: Path, tiny: Path, tmp_path: Path):
    """A solution has one mark, or up to three: the mean over each micro-batch would weigh them differently."""
    recipe = RECIPE.model_copy(update={"batch": 8, "epochs": 2})
    options = TrainOptions(base=str(tiny), task=Task.HEAD, recipe=recipe)
    found = [
        train(str(rows), tmp_path / str(size), options, Machine(micro_batch=size), say=lambda _: None).final_loss
        for size in (1, 8)
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_no_labels(tiny: Path, tmp_path: Path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(solution(0)) + "\n" + json.dumps({**solution(1), "label": None}) + "\n")
    with pytest.raises(InputError, match="id s1: no label: expected the first wrong step, -1 for none"):
        train(str(rows), tmp_path / "out", TrainOptions(base=str(tiny), task=Task.SIGNS), say=lambda _: None)
    assert not (tmp_path / "out").exists()


def test_a_head_is_not_packed(rows: Path, tiny: Path, tmp_path: Path):
    options = TrainOptions(base=str(tiny), task=Task.HEAD, packing=True)
    with pytest.raises(ConfigError, match="--packing does not go with a head"):
        train(str(rows), tmp_path / "out", options)
