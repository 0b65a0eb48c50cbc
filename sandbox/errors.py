"""Every exception of the sandbox, named by the boundary it crosses.

What the *guest* does wrong is data: a `RunResult` with a status. An exception means that the *sandbox* failed,
so that nothing is known about the code. It must never be shown to a model as output, nor be scored.
"""

from __future__ import annotations


class SandboxError(Exception):
    """Root of the tree: the sandbox failed at its own job."""


class SandboxUnavailableError(SandboxError):
    """No kernel server could be started or found: no engine, no rights, no image, an empty directory."""


class SandboxRefusedError(SandboxError):
    """The kernel server is there, but could not do what it was asked: no process, no space for another kernel."""


class SandboxLostError(SandboxError):
    """A kernel server went away (container killed, engine restarted) while sessions were open on it.

    The sandbox itself goes on: the next session starts a server anew. State of the lost sessions is gone.
    """


class SandboxTimeoutError(SandboxError):
    """The kernel server did not answer within its deadline."""


class SessionClosedError(SandboxError):
    """The session was closed, or its kernel ended in an earlier cell."""


class SessionForkError(SandboxError):
    """The session's state cannot be forked; the message names what is in the way. The session goes on."""
