"""LoRA fine-tuning: TRL's and transformers' trainers, with our tokens, folder, and card."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genprm.errors import ConfigError
from genprm.extras import require
from genprm.styles.discriminative import QWEN_TAG
from genprm.train.base import Base, load_for_training, open_base, save_adapter, started
from genprm.train.card import Measured, figures, model_card
from genprm.train.compiled import compile_layers, require_compiler
from genprm.train.data import TrainingData, data_file, fitting
from genprm.train.folder import TrainFolder, fingerprint, on_first, open_train_folder, processes
from genprm.train.options import Machine, TrainOptions
from genprm.train.recipes import Recipe, Schedule
from genprm.train.tokens import IGNORED
from genprm.train.trainer import (
    LIBRARIES,
    common_arguments,
    enough_memory,
    finish,
    quiet,
    train_to_the_end,
    writing,
)

LOSS_PLOT = "loss.png"


def train(
    data: str,
    folder: Path,
    options: TrainOptions,
    machine: Machine | None = None,
    *,
    dev: str | None = None,
    say: Callable[[str], None] = print,
) -> Measured:
    """Train a verifier, or go on with a training that was cut off.

    Args:
        data: training records (`Task.SFT`) or labelled solutions, a file or the folder that ``genprm synth`` wrote.
        folder: where the adapter goes, or with `Task.HEAD` the whole model.
        options: what to train, and how.
        machine: what suits the machine.
        dev: rows to measure the loss on, on the way; what did best there is kept.
        say: gets the lines that a user should see.

    Raises:
        InputError: the data or the folder is not as expected.
        ModelError: the base model cannot be had, or does not fit the memory.
        ConfigError: a library is missing, or options contradict each other.
    """
    machine, say = machine or Machine(), on_first(say)
    for name, value in (("--patience", options.patience), ("--eval-every", options.eval_every)):
        if value and not dev:
            raise ConfigError(f"{name} needs --dev, the rows to watch")
    if options.packing and options.task.has_head:
        raise ConfigError("--packing does not go with a head")
    if options.start and options.task.has_head:
        raise ConfigError("--start does not go with a head, which is no adapter's")
    require("train", LIBRARIES)
    if machine.compile:
        require_compiler()
    options = options.model_copy(update={"recipe": started(options.recipe, options.start)})
    base = open_base(options.base, options.max_length, QWEN_TAG if options.task.has_head else None)
    paths = [data_file(path) for path in (data, dev) if path]
    config = options.model_dump(mode="json")
    config |= dict(zip(("data", "dev"), [*map(fingerprint, paths), None], strict=False))
    parts = []
    for path, limit in zip(paths, (options.limit, None), strict=False):
        part = fitting(path, options.task.read(path, base.tokenizer, limit), options.max_length)
        if part.too_long:
            say(f"{path}: {part.too_long} conversations are longer than {options.max_length} tokens, and are left out")
        parts.append(part)
    with open_train_folder(folder, config) as place:
        begun = time.monotonic()
        with enough_memory():
            trainer = _trainer(base, options, machine, place, *parts)
        train_to_the_end(trainer, options, place, say)
        measured = _measured(trainer, parts, time.monotonic() - begun)
        if trainer.is_world_process_zero():
            _save(trainer, base, place, options, config, measured)
    return measured


def _arguments(options: TrainOptions, machine: Machine, place: TrainFolder, looks: bool) -> Any:
    import torch
    import trl

    gpu = torch.cuda.is_available()
    recipe, micro = options.recipe, _micro_batch(options.recipe, machine, gpu, options.packing)
    arguments = trl.SFTConfig(
        **common_arguments(options, machine, place),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=micro,
        per_device_eval_batch_size=1,  # else the dev loss would depend on the machine: it is a mean over batches
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=_schedule(recipe),
        warmup_steps=recipe.warmup,  # below 1 it is a share
        max_length=options.max_length if options.packing else None,
        packing=options.packing,
        activation_checkpointing=machine.activation_checkpointing,
        data_seed=options.seed,
        save_steps=machine.save_every,
        restore_callback_states_from_checkpoint=bool(options.patience),  # the looks without progress so far
    )
    if arguments.n_gpu > 1:  # each step would take in as many batches
        raise ConfigError(f"one process sees {arguments.n_gpu} GPUs: start one process for each with torchrun")
    arguments.gradient_accumulation_steps = recipe.batch // processes() // micro
    if looks:
        arguments.eval_strategy = "steps"
        arguments.load_best_model_at_end = True
        arguments.metric_for_best_model, arguments.greater_is_better = "eval_loss", False
    return arguments


def _micro_batch(recipe: Recipe, machine: Machine, gpu: bool, packing: bool) -> int:
    """Sequences at once in a process.

    Raises:
        ConfigError: a step's conversations do not come out even.
    """
    share, odd = divmod(recipe.batch, processes())
    # Packed sequences would become one row, whose attention costs the square of all their tokens.
    usual = max(size for size in range(1, 9 if gpu and not packing else 2) if share % size == 0)
    micro = machine.micro_batch or usual
    if odd or share % micro:
        raise ConfigError(
            f"--batch {recipe.batch} is no multiple of {micro * processes()}, what all processes together learn from "
            "at once (--micro-batch)"
        )
    return micro


def _look(trainer: Any, options: TrainOptions) -> None:
    """Say when to look at the dev file: the trainer knows by now how many sequences there are.

    Raises:
        ConfigError: it would never be looked at.
    """
    steps = int(-(-len(trainer.train_dataset) // options.recipe.batch) * options.recipe.epochs)
    every = options.eval_every or max(1, steps // 10)
    if every > max(1, steps):
        raise ConfigError(f"--eval-every {every}: the training has {steps} steps")
    trainer.args.eval_steps = trainer.args.save_steps = every


def _schedule(recipe: Recipe) -> str:
    """transformers' name."""
    if recipe.schedule is Schedule.CONSTANT and recipe.warmup:
        return "constant_with_warmup"
    return recipe.schedule.value


def _trainer(
    base: Base,
    options: TrainOptions,
    machine: Machine,
    place: TrainFolder,
    train: TrainingData,
    held_out: TrainingData | None = None,
) -> Any:
    import trl
    from datasets import Dataset
    from transformers import DataCollatorForTokenClassification, PrinterCallback, Trainer, set_seed

    from genprm.train.progress import Finite, Patience, Progress

    quiet()
    set_seed(options.seed)
    arguments = _arguments(options, machine, place, looks=held_out is not None)
    sets = [Dataset.from_list([example._asdict() for example in part.examples]) for part in (train, held_out) if part]
    given: dict[str, Any] = {
        "model": load_for_training(
            base, options.recipe, options.max_length, options.start, mixed=options.mixed, head=options.task.has_head
        ),
        "args": arguments,
        "train_dataset": sets[0],
        "eval_dataset": sets[1] if held_out else None,
        "processing_class": base.tokenizer,
        "callbacks": [Progress(), Finite(), *([Patience(options.patience)] if options.patience else [])],
    }
    if options.task.has_head:
        trainer = Trainer(
            **given, data_collator=DataCollatorForTokenClassification(base.tokenizer), compute_loss_func=_loss_per_mark
        )
    else:
        trainer = trl.SFTTrainer(**given)
    if held_out is not None:
        _look(trainer, options)
    if machine.compile:
        compile_layers(trainer.model)
    trainer.remove_callback(PrinterCallback)
    return trainer


def _loss_per_mark(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    """The mean over the marks of a whole batch, however many sequences fit the memory at once."""
    import torch
    from torch.nn.functional import cross_entropy

    logits = outputs.logits.float().flatten(0, 1)
    losses = cross_entropy(logits, labels.flatten(), ignore_index=IGNORED, reduction="sum")
    if not torch.is_grad_enabled():  # a look at the dev file: each conversation's own mean, which the trainer scales
        return losses / (labels != IGNORED).sum() / (1 if num_items_in_batch is None else processes())
    return losses / ((labels != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch)


def _measured(trainer: Any, parts: list[TrainingData], seconds: float) -> Measured:
    train, history = parts[0], trainer.state.log_history
    losses = [entry["loss"] for entry in history if "loss" in entry]
    dev = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
    return Measured(
        steps=trainer.state.global_step,
        conversations=len(train.examples),
        too_long=sum(part.too_long for part in parts),
        with_error=train.with_error,
        tokens=round(train.tokens * trainer.state.epoch),
        targets=round(train.targets * trainer.state.epoch),
        first_loss=losses[0],
        final_loss=losses[-1],
        dev_loss=min(dev) if dev else None,
        seconds=round(seconds, 1),
    )


def _save(
    trainer: Any,
    base: Base,
    place: TrainFolder,
    options: TrainOptions,
    config: dict[str, Any],
    measured: Measured,
) -> None:
    staged = place.checkpoints / "finished"
    with writing(staged):
        if options.task.has_head:
            trainer.model.merge_and_unload().save_pretrained(staged)
            base.tokenizer.save_pretrained(staged)
        else:
            save_adapter(trainer.model, base, staged)
    card = model_card(base.name, options.task, config, figures(measured))
    finish(trainer, place, staged, LOSS_PLOT, "loss", "loss per token", card)
