"""A function for ``datasets.Dataset.map``: rows in, the same rows with scores out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

from genprm.records import Solution, Verification
from genprm.verifier import Verifier

Batch = Mapping[str, list[Any]]


def batch_function(verifier: Verifier, votes: int | None = None) -> Callable[[Batch], dict[str, list[Any]]]:
    """What ``map(..., batched=True)`` takes. Columns in: ``problem`` and ``steps``, perhaps ``id``.

    Columns out: ``step_scores``, ``score`` (the least of them), ``first_error`` (-1 for none; None where a missing
    verdict leaves it open) and ``unscored``; all None where the row failed.

    Args:
        verifier: open, and closed by who opened it.
        votes: chains per solution; the verifier's own number by default.

    Raises:
        pydantic.ValidationError: when called, if a problem or the steps are not as expected.
    """

    def verify(batch: Batch) -> dict[str, list[Any]]:
        pairs = list(zip(batch["problem"], batch["steps"], strict=True))
        # What is drawn depends on the id: without one, on the row itself, and not on its place in a batch.
        ids = batch.get("id") or [sha256(json.dumps(pair).encode()).hexdigest()[:16] for pair in pairs]
        solutions = [
            Solution(id=str(name), problem=problem, steps=tuple(steps))
            for name, (problem, steps) in zip(ids, pairs, strict=True)
        ]
        rows = [row if isinstance(row, Verification) else None for row in verifier.verify_many(solutions, votes=votes)]
        return {
            "step_scores": [row and [step.score for step in row.steps] for row in rows],
            "score": [row and row.score for row in rows],
            "first_error": [row.first_error if row and row.settled else None for row in rows],
            "unscored": [row and row.unscored for row in rows],
        }

    return verify
