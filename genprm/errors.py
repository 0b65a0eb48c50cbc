"""Every exception of the engine, named by the boundary it crosses. `sandbox.SandboxError` is the sandbox's own."""

from __future__ import annotations


class GenprmError(Exception):
    """Root of the tree. Its text is one line that a user can act on."""


class InputError(GenprmError):
    """Input that cannot be read: names the file, the line and the field, and says what was expected."""


class OutputError(GenprmError):
    """A result that cannot be written (no such folder, no right, a full disk)."""


class ConfigError(GenprmError):
    """Options that do not go together, or name nothing that exists."""


class ModelError(GenprmError):
    """The model backend failed: the model cannot be loaded, or its server does not answer."""


class NothingWrittenError(ModelError):
    """A policy wrote nothing at all."""


class ModelUnavailableError(ModelError):
    """The model's server does not answer for now. It may be restarting: what was asked is worth asking again."""


class ContextFullError(ModelError):
    """The prompt leaves no room for a single new token in the model's context."""


class VerificationError(GenprmError):
    """One solution could not be verified. Recorded as a failed row; never stops the others."""
