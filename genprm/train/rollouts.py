"""Rollouts for training by reinforcement: a step is judged as in use, with code that runs, and the judgement rewarded.

One question per step (StepWiser, arXiv 2508.19229, section 2.3): the conversation up to it is the record's, the answer
the policy's. The verdict is drawn by its probability, so that it is part of what is learned.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from genprm.budget import Budget
from genprm.chain import Chain, WallTimeError
from genprm.errors import ContextFullError, InputError
from genprm.models.base import Message, ModelBackend, Sampling
from genprm.models.chat import continuing_tokens
from genprm.records import Verdict, judged_steps
from genprm.styles.genprm import CODE_END, CODE_OUTPUT, JUDGEMENT_END, PYTHON, WORDS, Turn
from genprm.train.record import ASSISTANT, TrainingRecord
from sandbox import Sandbox, SandboxError, SandboxUnavailableError

_RUN = re.compile(re.escape(PYTHON) + "(.*?)" + re.escape(CODE_END + CODE_OUTPUT.partition("{output}")[0]), re.DOTALL)


class Question(NamedTuple):
    """One step to judge."""

    messages: list[Message]
    """The conversation up to the question about the step."""
    step: int
    """Its number, from 1."""
    right: bool
    """Whether the step is right, by the labels."""


def questions(path: str, records: Iterable[TrainingRecord]) -> list[Question]:
    """A question for each judged step of the records, up to the first wrong one.

    Args:
        path: where they come from.
        records: conversations in GenPRM's style, a turn per step.

    Raises:
        InputError: a record is of another style.
    """
    found: list[Question] = []
    for record in records:
        turns = [turn.model_dump() for turn in record.messages]
        places = [place for place, turn in enumerate(record.messages) if turn.role == ASSISTANT]
        if not all(JUDGEMENT_END in turns[place]["content"] for place in places):
            raise InputError(f"{path}, id {record.id}: style {record.style}: expected conversations in GenPRM's style")
        # An outcome filter also keeps conversations that go on behind the first wrong step: the labels end there.
        for step, place in enumerate(judged_steps(places, record.label)):
            found.append(Question(turns[:place], step + 1, right=step != record.label))
    return found


def balanced(path: str, asked: Sequence[Question], seed: int) -> list[Question]:
    """As many right steps as wrong ones (StepWiser, section 2.3, and its ablation), at each place in a solution.

    Wrong steps are late ones: balanced in all only, the place would tell what is more likely, without an argument.

    Raises:
        InputError: there is but one kind, or but one at every place.
    """
    right = sum(question.right for question in asked)
    if right in (0, len(asked)):
        kind = "right" if right else "wrong"
        raise InputError(f"{path}: all {len(asked)} steps are {kind}: expected some of both")
    chance = random.Random(seed)
    kept: list[Question] = []
    for step in sorted({question.step for question in asked}):
        kinds = [[one for one in asked if one.step == step and one.right is right] for right in (True, False)]
        fewest = min(map(len, kinds))
        kept += [question for kind in kinds for question in chance.sample(kind, fewest)]
    if not kept:
        raise InputError(f"{path}: right and wrong steps stand nowhere at the same place of their solutions")
    return chance.sample(kept, len(kept))


class Rollout(NamedTuple):
    """One judgement of a step, as tokens: P of the prompt and C of the completion."""

    prompt_ids: list[int]
    completion_ids: list[int]
    own: list[int]
    """1 for each of the C tokens that the model wrote; 0 for those written for it, and what the sandbox printed."""
    agrees: bool | None
    """Whether the verdict is the label's; None where there was none."""
    reward: float | None
    """1 for the right verdict and 0 for the wrong one, less the Brier term; None where there was no verdict."""


async def roll_out(
    question: Question,
    model: ModelBackend,
    tokenizer: Any,
    sandbox: Sandbox | None,
    budget: Budget,
    sampling: Sampling,
    key: str,
    brier: float = 0.0,
) -> Rollout:
    """Judge a step once.

    Args:
        question: the step.
        model: the policy.
        tokenizer: its tokenizer.
        sandbox: where its code runs; None to let it write none.
        budget: of the one turn.
        sampling: how tokens are drawn.
        key: makes the draws of this rollout its own.
        brier: weight of the squared distance between P(right) and the label, which the reward loses (calibration).

    Raises:
        ModelError: the model failed.
        SandboxUnavailableError: no code can be run any more.
    """
    async with Chain(model, sandbox, budget, sampling, key) as chain:
        turn = Turn(chain, question.messages, question.step)
        chance = random.Random(hashlib.sha256(f"{sampling.seed}/{key}".encode()).digest())
        score = None
        try:
            for code in code_run(question.messages) if sandbox is not None else ():
                await chain.run(code)  # later code may use what earlier steps' code has left
            await turn.analyse()
            if sandbox is not None:
                await turn.check()
            score = (await turn.judge(chance)).score
        except (WallTimeError, ContextFullError, SandboxError) as error:
            if isinstance(error, SandboxUnavailableError):
                raise
        prompt = tokenizer.encode(chain.render(question.messages, ""), add_special_tokens=False)
    completion, own = _tokens(tokenizer, turn.pieces or [(tokenizer.eos_token, False)])  # TRL takes none that is empty
    if score is None:
        return Rollout(prompt, completion, own, None, None)
    said = next(text for text, _ in reversed(turn.pieces) if text in WORDS.values())
    agrees = (said == WORDS[Verdict.CORRECT]) is question.right
    return Rollout(prompt, completion, own, agrees, agrees - brier * (score - question.right) ** 2)


def code_run(messages: Iterable[Message]) -> list[str]:
    """The code that was run in a conversation, in its order."""
    return [code for turn in messages if turn["role"] == ASSISTANT for code in _RUN.findall(turn["content"])]


def _tokens(tokenizer: Any, pieces: Sequence[tuple[str, bool]]) -> tuple[list[int], list[int]]:
    """A turn's tokens, cut where the model begins or ends to write, up to its last own one; and which are its own."""
    ids, own = list[int](), list[int]()
    for is_own, group in groupby(pieces, key=lambda piece: piece[1]):
        tokens = continuing_tokens(tokenizer, "".join(text for text, _ in group))
        ids += tokens
        own += [int(is_own)] * len(tokens)
    end = len(own) - own[::-1].index(1) if 1 in own else 1
    return ids[:end], own[:end]
