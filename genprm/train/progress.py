"""How a training goes, on the terminal and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback

from genprm.errors import ModelError
from genprm.plotting import picture
from genprm.progress import LiveProgress


class Progress(TrainerCallback):  # type: ignore[misc]
    """The trainer's steps as our progress line.

    Args:
        figure: the trainer's name for what is shown; with ``eval_`` before it, for the same on the dev file.
    """

    def __init__(self, figure: str = "loss") -> None:
        self._figure = figure
        self._live: LiveProgress | None = None
        self._dev = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            self._live = LiveProgress("training", state.max_steps, state.global_step, unit="steps")
            self._live.__enter__()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        dev, figure = logs.get(f"eval_{self._figure}"), logs.get(self._figure)
        if dev is not None:
            self._dev = f", dev {self._figure} {dev:.4f}"
        if self._live and figure is not None:
            self._live.show(f"{self._figure} {figure:.4f}{self._dev}")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._live:
            self._live.row_done()

    def close(self) -> None:
        """Give the terminal back, however the training ended."""
        live, self._live = self._live, None
        if live:
            live.__exit__(None, None, None)


class Finite(TrainerCallback):  # type: ignore[misc]
    """Ends a training that has diverged, before it is saved."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        """Look at a step's figures.

        Raises:
            ModelError: they are no numbers.
        """
        for name in ("loss", "grad_norm"):
            if not isfinite(float(logs.get(name) or 0.0)):
                raise ModelError(f"step {state.global_step}: the {name} is {logs[name]}: lower --learning-rate")


class Patience(EarlyStoppingCallback):  # type: ignore[misc]
    """Stops a training that has come no further on the dev file, also where it was cut off while it stopped."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True


class Agreed(TrainerCallback):  # type: ignore[misc]
    """Stops a training by reinforcement when its groups have ceased to differ: then there is no gradient left.

    Args:
        figure: the trainer's name for the share of groups without a difference.
        share: from which on it stops ...
        window: ... as the mean over so many rounds of rollouts.
    """

    def __init__(self, figure: str, share: float, window: int) -> None:
        self._figure = figure
        self._share = share
        self._window = window

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        flat = [entry[self._figure] for entry in state.log_history if self._figure in entry][-self._window :]
        if len(flat) == self._window and sum(flat) / self._window >= self._share:
            control.should_training_stop = True


def draw_history(history: Sequence[dict[str, Any]], path: Path, figure: str, label: str) -> None:
    """A figure over the steps.

    Args:
        history: the trainer's log.
        path: a PNG file.
        figure: the trainer's name for it.
        label: of the axis.

    Raises:
        ConfigError: matplotlib is not installed.
        OutputError: the picture cannot be written.
    """
    with picture(path, 6, 3.5) as axes:
        for name, title in ((figure, "training"), (f"eval_{figure}", "dev")):
            points = [(entry["step"], entry[name]) for entry in history if entry.get(name) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), label=title, marker="." if title == "dev" else None)
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        axes.legend()
