"""What is in a file of rows, found in one pass beside the pages; a row is read again when it is looked at."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from genprm.errors import InputError
from genprm.records import NO_ERROR, StopReason, Verdict

PAUSE = 0.0005
"""Seconds after every few rows, in which pages are made: they must not wait for the whole pass."""
FOLLOWING = 1.0
"""Seconds between looks at whether a file has grown."""
UNLIKE_OURS = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError)
"""What reading a row raises that none of our commands wrote."""
HEAD = 256
"""Bytes at its beginning, and where reading has come to, by which a file is known again."""
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
    occurrence: int = 0
    """How many rows with the same id came before it."""

    @property
    def named(self) -> int | None:
        """The first error that it tells of: the verifier's, or the label of what nobody has verified."""
        return self.first_error if self.kind in (Kind.VERIFICATION, Kind.FAILED) else self.label


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
        said, label, named = facts.first_error, facts.label, facts.named
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


class Mark(NamedTuple):
    """By what a file is known again."""

    inode: int
    size: int
    changed: int
    """When, in nanoseconds."""
    head: bytes
    """Its first bytes."""


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
        self._marks: dict[int, Mark] = {}
        """Of each file that was begun: by what it is known again."""
        self._tails: dict[int, bytes] = {}
        """The last bytes that were read of it."""
        self._places: list[tuple[int, int, int]] = []
        """Of each row: number of its file, offset, bytes."""
        self._halves: dict[int, int] = {}
        """Of each file that does not end with the end of a line: its last row."""
        self.facts: list[Facts] = []
        self.reasons: Counter[str] = Counter()
        self._read = 0
        for file in self._files:
            _size(file)  # which says if it cannot be read
        self._news = threading.Condition()
        self.complete = False
        self._by_id: dict[tuple[str, int], int] = {}
        """By id and occurrence."""
        self._times: Counter[str] = Counter()
        threading.Thread(target=self._pass, name="index", daemon=True).start()

    def __len__(self) -> int:
        return len(self.facts)

    @property
    def share(self) -> float:
        """How far the pass is, of what there is by now: a file may grow while it is read."""
        if self.complete:
            return 1.0
        try:
            return min(1.0, self._read / max(1, sum(map(_size, self._files))))
        except InputError:  # deleted: there is nothing more to read
            return 1.0

    def wait_for(self, rows: int, seconds: float) -> None:
        """Wait until so many rows are known, or all, but no longer than that."""
        with self._news:
            self._news.wait_for(lambda: self.complete or len(self.facts) >= rows, seconds)

    def missing(self, other: RowIndex) -> int:
        """How many rows the other file has, and this one has not."""
        return sum(key not in self._by_id for key in list(other._by_id))

    def same(self, facts: Facts) -> int | None:
        """The row with the id of another file's; where that has several of them, the one in the same place."""
        return self._by_id.get((facts.id, facts.occurrence))

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
        for number in self._matching(wanted, reason, text, range(len(self.facts))):
            if start <= found < start + count:
                numbers.append(number)
            found += 1
        return Page(numbers, found)

    def next_to(self, number: int, wanted: Filter, reason: str, text: str) -> tuple[int | None, int | None]:
        """The rows before and after one that a filter lets through; None where there is none."""
        before = self._matching(wanted, reason, text, range(number - 1, -1, -1))
        after = self._matching(wanted, reason, text, range(number + 1, len(self.facts)))
        return next(before, None), next(after, None)

    def _matching(self, wanted: Filter, reason: str, text: str, numbers: range) -> Iterator[int]:
        rows = (
            number
            for number in numbers
            if wanted.lets(self.facts[number]) and (not reason or reason in self.facts[number].reasons)
        )
        if not text:
            yield from rows
            return
        needle = json.dumps(text, ensure_ascii=False)[1:-1].lower()
        for number in rows:
            line = self.raw(number)
            if not text.isascii() and b"\\u" in line:  # JSON has two ways to write such a character
                line = json.dumps(_parsed(line), ensure_ascii=False).encode("utf-8", "replace")
            if needle in line.decode("utf-8", "replace").lower():
                yield number

    def _pass(self) -> None:
        """Read what there is, then what is added: a job may still be writing."""
        offsets: dict[int, int] = {}
        while True:
            for file, path in enumerate(self._files):
                # One that was deleted: what is known of it stays, and its rows cannot be read.
                with contextlib.suppress(OSError), open(path, "rb") as source:
                    end = self._take(file, source, offsets.get(file, 0))
                    if end is None:
                        time.sleep(FOLLOWING)  # for who writes it, lest it is read half new and half old
                        self._forget()
                        offsets.clear()
                        break
                    offsets[file] = end
            else:
                with self._news:
                    self.complete = True
                    self._news.notify_all()
                time.sleep(FOLLOWING)
            with contextlib.suppress(InputError, OSError):
                self._files += [new for new in _files(self.path) if new not in self._files]

    def _is_another(self, file: int, source: BinaryIO, read: int) -> bool:
        """Whether a file is no longer the one that was begun: it was written anew."""
        now = os.fstat(source.fileno())
        source.seek(0)
        head = source.read(HEAD)
        before = self._marks.get(file)
        self._marks[file] = Mark(now.st_ino, now.st_size, now.st_mtime_ns, head)
        if before is None:
            return False
        return (
            now.st_ino != before.inode
            or now.st_size < read
            or not head.startswith(before.head)
            or not _ends(source, read, self._tails.get(file, b""))
            or (now.st_size == before.size and now.st_mtime_ns != before.changed)
        )

    def _forget(self) -> None:
        """Begin anew."""
        self._places, self._halves, self._marks, self._tails, self._by_id = [], {}, {}, {}, {}
        self._times = Counter()
        self.facts, self.reasons = [], Counter()
        self._read, self.complete = 0, False

    def _take(self, file: int, source: BinaryIO, start: int) -> int | None:
        """The rows of a file from an offset on; returns where the next one will begin, None where it is another file.

        One that is written anew while it is read is known by what now stands before the offset.
        """
        if self._is_another(file, source, start):
            return None
        tail, end = self._tails.get(file, b""), start
        source.seek(start)
        for line in source:
            whole = line.endswith(b"\n")
            if line.strip():
                self._add(file, end, line, whole)
            if not whole:
                break
            end += len(line)
            self._tails[file] = line[-HEAD:]
            self._read += len(line)
            if len(self.facts) % 64 == 0:
                with self._news:
                    self._news.notify_all()
                time.sleep(PAUSE)
        return end if _ends(source, start, tail) else None

    def _add(self, file: int, offset: int, line: bytes, whole: bool) -> None:
        """Add a row. The end of a file is one, too; where it grows, the row takes the place of its own half."""
        place = (file, offset, len(line))
        half = self._halves.pop(file, None)
        number = len(self.facts) if half is None else half
        if not whole:
            self._halves[file] = number
        if half is not None and self._places[half] == place:
            return
        row = _parsed(line)
        try:
            facts = _facts(row, number)
        except UNLIKE_OURS:
            facts = _broken(number)
        if half is None:
            self._places.append(place)
            self.facts.append(facts)
        else:
            before = self.facts[half]
            self.reasons.subtract(set(before.reasons))
            if self._by_id.get((before.id, before.occurrence)) == half:
                del self._by_id[before.id, before.occurrence]
                self._times[before.id] -= 1
            self._places[half], self.facts[half] = place, facts
        if facts.kind is not Kind.BROKEN:  # which has no id but its number
            facts = self.facts[number] = facts._replace(occurrence=self._times[facts.id])
            self._times[facts.id] += 1
            self._by_id.setdefault((facts.id, facts.occurrence), number)
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


def _ends(source: BinaryIO, offset: int, tail: bytes) -> bool:
    """Whether certain bytes stand before an offset."""
    source.seek(offset - len(tail))
    return source.read(len(tail)) == tail


def _size(file: Path) -> int:
    try:
        with open(file, "rb") as source:
            return os.fstat(source.fileno()).st_size
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from error


def _parsed(line: bytes) -> dict[str, Any]:
    text = line.decode("utf-8", "replace")
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        row = None
    return row if isinstance(row, dict) else {"text": text.rstrip("\n")}


def _broken(number: int) -> Facts:
    return Facts(f"#{number}", Kind.BROKEN, None, None, 0, False, ())


def _facts(row: dict[str, Any], number: int) -> Facts:
    kind = _kind(row)
    if kind is Kind.BROKEN:
        return _broken(number)
    source = row["solution"] if kind is Kind.SYNTHESIZED else row
    label = source.get("label")
    attempts = row.get("attempts") or () if kind is Kind.SYNTHESIZED else ()
    return Facts(
        id=str(source.get("id", number)),
        kind=kind,
        first_error=_first_error(row) if kind is Kind.VERIFICATION else None,
        label=_whole(label),
        unscored=_whole(row.get("unscored")) or 0,
        disagrees=kind is Kind.VERIFICATION and any(_disagrees(step) for step in row["steps"]),
        reasons=tuple(str(attempt["reason"]) for attempt in attempts if attempt.get("reason")),
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
    """What is named; None where a missing verdict before it leaves it open."""
    named = _whole(row["first_error"])
    before = row["steps"][: None if named in (None, NO_ERROR) else named]
    known = all(step.get("score") is not None or step.get("stop_reason") == StopReason.GIVEN.value for step in before)
    return named if known else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _disagrees(step: dict[str, Any]) -> bool:
    scores = [vote.get("score") for vote in step.get("votes") or ()]
    return len({Verdict.of(score) for score in scores if score is not None}) > 1
