"""What came of running one cell."""

from __future__ import annotations

from enum import Enum

from pydantic import BaseModel, ConfigDict, Field


class RunStatus(str, Enum):
    """How a cell ended. Exactly one of these; all of them are the guest's doing."""

    OK = "ok"
    """It ran to its end (``exit()`` and ``sys.exit(0)`` are ends too)."""
    ERROR = "error"
    """It raised; `RunResult.error` says what."""
    TIMEOUT = "timeout"
    """It was still running at its deadline and was interrupted, or killed where it ignored that."""
    MEMORY = "memory"
    """It asked for more memory than it may have."""
    OUTPUT_LIMIT = "output_limit"
    """It wrote more than it may; what fits is kept."""
    DIED = "died"
    """The kernel's process ended (``os._exit``, a segmentation fault, too many processes)."""


class RunError(BaseModel):
    """The exception that ended a cell, or the reason why its kernel was ended."""

    model_config = ConfigDict(frozen=True)

    name: str
    """The exception's type, as in ``ZeroDivisionError``."""
    value: str
    """Its text."""
    traceback: str = ""
    """The guest's part of the traceback, lines joined."""


class RunResult(BaseModel):
    """The outcome of one cell. Everything in it was chosen by code that nobody trusts."""

    model_config = ConfigDict(frozen=True)

    status: RunStatus
    stdout: str = ""
    stderr: str = ""
    result: str | None = None
    """``repr`` of the value of the cell's last expression, if it had one and it was not None."""
    error: RunError | None = None
    duration: float = Field(ge=0)
    """Wall time in seconds, by the host's clock."""
    truncated: bool = False
    """Whether text is missing because of the output limit."""
    state_lost: bool = False
    """Whether the kernel is gone: variables of earlier cells are lost, and the session takes no more cells."""
