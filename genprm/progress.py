"""Progress of long work: a bar on a terminal, plain lines in a log. Always on standard error."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from genprm.records import OutputRow, Verification

LOG_INTERVAL = 10.0
"""Seconds between two lines in a log."""


class LiveProgress:
    """One line that tells how far a job is.

    Args:
        doing: what is being done, in a word.
        total: how many rows there are.
        done: how many of them are done already.
        unit: what they are, if not rows.
    """

    def __init__(self, doing: str, total: int, done: int = 0, unit: str = "rows") -> None:
        self._total = total
        self._unit = unit
        self._first = done
        self._done = done
        self._started = self._said = time.monotonic()
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn(doing), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task("", total=total, completed=done, note="")

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return max(time.monotonic() - self._started, 1e-6)

    def row_done(self) -> None:
        """One more row is done."""
        self._done += 1

    def show(self, note: str) -> None:
        """Tell where the job is, if it is time to."""
        if self._bar:
            self._bar.update(self._task, completed=self._done, note=note)
        elif time.monotonic() - self._said > LOG_INTERVAL:
            self._said = time.monotonic()
            print(f"{self._done} of {self._total} {self._unit}, {note}{self._left()}", file=sys.stderr, flush=True)

    def _left(self) -> str:
        if self._done == self._first:
            return ""
        seconds = self.seconds / (self._done - self._first) * (self._total - self._done)
        return f", {timedelta(seconds=round(seconds))} left"


class RowProgress(LiveProgress):
    """The progress of a verification."""

    def __init__(self, total: int, done: int = 0) -> None:
        super().__init__("verifying", total, done)
        self._tokens = 0
        self._runs = 0
        self._failed = 0

    def add(self, row: OutputRow) -> None:
        """One more row is done."""
        self.row_done()
        if isinstance(row, Verification):
            self._tokens += row.usage.completion_tokens
            self._runs += row.usage.code_runs
        else:
            self._failed += 1
        self.show(f"{self._tokens / self.seconds:.0f} tokens/s, {self._runs} code runs, {self._failed} failed")
