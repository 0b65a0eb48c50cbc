"""What our runs of transformers' and TRL's trainers have in common: their arguments, how they run, what they leave."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genprm.errors import ModelError, OutputError
from genprm.models.chat import first_line
from genprm.report import write_text
from genprm.train.folder import TrainFolder
from genprm.train.options import CommonOptions, Machine

LIBRARIES = ("accelerate", "datasets", "matplotlib", "peft", "torch", "transformers", "trl")
METRICS = "metrics.jsonl"


def quiet() -> None:
    """Let the trainers' own messages and bars be silent: we show our own."""
    import logging

    from datasets.utils.logging import disable_progress_bar
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    disable_progress_bar()
    logging.getLogger("trl").setLevel(logging.ERROR)  # it would print a whole rollout for each that has no verdict


def in_bfloat16(mixed: bool) -> bool:
    """Whether the matrices are multiplied in bfloat16: on a GPU that can, and where it is wished on a CPU that can.

    A CPU without the instructions takes 27 times as long in it; a GPU before Ampere would only imitate them.
    """
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return mixed and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def keep_freed_memory() -> None:
    """Let the C library keep what is freed, where it is glibc.

    It would give every tensor of some MiB back to the system, and get it anew, page by page and zeroed, for the next
    one: on a CPU a sixth of a training's time. The price is memory that lies idle, a third more.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, -1)


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h


def common_arguments(options: CommonOptions, machine: Machine, place: TrainFolder) -> dict[str, Any]:
    """What every trainer is told alike."""
    import torch

    gpu = torch.cuda.is_available()
    return {
        "output_dir": str(place.checkpoints),
        "weight_decay": 0.0,
        "bf16": in_bfloat16(options.mixed),
        "use_cpu": not gpu,
        "seed": options.seed,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": gpu,
    }


@contextmanager
def enough_memory() -> Iterator[None]:
    """Turn what the libraries raise where there is not enough into what to lower.

    Raises:
        ModelError: the memory does not suffice.
    """
    try:
        yield
    except (RuntimeError, MemoryError, ModelError) as error:  # a ModelError where the rollouts ran out of it
        if isinstance(error, MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY):
            raise ModelError(
                "out of memory: lower --micro-batch or --max-length, or take --activation-checkpointing"
            ) from error
        raise


_OUT_OF_MEMORY = ("out of memory", "can't allocate memory")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the libraries raise where a disk is full into one line.

    Raises:
        OutputError: ``folder`` cannot be written.
    """
    from safetensors import SafetensorError

    try:
        yield
    except OSError as error:
        raise OutputError(f"{folder}: {error.strerror or error}") from error
    except SafetensorError as error:
        raise OutputError(f"{folder}: {first_line(error)}") from error


def train_to_the_end(trainer: Any, options: CommonOptions, place: TrainFolder, say: Callable[[str], None]) -> None:
    """Run one of transformers' trainers, from where an earlier run was cut off.

    Raises:
        ModelError: the memory does not suffice, or the loss is no number any more.
        OutputError: a checkpoint cannot be written.
    """
    from genprm.train.progress import Progress

    checkpoint = place.last_checkpoint
    if trainer.args.use_cpu:
        keep_freed_memory()
    if options.mixed and not trainer.args.bf16:
        say("--mixed: this CPU has no instructions for bfloat16, and multiplies in float32")
    if checkpoint:
        say(f"going on from step {checkpoint.name.rpartition('-')[2]}")
    try:
        with enough_memory(), writing(place.checkpoints):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, Progress):
                callback.close()


def finish(trainer: Any, place: TrainFolder, staged: Path, plot: str, figure: str, label: str, card: str) -> None:
    """Put metrics, plot and card beside what was trained, and end the run.

    Args:
        trainer: it is done.
        place: the run's folder.
        staged: the folder in which what was trained was saved.
        plot: the file name of the plot.
        figure: the trainer's name for what it shows, over the steps.
        label: of its axis.
        card: the text of the model card.

    Raises:
        OutputError: they cannot be written.
    """
    from genprm.train.progress import draw_history

    history = trainer.state.log_history
    write_text(place.path / METRICS, "".join(json.dumps(entry) + "\n" for entry in history))
    draw_history(history, place.path / plot, figure, label)
    write_text(staged / "README.md", card)
    place.finish(staged)
