"""The interface that test-time search codes expect of a process reward model, search-and-learn's for one."""

from __future__ import annotations

from collections.abc import Sequence

from genprm.integrations.completion import as_solution, verified
from genprm.verifier import Verifier


class PRM:
    """A verifier as a process reward model.

    Args:
        verifier: open, and closed by who opened it.
        votes: chains per output; the verifier's own number by default.
        unscored: what stands for a score that there is none of. Search codes take the least or the last of the scores,
            and cannot do that with None.
    """

    def __init__(self, verifier: Verifier, votes: int | None = None, unscored: float | None = None) -> None:
        self._verifier = verifier
        self._votes = votes
        self._unscored = unscored

    def score(self, questions: Sequence[str], outputs: Sequence[Sequence[str]]) -> list[list[list[float | None]]]:
        """The step scores of Q questions with N outputs each, whose steps end at empty lines.

        Returns:
            ``[Q][N][steps]``, each P(right), ``unscored`` for a step without a verdict; an output that failed, or is
            blank, has that as its one score.

        Raises:
            ValueError: there are not as many lists of outputs as questions.
        """
        found: list[list[list[float | None]]] = [[[self._unscored] for _ in some] for some in outputs]
        solutions = {
            (question, place): solution
            for question, (problem, some) in enumerate(zip(questions, outputs, strict=True))
            for place, text in enumerate(some)
            if (solution := as_solution(f"{question}/{place}", problem, text))
        }
        rows = self._verifier.verify_many(solutions.values(), votes=self._votes)
        for (question, place), row in zip(solutions, rows, strict=True):
            if said := verified(row):
                found[question][place] = [self._unscored if step.score is None else step.score for step in said.steps]
        return found
