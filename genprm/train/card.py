"""The model card of an adapter: what it stands on, what it was trained on, how, and what was measured."""

from __future__ import annotations

from typing import Any

from genprm.records import Record
from genprm.train.tasks import Task


class Measured(Record):
    """What a training run came to."""

    steps: int
    conversations: int
    too_long: int
    """Left out, of training and dev records together."""
    with_error: int
    tokens: int
    """Over all epochs."""
    targets: int
    """Those of them that the loss looked at."""
    first_loss: float
    final_loss: float
    dev_loss: float | None
    """The least, None without a dev file."""
    seconds: float
    """Since this process began, which is all of it unless it went on with a run that was cut off."""


def figures(measured: Measured) -> list[tuple[str, Any]]:
    """What a supervised training came to, as a card tells it."""
    return [
        ("conversations", f"{measured.conversations}, {measured.with_error} of them with an error"),
        ("left out, too long", measured.too_long),
        ("optimizer steps", measured.steps),
        ("tokens seen", f"{measured.tokens}, {measured.targets} of them targets"),
        ("training loss, first and last step", f"{measured.first_loss:.4f}, {measured.final_loss:.4f}"),
        ("dev loss, least", "not measured" if measured.dev_loss is None else f"{measured.dev_loss:.4f}"),
        ("seconds, since it was last begun", measured.seconds),
    ]


def model_card(base: str, task: Task, config: dict[str, Any], measured: list[tuple[str, Any]]) -> str:
    """The card, in Markdown with the hub's front matter.

    Args:
        base: the base model's hub id or folder.
        task: what the model learned.
        config: the options and fingerprints of the run.
        measured: its figures.
    """
    options = {**config, **config["recipe"]}
    del options["recipe"]
    what, taken, use = _TASKS[task]
    lines = [
        "---",
        f"base_model: {base}",
        "tags: [lora, process-reward-model, genprm]",
        "---",
        "",
        "# A verifier of solutions, step by step",
        "",
        f"{what.format(base=base)} The loss was taken {taken}. Use it with `genprm verify {use}`.",
        "",
        *_table("measured", measured),
        "",
        *_table("option", list(options.items())),
        "",
        "`data` and `dev` are the SHA-256 of the files. `metrics.jsonl` has every step, and the plot shows it.",
    ]
    return "\n".join(lines) + "\n"


_TASKS = {
    Task.SFT: (
        "A LoRA adapter for `{base}`, trained with genprm on conversations in which solutions were verified.",
        "on what the model writes: not on prompts, not on what the verifier writes for it, not on what code printed",
        "--model BASE --adapter FOLDER",
    ),
    Task.GRPO: (
        "A LoRA adapter for `{base}`, trained with genprm by GRPO on its own judgements of steps.",
        "on what the model wrote itself, with the agreement of its verdicts with the labels as reward",
        "--model BASE --adapter FOLDER",
    ),
    Task.DIRECT: (
        "A LoRA adapter for `{base}`, trained with genprm to answer each step with a mere Yes or No: a baseline.",
        "on the verdicts of the steps up to the first error",
        "--model BASE --adapter FOLDER --style direct",
    ),
    Task.SIGNS: (
        "A LoRA adapter for `{base}`, trained with genprm to answer each step with + or -: a discriminative baseline.",
        "on the signs of the steps up to the first error",
        "--model BASE --adapter FOLDER --style discriminative --prm-format rlhflow",
    ),
    Task.HEAD: (
        "`{base}` with a two-class head, trained with genprm by LoRA and merged: a discriminative baseline.",
        "at the marks behind the steps up to the first error",
        "--model FOLDER --style discriminative --prm-format qwen",
    ),
}
"""What came of each task, where the loss was taken, and how to use it."""


def _table(title: str, rows: list[tuple[str, Any]]) -> list[str]:
    return [f"| {title} | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
