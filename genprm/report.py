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
        title=title.encode("utf-8", "replace").decode(),  # a file's name may be no text
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
    except (OSError, UnicodeEncodeError) as error:
        with contextlib.suppress(OSError):
            staged.unlink()
        raise OutputError(f"{path}: {(isinstance(error, OSError) and error.strerror) or error}") from error


def _color(step: StepVerification) -> str:
    """Red where it is judged wrong, else green, paler the less sure; grey for a step without a score."""
    if step.score is None:
        return "var(--grey)"
    wrong = step.verdict is Verdict.INCORRECT
    sure = max(0.0, 0.5 - step.score if wrong else step.score - 0.5)  # by a majority, 0.6 can be the first error
    return f"hsl({4 if wrong else 140} 62% var(--lightness) / {0.4 + 1.2 * sure:.2f})"


def _mark(step: StepVerification) -> str:
    if step.verdict is None:
        return "unscored"
    return step.verdict.value


def _outcome(segment: Segment) -> str:
    """The line above an output: how the run went."""
    if segment.kind is not SegmentKind.OUTPUT or segment.run is None:
        return ""
    return f"{segment.run.status.value.replace('_', ' ')}, {segment.run.duration * 1000:.0f} ms"
