"""Rows as ``genprm verify`` writes them, for the tests of what shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def verification(id: str, first_error: int = -1, label: int | None = -1, *texts: str, **more: Any) -> dict[str, Any]:
    """A verified solution; ``texts`` are its steps, and what is argued, run and printed of each."""
    texts = texts or ("one", "two")
    steps = [
        {
            "index": index,
            "score": 0.1 if index == first_error else 0.9,
            "verdict": "incorrect" if index == first_error else "correct",
            "segments": [
                {"kind": "analysis", "text": text},
                {"kind": "code", "text": f"print({text!r})"},
                {"kind": "output", "text": text, "run": {"status": "ok", "duration": 0.01}},
            ],
            "stop_reason": "judged", "parse": "ok", "votes": [],
        }
        for index, text in enumerate(texts)
    ]  # fmt: skip
    usage = {"completion_tokens": 5, "code_runs": 1, "seconds": 1.0}
    row = {"schema_version": 1, "id": id, "problem": texts[0], "solution": list(texts), "label": label}
    return row | {"first_error": first_error, "score": 0.1, "steps": steps, "unscored": 0, "usage": usage} | more


def write(path: Path, *rows: Any) -> Path:
    """A line per row; a string is written as it is."""
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path
