"""What a person reads after a run: one line per solution, and the totals."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.table import Table
from rich.text import Text

from genprm.records import (
    NO_ERROR,
    FailedRow,
    OutputRow,
    ParseStatus,
    StepVerification,
    StepVote,
    StopReason,
    Verdict,
    Verification,
)

MAX_LINES = 60
"""Rows of the table; a longer run shows its first ones."""
GLYPHS = {Verdict.CORRECT: ("✓", "green"), Verdict.INCORRECT: ("✗", "red"), None: ("?", "yellow")}
NOT_ASKED = ("·", "dim")
"""A step that nobody asked about: behind the first error, say."""


class Summary:
    """Grows with every row, and keeps the first ones' lines only."""

    def __init__(self) -> None:
        self.complete = True
        """Whether all rows are there, with a verdict on each step that was asked about."""
        self._table = Table(box=None, padding=(0, 1), header_style="bold")
        for name in ("id", "steps", "first error"):
            self._table.add_column(name, overflow="ellipsis", no_wrap=True)
        for name in ("score", "code"):
            self._table.add_column(name, justify="right")
        self._table.add_column("")
        self._counts: Counter[str] = Counter()
        self._why: Counter[ParseStatus | StopReason] = Counter()

    def add(self, row: OutputRow) -> None:
        """Take one more row, in the order of the input."""
        self._counts["rows"] += 1
        self.complete = self.complete and isinstance(row, Verification) and not row.unscored
        if self._counts["rows"] <= MAX_LINES:
            self._table.add_row(*(_failed_cells(row) if isinstance(row, FailedRow) else _cells(row)))
        if isinstance(row, FailedRow):
            self._counts["failed"] += 1
            return
        self._counts["steps"] += len(row.steps)
        self._counts["errors"] += row.first_error != NO_ERROR
        self._counts["unscored"] += row.unscored
        self._counts["votes"] += row.votes
        self._counts["tokens"] += row.usage.completion_tokens
        self._counts["runs"] += row.usage.code_runs
        for step in row.steps:
            if step.score is None and step.asked:
                self._why[step.stop_reason if step.parse is ParseStatus.NOT_ASKED else step.parse] += 1
            for vote in step.votes or (step,):
                self._counts["ok"] += _runs_ok(vote)

    def print(self, console: Console) -> None:
        """Print the table and the totals."""
        console.print(self._table)
        if self._counts["rows"] > MAX_LINES:
            console.print(f"... and {self._counts['rows'] - MAX_LINES} more")
        console.print(self._totals())

    def _totals(self) -> str:
        counts = self._counts
        unscored = f"{counts['unscored']} steps unscored"
        if self._why:
            unscored += f" ({', '.join(f'{reason.value} {count}' for reason, count in self._why.most_common())})"
        parts = [
            f"{counts['rows']} solutions, {counts['steps']} steps",
            f"{counts['errors']} with an error found",
            unscored,
            f"{counts['failed']} solutions failed",
            f"{counts['votes']} votes, {counts['tokens']} tokens written",
            f"{counts['runs']} code runs, {counts['ok']} of them without an error",
        ]
        return "; ".join(parts) + "."


def _runs_ok(vote: StepVote | StepVerification) -> int:
    return sum(segment.run is not None and segment.run.status.value == "ok" for segment in vote.segments)


def _cells(row: Verification) -> tuple[Text | str, ...]:
    glyphs = Text()
    for step in row.steps[:40]:
        glyphs.append(*(GLYPHS[step.verdict] if step.asked else NOT_ASKED))
    named = "none" if row.first_error == NO_ERROR else f"step {row.first_error}"
    if not row.settled:
        named = "unscored" if row.first_error == NO_ERROR else f"{named}?"
    score = "-" if row.score is None else f"{row.score:.2f}"
    return Text(row.id), glyphs, named, score, str(row.usage.code_runs), _against_label(row)


def _against_label(row: Verification) -> Text:
    if row.label is None:
        return Text("")
    gold = "none" if row.label == NO_ERROR else f"step {row.label}"
    return Text(f"label {gold}", style="green" if row.settled and row.first_error == row.label else "dim")


def _failed_cells(row: FailedRow) -> tuple[Text | str, ...]:
    return Text(row.id), Text("failed", style="red"), "-", "-", "-", Text(row.error, style="red")
