"""What a verifier can be trained to do: to argue, to say Yes or No, or + or -, or to be read by a head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any

from genprm.errors import InputError
from genprm.models.chat import render_chat
from genprm.records import NO_ERROR, Solution, Verdict
from genprm.rows import iterate_solutions
from genprm.styles.discriminative import BAD, GOOD, QWEN_TAG, answered, marked
from genprm.styles.genprm import DIRECT_OPENING, JUDGEMENT_END, directly_judged
from genprm.train.record import ASSISTANT, ChatMessage, Masked, read_records
from genprm.train.tokens import IGNORED, Example, encode

WRONG, RIGHT = 0, 1
"""The classes of a head, as `genprm.models.reward_head` reads them."""


class Task(str, Enum):
    """What the model learns to do at a step."""

    SFT = "sft"
    """To write what stands in the answers."""
    GRPO = "grpo"
    """The same by reinforcement, from labels alone: `genprm.train.grpo`."""
    DIRECT = "direct"
    """To judge each step by Yes or No at once: the style `direct`. The baseline that differs by the rationale alone."""
    SIGNS = "signs"
    """To answer each step with + or -: RLHFlow's format. The baseline that keeps the language model."""
    HEAD = "head"
    """To be read by a two-class head behind each step: Qwen2.5-Math-PRM's format. The baseline that does not."""

    @property
    def has_head(self) -> bool:
        """Whether the model is no language model afterwards."""
        return self is Task.HEAD

    def read(self, path: str, tokenizer: Any, limit: int | None) -> Iterator[tuple[Example, int]]:
        """The conversations of a file, and the label of each.

        Raises:
            InputError: the file is broken, or a row is not as expected.
            ModelError: the tokenizer cannot render the conversations.
        """
        if self is Task.SFT:
            for record in read_records(path, limit):
                yield encode(tokenizer, record.messages, record.masked), record.label
            return
        example = {Task.DIRECT: _direct, Task.SIGNS: _signs, Task.HEAD: _marks}[self]
        for solution in iterate_solutions(path, limit):
            yield example(tokenizer, *_judged(path, solution)), solution.label or 0


def _judged(path: str, solution: Solution) -> tuple[Solution, list[bool]]:
    """The steps up to the first error, about those behind it the labels say nothing; and whether each is right."""
    if solution.label is None:
        raise InputError(f"{path}, id {solution.id}: no label: expected the first wrong step, -1 for none")
    if solution.label == NO_ERROR:
        return solution, [True] * len(solution.steps)
    seen = solution.model_copy(update={"steps": solution.steps[: solution.label + 1]})
    return seen, [True] * solution.label + [False]


def _direct(tokenizer: Any, solution: Solution, right: Sequence[bool]) -> Example:
    verdicts = [Verdict.CORRECT if each else Verdict.INCORRECT for each in right]
    turns, masked = list[ChatMessage](), list[Masked]()
    for turn in directly_judged(solution.problem, solution.steps, verdicts):
        if turn["role"] == ASSISTANT:
            start = len(DIRECT_OPENING)
            end = len(turn["content"]) - len(JUDGEMENT_END)
            place = len(turns)
            masked += [
                Masked(message=place, start=0, end=start), Masked(message=place, start=end, end=len(turn["content"])),
            ]  # fmt: skip
        turns.append(ChatMessage(**turn))
    return encode(tokenizer, turns, masked)


def _signs(tokenizer: Any, solution: Solution, right: Sequence[bool]) -> Example:
    signs = [GOOD if each else BAD for each in right]
    turns = [ChatMessage(**turn) for turn in answered(solution.problem, solution.steps, signs)]
    ends = [Masked(message=place, start=len(turn.content), end=len(turn.content)) for place, turn in enumerate(turns)]
    return encode(tokenizer, turns, [end for end in ends if turns[end.message].role == ASSISTANT])


def _marks(tokenizer: Any, solution: Solution, right: Sequence[bool]) -> Example:
    text = render_chat(tokenizer, *marked(solution.problem, solution.steps))
    tokens = tokenizer.encode(text, add_special_tokens=False)
    mark = tokenizer.convert_tokens_to_ids(QWEN_TAG)
    labels = [IGNORED] * len(tokens)
    places = [place for place, token in enumerate(tokens) if token == mark]
    for place, each in zip(places, right, strict=True):
        labels[place] = RIGHT if each else WRONG
    return Example(tokens, labels)
