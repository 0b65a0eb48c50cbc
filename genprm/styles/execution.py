"""What the model is shown of a code run."""

from __future__ import annotations

import re
from enum import Enum

from genprm.records import as_text
from sandbox import RunResult, RunStatus


class OutputFormat(str, Enum):
    """How an execution is told to the model."""

    REFERENCE = "reference"
    """To the letter what GenPRM's own executor prints, which is what its models were trained on."""
    FULL = "full"
    """All there is: what was printed before an error, the failing line, the value of a last expression."""


def format_output(run: RunResult, style: OutputFormat, limit: int) -> str:
    """The text between the fences of ``[Code Output]``, at most about ``limit`` characters."""
    text = _reference(run) if style is OutputFormat.REFERENCE else _full(run)
    return shorten(as_text(text), limit)


def shorten(text: str, limit: int) -> str:
    """``text`` with its middle replaced by a note of how much is missing, if it is longer than ``limit``."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters cut ...\n{text[-half:]}"


def _reference(run: RunResult) -> str:
    """GenPRM's strings. Text printed before an error is thrown away there, and a last value is not shown."""
    if run.status is RunStatus.TIMEOUT:
        return "Code execute time out: Code execution timed out"
    if run.error is not None and run.status is not RunStatus.OUTPUT_LIMIT:
        # The reference compiles its code as "<string>", which a SyntaxError's text ends with.
        value = re.sub(r"\(<cell \d+>, line (\d+)\)$", r"(<string>, line \1)", run.error.value)
        return f"Code execute Error: {run.error.name}: {value}"
    return run.stdout.strip()


def _full(run: RunResult) -> str:
    parts = [run.stdout.rstrip("\n")]
    if run.result is not None:
        parts.append(run.result)
    if run.error is not None and run.error.traceback:
        parts.append(run.error.traceback)
    elif run.error is not None:
        parts.append(f"{run.error.name}: {run.error.value}")
    if run.truncated:
        parts.append("(output cut)")
    return "\n".join(part for part in parts if part)


NO_CODE = "Code format error: No code found."
"""The reference's text where a code block was closed that had never been opened."""
