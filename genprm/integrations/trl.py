"""A reward function for TRL's trainers: how sure the verifier is of a completion's weakest step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from genprm.integrations.completion import as_solution, verified
from genprm.models.base import Message
from genprm.verifier import Verifier

Prompt = str | Sequence[Message]


def reward_function(verifier: Verifier, votes: int | None = None) -> Callable[..., list[float | None]]:
    """What TRL takes as one of ``reward_funcs``.

    A completion's steps are its paragraphs; the problem is the column ``problem`` where the data has one, else the
    prompt, or its last message. A completion that is blank, unscored or that failed has no reward: TRL leaves None out.

    Args:
        verifier: open, and closed by who opened it.
        votes: chains per completion; the verifier's own number by default.
    """

    def reward(prompts: Sequence[Prompt], completions: Sequence[Prompt], **columns: Any) -> list[float | None]:
        problems = columns.get("problem") or [_text(prompt) for prompt in prompts]
        solutions = {
            place: solution
            for place, completion in enumerate(completions)
            if (solution := as_solution(str(place), problems[place], _text(completion)))
        }
        found: list[float | None] = [None] * len(completions)
        for place, row in zip(solutions, verifier.verify_many(solutions.values(), votes=votes), strict=True):
            said = verified(row)
            found[place] = said.score if said else None
        return found

    reward.__name__ = "genprm"  # TRL names its figures after it
    return reward


def _text(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    return (prompt[-1]["content"] or "") if prompt else ""  # a mere tool call has no content
