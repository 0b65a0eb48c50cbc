"""The ways to verify a solution, each in its own module, all returning the same records."""

from __future__ import annotations

from genprm.styles.base import Style
from genprm.styles.discriminative import Discriminative, PRMFormat
from genprm.styles.genprm import Direct, GenPRM, History
from genprm.styles.judge import Judge
from genprm.styles.stepwiser import StepWiser
from genprm.styles.thinkprm import ThinkPRM

STYLES: dict[str, type[Style]] = {
    style.name: style for style in (GenPRM, ThinkPRM, StepWiser, Judge, Direct, Discriminative)
}
"""Style name -> its class."""

__all__ = [
    "STYLES",
    "Direct",
    "Discriminative",
    "GenPRM",
    "History",
    "Judge",
    "PRMFormat",
    "StepWiser",
    "Style",
    "ThinkPRM",
]
