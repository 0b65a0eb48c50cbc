"""GRPO with the sandbox in the rollout: judge, run code, go on; then learn from which judgements were right.

TRL's trainer, with our rollouts: the answer to a question is written by the verifier's own loop, and the tokens that
it did not write are masked. Groups of judgements are compared with each other (arXiv 2402.03300); the clip is wider
upwards; it stops when groups no longer differ (StepWiser, arXiv 2508.19229, section 2.4).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from statistics import mean
from typing import Any

from genprm.errors import InputError
from genprm.extras import require
from genprm.models.base import Sampling
from genprm.options import open_sandbox
from genprm.records import Record
from genprm.report import write_text
from genprm.tasks import gather_all
from genprm.train.base import Base, load_for_training, open_base, save_adapter, train_to_the_end
from genprm.train.card import model_card
from genprm.train.data import data_file
from genprm.train.folder import TrainFolder, fingerprint, open_train_folder
from genprm.train.lora import LIBRARIES, METRICS
from genprm.train.options import GRPOOptions, Machine
from genprm.train.recipes import WINDOW
from genprm.train.record import read_records
from genprm.train.rollouts import Question, Rollout, balanced, questions, roll_out
from genprm.train.tasks import Task
from sandbox import Sandbox

REWARD_PLOT = "reward.png"
FLAT = "frac_reward_zero_std"
"""TRL's name for the share of groups in which all rewards are the same."""
EVERYTHING = 2**31 - 1
"""More tokens than any vocabulary has: tokens are drawn from all of it, as the loss supposes."""


class GRPOMeasured(Record):
    """What a training by reinforcement came to."""

    steps: int
    questions: int
    """After balancing."""
    rollouts: int
    """Of this process, in training."""
    without_verdict: int
    """Those of them that taught nothing."""
    first_reward: float
    """The mean over the first tenth of the steps ..."""
    final_reward: float
    """... and over the last."""
    dev_rewards: tuple[float, ...]
    """Before the first step, and at each look since; empty without a dev file."""
    stopped_early: bool
    """Whether the groups had ceased to differ."""
    seconds: float
    """Since this process began."""


def train_grpo(
    data: str,
    folder: Path,
    options: GRPOOptions,
    machine: Machine | None = None,
    *,
    sandbox: str = "docker",
    dev: str | None = None,
    say: Callable[[str], None] = print,
) -> GRPOMeasured:
    """Train a verifier by its own judgements, or go on with a training that was cut off.

    Args:
        data: training records in GenPRM's style, a file or the folder that ``genprm synth`` wrote.
        folder: where the adapter goes.
        options: what to train, and how.
        machine: what suits the machine.
        sandbox: where the policy's code runs: ``docker``, ``local`` or ``unix:DIRECTORY``.
        dev: rows to measure the reward on, before and on the way.
        say: gets the lines that a user should see.

    Raises:
        InputError: the data or the folder is not as expected.
        ModelError: the model cannot be had, or does not fit the memory.
        ConfigError: a library is missing.
        SandboxError: no code can be run.
    """
    machine = machine or Machine()
    require("train", LIBRARIES)
    base = open_base(options.base, options.max_length)
    paths = [data_file(path) for path in (data, dev) if path]
    config = options.model_dump(mode="json") | {"task": Task.GRPO.value}
    config |= dict(zip(("data", "dev"), [*map(fingerprint, paths), None], strict=False))
    asked = [_asked(path, base, options, limit) for path, limit in zip(paths, (options.limit, None), strict=False)]
    with open_train_folder(folder, config) as place, _rollouts(base, options, sandbox, asked, say) as rollouts:
        begun = time.monotonic()
        trainer = _trainer(base, options, machine, place, rollouts, asked)
        train_to_the_end(trainer, place.last_checkpoint, say)
        measured = _measured(trainer, rollouts, len(asked[0]), options, time.monotonic() - begun)
        if trainer.is_world_process_zero():
            _save(trainer, base, place, config, measured)
    return measured


def _asked(path: str, base: Base, options: GRPOOptions, limit: int | None) -> list[Question]:
    found = balanced(path, questions(path, read_records(path, limit)), options.seed)
    room = options.max_length - options.budget.step_tokens
    fitting = [
        question
        for question in found
        if len(base.tokenizer.apply_chat_template(question.messages, return_dict=False)) <= room
    ]
    if not fitting:
        raise InputError(f"{path}: every question is longer than --max-length less --step-tokens, {room} tokens")
    return fitting


class Rollouts:
    """Writes the answers that TRL's trainer asks for, with the weights as they are at that moment."""

    def __init__(
        self, runner: asyncio.Runner, box: Sandbox | None, base: Base, options: GRPOOptions, asked: Sequence[Question]
    ) -> None:
        self.written = 0
        self.without_verdict = 0
        self._runner = runner
        self._box = box
        self._base = base
        self._options = options
        self._questions = {question.name: question for question in asked}

    def __call__(self, prompts: list[str], trainer: Any) -> dict[str, Any]:
        """One rollout for each of the prompts, which are the names of questions; a group is a name several times."""
        training = trainer.model.training
        model = trainer.accelerator.unwrap_model(trainer.model)
        attention = model.config._attn_implementation
        model.eval()
        try:
            step = trainer.state.global_step if training else "dev"
            key = f"{step}/{trainer.accelerator.process_index}"
            made = self._runner.run(self._write(prompts, model, key))
        finally:
            model.set_attn_implementation(attention)
            model.train(training)
        if training:
            self.written += len(made)
            self.without_verdict += sum(one.reward is None for one in made)
        return {
            "prompt_ids": [one.prompt_ids for one in made],
            "completion_ids": [one.completion_ids for one in made],
            "env_mask": [one.own for one in made],
            "logprobs": None,  # the trainer computes them itself
            "agreement": [one.reward for one in made],
        }

    async def _write(self, prompts: list[str], model: Any, key: str) -> list[Rollout]:
        from genprm.models.transformers_backend import TransformersModel

        recipe, tokenizer = self._options.recipe, self._base.tokenizer
        sampling = Sampling(temperature=recipe.temperature, top_p=1.0, top_k=EVERYTHING, seed=self._options.seed)
        # A new one each time: what its slots remember was computed with the weights of then.
        policy = TransformersModel(model, tokenizer, self._base.name)
        try:
            return await gather_all(
                roll_out(
                    self._questions[name], policy, tokenizer, self._box, self._options.budget, sampling,
                    f"{key}/{place}", recipe.brier,
                )
                for place, name in enumerate(prompts)
            )  # fmt: skip
        finally:
            await policy.close()


@contextmanager
def _rollouts(
    base: Base, options: GRPOOptions, sandbox: str, asked: Sequence[Sequence[Question]], say: Callable[[str], None]
) -> Iterator[Rollouts]:
    """Rollouts with a sandbox that is up for as long as they are needed."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            box = None
            if options.code:
                box = runner.run(stack.enter_async_context(open_sandbox(sandbox, options.budget, say)))
            yield Rollouts(runner, box, base, options, [question for part in asked for question in part])
        finally:
            runner.run(stack.aclose())


def agreement(agreement: Sequence[float | None], **_: Any) -> list[float | None]:
    """The reward as TRL asks for it: what the rollouts found. None where there was no verdict: it counts nowhere."""
    return list(agreement)


def _trainer(
    base: Base,
    options: GRPOOptions,
    machine: Machine,
    place: TrainFolder,
    rollouts: Rollouts,
    asked: Sequence[Sequence[Question]],
) -> Any:
    import os

    import torch
    import trl
    from datasets import Dataset
    from transformers import PrinterCallback, set_seed
    from transformers.utils import logging

    from genprm.train.progress import Agreed, Progress

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    set_seed(options.seed)
    gpu = torch.cuda.is_available()
    recipe = options.recipe
    micro = machine.micro_batch or recipe.group
    arguments = trl.GRPOConfig(
        output_dir=str(place.checkpoints),
        max_steps=recipe.steps,
        per_device_train_batch_size=micro,
        per_device_eval_batch_size=recipe.group,
        num_generations=recipe.group,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="constant",
        beta=0.0,
        epsilon=recipe.clip_low,
        epsilon_high=recipe.clip_high,
        temperature=recipe.temperature,
        weight_decay=0.0,
        bf16=gpu or options.mixed,
        use_cpu=not gpu,
        gradient_checkpointing=machine.activation_checkpointing,
        seed=options.seed,
        logging_steps=1,
        save_steps=machine.save_every,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=gpu,
    )
    micro_batches = max(1, round(recipe.questions * recipe.group / micro / arguments.world_size))
    arguments.steps_per_generation = micro_batches
    arguments.generation_batch_size = micro * arguments.world_size * micro_batches
    arguments.gradient_accumulation_steps = max(1, micro_batches // recipe.updates)
    if len(asked) > 1:
        arguments.eval_strategy = "steps"
        arguments.eval_steps = options.eval_every or max(1, recipe.steps // 5)
        arguments.eval_on_start = True
    sets = [Dataset.from_list([{"prompt": question.name} for question in part]) for part in asked]
    trainer = trl.GRPOTrainer(
        model=load_for_training(base, recipe, options.max_length, options.start),
        reward_funcs=agreement,
        args=arguments,
        train_dataset=sets[0],
        eval_dataset=sets[1] if len(sets) > 1 else None,
        processing_class=base.tokenizer,
        rollout_func=rollouts,
        callbacks=[Progress("reward"), Agreed(FLAT, recipe.agreed, WINDOW)],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _measured(trainer: Any, rollouts: Rollouts, asked: int, options: GRPOOptions, seconds: float) -> GRPOMeasured:
    history = trainer.state.log_history
    rewards = [entry["reward"] for entry in history if "reward" in entry]
    tenth = max(1, len(rewards) // 10)
    return GRPOMeasured(
        steps=trainer.state.global_step,
        questions=asked,
        rollouts=rollouts.written,
        without_verdict=rollouts.without_verdict,
        first_reward=round(mean(rewards[:tenth]), 4),
        final_reward=round(mean(rewards[-tenth:]), 4),
        dev_rewards=tuple(round(entry["eval_reward"], 4) for entry in history if "eval_reward" in entry),
        stopped_early=trainer.state.global_step < options.recipe.steps,
        seconds=round(seconds, 1),
    )


def _save(trainer: Any, base: Base, place: TrainFolder, config: dict[str, Any], measured: GRPOMeasured) -> None:
    from genprm.train.progress import draw_history

    staged = place.checkpoints / "finished"
    save_adapter(trainer.accelerator.unwrap_model(trainer.model), base, staged)
    history = trainer.state.log_history
    write_text(place.path / METRICS, "".join(json.dumps(entry) + "\n" for entry in history))
    draw_history(history, place.path / REWARD_PLOT, "reward", "mean reward")
    figures = [(name.replace("_", " "), value) for name, value in measured.model_dump().items()]
    write_text(staged / "README.md", model_card(base.name, Task.GRPO, config, figures))
    place.finish(staged)
