"""What a person reads after a run: one line per solution, and the totals."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from genprm.records import NO_ERROR, FailedRow, OutputRow, Verdict, Verification

MAX_LINES = 60
"""Rows of the table; a longer run shows its first ones."""
GLYPHS = {Verdict.CORRECT: ("✓", "green"), Verdict.INCORRECT: ("✗", "red"), None: ("?", "yellow")}


def print_summary(rows: Sequence[OutputRow], console: Console) -> None:
    """Print the table and the totals."""
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for name in ("id", "steps", "first error"):
        table.add_column(name, overflow="ellipsis", no_wrap=True)
    for name in ("score", "code"):
        table.add_column(name, justify="right")
    table.add_column("")
    for row in rows[:MAX_LINES]:
        table.add_row(*(_failed_cells(row) if isinstance(row, FailedRow) else _cells(row)))
    console.print(table)
    if len(rows) > MAX_LINES:
        console.print(f"... and {len(rows) - MAX_LINES} more")
    console.print(_totals(rows))


def _cells(row: Verification) -> tuple[Text | str, ...]:
    glyphs = Text()
    for step in row.steps[:40]:
        glyphs.append(*GLYPHS[step.verdict])
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


def _totals(rows: Sequence[OutputRow]) -> str:
    done = [row for row in rows if isinstance(row, Verification)]
    steps = sum(len(row.steps) for row in done)
    parts = [
        f"{len(rows)} solutions, {steps} steps",
        f"{sum(row.first_error != NO_ERROR for row in done)} with an error found",
        f"{sum(row.unscored for row in done)} steps unscored",
        f"{len(rows) - len(done)} solutions failed",
        f"{sum(row.usage.completion_tokens for row in done)} tokens written",
        f"{sum(row.usage.code_runs for row in done)} code runs, {_runs_ok(done)} of them without an error",
    ]
    return "; ".join(parts) + "."


def _runs_ok(rows: Sequence[Verification]) -> int:
    votes = [vote for row in rows for step in row.steps for vote in (step.votes or (step,))]
    runs = [segment.run for vote in votes for segment in vote.segments if segment.run]
    return sum(run.status.value == "ok" for run in runs)
