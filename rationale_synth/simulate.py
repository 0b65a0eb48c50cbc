"""A policy with known step values: no model, but everything else real.

For trying a job and its options before a GPU is paid for, and for measuring what an estimate is worth. A problem has a
number of steps; at each of them the policy slips with some probability, and after a slip it finds back with another,
mostly 0. The chance of the right answer from any prefix is then known exactly. Problems are easy or hard for a policy
as they are for real ones: the pass rates of a set of problems crowd at both ends (a beta distribution with both
parameters under 1), and the difficulty of a problem sits in few of its steps.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from collections.abc import Callable, Sequence
from enum import Enum
from functools import lru_cache

from genprm.errors import ConfigError
from genprm.models.base import Completion, FinishReason, Message, ModelBackend, Sampling
from genprm.records import Record

_PART = "\x1e"
_ON_TRACK = "so"
_OFF_TRACK = "hence"
_STEP = re.compile(rf"Step (\d+): ({_ON_TRACK}|{_OFF_TRACK}) ")
WORDS = ("we take", "we add", "we find", "that leaves", "there are", "in all", "one gets", "it makes")


class Strength(str, Enum):
    """How good the policy is: the distribution of its pass rates over problems."""

    WEAK = "weak"
    MEDIUM = "medium"
    STRONG = "strong"


_PASS_RATES = {Strength.WEAK: (0.35, 0.9), Strength.MEDIUM: (0.5, 0.5), Strength.STRONG: (0.9, 0.35)}


class Course(Record):
    """How a policy fares with one problem of T steps."""

    keeps: tuple[float, ...]
    """The chance of each step to be made rightly, T of them."""
    recovers: float
    """The chance of a step after a slip to mend it."""
    on_track: tuple[float, ...]
    """The value of a prefix of 0 .. T steps without a slip that is not mended."""
    off_track: tuple[float, ...]
    """The value of one with such a slip."""


class SimulatedPolicy(ModelBackend):
    """Writes solutions whose step values are known.

    Args:
        answer_of: the gold answer of a problem's text.
        strength: how good it is.
        seconds: how long a completion takes.
        in_flight: completions it serves at once.
    """

    def __init__(
        self,
        answer_of: Callable[[str], str | None],
        strength: Strength = Strength.MEDIUM,
        *,
        seconds: float = 0.0,
        in_flight: int = 256,
    ) -> None:
        self.name = f"simulated-{strength.value}"
        self.concurrency = in_flight
        self._answer_of = answer_of
        self._strength = strength
        self._seconds = seconds

    def course(self, problem: str) -> Course:
        """What is known of a problem."""
        return _course(problem, self._strength)

    def value(self, problem: str, pieces: Sequence[str]) -> float:
        """The chance of the right answer from a prefix that this policy wrote."""
        course = self.course(problem)
        done, on_track = _progress("".join(pieces))
        return (course.on_track if on_track else course.off_track)[done]

    async def complete(
        self, prompt: str, *, stop: Sequence[str], max_tokens: int, logprobs: int = 0, n: int = 1, sampling: Sampling
    ) -> list[Completion]:
        await asyncio.sleep(self._seconds)
        problem, _, prefix = prompt.partition(_PART)
        return [self._write(problem, prefix, sampling.seed + draw) for draw in range(n)]

    def render(self, messages: Sequence[Message], prefix: str) -> str:
        return messages[-1]["content"].partition("\n\n")[2] + _PART + prefix

    async def close(self) -> None:
        """Nothing to release."""

    def _write(self, problem: str, prefix: str, seed: int) -> Completion:
        course = self.course(problem)
        chance = random.Random(seed)
        done, on_track = _progress(prefix)
        steps: list[str] = []
        for step in range(done, len(course.keeps)):
            on_track = chance.random() < (course.keeps[step] if on_track else course.recovers)
            word = _ON_TRACK if on_track else _OFF_TRACK
            steps.append(f"Step {step + 1}: {word} {chance.choice(WORDS)} {chance.randrange(100)}.")
        gold = self._answer_of(problem)
        if gold is None:
            raise ConfigError(f"the simulated policy was not told the answer of the problem {problem[:60]!r}")
        answer = gold if on_track else f"{chance.randrange(1000)}.5"
        text = "\n\n".join([*steps]) + f" The answer is \\boxed{{{answer}}}."
        text = text.removeprefix("Step 1:") if prefix == "Step 1:" else text
        return Completion(
            text=text, finish_reason=FinishReason.STOP, prompt_tokens=len(problem) // 4 + len(prefix) // 4,
            completion_tokens=max(1, len(text) // 4),
        )  # fmt: skip


def _progress(prefix: str) -> tuple[int, bool]:
    """How many steps a prefix has, and whether it is on track."""
    last = prefix.rfind("Step ")
    found = _STEP.match(prefix, last) if last >= 0 else None
    return (int(found[1]), found[2] == _ON_TRACK) if found else (0, True)


@lru_cache(maxsize=4096)
def _course(problem: str, strength: Strength) -> Course:
    seed = hashlib.sha256(f"{strength.value}/{problem}".encode()).digest()
    chance = random.Random(int.from_bytes(seed[:8], "big"))
    pass_rate = min(max(chance.betavariate(*_PASS_RATES[strength]), 1e-6), 1 - 1e-6)
    count = chance.randint(4, 10)
    shares = [chance.gammavariate(0.5, 1) + 1e-9 for _ in range(count)]
    keeps = [pass_rate ** (share / sum(shares)) for share in shares]
    recovers = 0.0 if chance.random() < 0.7 else chance.betavariate(1, 5)
    on_track, off_track = [1.0], [0.0]
    for keep in reversed(keeps):
        right, wrong = on_track[0], off_track[0]
        on_track.insert(0, keep * right + (1 - keep) * wrong)
        off_track.insert(0, recovers * right + (1 - recovers) * wrong)
    return Course(keeps=tuple(keeps), recovers=recovers, on_track=tuple(on_track), off_track=tuple(off_track))
