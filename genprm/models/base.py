"""The seam between the engine and a language model: text in, text and token probabilities out."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum

from pydantic import BaseModel, ConfigDict, Field

from genprm.errors import ContextFullError, ModelError

Message = dict[str, str]
"""A chat message: ``role`` and ``content``."""


class Sampling(BaseModel):
    """How tokens are drawn. The defaults are GenPRM's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(default=0.6, ge=0)
    """0 takes the likeliest token."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    top_k: int = Field(default=20, ge=1)
    seed: int = 0

    @property
    def likeliest(self) -> Sampling:
        """The same, but nothing is left to chance."""
        return self.model_copy(update={"temperature": 0.0})


class FinishReason(str, Enum):
    """Why a completion ended."""

    STOP = "stop"
    """A stop string; where a server does not tell them apart, also the model's own end of text."""
    END = "end"
    """The model's own end of text."""
    LENGTH = "length"
    """``max_tokens``."""


class TokenChoice(BaseModel):
    """One generated token with its likeliest alternatives, itself among them if it is one of them."""

    model_config = ConfigDict(frozen=True)

    text: str
    logprob: float
    top: dict[str, float]
    """Text -> natural log of the probability, before temperature and truncation."""


class Completion(BaseModel):
    """What the model wrote. The text does not contain the stop string that ended it."""

    model_config = ConfigDict(frozen=True)

    text: str
    finish_reason: FinishReason
    tokens: tuple[TokenChoice, ...] = ()
    """The generated tokens, where ``logprobs`` was asked for."""
    prompt_tokens: int = 0
    completion_tokens: int = 0


PATIENCE = 900.0
"""Seconds for which a model's server that is busy, gone or starting up is asked again."""


@dataclass
class Heard:
    """What a caller's requests have heard of the model's server."""

    away: bool = False
    """Whether the last of them found nobody there."""


RESERVED = 64
"""Tokens of a context that whoever writes more than these leaves: a verdict is still to be read behind it."""


def fitting(name: str, taken: int, max_tokens: int, context: int) -> int:
    """As many of ``max_tokens`` as a context has room for.

    Args:
        name: the model's.
        taken: the prompt's tokens.
        max_tokens: how many are wished for.
        context: tokens that the model can take.

    Raises:
        ContextFullError: there is room for none.
    """
    room = context - taken - (RESERVED if max_tokens > RESERVED else 0)
    if room < 1:
        raise ContextFullError(f"{name}: a prompt of {taken} tokens fills the context of {context}")
    return min(max_tokens, room)


HEARD: ContextVar[Heard | None] = ContextVar("HEARD", default=None)
"""Of whoever asks. A backend with a server keeps it, in the tasks of one caller for that caller alone."""


class ModelBackend(abc.ABC):
    """A language model that continues text."""

    name: str
    """The model's name, as it stands in the results."""
    concurrency: int
    """Chains that the backend serves well at once."""
    away: bool = False
    """Whether all that anybody last heard of its server is that it is not there."""

    @abc.abstractmethod
    async def complete(
        self, prompt: str, *, stop: Sequence[str], max_tokens: int, logprobs: int = 0, n: int = 1, sampling: Sampling
    ) -> list[Completion]:
        """Continue ``prompt`` ``n`` times.

        Args:
            prompt: the whole text so far, as `render` makes it: special tokens are spelled out.
            stop: generation ends where one of these strings comes up.
            max_tokens: most tokens to generate.
            logprobs: how many alternatives to report for every generated token.
            n: how many completions to draw, with seeds ``sampling.seed``, ``sampling.seed + 1`` ...
            sampling: how to draw them.

        Raises:
            ContextFullError: the prompt fills the model's context.
            ModelError: the model or its server failed.
        """

    async def score(self, prompt: str, continuations: Sequence[str]) -> list[float]:
        """How likely the model is to go on with each of these texts, none of which it writes.

        Args:
            prompt: as for `complete`.
            continuations: texts that are not empty.

        Returns:
            For each the natural log of its probability, summed over its tokens.

        Raises:
            ContextFullError: prompt and text are longer than the model's context.
            ModelError: the model or its server failed, or cannot do this.
        """
        raise ModelError(f"{self.name}: the probability of a given text cannot be had from this backend")

    async def step_rewards(self, text: str, marker: str) -> list[float]:
        """What a reward head says at every ``marker`` of ``text``: the probability that the step before it is right.

        Raises:
            ContextFullError: the text is longer than the model's context.
            ModelError: the model has no such head.
        """
        raise ModelError(f"{self.name} is a language model without a reward head")

    def is_token(self, word: str) -> bool:
        """Whether the model reads and writes this word as one token."""
        return True

    @abc.abstractmethod
    def render(self, messages: Sequence[Message], prefix: str) -> str:
        """The prompt for these chat messages, ending in an assistant's turn that begins with ``prefix``."""

    def plain(self, text: str) -> str:
        """The prompt for a text that is no conversation: with the token that the model's texts begin with, if any."""
        return text

    @abc.abstractmethod
    async def close(self) -> None:
        """Release the model. Idempotent."""
