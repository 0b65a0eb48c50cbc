"""Reading problems: JSONL, a JSON array, Parquet, standard input, or a dataset of the Hugging Face hub.

Besides ``{"id", "problem", "answer"}`` the columns of GSM8K (``question``, and ``answer`` that ends in ``#### 24``)
and MATH (``final_answer``, or a ``solution`` with a box) are understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from genprm.answers import final_answer
from genprm.errors import InputError
from genprm.records import Problem
from genprm.rows import check_limit, field_error, iterate_rows

DATASET_ID = re.compile(r"[\w.-]+/[\w.-]+(?::[\w.-]+)?(?:@[\w.-]+)?")
"""OWNER/NAME, with a configuration after a colon and a split after an at sign: openai/gsm8k:main@train."""
FILES = (".jsonl", ".json", ".parquet")
"""What is called so is a file, and is not looked up elsewhere where it is missing."""


def read_problems(source: str, limit: int | None = None) -> Iterator[Problem]:
    """The problems of a file (``-`` for standard input), or of a dataset id, one by one.

    Raises:
        InputError: it cannot be read, has no rows, or a row is not as expected.
    """
    check_limit(limit)
    seen: set[str] = set()
    for index, (where, row) in enumerate(islice(_rows(source), limit)):
        problem = _problem(where, row, index)
        if problem.id in seen:
            raise InputError(f"{where}, field id: {problem.id!r} is there already, expected another one in every row")
        seen.add(problem.id)
        yield problem
    if not seen:
        raise InputError(f"{'standard input' if source == '-' else source}: no rows in it")


def _rows(source: str) -> Iterator[tuple[str, Any]]:
    is_file = source == "-" or Path(source).exists() or Path(source).suffix in FILES
    if is_file or not DATASET_ID.fullmatch(source):
        return iterate_rows(source)
    return _dataset_rows(source)


def _dataset_rows(source: str) -> Iterator[tuple[str, Any]]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise InputError(
            f"{source}: no such file; if it is a dataset of the hub, reading it needs pip install 'genprm[data]'"
        ) from error
    name, _, split = source.partition("@")
    name, _, configuration = name.partition(":")
    try:
        rows = load_dataset(name, configuration or None, split=split or "train", streaming=True)
        for number, row in enumerate(rows, 1):
            yield f"{source}, row {number}", row
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{source}: no such file, and as a dataset of the hub it cannot be read: {reason}") from error


def _problem(where: str, row: Any, index: int) -> Problem:
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected an object with the fields problem and answer")
    text = row.get("problem", row.get("question"))
    if text is None:
        raise InputError(f"{where}: no field problem (or question), but {_names(row)}")
    answer = _answer(row)
    if answer is None:
        raise InputError(f"{where}: no gold answer: expected a field answer, final_answer, or a solution with a box")
    name = row.get("id", row.get("unique_id"))
    try:
        return Problem(id=f"row-{index}" if name is None else str(name), problem=text, answer=answer)
    except ValidationError as error:
        raise field_error(where, error) from error


def _answer(row: dict[str, Any]) -> Any:
    for field in ("answer", "final_answer"):
        value = row.get(field)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, str):
            # A worked solution as the answer (GSM8K): its end counts. An empty answer is refused by the record.
            return (final_answer(value) or value) if "\n" in value or "####" in value else value.strip()
        if value is not None:
            return value
    solution = row.get("solution")
    return final_answer(solution) if isinstance(solution, str) else None


def _names(row: dict[str, Any]) -> str:
    return ", ".join(map(repr, row)) if row else "none at all"
