"""Code-verified generative process reward models.

A language model argues about a step, runs Python to check what it argues, reads what the code printed, and judges.
"""

from genprm.budget import Budget
from genprm.errors import (
    ConfigError,
    ContextFullError,
    GenprmError,
    InputError,
    ModelError,
    ModelUnavailableError,
    OutputError,
    VerificationError,
)
from genprm.models.base import ModelBackend, Sampling
from genprm.records import (
    FailedRow,
    ParseStatus,
    Problem,
    Segment,
    SegmentKind,
    Solution,
    StepVerification,
    StepVote,
    StopReason,
    Usage,
    Verdict,
    Verification,
    parse_row,
)
from genprm.verifier import AsyncVerifier, Verifier
from genprm.votes import VotePlan

__all__ = [
    "AsyncVerifier",
    "Budget",
    "ConfigError",
    "ContextFullError",
    "FailedRow",
    "GenprmError",
    "InputError",
    "ModelBackend",
    "ModelError",
    "ModelUnavailableError",
    "OutputError",
    "ParseStatus",
    "Problem",
    "Sampling",
    "Segment",
    "SegmentKind",
    "Solution",
    "StepVerification",
    "StepVote",
    "StopReason",
    "Usage",
    "Verdict",
    "Verification",
    "VerificationError",
    "Verifier",
    "VotePlan",
    "parse_row",
]
