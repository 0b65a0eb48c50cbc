"""A function for ``datasets.Dataset.map``: rows in, the same rows with scores out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

from pydantic import ValidationError

from genprm.records import FailedRow, Solution, Verification, as_text
from genprm.rows import field_error
from genprm.verifier import Verifier

Batch = Mapping[str, list[Any]]


def batch_function(verifier: Verifier, votes: int | None = None) -> Callable[[Batch], dict[str, list[Any]]]:
    """What ``map(..., batched=True)`` takes. Columns in: ``problem`` and ``steps``, perhaps ``id``.

    Columns out: ``step_scores``, ``score`` (the least of them), ``first_error`` (-1 for none; None where a missing
    verdict leaves it open) and ``unscored``, all None where the row failed, and ``error``, which then says why, else
    ``""``. A row that is none, without steps or a problem, fails like that, and ends nothing.

    Args:
        verifier: open, and closed by who opened it.
        votes: chains per solution; the verifier's own number by default.
    """

    def verify(batch: Batch) -> dict[str, list[Any]]:
        pairs = list(zip(batch["problem"], batch["steps"], strict=True))
        # What is drawn depends on the id: without one, on the row itself, and not on its place in a batch.
        ids = batch.get("id") or [sha256(json.dumps(pair).encode()).hexdigest()[:16] for pair in pairs]
        read = [_solution(str(name), *pair) for name, pair in zip(ids, pairs, strict=True)]
        found = iter(verifier.verify_many([each for each in read if isinstance(each, Solution)], votes=votes))
        said = [next(found) if isinstance(each, Solution) else each for each in read]
        rows = [row if isinstance(row, Verification) else None for row in said]
        return {
            "step_scores": [row and [step.score for step in row.steps] for row in rows],
            "score": [row and row.score for row in rows],
            "first_error": [row.first_error if row and row.settled else None for row in rows],
            "unscored": [row and row.unscored for row in rows],
            "error": [row if isinstance(row, str) else row.error if isinstance(row, FailedRow) else "" for row in said],
        }

    return verify


def _solution(name: str, problem: Any, steps: Any) -> Solution | str:
    """A row's solution, or what is wrong with it."""
    try:
        return Solution.model_validate({"id": name, "problem": as_text(problem), "steps": [*map(as_text, steps)]})
    except ValidationError as error:
        return str(field_error(name, error))
    except TypeError:
        return f"{name}: expected a text for the problem, and a list of them for the steps"
