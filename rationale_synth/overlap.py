"""Decontamination: training problems that share a run of words with a problem of an evaluation file are left out."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from genprm.errors import InputError
from genprm.latex import undressed
from genprm.rows import iterate_rows

RUN = 10
"""Words in a row that two problems must share to count as one; those that were altered a little still do."""
_WORD = re.compile(r"\w+")
_LAYOUT = re.compile(r"(?s)\[asy\].*?\[/asy\]|\\[,;: ]")
"""What the same problem may be written with or without: a drawing, spaces."""


class EvaluationProblems:
    """The problems that must not be trained on.

    Args:
        texts: of the problems.
        run: how many words in a row make an overlap.
    """

    def __init__(self, texts: Iterable[str], run: int = RUN) -> None:
        self._run = run
        self._seen = {each for text in texts for each in self._runs(text)}

    def __contains__(self, text: str) -> bool:
        """Whether a problem shares a run of words with one of them; a shorter one, whether it is one of them."""
        return any(each in self._seen for each in self._runs(text))

    def _runs(self, text: str) -> Iterator[tuple[str, ...]]:
        plain = _LAYOUT.sub(" ", undressed(unicodedata.normalize("NFKC", text)))
        words = tuple(_WORD.findall(plain.lower()))
        for start in range(max(1, len(words) - self._run + 1)):
            yield words[start : start + self._run]


class WithProblem(Protocol):
    """Anything that holds the text of a problem."""

    @property
    def problem(self) -> str:
        """The text."""


Item = TypeVar("Item", bound=WithProblem)


class Decontaminated(Generic[Item]):
    """What of some items is not about a problem of an evaluation file; to be gone through once.

    Args:
        items: problems, or solutions.
        files: the evaluation files.

    Raises:
        InputError: a file cannot be read, or a row of it has no problem; or, gone through, nothing is left.
    """

    def __init__(self, items: Iterable[Item], files: Sequence[str]) -> None:
        self.dropped = 0
        """How many were left out so far."""
        self._items = items
        self._seen = evaluation_problems(files) if files else None

    def __iter__(self) -> Iterator[Item]:
        kept = 0
        for item in self._items:
            if self._seen is not None and item.problem in self._seen:
                self.dropped += 1
            else:
                kept += 1
                yield item
        if self.dropped and not kept:
            raise InputError(f"all {self.dropped} problems are also in an evaluation file")


def evaluation_problems(paths: Iterable[str]) -> EvaluationProblems:
    """The problems of evaluation files, in whatever form `genprm` reads them.

    Raises:
        InputError: a file cannot be read, or a row has no problem.
    """
    return EvaluationProblems(_problem(where, row) for path in paths for where, row in iterate_rows(path))


def _problem(where: str, row: object) -> str:
    if isinstance(row, dict):
        for name in ("problem", "question"):
            if isinstance(row.get(name), str):
                return str(row[name])
    raise InputError(f"{where}: no field problem or question")
