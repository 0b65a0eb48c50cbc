"""How a training goes, on the terminal and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from genprm.plotting import picture
from genprm.progress import LiveProgress


class Progress(TrainerCallback):  # type: ignore[misc]
    """The trainer's steps as our progress line."""

    def __init__(self) -> None:
        self._live: LiveProgress | None = None
        self._dev = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            self._live = LiveProgress("training", state.max_steps, state.global_step, unit="steps")
            self._live.__enter__()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        if "eval_loss" in logs:
            self._dev = f", dev loss {logs['eval_loss']:.4f}"
        if self._live and "loss" in logs:
            self._live.row_done()
            self._live.show(f"loss {logs['loss']:.4f}{self._dev}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._live:
            self._live.__exit__(None, None, None)


def draw_losses(history: Sequence[dict[str, Any]], path: Path) -> None:
    """The losses over the steps.

    Args:
        history: the trainer's log.
        path: a PNG file.

    Raises:
        ConfigError: matplotlib is not installed.
        OutputError: the picture cannot be written.
    """
    with picture(path, 6, 3.5) as axes:
        for name, label in (("loss", "training"), ("eval_loss", "dev")):
            points = [(entry["step"], entry[name]) for entry in history if name in entry]
            if points:
                axes.plot(*zip(*points, strict=True), label=label, marker="." if name == "eval_loss" else None)
        axes.set_xlabel("step")
        axes.set_ylabel("loss per token")
        axes.legend()
