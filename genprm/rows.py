"""Reading input rows: JSONL, a JSON array, Parquet or standard input. Wrong input is named by file, line and field."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from genprm.errors import InputError
from genprm.records import Solution


def read_solutions(path: str, limit: int | None = None) -> list[Solution]:
    """All rows of a file (``-`` for standard input), or its first ``limit``.

    Raises:
        InputError: the file is missing, empty or broken, or a row is not as expected.
    """
    if limit is not None and limit < 1:
        raise InputError(f"--limit is {limit}: expected at least 1")
    rows: list[Solution] = []
    for where, row in _rows(path):
        rows.append(_solution(where, row, len(rows)))
        if limit is not None and len(rows) >= limit:
            break
    if not rows:
        raise InputError(f"{_name(path)}: no rows in it")
    return rows


def _name(path: str) -> str:
    return "standard input" if path == "-" else path


def _rows(path: str) -> Iterator[tuple[str, Any]]:
    """Yield where a row stands, and the row."""
    if path.endswith(".parquet"):
        yield from _parquet_rows(path)
        return
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(f"{_name(path)}, line {line}: not UTF-8 text") from error
    if text.lstrip().startswith("["):
        yield from _array_rows(path, text)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield f"{_name(path)}, line {number}", json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{_name(path)}, line {number}: not valid JSON: {_reason(error)}") from error


def _array_rows(path: str, text: str) -> Iterator[tuple[str, Any]]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise InputError(f"{_name(path)}, line {line}: not valid JSON: {_reason(error)}") from error
    for number, row in enumerate(rows, 1):
        yield f"{_name(path)}, row {number}", row


def _parquet_rows(path: str) -> Iterator[tuple[str, Any]]:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(f"{path}: reading Parquet needs pyarrow: pip install 'genprm[parquet]'") from error
    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {str(error).splitlines()[0]}") from error
    for number, row in enumerate(table.to_pylist(), 1):
        yield f"{path}, row {number}", row


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _solution(where: str, row: Any, index: int) -> Solution:
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected an object with the fields problem and steps")
    if row.get("id") is None:
        row = {**row, "id": f"row-{index}"}
    try:
        solution = Solution.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        field = "".join(f"[{part}]" if isinstance(part, int) else str(part) for part in first["loc"])
        raise InputError(f"{where}, field {field}: {first['msg'][0].lower()}{first['msg'][1:]}") from error
    if solution.label is not None and solution.label >= len(solution.steps):
        raise InputError(f"{where}, field label: {solution.label} is not the index of a step, nor -1")
    return solution
