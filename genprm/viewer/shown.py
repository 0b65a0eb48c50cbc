"""A row of any kind, as the pages show it. Everything in it is text that a model, or its code, may have written."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from genprm.viewer.index import UNLIKE_OURS, Facts, Kind

MOST = 20_000
"""Characters of one text that a page shows; the whole is in the row's JSON."""


class ShownText(NamedTuple):
    """A part of a rationale."""

    kind: str
    text: str
    outcome: str
    """How a run went."""


class ShownVote(NamedTuple):
    """What one chain says of a step."""

    score: float | None
    parts: list[ShownText]
    ended: str


class ShownStep(NamedTuple):
    """A step."""

    number: int
    text: str
    score: float | None
    mark: str
    """``correct``, ``incorrect``, ``unscored``, or ``""`` where nobody judged."""
    color: str
    """Name of a class: score-0 to score-10, or score-none; up to 4 where it is judged wrong."""
    first: bool
    """Whether it is the first error that was named."""
    labelled: bool
    """Whether it is the first error by the label."""
    parts: list[ShownText]
    votes: list[ShownVote]
    """All of them, where there are several."""
    value: float | None
    """Its Monte Carlo value."""
    ended: str
    """Why its rationale ended, and what is amiss with its verdict."""


class Turn(NamedTuple):
    """A message of a conversation."""

    role: str
    text: str


class Attempt(NamedTuple):
    """A rationale that was written for training."""

    reason: str
    """Why it was rejected; ``kept``."""
    error: str
    turns: list[Turn]


class ShownRow(NamedTuple):
    """A row."""

    number: int
    facts: Facts
    problem: str
    steps: list[ShownStep]
    whole: list[ShownVote]
    """What each chain says of the solution as a whole, in a style that says something of it."""
    score: float | None
    notes: list[str]
    error: str
    turns: list[Turn]
    attempts: list[Attempt]


def shown_row(number: int, row: dict[str, Any], facts: Facts) -> ShownRow:
    """A row of a file as its page shows it; one that is like none of ours, as the text that it is."""
    try:
        return _shown_row(number, row, facts)
    except UNLIKE_OURS:
        facts = facts._replace(kind=Kind.BROKEN)
        return _shown_row(number, {"text": json.dumps(row, ensure_ascii=False, indent=1)}, facts)


def _shown_row(number: int, row: dict[str, Any], facts: Facts) -> ShownRow:
    source = row["solution"] if facts.kind is Kind.SYNTHESIZED else row
    attempts = row["attempts"] if facts.kind is Kind.SYNTHESIZED else ()
    return ShownRow(
        number=number,
        facts=facts,
        problem=cut(str(source.get("problem", source.get("text", "")))),
        steps=_steps(row, source, facts),
        whole=_votes((row.get("whole") or {}).get("votes")) if facts.kind is Kind.VERIFICATION else [],
        score=_number(row.get("score")),
        notes=_notes(row, source, facts),
        error=cut(str(row.get("error") or "")) if facts.kind is Kind.FAILED else "",
        turns=_turns(row.get("messages")) if facts.kind is Kind.TRAINING else [],
        attempts=[
            Attempt(
                reason=str(each.get("reason") or "kept").replace("_", " "),
                error=cut(str(each.get("error") or "")),
                turns=_turns((each.get("transcript") or {}).get("messages")),
            )
            for each in attempts
        ],
    )


def cut(text: str) -> str:
    """So much of a text as a page shows."""
    return text if len(text) <= MOST else f"{text[:MOST]}… ({len(text) - MOST} more characters: see the JSON)"


def color(score: float | None, mark: str = "") -> str:
    """The class of a score: score-0 (surely wrong) to score-10 (surely right), on its verdict's side of the middle.

    By a majority of chains a step can be the first error though most of them do not name it.
    """
    if score is None:
        return "score-none"
    least, most = {"incorrect": (0, 4), "correct": (5, 10)}.get(mark, (0, 10))
    return f"score-{min(most, max(least, round(score * 10)))}"


def _steps(row: dict[str, Any], source: dict[str, Any], facts: Facts) -> list[ShownStep]:
    if facts.kind is not Kind.VERIFICATION:
        texts = source.get("steps") or source.get("solution") or ()
        values = source.get("values") or ()
        labels = source.get("step_labels") or ()
        return [
            ShownStep(
                number=index, text=cut(str(text)), score=None, mark=_labelled_mark(index, labels),
                color=color(_number(labels[index])) if index < len(labels) else "score-none", first=False,
                labelled=index == facts.label, parts=[], votes=[],
                value=_number(values[index]) if index < len(values) else None, ended="",
            )
            for index, text in enumerate(texts if isinstance(texts, list) else ())
        ]  # fmt: skip
    texts = row.get("solution") or ()
    return [
        ShownStep(
            number=index,
            text=cut(str(texts[index])) if index < len(texts) else "",
            score=_number(step.get("score")),
            mark=str(step.get("verdict") or "unscored"),
            color=color(_number(step.get("score")), str(step.get("verdict"))),
            first=index == row["first_error"],
            labelled=index == facts.label,
            parts=[_part(segment) for segment in step.get("segments") or ()],
            votes=_votes(step.get("votes")),
            value=None,
            ended=_ended(step),
        )
        for index, step in enumerate(row["steps"])
    ]


def _votes(votes: Any) -> list[ShownVote]:
    return [
        ShownVote(
            score=_number(vote.get("score")),
            ended=_ended(vote),
            parts=[_part(segment) for segment in vote.get("segments") or ()],
        )
        for vote in votes or ()
    ]


def _labelled_mark(index: int, labels: Sequence[Any]) -> str:
    if index >= len(labels):
        return ""
    return "correct" if labels[index] else "incorrect"


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and abs(value) < 1e9 and math.isfinite(value) else None


def _part(segment: dict[str, Any]) -> ShownText:
    kind, text, run = str(segment.get("kind")), cut(str(segment.get("text"))), segment.get("run")
    outcome = ""
    if run:
        milliseconds = 1000 * (_number(run.get("duration")) or 0)
        outcome = f"{str(run.get('status')).replace('_', ' ')}, {milliseconds:.0f} ms"
    return ShownText(kind=kind, text=text, outcome=outcome)


def _ended(step: dict[str, Any]) -> str:
    parse = str(step.get("parse") or "ok")
    return " · ".join(
        word.replace("_", " ") for word in (str(step.get("stop_reason") or ""), parse if parse != "ok" else "") if word
    )


def _turns(messages: Any) -> list[Turn]:
    return [Turn(str(each.get("role")), cut(str(each.get("content")))) for each in messages or ()]


def _notes(row: dict[str, Any], source: dict[str, Any], facts: Facts) -> list[str]:
    """What else there is to say of a row, in a line."""
    usage = row.get("usage") or {}
    said = [str(row[name]) for name in ("model", "style") if row.get(name)]
    if usage:
        said.append(f"{usage.get('completion_tokens', 0)} tokens")
        said.append(f"{usage.get('code_runs', 0)} code runs")
        said.append(f"{_number(usage.get('seconds')) or 0:.1f} s")
    if (row.get("votes") or 1) != 1:
        said.append(f"{row['votes']} votes")
    for name in ("generator", "policy", "answer"):
        if source.get(name):
            said.append(f"{name} {cut(str(source[name]))}")
    if (rate := _number(source.get("pass_rate"))) is not None:
        said.append(f"pass rate {rate:.2f}")
    if facts.unscored:
        said.append(f"{facts.unscored} steps unscored")
    return said
