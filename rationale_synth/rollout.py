"""Monte Carlo values: how often does a policy reach the gold answer from each prefix of a solution?

GenPRM, section 3.2: ``MC(s_t, a_t)`` is the share of K completions of the prefix up to and including step t that reach
the gold answer. K goes by the problem's pass rate: 128 where it is under 0.1, 32 from 0.9 on, 64 between. The bare
problem gets K completions of its own, where the rule compares a first step with it: its samples were drawn until a
right and a wrong one were there. The value of the whole solution is known: its answer is right or it is not.

All prefixes of all solutions are in flight together. Of those that wait for the model, the longest prefix of a solution
goes first: a server that caches prefixes has then seen all its shorter ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from genprm.answers import AnswerChecker, final_answer
from genprm.models.base import FinishReason, Message
from genprm.policy import Policy
from genprm.records import Problem, Text
from genprm.tasks import gather_all
from rationale_synth.labels import Rule
from rationale_synth.memory import Memory
from rationale_synth.records import Cost, StepValue
from rationale_synth.settle import Settling, Tally, next_wave

PAPER_K = ((0.1, 128), (0.9, 64))
"""GenPRM, section 4.1: pass rates below each bound, and their K."""
PAPER_K_EASY = 32


def rollouts_by_pass_rate(pass_rate: float) -> int:
    """The paper's K."""
    return next((k for bound, k in PAPER_K if pass_rate < bound), PAPER_K_EASY)


class Estimator:
    """Estimates the step values of one problem's solutions.

    Args:
        policy: completes the prefixes.
        checker: compares what it reaches with the gold answer.
        memory: what an interrupted run has found out already.
        rule: whose labels the rollouts are for.
        settling: when they stop; None draws all K from every prefix.
        messages: what the policy was asked.
        max_tokens: most tokens of a completion.
    """

    def __init__(
        self,
        policy: Policy,
        checker: AnswerChecker,
        memory: Memory,
        *,
        rule: Rule,
        settling: Settling | None,
        messages: Sequence[Message],
        max_tokens: int,
    ) -> None:
        self.cost = Cost()
        self.uncomparable = 0
        self.cut_off = 0
        self.unanswered = 0
        self._policy = policy
        self._checker = checker
        self._memory = memory
        self._rule = rule
        self._settling = settling
        self._messages = messages
        self._max_tokens = max_tokens

    async def start(self, problem: Problem, index: int, prefix: str, planned: int) -> Tally:
        """The bare problem's tally.

        Args:
            problem: the problem.
            index: its place in the input.
            prefix: with what every solution begins.
            planned: K.

        Raises:
            ModelError: the model failed.
        """
        return Tally(right=0, drawn=0, planned=planned).with_more(
            await self._draw(problem, (index, -1, 0), prefix, 0, planned), planned
        )

    async def values(
        self,
        problem: Problem,
        place: tuple[int, int],
        pieces: Sequence[Text],
        start: Tally,
        planned: int,
        correct: bool,
    ) -> tuple[StepValue, ...]:
        """The value after each step of one solution.

        Args:
            problem: the problem.
            place: the problem's index in the input, and the solution's number; they order what waits.
            pieces: the solution, cut behind each of its T steps.
            start: the bare problem's tally.
            planned: K.
            correct: whether the solution's answer is right.

        Returns:
            T values. Those behind a value of 0 may stand on few rollouts, or none, where the rule does not need them.

        Raises:
            ModelError: the model failed.
        """
        tallies = [start, *(Tally(right=0, drawn=0, planned=planned) for _ in pieces[1:]), Tally.known(int(correct), 1)]
        prefixes = ["".join(pieces[:steps]) for steps in range(len(pieces) + 1)]
        drawn = [0] * len(prefixes)
        while wave := next_wave(self._rule, self._settling, tallies):
            places = sorted(wave, reverse=True)  # the longest prefix first
            found = await gather_all(
                self._draw(problem, (*place, -steps), prefixes[steps], drawn[steps], wave[steps]) for steps in places
            )
            for steps, more in zip(places, found, strict=True):
                drawn[steps] += wave[steps]
                tallies[steps] = tallies[steps].with_more(more, wave[steps])
        known = len(pieces)
        return tuple(
            StepValue(right=tally.right, rollouts=tally.drawn if steps < known else 0, value=tally.value)
            for steps, tally in enumerate(tallies[1:], 1)
        )

    async def _draw(self, problem: Problem, place: tuple[int, ...], prefix: str, first: int, n: int) -> tuple[int, int]:
        """Draw ``n`` completions of a prefix; returns how many were right, and how many could be compared."""
        key = "/".join(map(str, place[1:]))

        async def call() -> dict[str, int]:
            done = await self._policy.draw(
                self._policy.render(self._messages, prefix), n, self._max_tokens,
                key=f"{problem.id}/{key}", first=first, priority=place,
            )  # fmt: skip
            answers = [final_answer(prefix + completion.text) for completion in done]
            verdicts = [await self._checker.is_right(problem.answer, answer) for answer in answers]
            cut_off = [completion.finish_reason is FinishReason.LENGTH for completion in done]
            return {
                "right": verdicts.count(True),
                "uncomparable": verdicts.count(None),
                "cut_off": sum(cut_off),
                "unanswered": sum(answer is None and not cut for answer, cut in zip(answers, cut_off, strict=True)),
                "prompt_tokens": done[0].prompt_tokens,
                "completion_tokens": sum(completion.completion_tokens for completion in done),
            }

        outcome = await self._memory.recall(f"rollouts/{key}/{first}+{n}", call)
        self.uncomparable += outcome["uncomparable"]
        self.cut_off += outcome["cut_off"]
        self.unanswered += outcome["unanswered"]
        self.cost += Cost(
            rollouts=n, prompt_tokens=outcome["prompt_tokens"], completion_tokens=outcome["completion_tokens"]
        )
        return outcome["right"], n - outcome["uncomparable"]
