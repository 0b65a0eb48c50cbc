"""A model that answers from a script: for tests, examples and dry runs. Ships in the package.

A script is a list of rules, tried in order; the first whose ``when`` matches the end of the prompt answers.
As a JSON file: ``[{"when": "python\\n$", "text": "print(1)\\n```\\n"}, {"when": "boxed\\{$", "yes": 0.9}]``.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, field_validator

from genprm.errors import ConfigError, InputError
from genprm.models.base import Completion, FinishReason, Message, ModelBackend, Sampling, TokenChoice

TAIL = 4000
"""Characters at the end of the prompt that ``when`` is matched against."""


class Rule(BaseModel):
    """One line of a script."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    when: str = ""
    """Regular expression, searched in the last characters of the prompt."""
    text: str = ""
    """What the model writes; cut at the first stop string."""
    one_of: tuple[str, ...] = ()
    """Instead of one text: several, of which the seed chooses."""
    yes: float | None = None
    """Instead of a text: P(Yes) of one judgement token; P(No) is the rest."""
    choice: dict[str, float] = {}
    """Instead of a text: one token of which these are the likeliest, with their probabilities."""
    seconds: float = 0.0
    """How long it takes."""

    @field_validator("when")
    @classmethod
    def _is_an_expression(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"{value!r} is no regular expression: {error}") from error
        return value

    def drawn(self, seed: int) -> Rule:
        """The rule with the one text that a seed chooses."""
        return self.model_copy(update={"text": self.one_of[seed % len(self.one_of)]}) if self.one_of else self


class ScriptedModel(ModelBackend):
    """Answers by rules, or by a function from prompt to rule.

    Args:
        script: the rules.
        name: what it is called in the results.
        remembers: whether it keeps its prompts, for tests to look at.
    """

    def __init__(
        self, script: Sequence[Rule] | Callable[[str], Rule], name: str = "scripted", *, remembers: bool = True
    ) -> None:
        self.name = name
        self.concurrency = 1024
        self.prompts: list[str] = []
        """Every prompt it was given, in order of arrival, if it remembers them."""
        self._remembers = remembers
        self._answer = script if callable(script) else _by_rules(script)

    @classmethod
    def from_file(cls, path: str) -> ScriptedModel:
        """Read a script.

        Raises:
            InputError: the file cannot be read or is no script.
        """
        try:
            rules = TypeAdapter(list[Rule]).validate_python(json.loads(Path(path).read_text()))
        except (OSError, ValueError) as error:
            detail = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise InputError(f"{path}: no model script: {detail}") from error
        return cls(rules, f"scripted:{Path(path).name}", remembers=False)  # a dry run may have any number of rows

    async def complete(
        self, prompt: str, *, stop: Sequence[str], max_tokens: int, logprobs: int = 0, n: int = 1, sampling: Sampling
    ) -> list[Completion]:
        if self._remembers:
            self.prompts.append(prompt)
        rule = self._answer(prompt)
        await asyncio.sleep(rule.seconds)
        drawn = [rule.drawn(sampling.seed + draw) for draw in range(n)]
        return [self._completion(prompt, one, stop, max_tokens) for one in drawn]

    def _completion(self, prompt: str, rule: Rule, stop: Sequence[str], max_tokens: int) -> Completion:
        prompt_tokens = len(prompt.split())
        choice = rule.choice if rule.yes is None else {"Yes": rule.yes, "No": 1 - rule.yes}
        if choice:
            top = {word: _log(probability) for word, probability in choice.items()}
            text = max(top, key=top.__getitem__)
            token = TokenChoice(text=text, logprob=top[text], top=top)
            return Completion(
                text=text, finish_reason=FinishReason.LENGTH, tokens=(token,), prompt_tokens=prompt_tokens,
                completion_tokens=1,
            )  # fmt: skip
        text = rule.text
        for end in stop:
            text = text.split(end, 1)[0]
        ended = FinishReason.END if text == rule.text else FinishReason.STOP
        words = re.findall(r"\S+\s*|\s+", text)
        finish = ended if len(words) <= max_tokens else FinishReason.LENGTH
        kept = words[:max_tokens]
        tokens = tuple(TokenChoice(text=word, logprob=0.0, top={word: 0.0}) for word in kept)
        return Completion(
            text="".join(kept), finish_reason=finish, tokens=tokens, prompt_tokens=prompt_tokens,
            completion_tokens=len(kept),
        )  # fmt: skip

    def render(self, messages: Sequence[Message], prefix: str) -> str:
        turns = [f"<|{message['role']}|>\n{message['content']}\n" for message in messages]
        return "".join(turns) + "<|assistant|>\n" + prefix

    async def close(self) -> None:
        """Nothing to release."""


def _by_rules(rules: Sequence[Rule]) -> Callable[[str], Rule]:
    def answer(prompt: str) -> Rule:
        for rule in rules:
            if re.search(rule.when, prompt[-TAIL:]):
                return rule
        raise ConfigError(f"no rule of the script matches the prompt that ends in {prompt[-60:]!r}")

    return answer


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0 else -1e9
