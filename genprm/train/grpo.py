"""GRPO with the sandbox in the rollout: judge, run code, go on; then learn from which judgements were right.

TRL's trainer, with our rollouts: the answer to a question is written by the verifier's own loop, and the tokens that
it did not write are masked. Groups of judgements are compared with each other (arXiv 2402.03300); the clip is wider
upwards; it stops when groups no longer differ (StepWiser, arXiv 2508.19229, section 2.4).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, contextmanager
from copy import deepcopy
from pathlib import Path
from statistics import mean
from typing import Any, TypeVar

from genprm.errors import ConfigError, InputError, ModelError
from genprm.extras import require
from genprm.models.base import Sampling
from genprm.models.chat import render_chat
from genprm.models.transformers_backend import SLOTS
from genprm.options import open_sandbox
from genprm.records import Record
from genprm.tasks import map_unordered
from genprm.train.base import Base, load_for_training, open_base, save_adapter, started
from genprm.train.card import model_card
from genprm.train.data import data_file
from genprm.train.folder import TrainFolder, fingerprint, on_first, open_train_folder, process, processes
from genprm.train.options import GRPOOptions, Machine
from genprm.train.recipes import WINDOW, GRPORecipe
from genprm.train.record import read_records
from genprm.train.rollouts import Question, Rollout, balanced, questions, roll_out
from genprm.train.tasks import Task
from genprm.train.trainer import (
    LIBRARIES,
    common_arguments,
    enough_memory,
    finish,
    in_bfloat16,
    quiet,
    train_to_the_end,
    writing,
)
from sandbox import Sandbox

T = TypeVar("T")
REWARD_PLOT = "reward.png"
FLAT = "flat"
"""The share of groups in which all verdicts are the same, or but one was reached: there is nothing to learn from."""
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
    machine, say = machine or Machine(), on_first(say)
    if machine.compile:
        raise ConfigError("--compile goes with sft and discriminative only")
    micro_batches = _micro_batches(options.recipe, machine)
    require("train", LIBRARIES)
    options = options.model_copy(update={"recipe": started(options.recipe, options.start)})
    base = open_base(options.base, options.max_length)
    paths = [data_file(path) for path in (data, dev) if path]
    config = options.model_dump(mode="json") | {"task": Task.GRPO.value}
    config |= dict(zip(("data", "dev"), [*map(fingerprint, paths), None], strict=False))
    parts = {
        name: _asked(path, base, options, limit, say)
        for name, path, limit in zip(("train", "dev"), paths, (options.limit, None), strict=False)
    }
    if (count := len(parts["train"])) < options.recipe.questions:
        raise InputError(f"{paths[0]}: {count} questions in it, a round takes --questions {options.recipe.questions}")
    with (
        open_train_folder(folder, config) as place,
        _rollouts(
            base, options, sandbox, parts, max(options.recipe.group, machine.micro_batch or SLOTS), say
        ) as rollouts,
    ):
        begun = time.monotonic()
        with enough_memory():
            trainer = _trainer(base, options, machine, micro_batches, place, rollouts)
        train_to_the_end(trainer, options, place, say)
        measured = _measured(trainer, rollouts, count, options, time.monotonic() - begun)
        if trainer.is_world_process_zero():
            _save(trainer, base, place, config, measured)
    return measured


def _micro_batches(recipe: GRPORecipe, machine: Machine) -> int:
    """How many batches that fit the memory make a round, in each process.

    Raises:
        ConfigError: it does not come out even.
    """
    at_once = (machine.micro_batch or recipe.group) * processes()
    rollouts = recipe.questions * recipe.group
    if rollouts % at_once:
        raise ConfigError(
            f"--questions {recipe.questions} times --group {recipe.group} is no multiple of {at_once}, what all "
            "processes together learn from at once (--micro-batch)"
        )
    if rollouts // at_once % recipe.updates:
        raise ConfigError(f"--updates {recipe.updates}: a round has {rollouts // at_once} batches (--micro-batch)")
    return rollouts // at_once


def _asked(
    path: str, base: Base, options: GRPOOptions, limit: int | None, say: Callable[[str], None]
) -> list[Question]:
    found = questions(path, read_records(path, limit))
    room = options.max_length - options.budget.step_tokens
    fitting = [
        question
        for question in found
        if len(base.tokenizer.encode(render_chat(base.tokenizer, question.messages, ""))) <= room
    ]
    if not fitting:
        raise InputError(f"{path}: every question is longer than --max-length less --step-tokens, {room} tokens")
    if too_long := len(found) - len(fitting):
        say(f"{path}: {too_long} questions are longer than {room} tokens, and are left out")
    return balanced(path, fitting, options.seed)


class Rollouts:
    """Writes the answers that TRL's trainer asks for, with the weights as they are at that moment.

    Args:
        runner: of the loop that the sandbox lives in.
        box: the sandbox, if code may be written.
        base: the model.
        options: of the training.
        parts: the questions, of ``train`` and perhaps of ``dev``.
        slots: rollouts that are written at once.
    """

    def __init__(
        self,
        runner: asyncio.Runner,
        box: Sandbox | None,
        base: Base,
        options: GRPOOptions,
        parts: Mapping[str, Sequence[Question]],
        slots: int = SLOTS,
    ) -> None:
        self.written = 0
        self.without_verdict = 0
        self._runner = runner
        self._box = box
        self._base = base
        self._options = options
        self._slots = slots
        self._questions = {
            f"{part}/{index}": question for part, asked in parts.items() for index, question in enumerate(asked)
        }

    def names(self, part: str) -> list[str]:
        """Under which the trainer asks for the questions of a part."""
        return [name for name in self._questions if name.startswith(f"{part}/")]

    def __call__(self, prompts: list[str], trainer: Any) -> dict[str, Any]:
        """One rollout for each of the prompts, which are the names of questions; a group is a name several times."""
        training = trainer.model.training
        with writer(trainer.accelerator.unwrap_model(trainer.model), self._options.mixed) as model:
            made = self._runner.run(self._write(prompts, model, trainer.state.global_step if training else "dev"))
        reached = [one.agrees is not None for one in made]
        if training and trainer.state.global_step == 0 and not any(gathered(reached)):
            raise ModelError("no judgement reached a verdict: --start from an adapter that writes the format")
        if training:
            self.written += len(made)
            self.without_verdict += reached.count(False)
        return {
            "prompt_ids": [one.prompt_ids for one in made],
            "completion_ids": [one.completion_ids for one in made],
            "env_mask": [one.own for one in made],
            "logprobs": None,  # the trainer computes them itself
            "rewards": [one.reward for one in made],
            "agrees": [one.agrees for one in made],
        }

    async def _write(self, prompts: list[str], model: Any, step: int | str) -> list[Rollout]:
        from genprm.models.transformers_backend import TransformersModel

        recipe, tokenizer = self._options.recipe, self._base.tokenizer
        sampling = Sampling(temperature=recipe.temperature, top_p=1.0, top_k=EVERYTHING, seed=self._options.seed)
        # A new one each time: what its slots remember was computed with the weights of then.
        policy = TransformersModel(model, tokenizer, self._base.name, self._slots)

        async def one(item: tuple[str, str]) -> Rollout:
            name, key = item
            return await roll_out(
                self._questions[name], policy, tokenizer, self._box, self._options.budget, sampling, key, recipe.brier
            )

        made: dict[int, Rollout] = {}
        try:
            async with aclosing(map_unordered(one, _keyed(prompts, step), policy.concurrency)) as finished:
                async for place, rollout in finished:
                    made[place] = rollout
        finally:
            await policy.close()
        return [made[place] for place in range(len(prompts))]


@contextmanager
def writer(model: Any, mixed: bool) -> Iterator[Any]:
    """What writes the rollouts: on a CPU a copy with the LoRA matrices merged, for which the products of the matrices
    alone take as long as the model's; on a GPU, which may have no room for two, the model itself."""
    import torch

    if not torch.cuda.is_available():
        merged = deepcopy(model).merge_and_unload()
        # TRL has given the model a forward of its own, which a copy has, too, and which would run the model itself.
        vars(merged).pop("forward", None)
        yield merged.to(torch.bfloat16 if in_bfloat16(mixed) else torch.float32).eval()
        return
    training, attention = model.training, model.config._attn_implementation
    model.eval()
    try:
        yield model
    finally:
        model.set_attn_implementation(attention)
        model.train(training)


def _keyed(prompts: Sequence[str], step: int | str) -> Iterator[tuple[str, str]]:
    """Each name, and what makes the draws of this rollout its own."""
    seen = Counter[str]()
    place = f"{step}@{process()}" if processes() > 1 else step  # a group may be spread over several
    for name in prompts:
        yield name, f"{place}/{name}/{seen[name]}"
        seen[name] += 1


@contextmanager
def _rollouts(
    base: Base,
    options: GRPOOptions,
    sandbox: str,
    parts: Mapping[str, Sequence[Question]],
    slots: int,
    say: Callable[[str], None],
) -> Iterator[Rollouts]:
    """Rollouts with a sandbox that is up for as long as they are needed."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            box = None
            if options.code:
                box = runner.run(stack.enter_async_context(open_sandbox(sandbox, options.budget, say)))
            yield Rollouts(runner, box, base, options, parts, slots)
        finally:
            runner.run(stack.aclose())


def gathered(items: Sequence[T]) -> list[T]:
    """Of all processes."""
    if processes() == 1:
        return list(items)
    from accelerate.utils import gather_object

    return list(gather_object(list(items)))


def agreement(
    prompts: Sequence[str],
    rewards: Sequence[float | None],
    agrees: Sequence[bool | None],
    log_metric: Callable[[str, float], None],
    **_: Any,
) -> list[float | None]:
    """The reward as TRL asks for it: what the rollouts found. None where there was no verdict: it counts nowhere.

    Noted besides: the share of groups whose verdicts do not differ, the Brier term aside.
    """
    verdicts: dict[str, set[bool]] = {}
    for name, verdict in gathered(list(zip(prompts, agrees, strict=True))):
        verdicts.setdefault(name, set()).update(() if verdict is None else (verdict,))
    log_metric(FLAT, sum(len(each) < 2 for each in verdicts.values()) / len(verdicts))
    return list(rewards)


def _trainer(
    base: Base,
    options: GRPOOptions,
    machine: Machine,
    micro_batches: int,
    place: TrainFolder,
    rollouts: Rollouts,
) -> Any:
    import os

    import trl
    from datasets import Dataset
    from transformers import PrinterCallback, set_seed

    from genprm.train.progress import Agreed, Finite, Progress

    quiet()
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    set_seed(options.seed)
    recipe = options.recipe
    train, dev = rollouts.names("train"), rollouts.names("dev")
    arguments = trl.GRPOConfig(
        **common_arguments(options, machine, place),
        max_steps=recipe.steps,
        per_device_train_batch_size=machine.micro_batch or recipe.group,
        per_device_eval_batch_size=_dev_questions(len(dev), recipe, machine) * recipe.group,
        num_generations=recipe.group,
        steps_per_generation=micro_batches,
        gradient_accumulation_steps=micro_batches // recipe.updates,
        shuffle_dataset=False,  # it comes in order, so that a run that is gone on with asks what the whole one would
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="constant",
        beta=0.0,
        epsilon=recipe.clip_low,
        epsilon_high=recipe.clip_high,
        temperature=recipe.temperature,
        disable_dropout=True,  # an adapter that is gone on from may have some, which the rollouts have not
        # Divided by its deviation, a group that agrees would learn from its Brier terms as if they were verdicts.
        scale_rewards="none" if recipe.brier else "group",
        activation_checkpointing=machine.activation_checkpointing,
        save_steps=-(-machine.save_every // recipe.updates) * recipe.updates,  # after whole rounds
    )
    if dev:
        arguments.eval_strategy = "steps"
        arguments.eval_steps = options.eval_every or max(1, recipe.steps // 5)
        arguments.eval_on_start = place.last_checkpoint is None
    trainer = trl.GRPOTrainer(
        model=load_for_training(base, recipe, options.max_length, options.start, mixed=options.mixed),
        reward_funcs=agreement,
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": _order(train, options)}),
        eval_dataset=Dataset.from_dict({"prompt": dev}) if dev else None,
        processing_class=base.tokenizer,
        rollout_func=rollouts,
        callbacks=[Progress("reward"), Finite(), Agreed(FLAT, recipe.agreed, WINDOW)],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _dev_questions(dev: int, recipe: GRPORecipe, machine: Machine) -> int:
    """Questions of the dev file at once: as many each time, since the trainer takes the mean over these times.

    It computes the loss of all of them at once, too, for which a GPU may not have the memory.
    """
    import torch

    usual = recipe.group if torch.cuda.is_available() else SLOTS
    most = max(1, (machine.micro_batch or usual) // recipe.group)
    return next((count for count in range(min(most, dev), 1, -1) if dev % count == 0), 1)


def _order(names: list[str], options: GRPOOptions) -> list[str]:
    """The questions of all rounds: each time through them in another order."""
    recipe, chance = options.recipe, random.Random(options.seed)
    wanted = -(-recipe.steps // recipe.updates) * recipe.questions
    order: list[str] = []
    while len(order) < wanted:
        order += chance.sample(names, len(names))
    return order[:wanted]


def _measured(trainer: Any, rollouts: Rollouts, asked: int, options: GRPOOptions, seconds: float) -> GRPOMeasured:
    history = trainer.state.log_history
    rewards = [entry["reward"] for entry in history if entry.get("reward") is not None]
    tenth = max(1, len(rewards) // 10)
    return GRPOMeasured(
        steps=trainer.state.global_step,
        questions=asked,
        rollouts=rollouts.written,
        without_verdict=rollouts.without_verdict,
        first_reward=round(mean(rewards[:tenth]), 4),
        final_reward=round(mean(rewards[-tenth:]), 4),
        dev_rewards=tuple(round(entry["eval_reward"], 4) for entry in history if entry.get("eval_reward") is not None),
        stopped_early=trainer.state.global_step < options.recipe.steps,
        seconds=round(seconds, 1),
    )


def _save(trainer: Any, base: Base, place: TrainFolder, config: dict[str, Any], measured: GRPOMeasured) -> None:
    staged = place.checkpoints / "finished"
    with writing(staged):
        save_adapter(trainer.accelerator.unwrap_model(trainer.model), base, staged)
    figures = [(name.replace("_", " "), value) for name, value in measured.model_dump().items()]
    card = model_card(base.name, Task.GRPO, config, figures)
    finish(trainer, place, staged, REWARD_PLOT, "reward", "mean reward", card)
