"""A run as one self-contained HTML page: nothing is loaded from anywhere."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import jinja2

from genprm.errors import OutputError
from genprm.highlighting import code_styles, python
from genprm.records import NO_ERROR, OutputRow, Segment, SegmentKind, StepVerification, Verdict, Verification


def render_report(rows: Sequence[OutputRow], title: str) -> str:
    """The page as text. Everything in the rows is escaped: it was written by a model, or by its code."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(resources.files("genprm").joinpath("templates/report.html").read_text())
    styles = code_styles()
    return template.render(
        title=title,
        rows=rows,
        done=[row for row in rows if isinstance(row, Verification)],
        labelled=any(row.label is not None for row in rows),
        NO_ERROR=NO_ERROR,
        color=_color,
        mark=_mark,
        python=python,
        outcome=_outcome,
        code_light=styles.light,
        code_dark=styles.dark,
    )


def write_report(rows: Sequence[OutputRow], path: Path, title: str) -> None:
    """Write the page.

    Raises:
        OutputError: it cannot be written.
    """
    write_text(path, render_report(rows, title))


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    staged = path.with_name(path.name + ".new")
    try:
        staged.write_text(text, encoding="utf-8")
        staged.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            staged.unlink()
        raise OutputError(f"{path}: {error.strerror or error}") from error


def _color(score: float | None) -> str:
    """Green from 0.5 on, red below, paler towards the border between them; grey for a step without a score."""
    if score is None:
        return "var(--grey)"
    hue = 4 if Verdict.of(score) is Verdict.INCORRECT else 140
    return f"hsl({hue} 62% var(--lightness) / {0.4 + 1.2 * abs(score - 0.5):.2f})"


def _mark(step: StepVerification) -> str:
    if step.verdict is None:
        return "unscored"
    return step.verdict.value


def _outcome(segment: Segment) -> str:
    """The line above an output: how the run went."""
    if segment.kind is not SegmentKind.OUTPUT or segment.run is None:
        return ""
    return f"{segment.run.status.value.replace('_', ' ')}, {segment.run.duration * 1000:.0f} ms"
