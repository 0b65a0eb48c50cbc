"""What a row's work has found out, so that it is not found out twice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Memory:
    """The outcomes of a row's calls, by name.

    A row's work is deterministic but for its calls. Run again with the same memory it goes the same way, and every
    call whose outcome is known costs nothing.

    Args:
        known: outcomes from an earlier run; values that JSON can carry.
        note: gets each new outcome.
    """

    def __init__(self, known: dict[str, Any] | None = None, note: Callable[[str, Any], None] | None = None) -> None:
        self._known = known or {}
        self._note = note or (lambda _key, _value: None)

    async def recall(self, key: str, call: Callable[[], Awaitable[T]]) -> T:
        """The outcome known under ``key``, or that of ``call``, which is noted down."""
        if key in self._known:
            known: T = self._known[key]
            return known
        value = await call()
        self._note(key, value)
        return value
