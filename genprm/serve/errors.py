"""What ends a request, and what its client is told of it."""

from __future__ import annotations


class BusyError(Exception):
    """There is no room."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"all places are taken: come again in {retry_after} s")
        self.retry_after = retry_after


class TooManyError(Exception):
    """So many rows will never have room."""


class BodyError(Exception):
    """The body is too large, or comes too slowly; ends its reading."""


class GoneError(Exception):
    """The client has left."""


class DeadlineError(Exception):
    """The time that the server allows is up."""


class OwnDeadlineError(DeadlineError):
    """The time that the request allowed is up."""


class UnscoredError(Exception):
    """A reward was asked for where there is no score."""
