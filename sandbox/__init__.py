"""Docker-isolated Jupyter kernels for code that nobody trusts.

What is covered, by which backend, and what is not: see docs/sandbox.md.
"""

from sandbox.errors import (
    SandboxError,
    SandboxLostError,
    SandboxRefusedError,
    SandboxTimeoutError,
    SandboxUnavailableError,
    SessionClosedError,
    SessionForkError,
)
from sandbox.limits import Limits
from sandbox.result import RunError, RunResult, RunStatus
from sandbox.sandbox import Sandbox
from sandbox.session import Session

__all__ = [
    "Limits",
    "RunError",
    "RunResult",
    "RunStatus",
    "Sandbox",
    "SandboxError",
    "SandboxLostError",
    "SandboxRefusedError",
    "SandboxTimeoutError",
    "SandboxUnavailableError",
    "Session",
    "SessionClosedError",
    "SessionForkError",
]
