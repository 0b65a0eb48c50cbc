"""Progress of long work: a bar on a terminal, plain lines in a log. Always on standard error."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from genprm.records import OutputRow, Verification

LOG_INTERVAL = 10.0
"""Seconds between two lines in a log."""


class RowProgress:
    """Counts rows as they finish."""

    def __init__(self, total: int, done: int = 0) -> None:
        self._total = total
        self._done = done
        self._tokens = 0
        self._runs = 0
        self._failed = 0
        self._started = self._said = time.monotonic()
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task("", total=total, completed=done, note="")

    def __enter__(self) -> RowProgress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def add(self, row: OutputRow) -> None:
        """One more row is done."""
        self._done += 1
        if isinstance(row, Verification):
            self._tokens += row.usage.completion_tokens
            self._runs += row.usage.code_runs
        else:
            self._failed += 1
        seconds = max(time.monotonic() - self._started, 1e-6)
        note = f"{self._tokens / seconds:.0f} tokens/s, {self._runs} code runs, {self._failed} failed"
        if self._bar:
            self._bar.update(self._task, completed=self._done, note=note)
        elif time.monotonic() - self._said > LOG_INTERVAL:
            self._said = time.monotonic()
            print(f"{self._done} of {self._total} rows, {note}", file=sys.stderr, flush=True)
