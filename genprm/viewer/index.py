"""What is in a file of rows, found in one pass beside the pages; a row is read again when it is looked at."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from genprm.errors import InputError
from genprm.records import NO_ERROR, Verdict

PAUSE = 0.0005
"""Seconds after every few rows, in which pages are made: they must not wait for the whole pass."""
FOLLOWING = 1.0
"""Seconds between looks at whether a file has grown."""
SHOWN_FILES = ("rows.jsonl", "labelled.jsonl", "train.jsonl")
"""What of a run's folder is shown, unless it has shards that tell why rationales were rejected."""


class Kind(str, Enum):
    """What a row is."""

    VERIFICATION = "verification"
    FAILED = "failed"
    LABELLED = "labelled"
    SYNTHESIZED = "synthesized"
    TRAINING = "training"
    BROKEN = "broken"
    """No JSON object that any command of ours writes."""


class Facts(NamedTuple):
    """What a row can be found by."""

    id: str
    kind: Kind
    first_error: int | None
    """Named by the verifier; None where there is no answer."""
    label: int | None
    unscored: int
    disagrees: bool
    """Whether its votes come to different verdicts on a step."""
    reasons: tuple[str, ...]
    """Why its rationales were rejected."""


class Filter(str, Enum):
    """Which rows are wanted."""

    ALL = "all"
    ERROR = "error"
    NO_ERROR = "no-error"
    UNSCORED = "unscored"
    DISAGREEING = "disagreeing"
    WRONG = "wrong"
    """The verifier names another first error than the label."""
    FAILED = "failed"

    def lets(self, facts: Facts) -> bool:
        """Whether it lets a row through."""
        said, label = facts.first_error, facts.label
        named = label if said is None else said
        return {
            Filter.ALL: True,
            Filter.ERROR: named is not None and named >= 0,
            Filter.NO_ERROR: named == NO_ERROR,
            Filter.UNSCORED: facts.unscored > 0,
            Filter.DISAGREEING: facts.disagrees,
            Filter.WRONG: said is not None and label is not None and said != label,
            Filter.FAILED: facts.kind in (Kind.FAILED, Kind.BROKEN),
        }[self]


class Page(NamedTuple):
    """A page of a list."""

    numbers: list[int]
    """Of its rows."""
    found: int
    """Rows that there are in all, as far as the pass has come."""


class RowIndex:
    """The rows of one file, or of the shards of a run.

    Args:
        path: a JSONL file, or the folder of a run.

    Raises:
        InputError: there is none, or nothing to show in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files = [*_files(path)]
        self._places: list[tuple[int, int, int]] = []
        """Of each row: number of its file, offset, bytes."""
        self._halves: dict[int, int] = {}
        """Of each file that does not end with the end of a line: its last row."""
        self.facts: list[Facts] = []
        self.reasons: Counter[str] = Counter()
        self._bytes = max(1, sum(file.stat().st_size for file in self._files))
        self._read = 0
        self._news = threading.Condition()
        self.complete = False
        self._by_id: dict[str, int] = {}
        threading.Thread(target=self._pass, name="index", daemon=True).start()

    def __len__(self) -> int:
        return len(self.facts)

    @property
    def share(self) -> float:
        """How far the pass is."""
        return 1.0 if self.complete else self._read / self._bytes

    def wait_for(self, rows: int, seconds: float) -> None:
        """Wait until so many rows are known, or all, but no longer than that."""
        with self._news:
            self._news.wait_for(lambda: self.complete or len(self.facts) >= rows, seconds)

    def number_of(self, id: str) -> int | None:
        """The row with an id."""
        return self._by_id.get(id)

    def raw(self, number: int) -> bytes:
        """A row's line."""
        file, offset, size = self._places[number]
        with open(self._files[file], "rb") as source:
            source.seek(offset)
            return source.read(size)

    def row(self, number: int) -> dict[str, Any]:
        """A row; one with the field ``text`` alone where the line is no JSON object."""
        return _parsed(self.raw(number))

    def find(self, wanted: Filter, reason: str, text: str, start: int, count: int) -> Page:
        """The rows that a filter lets through, have a rejection reason, and have a text in them.

        Args:
            wanted: the filter.
            reason: of rejection; "" for any.
            text: to be found in the row's JSON, whatever its case; "" for any.
            start: how many of them to skip.
            count: most rows of the page.
        """
        numbers: list[int] = []
        found = 0
        for number in self._matching(wanted, reason, text):
            if start <= found < start + count:
                numbers.append(number)
            found += 1
        return Page(numbers, found)

    def _matching(self, wanted: Filter, reason: str, text: str) -> Iterator[int]:
        count = len(self.facts)
        rows = (
            number
            for number in range(count)
            if wanted.lets(self.facts[number]) and (not reason or reason in self.facts[number].reasons)
        )
        if not text:
            yield from rows
            return
        # As it stands in the file: escaped, in either of the two ways that JSON is written.
        needles = {json.dumps(text, ensure_ascii=plain)[1:-1].lower().encode() for plain in (True, False)}
        for number in rows:
            line = self.raw(number).lower()
            if any(needle in line for needle in needles):
                yield number

    def _pass(self) -> None:
        """Read what there is, then what is added: a job may still be writing."""
        offsets: dict[int, int] = {}
        while True:
            for file, path in enumerate(self._files):
                with contextlib.suppress(OSError):  # deleted: what is known of it stays
                    offsets[file] = self._take(file, path, offsets.get(file, 0))
            with self._news:
                self.complete = True
                self._news.notify_all()
            time.sleep(FOLLOWING)
            with contextlib.suppress(InputError, OSError):
                self._files += [new for new in _files(self.path) if new not in self._files]

    def _take(self, file: int, path: Path, start: int) -> int:
        """The rows of a file from an offset on; returns where the next one will begin."""
        with open(path, "rb") as source:
            source.seek(start)
            for line in source:
                whole = line.endswith(b"\n")
                if line.strip():
                    self._add(file, start, line, whole)
                if not whole:
                    break
                start += len(line)
                self._read += len(line)
                if len(self.facts) % 64 == 0:
                    with self._news:
                        self._news.notify_all()
                    time.sleep(PAUSE)
        return start

    def _add(self, file: int, offset: int, line: bytes, whole: bool) -> None:
        """Add a row. The end of a file is one, too; where it grows, the row takes the place of its own half."""
        place = (file, offset, len(line))
        half = self._halves.pop(file, None)
        number = len(self.facts) if half is None else half
        if not whole:
            self._halves[file] = number
        if half is not None and self._places[half] == place:
            return
        facts = _facts(_parsed(line), number)
        if half is None:
            self._places.append(place)
            self.facts.append(facts)
        else:
            self.reasons.subtract(set(self.facts[half].reasons))
            self._places[half], self.facts[half] = place, facts
        self._by_id.setdefault(facts.id, number)
        self.reasons.update(set(facts.reasons))


def _files(path: Path) -> Sequence[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder")
    config = path / "config.json"
    if config.exists() and '"synth"' in config.read_text():
        shards = sorted((path / "shards").glob("*.jsonl"))
        if shards:
            return shards
    for name in SHOWN_FILES:
        if (path / name).exists():
            return [path / name]
    if config.exists() and (path / "shards").is_dir():
        raise InputError(f"{path}: the job has not ended, and its rows are written at its end")
    raise InputError(f"{path}: nothing to show in it: expected one of {', '.join(SHOWN_FILES)}")


def _parsed(line: bytes) -> dict[str, Any]:
    text = line.decode("utf-8", "replace")
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        row = None
    return row if isinstance(row, dict) else {"text": text.rstrip("\n")}


def _facts(row: dict[str, Any], number: int) -> Facts:
    kind = _kind(row)
    source = row["solution"] if kind is Kind.SYNTHESIZED else row
    label = source.get("label")
    attempts = row.get("attempts") or () if kind is Kind.SYNTHESIZED else ()
    return Facts(
        id=str(source.get("id", number)),
        kind=kind,
        first_error=_first_error(row) if kind is Kind.VERIFICATION else None,
        label=label if isinstance(label, int) else None,
        unscored=row.get("unscored") or 0,
        disagrees=kind is Kind.VERIFICATION and any(_disagrees(step) for step in row["steps"]),
        reasons=tuple(attempt["reason"] for attempt in attempts if attempt.get("reason")),
    )


def _kind(row: dict[str, Any]) -> Kind:
    steps = row.get("steps")
    if "first_error" in row and isinstance(steps, list) and all(isinstance(step, dict) for step in steps):
        return Kind.VERIFICATION
    if "error" in row and "problem" in row:
        return Kind.FAILED
    if "step_labels" in row and isinstance(steps, list):
        return Kind.LABELLED
    if isinstance(row.get("solution"), dict) and isinstance(row.get("attempts"), list):
        return Kind.SYNTHESIZED
    if isinstance(row.get("messages"), list) and isinstance(steps, list):
        return Kind.TRAINING
    return Kind.BROKEN


def _first_error(row: dict[str, Any]) -> int | None:
    """What is named; None where a missing verdict leaves open whether there is one."""
    named = row["first_error"]
    return None if named == NO_ERROR and row.get("unscored") else named


def _disagrees(step: dict[str, Any]) -> bool:
    scores = [vote.get("score") for vote in step.get("votes") or ()]
    return len({Verdict.of(score) for score in scores if score is not None}) > 1
