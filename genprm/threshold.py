"""Below which score a step is called wrong, chosen on other rows.

ProcessBench compares PRMs that print a number at the threshold that serves each best (Zheng et al., arXiv 2412.06559,
section 4); a verifier whose scores lean to one side is told from one that knows nothing in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence

from genprm.errors import ConfigError
from genprm.evaluation import Outcome, f1_score, outcome, predicted
from genprm.records import NO_ERROR, OutputRow, StopReason, Verdict, Verification

CANDIDATES = 200
"""Most thresholds that are tried, spread evenly over the steps' scores."""


def outcome_at(row: OutputRow, threshold: float) -> Outcome:
    """What is measured of a row, if steps with a score under the threshold are wrong.

    A row that was verified only up to its first error is open where the threshold does not see that error.

    Raises:
        ValueError: it has no label.
    """
    return outcome(row)._replace(predicted=_predicted_at(row, threshold))


def check_scores(row: OutputRow) -> None:
    """Refuse a row whose scores are not what its verdicts were read from.

    Raises:
        ConfigError: a majority of several chains decided: the scores are shares of them, for which 0.5 is no threshold.
    """
    if isinstance(row, Verification) and row.votes > 1:
        for step in row.steps:
            if step.score is not None and step.verdict is not Verdict.of(step.score):
                raise ConfigError(
                    f"{row.id}: a majority of its {row.votes} votes decided, whose scores have no threshold: "
                    "verify with --aggregate mean"
                )


def _predicted_at(row: OutputRow, threshold: float) -> int | None:
    if not isinstance(row, Verification):
        return predicted(row)
    for step in row.steps:
        if step.stop_reason is StopReason.GIVEN:
            continue
        if step.score is None:
            return None
        if step.score < threshold:
            return step.index
    return NO_ERROR


def fit_threshold(rows: Sequence[OutputRow]) -> float:
    """The threshold with the highest first-error F1; among equals the one that is nearest to 0.5.

    Args:
        rows: labelled, with and without an error, verified to the end.

    Raises:
        ConfigError: there are only right or only wrong solutions.
        ValueError: a row has no label.
    """
    for row in rows:
        check_scores(row)
    if f1_score([outcome(row) for row in rows]) is None:
        raise ConfigError("a threshold cannot be chosen: the rows hold only right, or only wrong, solutions")
    scores = sorted(
        {step.score for row in rows if isinstance(row, Verification) for step in row.steps if step.score is not None}
    )
    between = [(low + high) / 2 for low, high in zip([0.0, *scores], [*scores, 1.0], strict=True)]
    tried = [0.5, *(between[index * len(between) // CANDIDATES] for index in range(CANDIDATES))]
    found = {each: f1_score([outcome_at(row, each) for row in rows]) or 0.0 for each in tried}
    return max(found, key=lambda each: (found[each], -abs(each - 0.5)))
