"""Watching a verification while it is made."""

from __future__ import annotations

from typing import Protocol

from genprm.records import Segment, StepVote


class Watch(Protocol):
    """Is told of everything as it is written. Called in the event loop: it must return at once.

    Steps count from 0; one more than the solution has is its verification as a whole. Votes count from 0.
    """

    def begun(self, vote: int, style: str) -> None:
        """A chain begins; or begins anew, in another style or on another kernel, and what it showed before is void."""

    def written(self, vote: int, step: int, segment: Segment) -> None:
        """A part of a step's rationale is there. Styles that write all steps at once show theirs with the verdicts."""

    def judged(self, vote: int, step: int, said: StepVote) -> None:
        """A step has its verdict, or the reason why there is none."""
