"""What a search works with: a policy that writes, a verifier that judges, and the account of what both cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from genprm.answers import AnswerChecker, final_answer
from genprm.errors import NothingWrittenError, VerificationError
from genprm.models.base import Completion, FinishReason, Message
from genprm.policy import Policy
from genprm.pools import PoolCandidate
from genprm.records import Problem, Solution, StopReason, Verification
from genprm.search.records import SearchResult, Spent, TracePoint
from genprm.search.select import Reduce, reduce_scores
from genprm.solving import STEP_END, is_finished, paragraphs, solving_messages
from genprm.tasks import gather_all
from genprm.verifier import AsyncVerifier


@dataclass(frozen=True)
class Path:
    """A solution, or the beginning of one."""

    steps: tuple[str, ...] = ()
    finished: bool = False
    """Whether the policy has nothing to add: an answer is there, its turn is over, or it may write no more."""
    key: str = ""
    """Which draws have led here: seeds all that is drawn from here on."""
    scores: tuple[float | None, ...] = ()
    """Of its leading steps, as far as they were judged."""
    score: float | None = None
    """The whole path's, once it was judged."""
    report: Verification | None = None
    """Its last verification."""
    spent: Spent = field(default_factory=Spent)
    """On this path, by all that has led here."""

    @property
    def text(self) -> str:
        return STEP_END.join(self.steps)

    @property
    def answer(self) -> str | None:
        return final_answer(self.text)

    @property
    def rank(self) -> float:
        """Its score, for comparing paths; one without a score comes last."""
        return -1.0 if self.score is None else self.score

    @property
    def worth(self) -> tuple[bool, float]:
        """For comparing finished paths: one without an answer, as where it was cut off, comes last."""
        return self.answer is not None, self.rank


class Search:
    """The search over one problem.

    Args:
        problem: what is to be solved.
        policy: writes solutions.
        verifier: judges them.
        checker: compares answers with the gold one. The search itself does not see the outcome.
        reduce: how the scores of a path's steps become its score.
        max_tokens: most tokens of one draw.
        example: whether the policy is shown a solved problem.
        index: the problem's place in the input: earlier ones go first where the policy is busy.
    """

    def __init__(
        self,
        problem: Problem,
        policy: Policy,
        verifier: AsyncVerifier,
        checker: AnswerChecker,
        *,
        reduce: Reduce,
        max_tokens: int,
        example: bool = False,
        index: int = 0,
    ) -> None:
        self.problem = problem
        self.spent = Spent()
        self.messages = solving_messages(problem.problem, example=example)
        """What the policy is asked."""
        self._policy = policy
        self._verifier = verifier
        self._checker = checker
        self._reduce = reduce
        self._max_tokens = max_tokens
        self._index = index
        self._trace: list[TracePoint] = []
        self._offered = Path()
        self._finished: dict[str, Path] = {}
        self._completions = 0
        self._verifications = 0
        self._began = time.monotonic()

    async def write(
        self, path: Path, n: int = 1, *, first: int = 0, messages: Sequence[Message] | None = None
    ) -> list[Path]:
        """Let the policy finish ``path`` in ``n`` ways.

        Args:
            path: where to go on.
            n: how many draws.
            first: the number of the first of them; each number draws something else.
            messages: what it is asked instead of the bare problem.

        Returns:
            At least one path, at most ``n``: draws that say nothing are left out.

        Raises:
            ModelError: the policy failed, or every draw says nothing.
        """
        return await self._draw(path, n, first, messages or self.messages, ())

    async def write_step(self, path: Path, n: int = 1, *, first: int = 0) -> list[Path]:
        """Let the policy add one step to ``path`` in ``n`` ways; see `write`.

        A draw that adds nothing means that the policy takes the path for finished.
        """
        return await self._draw(path, n, first, self.messages, (STEP_END,))

    async def judge(self, path: Path) -> Path:
        """Let the verifier judge the steps of ``path``: those without a score only, where its style can.

        Raises:
            VerificationError: the model or the sandbox failed.
        """
        known = path.scores
        solution = Solution(id=f"{self.problem.id}{path.key}", problem=self.problem.problem, steps=path.steps)
        given = min(len(known), len(path.steps) - 1)
        report = await self._verifier.verify_solution(solution, given=given)
        scores = tuple(
            known[step.index] if step.stop_reason is StopReason.GIVEN else step.score for step in report.steps
        )
        if report.whole is not None and self._reduce is Reduce.LAST:
            score = report.whole.score
        else:
            wanted = [step.asked or step.stop_reason is StopReason.GIVEN for step in report.steps]
            score = reduce_scores([each for each, want in zip(scores, wanted, strict=True) if want], self._reduce)
        cost = Spent(verifier=report.usage.completion_tokens)
        self.spent += cost
        self._verifications += 1
        judged = replace(path, scores=scores, score=score, report=report, spent=path.spent + cost)
        if judged.finished:
            self._finished[judged.key] = judged
        return judged

    async def judge_all(self, paths: Sequence[Path]) -> list[Path]:
        """`judge`, side by side. One that fails has no score, and ranks last.

        Raises:
            VerificationError: all of them failed.
        """
        failed: list[VerificationError] = []

        async def judged(path: Path) -> Path:
            try:
                return await self.judge(path)
            except VerificationError as error:
                failed.append(error)
                return path

        found = await gather_all(judged(path) for path in paths)
        if len(failed) == len(paths):
            raise failed[0]
        return found

    async def offer(self, path: Path, spent: Spent | None = None) -> None:
        """Take ``path`` for the solution, as far as is known now.

        Args:
            path: what is offered.
            spent: what it took to find out; all that was spent so far by default.
        """
        correct = await self._checker.is_right(self.problem.answer, path.answer)
        self._trace.append(TracePoint(spent=spent or self.spent, answer=path.answer, correct=correct))
        self._offered = path

    async def result(self, method: str) -> SearchResult:
        """What has come of it, once something was offered."""
        end = self._trace[-1]
        return SearchResult(
            id=self.problem.id, problem=self.problem.problem, gold=self.problem.answer, method=method,
            answer=end.answer, correct=end.correct, score=self._offered.score, solution=self._offered.steps,
            trace=tuple(self._trace), candidates=tuple([await self._candidate(p) for p in self._finished.values()]),
            spent=self.spent, completions=self._completions, verifications=self._verifications,
            seconds=round(time.monotonic() - self._began, 3), policy=self._policy.model.name,
            verifier=self._verifier.model.name, style=self._verifier.style.name,
        )  # fmt: skip

    async def _draw(
        self, path: Path, n: int, first: int, messages: Sequence[Message], stop: Sequence[str]
    ) -> list[Path]:
        begun = path.text + STEP_END if path.steps else ""
        done = await self._policy.draw(
            self._policy.render(messages, begun), n, self._max_tokens,
            key=f"{self.problem.id}{path.key}", first=first, priority=(self._index, -len(path.steps)), stop=stop,
        )  # fmt: skip
        self._completions += n
        grown = []
        for number, completion in enumerate(done, first):
            cost = Spent(policy=completion.completion_tokens)
            if stop and not completion.text.strip() and completion.finish_reason is FinishReason.STOP:
                completion = await self._first_step(path, messages, begun, number)  # it began with an empty line
                cost += Spent(policy=completion.completion_tokens)
            self.spent += cost
            steps = (*path.steps, *(piece.strip() for piece in paragraphs(completion.text)))
            if not steps:
                continue
            cut = completion.finish_reason is FinishReason.LENGTH
            finished = not stop or cut or len(steps) == len(path.steps) or is_finished(completion.text)
            new = Path(steps=steps, finished=finished, key=f"{path.key}/{number}", scores=path.scores)
            grown.append(replace(new, spent=path.spent + cost))
        if not grown:
            raise NothingWrittenError(f"{self._policy.model.name} wrote nothing, {n} times")
        return grown

    async def _first_step(self, path: Path, messages: Sequence[Message], begun: str, number: int) -> Completion:
        """A draw without a stop string, as far as its first step goes."""
        [whole] = await self._policy.draw(
            self._policy.render(messages, begun), 1, self._max_tokens,
            key=f"{self.problem.id}{path.key}", first=number, priority=(self._index, -len(path.steps)),
        )  # fmt: skip
        self._completions += 1
        pieces = [piece for piece in paragraphs(whole.text) if piece.strip()]
        ended = whole.finish_reason if len(pieces) < 2 else FinishReason.STOP
        return whole.model_copy(update={"text": pieces[0] if pieces else "", "finish_reason": ended})

    async def _candidate(self, path: Path) -> PoolCandidate:
        correct = await self._checker.is_right(self.problem.answer, path.answer)
        scores = tuple(score for score in path.scores if score is not None)
        name = f"{self._verifier.model.name} {self._verifier.style.name}"
        # A pool's scores are of all steps or not there: unscored is never a score.
        known = {name: scores} if len(scores) == len(path.steps) else {}
        return PoolCandidate(steps=path.steps, answer=path.answer, correct=bool(correct), prm_step_scores=known)
