"""Is this the right answer? Found in a text, compared with the gold one.

Plain numbers are compared exactly, here. Everything else goes to math-verify, in processes of their own: on hostile
strings it can take for ever, or all memory, and is then ended without harm.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections import OrderedDict
from concurrent.futures import CancelledError
from fractions import Fraction
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Any

from genprm.latex import undressed

if TYPE_CHECKING:
    from pebble import ProcessPool

MAX_CHARS = 1000
"""Longer answers are not compared: nothing that long is an answer."""
DEADLINE = 5.0
"""Seconds for one comparison."""
MEMORY = 2 << 30
"""Bytes of address space of a comparing process."""
CACHED = 1 << 16
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?")
_FRACTION = re.compile(r"([-+]?\d+)/(\d+)|([-+]?)\\frac\{(-?\d+)\}\{(\d+)\}")
_MIXED = re.compile(r"([-+]?)(\d+) (\d+)/(\d+)")
_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\{([^{}]*)\}")
_NAMED = re.compile(r"\A[A-Za-z]\s*=\s*")
_THOUSANDS = re.compile(r"(?<=\d)(?:\\[,;: ]|[~ \u00a0\u2009\u202f])(?=\d{3}(?!\d))")
"""A space of whatever width between the thousands."""
_UNIT = re.compile(r"(?:\s|~|\\[,;: ])*(?:\\(?:text|mathrm)\{([^{}]*)\}|(?<=[\s~])([A-Za-z]{3,}(?: [a-z]+)*))\Z")
_MAGNITUDE = re.compile(
    r"(?i)hundred|thousand|illion|dozen|percent|half|halves|third|quarter"
    r"|squared|cubed|factorial|times|over|plus|minus|power|root"
)
"""Words behind a number that make it another one."""
_BRACE = re.compile(r"(?:\\boxed|\\fbox)?\{|\}")
_SAID = re.compile(
    r"(?i)\banswer(?:\s++is)?\s*+:?+\s*+[*_]*+(?:\\?\$)?+\s*+([-+]?[\d.,/]*\d)"
    r"(?![.,/]*\d|[({]|[abcijknpqrtuvwxyz](?![a-z])"
    r"|\s*(?:\*\s*[\w(\\]|[/^=<>]|[-+]\s*(?:\d|\\|[a-z]\b)|\\(?![$%)\],;: ]|text|mathrm)))"
)
"""A number, and nothing behind it that makes it another one: not the 5 of 5\\sqrt{2}, nor the 2 of 2x."""
GSM8K = re.compile(r"(?:^|\n)[ \t]*####[ \t]*([^\sA-Za-z]\S*)\s*\Z")
"""GSM8K's last line. A heading of Markdown, which also has four marks, begins with a letter, or has more words."""


def final_answer(text: str) -> str | None:
    """The final answer that a solution states: the last ``\\boxed{}``, else GSM8K's ``####``, else "answer is 42"."""
    boxed = last_boxed(text)
    if boxed is not None:
        return boxed or None
    for pattern in (GSM8K, _SAID):
        found = pattern.findall(text)
        if found:
            return str(found[-1]).strip()
    return None


def exact_number(text: str) -> Fraction | None:
    """The number that ``text`` is, if it is plainly one: 1,200 or $3.50, x = 5, 1 3/4 or \\frac{3}{4}."""
    if len(text) > 100:
        return None
    text = text.strip().rstrip(".")
    if whole := _TEXT.fullmatch(text):
        text = whole[1]
    text = undressed(text.strip("$ ").replace("\\$", "")).replace("{,}", ",").strip().rstrip(".")
    text = _THOUSANDS.sub("", _NAMED.sub("", text))
    if len(text) > 60:
        return None
    mixed = _MIXED.fullmatch(text)
    if mixed and int(mixed[4]):
        return Fraction(f"{mixed[1]}1") * (int(mixed[2]) + Fraction(int(mixed[3]), int(mixed[4])))
    fraction = _FRACTION.fullmatch(text)
    if fraction:
        over, under, sign, over_too, under_too = fraction.groups()
        bottom = int(under or under_too)
        top = int(over or over_too) * (-1 if sign == "-" else 1)
        return Fraction(top, bottom) if bottom else None
    if re.search(r"\d", text) and _NUMBER.fullmatch(text):
        return Fraction(text.replace(",", ""))
    return None


def number_with_unit(text: str) -> Fraction | None:
    """The number that ``text`` is, but for a unit in words: 18 dollars, 18~\\text{m}."""
    text = text.strip().rstrip(".")
    if whole := _TEXT.fullmatch(text):
        text = whole[1]
    unit = _UNIT.search(text)
    return exact_number(text[: unit.start()]) if unit and not _MAGNITUDE.search(unit[0]) else None


class AnswerChecker:
    """Compares answers. An async context manager; processes start when the first comparison needs one.

    Args:
        workers: processes that compare side by side; as many as there are cores by default.
    """

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers or len(os.sched_getaffinity(0))
        self._pool: ProcessPool | None = None
        self._known: OrderedDict[tuple[str, str], bool | None] = OrderedDict()

    async def __aenter__(self) -> AnswerChecker:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the processes. Idempotent."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()
            await asyncio.to_thread(pool.join, 10)

    async def is_right(self, gold: str, answer: str | None) -> bool | None:
        """Whether ``answer`` is ``gold``; None where no comparison was possible in time. No answer is a wrong one."""
        if answer is None:
            return False
        if answer.strip() == gold.strip():
            return True
        if len(answer) > MAX_CHARS:
            return None
        ours, theirs = exact_number(gold), exact_number(answer)
        if ours is None and theirs is not None:  # it may only have a unit that the other has not
            ours = number_with_unit(gold)
        elif theirs is None and ours is not None:
            theirs = number_with_unit(answer)
        if ours is not None and theirs is not None:
            return ours == theirs
        key = (_ended(gold), _ended(answer))
        if key not in self._known:
            self._known[key] = await self._compare(*key)
            if len(self._known) > CACHED:
                self._known.popitem(last=False)
        return self._known[key]

    async def can_compare(self, gold: str) -> bool | None:
        """Whether anything could ever be found equal to ``gold`` but its own letters; None if that took too long."""
        if len(gold) > MAX_CHARS:
            return False
        if exact_number(gold) is not None:
            return True
        found = await self._call(_parses, gold)
        return None if found is None else bool(found)

    async def _compare(self, gold: str, answer: str) -> bool | None:
        outcome = await self._call(_equal, gold, answer)
        return None if outcome is None else bool(outcome)

    async def _call(self, function: object, *arguments: str) -> object:
        """What a process of its own makes of it; None if it did not come back in time, or died."""
        from pebble import ProcessExpired

        for _ in range(2):
            pool = self._processes()
            try:
                return await asyncio.wrap_future(pool.schedule(function, args=arguments, timeout=DEADLINE))
            except (TimeoutError, ProcessExpired, MemoryError, CancelledError):
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                return None
            except RuntimeError:  # a process was killed while it had nothing to do: the pool is lost
                pool.stop()
                if self._pool is pool:
                    self._pool = None
        return None

    def _processes(self) -> ProcessPool:
        if self._pool is None:
            import multiprocessing

            from pebble import ProcessPool

            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPool(max_workers=self._workers, initializer=_confine, context=context)
        return self._pool


def last_boxed(text: str) -> str | None:
    """What stands in the last ``\\boxed{}`` that is closed; "" if nothing, None if there is none."""
    open_at: list[tuple[bool, int]] = []
    last: tuple[int, int] | None = None
    for brace in _BRACE.finditer(text):
        if brace[0] != "}":
            open_at.append((len(brace[0]) > 1, brace.end()))
        elif open_at:
            is_box, begin = open_at.pop()
            if is_box and (last is None or begin > last[0]):
                last = begin, brace.start()
    return None if last is None else text[last[0] : last[1]].strip()


def _ended(answer: str) -> str:
    """Without the full stop of its sentence."""
    return answer if answer.endswith("..") else answer.strip().removesuffix(".")


# In the other process


def _confine() -> None:
    import logging
    import resource
    import signal

    import math_verify  # noqa: F401 - imported before the first deadline runs

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # which warns that the deadline is ours to keep
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; our parent ends us


def _parses(gold: str) -> bool:
    return bool(_parsed(gold))


def _equal(gold: str, answer: str) -> bool:
    from math_verify import verify

    return bool(verify(_parsed(gold), _parsed(answer), timeout_seconds=None, raise_on_error=False))


@lru_cache(maxsize=4096)
def _parsed(answer: str) -> list[Any]:
    from math_verify import parse

    return list(parse(f"\\boxed{{{answer}}}", parsing_timeout=None, raise_on_error=False))
