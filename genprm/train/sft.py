"""LoRA fine-tuning on verified conversations: TRL's trainer, with our tokens, folder, and card."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from genprm.errors import ConfigError, InputError, ModelError
from genprm.models.chat import first_line, load_tokenizer
from genprm.models.embedded import EMBEDDED, EMBEDDED_HUB_ID, embedded_folder
from genprm.records import Record
from genprm.report import write_text
from genprm.train.card import Measured, model_card
from genprm.train.data import TrainingData, data_file, read_data
from genprm.train.folder import TrainFolder, fingerprint, open_train_folder
from genprm.train.recipes import Positive, Recipe

METRICS = "metrics.jsonl"
LOSS_PLOT = "loss.png"


class SFTOptions(Record):
    """Everything that decides which adapter comes out."""

    base: str = EMBEDDED
    recipe: Recipe = Recipe()
    max_length: Positive = 2048
    """Most tokens of a conversation; longer ones are left out."""
    packing: bool = False
    """Put several conversations into one sequence of ``max_length`` tokens."""
    limit: Positive | None = None
    seed: int = 0
    eval_every: Positive | None = None
    """Steps between two looks at the dev file. Default: ten looks."""
    patience: Positive | None = None
    """Looks at the dev file without progress before it stops."""


class Machine(Record):
    """What only decides how fast it comes out, and whether it fits the memory."""

    micro_batch: Positive | None = None
    """Sequences at once in a process. Default: 1 on a CPU, where padding costs most, 8 on a GPU."""
    activation_checkpointing: bool = False
    """Compute activations twice, and keep fewer of them: less memory, a third more time."""
    save_every: Annotated[int, Field(ge=1)] = 50
    """Steps between two checkpoints."""


def train_sft(
    data: str,
    folder: Path,
    options: SFTOptions,
    machine: Machine | None = None,
    *,
    dev: str | None = None,
    say: Callable[[str], None] = print,
) -> Measured:
    """Train an adapter, or go on with a training that was cut off.

    Args:
        data: training records, a file or the folder that ``genprm synth`` wrote.
        folder: where the adapter goes.
        options: what to train, and how.
        machine: what suits the machine.
        dev: records to measure the loss on, on the way; the adapter is then the one that did best there.
        say: gets the lines that a user should see.

    Raises:
        InputError: the data or the folder is not as expected.
        ModelError: the base model cannot be had, or does not fit the memory.
        ConfigError: a library is missing.
    """
    machine = machine or Machine()
    if options.patience and not dev:
        raise ConfigError("--patience needs --dev, the records to watch")
    trl = _trl()
    source = str(embedded_folder()) if options.base == EMBEDDED else options.base
    tokenizer = load_tokenizer(source)
    _check_room(source, options)
    data_path, dev_path = data_file(data), data_file(dev) if dev else None
    config = {
        **options.model_dump(mode="json"),
        "data": fingerprint(data_path),
        "dev": fingerprint(dev_path) if dev_path else None,
    }
    train = read_data(data_path, tokenizer, options.max_length, options.limit)
    held_out = read_data(dev_path, tokenizer, options.max_length) if dev_path else None
    for name, part in ((data_path, train), (dev_path, held_out)):
        if part and part.too_long:
            say(f"{name}: {part.too_long} conversations are longer than {options.max_length} tokens, and are left out")
    with open_train_folder(folder, config) as place:
        begun = time.monotonic()
        trainer = _trainer(trl, source, tokenizer, options, machine, place, train, held_out)
        if checkpoint := place.last_checkpoint:
            say(f"going on from step {checkpoint.name.rpartition('-')[2]}")
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
            raise ModelError(
                "out of memory: lower --micro-batch or --max-length, or take --activation-checkpointing"
            ) from error
        measured = _measured(trainer, options, train, held_out, time.monotonic() - begun)
        if trainer.is_world_process_zero():
            _save(trainer, place, options, config, measured)
    return measured


def _trl() -> Any:
    try:
        import trl
    except ImportError as error:
        raise ConfigError("the extra 'train' is not installed: pip install 'genprm[train]'") from error
    return trl


def _check_room(source: str, options: SFTOptions) -> None:
    from transformers import AutoConfig

    try:
        room = AutoConfig.from_pretrained(source).get_text_config().max_position_embeddings
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"the model {options.base!r} cannot be loaded: {first_line(error)}") from error
    if options.max_length > room:
        raise InputError(f"--max-length {options.max_length}: the context of {options.base} is {room} tokens")


def _trainer(
    trl: Any,
    source: str,
    tokenizer: Any,
    options: SFTOptions,
    machine: Machine,
    place: TrainFolder,
    train: TrainingData,
    held_out: TrainingData | None,
) -> Any:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, EarlyStoppingCallback, set_seed
    from transformers.utils import logging

    from genprm.train.progress import Progress

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    gpu = torch.cuda.is_available()
    recipe, micro = options.recipe, machine.micro_batch or (8 if gpu else 1)
    arguments = trl.SFTConfig(
        output_dir=str(place.checkpoints),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=micro,
        per_device_eval_batch_size=micro,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=_SCHEDULES[recipe.schedule.value, recipe.warmup > 0],
        warmup_steps=recipe.warmup,  # below 1 it is a share
        weight_decay=0.0,
        max_length=options.max_length if options.packing else None,
        packing=options.packing,
        activation_checkpointing=machine.activation_checkpointing,
        bf16=gpu,
        use_cpu=not gpu,
        seed=options.seed,
        data_seed=options.seed,
        logging_steps=1,
        save_steps=machine.save_every,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=gpu,
    )
    arguments.gradient_accumulation_steps = max(1, round(recipe.batch / micro / arguments.world_size))
    steps = -(-len(train.examples) // recipe.batch)
    if held_out:
        arguments.eval_strategy = "steps"
        arguments.eval_steps = options.eval_every or max(1, int(steps * recipe.epochs) // 10)
        arguments.save_steps = arguments.eval_steps
        arguments.load_best_model_at_end = True
        arguments.metric_for_best_model, arguments.greater_is_better = "eval_loss", False
    callbacks: list[Any] = [Progress()]
    if options.patience:
        callbacks.append(EarlyStoppingCallback(options.patience))
    set_seed(options.seed)
    try:
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16 if gpu else torch.float32)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"the model {options.base!r} cannot be loaded: {first_line(error)}") from error
    lora = LoraConfig(
        r=recipe.rank, lora_alpha=recipe.alpha, lora_dropout=recipe.dropout, target_modules="all-linear",
        task_type="CAUSAL_LM",
    )  # fmt: skip
    trainer = trl.SFTTrainer(
        model,
        args=arguments,
        train_dataset=Dataset.from_list([example._asdict() for example in train.examples]),
        eval_dataset=Dataset.from_list([example._asdict() for example in held_out.examples]) if held_out else None,
        processing_class=tokenizer,
        peft_config=lora,
        callbacks=callbacks,
    )
    for callback in list(trainer.callback_handler.callbacks):
        if type(callback).__name__ == "PrinterCallback":
            trainer.remove_callback(callback)
    return trainer


_SCHEDULES = {
    ("constant", False): "constant",
    ("constant", True): "constant_with_warmup",
    ("cosine", False): "cosine",
    ("cosine", True): "cosine",
    ("linear", False): "linear",
    ("linear", True): "linear",
}
"""transformers' names, by ours and whether there is a warm-up."""


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or any(
        words in str(error) for words in ("out of memory", "can't allocate memory")
    )


def _measured(
    trainer: Any, options: SFTOptions, train: TrainingData, held_out: TrainingData | None, seconds: float
) -> Measured:
    history = trainer.state.log_history
    losses = [entry["loss"] for entry in history if "loss" in entry]
    dev = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
    return Measured(
        steps=trainer.state.global_step,
        conversations=len(train.examples),
        too_long=train.too_long + (held_out.too_long if held_out else 0),
        with_error=train.with_error,
        tokens=round(train.tokens * trainer.state.epoch),
        targets=round(train.targets * trainer.state.epoch),
        first_loss=losses[0],
        final_loss=losses[-1],
        dev_loss=min(dev) if dev else None,
        seconds=round(seconds, 1),
    )


def _save(trainer: Any, place: TrainFolder, options: SFTOptions, config: dict[str, Any], measured: Measured) -> None:
    from genprm.train.progress import draw_losses

    staged = place.checkpoints / "finished"
    base = EMBEDDED_HUB_ID if options.base == EMBEDDED else options.base
    trainer.model.save_pretrained(staged)
    saved = staged / "adapter_config.json"  # it names the folder that the base was loaded from
    write_text(saved, json.dumps({**json.loads(saved.read_text()), "base_model_name_or_path": base}, indent=1) + "\n")
    history = trainer.state.log_history
    write_text(place.path / METRICS, "".join(json.dumps(entry) + "\n" for entry in history))
    draw_losses(history, place.path / LOSS_PLOT)
    write_text(staged / "README.md", model_card(base, config, measured))
    place.finish(staged)
