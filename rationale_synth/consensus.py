"""Which rationales are kept: those whose judgement agrees with the labels. Every rejection has a reason."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import Enum

from genprm.records import NO_ERROR


class Reason(str, Enum):
    """Why a rationale was not kept."""

    NO_VERDICT = "no_verdict"
    """Its end does not say which step is wrong."""
    NO_SUCH_STEP = "no_such_step"
    """It names a step that the solution does not have."""
    MISSING_SECTION = "missing_section"
    """A step that it had to argue about has no argument, or is out of order."""
    UNRUN_CODE = "unrun_code"
    """A section has Python that was not run: past the budget, or in a block that is not closed by a line of its own."""
    FORGED_OUTPUT = "forged_output"
    """The model wrote an execution output itself, instead of running code."""
    TOO_LONG = "too_long"
    """It did not fit its budget of tokens or time, or the model's context."""
    OTHER_ERROR = "other_error"
    """It names another first error than the labels (process filter)."""
    MISSED_ERROR = "missed_error"
    """It finds no error where there is one."""
    FALSE_ALARM = "false_alarm"
    """It finds an error where there is none."""
    UNBALANCED = "unbalanced"
    """It agrees, but its kind, with or without an error, had too many."""
    FAILED = "failed"
    """The model or the sandbox failed: nothing is known."""


class Filter(str, Enum):
    """What a rationale must agree with."""

    PROCESS = "process"
    """The labels of all steps up to the first error (GenPRM, section 4.2; ThinkPRM)."""
    OUTCOME = "outcome"
    """Only whether the final answer is right: ThinkPRM's ablation."""
    LABELS = "labels"
    """Nothing: the label's verdict is put in the place of the model's own (`rationale_synth.taught`)."""


def disagreement(kind: Filter, judged: int, label: int, correct: bool) -> Reason | None:
    """Why a judgement does not agree, or None if it does.

    Args:
        kind: what it must agree with.
        judged: the first error it names, -1 for none.
        label: the first error by the labels.
        correct: whether the solution's final answer is right.
    """
    if kind is Filter.LABELS:
        return None
    wrong = label != NO_ERROR if kind is Filter.PROCESS else not correct
    if judged == NO_ERROR:
        return Reason.MISSED_ERROR if wrong else None
    if not wrong:
        return Reason.FALSE_ALARM
    return Reason.OTHER_ERROR if kind is Filter.PROCESS and judged != label else None


def balanced(kept: Sequence[tuple[str, bool]]) -> set[str]:
    """The ids to keep so that those with and those without an error are as many; all, where one kind is missing.

    Args:
        kept: an id, and whether the solution has an error.
    """
    kinds = [[name for name, wrong in kept if wrong is kind] for kind in (True, False)]
    count = min(map(len, kinds))
    if count == 0:
        return {name for name, _ in kept}
    # By a hash of the id: which ones stay depends neither on their order nor on chance.
    return {name for kind in kinds for name in sorted(kind, key=_rank)[:count]}


def _rank(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
