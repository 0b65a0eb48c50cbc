"""Solutions of a problem: sampled until right and wrong ones are there, and cut into steps.

GenPRM, section 4.1: a problem is worth labelling if the policy solves it sometimes; one that it always or never solves
is dropped. Sampling goes on in waves, so the pass rate of a problem that needed several leans to its rarer kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from genprm.answers import AnswerChecker, final_answer
from genprm.errors import ContextFullError
from genprm.models.base import FinishReason, Message
from genprm.policy import Policy
from genprm.records import Problem, Record
from rationale_synth.memory import Memory
from rationale_synth.records import Cost
from rationale_synth.segment import (
    Segmentation,
    chunk_messages,
    forced_start,
    read_chunks,
    split,
)

CHUNK_TRIES = 3
"""Times that a model is asked to mark the chunks of a solution before it is given up."""
LEAST_STEPS = 2


class Sample(Record):
    """One solution as the policy wrote it."""

    number: int
    text: str
    right: bool | None
    """None where its answer could not be compared."""
    answered: bool
    """Whether there is an answer that can be read."""
    cut_off: bool
    """Whether the limit of tokens ended it: its last step may be half a one, so that it is not labelled."""

    @property
    def is_usable(self) -> bool:
        """Whether it can be labelled."""
        return self.right is not None and not self.cut_off


class Draft(Record):
    """A sample that is to be labelled, cut into its steps."""

    number: int
    correct: bool
    pieces: tuple[str, ...]
    """Put together they are the sample."""


class Sampler:
    """Draws the solutions of one problem.

    Args:
        policy: writes them.
        checker: compares their answers with the gold one.
        memory: what an interrupted run has found out already.
        messages: what the policy is asked.
        segmentation: how the solutions are cut into steps.
        max_tokens: most tokens of a solution.
    """

    def __init__(
        self,
        policy: Policy,
        checker: AnswerChecker,
        memory: Memory,
        *,
        messages: Sequence[Message],
        segmentation: Segmentation,
        max_tokens: int,
    ) -> None:
        self.cost = Cost()
        self._policy = policy
        self._checker = checker
        self._memory = memory
        self._messages = messages
        self._segmentation = segmentation
        self._max_tokens = max_tokens

    async def sample(self, problem: Problem, index: int, wave: int, most: int) -> list[Sample]:
        """Draw ``wave`` solutions, and further waves up to ``most``, until both kinds are there.

        Raises:
            ModelError: the model failed.
        """
        samples: list[Sample] = []
        while len(samples) < most and len({sample.right for sample in samples if sample.is_usable}) < 2:
            samples += await self._wave(problem, index, len(samples), min(wave, most - len(samples)))
        return samples

    async def cut(self, problem: Problem, index: int, samples: Sequence[Sample], most: int) -> tuple[list[Draft], int]:
        """Choose up to ``most`` solutions to label, as many right as wrong ones where there are, and cut them.

        Returns:
            The drafts, in the order of their numbers, and how many samples could not be cut.
        """
        drafts: list[Draft] = []
        failed = 0
        texts: set[str] = set()
        kinds = [[each for each in samples if each.is_usable and each.right is right] for right in (True, False)]
        odd = most % 2 * (index % 2)  # of an odd number, the one over is right and wrong by turns
        shares = (most - most // 2 - odd, most // 2 + odd)
        for kind, share, other in zip(kinds, shares, reversed(kinds), strict=True):
            room = max(share, most - min(len(other), most - share))
            for sample in kind:
                if room == 0:
                    break
                if sample.text in texts:
                    continue
                texts.add(sample.text)
                pieces = await self._pieces(problem, index, sample)
                if pieces is None or len(pieces) < LEAST_STEPS:
                    failed += 1
                    continue
                drafts.append(Draft(number=sample.number, correct=bool(sample.right), pieces=pieces))
                room -= 1
        return sorted(drafts, key=lambda draft: draft.number), failed

    async def _wave(self, problem: Problem, index: int, first: int, n: int) -> list[Sample]:
        start = forced_start(self._segmentation)

        async def call() -> dict[str, Any]:
            prompt = self._policy.render(self._messages, start)
            done = await self._policy.draw(
                prompt, n, self._max_tokens, key=problem.id, first=first, priority=(index, -1, 0)
            )
            return {
                "texts": [start + completion.text for completion in done],
                "cut_off": [completion.finish_reason is FinishReason.LENGTH for completion in done],
                "prompt_tokens": done[0].prompt_tokens,
                "completion_tokens": sum(completion.completion_tokens for completion in done),
            }

        found = await self._memory.recall(f"samples/{first}+{n}", call)
        self.cost += Cost(samples=n, prompt_tokens=found["prompt_tokens"], completion_tokens=found["completion_tokens"])
        # Not remembered, as the texts are: what took too long to compare may be quicker in the next run.
        return [
            Sample(
                number=first + place, text=text, cut_off=cut_off, answered=answer is not None,
                right=await self._checker.is_right(problem.answer, answer),
            )
            for place, (text, cut_off) in enumerate(zip(found["texts"], found["cut_off"], strict=True))
            for answer in [final_answer(text)]
        ]  # fmt: skip

    async def _pieces(self, problem: Problem, index: int, sample: Sample) -> tuple[str, ...] | None:
        if self._segmentation is not Segmentation.CHUNK:
            return split(self._segmentation, sample.text)
        if not sample.text.strip():
            return None

        async def call() -> dict[str, Any]:
            prompt = self._policy.render(chunk_messages(problem.problem, sample.text), "<chunk>")
            cost = {"prompt_tokens": 0, "completion_tokens": 0}
            for attempt in range(CHUNK_TRIES):
                try:
                    [done] = await self._policy.draw(
                        prompt, 1, 2 * self._max_tokens, key=f"{problem.id}/chunks/{sample.number}", first=attempt,
                        priority=(index, sample.number, 0),
                    )  # fmt: skip
                except ContextFullError:  # this one is too long to be marked; others need not be
                    break
                cost["prompt_tokens"] += done.prompt_tokens
                cost["completion_tokens"] += done.completion_tokens
                pieces = read_chunks("<chunk>" + done.text, sample.text)
                if pieces is not None:
                    return {"pieces": pieces, **cost}
            return {"pieces": None, **cost}

        found = await self._memory.recall(f"chunks/{sample.number}", call)
        self.cost += Cost(prompt_tokens=found["prompt_tokens"], completion_tokens=found["completion_tokens"])
        return None if found["pieces"] is None else tuple(found["pieces"])
