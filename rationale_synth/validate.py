"""The whole of synthesis without a model: known truth through critique, sandbox, parser and filter.

Every planted error must be exposed by its code, and its rationale kept; every faulty rationale must be rejected, for
the reason that is wrong with it.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from itertools import islice
from pathlib import Path

from genprm.errors import InputError
from genprm.records import NO_ERROR, Record, Solution, judged_steps
from genprm.rows import iterate_rows, iterate_solutions
from genprm.tasks import gather_all
from rationale_synth.consensus import Reason
from rationale_synth.critique import MARK
from rationale_synth.equations import checked
from rationale_synth.gold_critic import FAULTS, GoldCritic
from rationale_synth.memory import Memory
from rationale_synth.planted import Kind, Planted, plant, unplanted
from rationale_synth.records import LabelledSolution
from rationale_synth.synthesize import Synthesizer, SynthOptions, SynthRecord
from rationale_synth.worked import WorkedSolution, read_worked
from sandbox import Sandbox

ROWS_AT_ONCE = 32


class Line(Record):
    """What became of one kind of solution, or of one kind of fault."""

    name: str
    tried: int
    proven: int | None
    """Solutions whose code says True up to the error and False at it; None for faults."""
    as_expected: int

    @property
    def passed(self) -> bool:
        """Whether all went as it must."""
        return self.as_expected == self.tried and self.proven in (None, self.tried)


def worked_solutions(source: str | None, limit: int | None = None) -> tuple[list[WorkedSolution], int]:
    """The worked solutions of a file with GSM8K's columns, or our own; and how many rows could not be worked out anew.

    Raises:
        InputError: the file cannot be read, or no row of it can be used.
    """
    rows = _own() if source is None else iterate_rows(source)
    found: list[WorkedSolution] = []
    names = set[str]()
    unusable = 0
    for number, (where, row) in enumerate(rows):
        if limit is not None and number >= limit:
            break
        question, answer = (row.get(name) if isinstance(row, dict) else None for name in ("question", "answer"))
        if not isinstance(question, str) or not isinstance(answer, str):
            raise InputError(f"{where}: expected the fields question and answer, the answer worked out as in GSM8K")
        name = f"row-{number}" if row.get("id") in (None, "") else str(row["id"])
        if name in names:
            raise InputError(f"{where}: a second row with the id {name}: records are known by their ids")
        names.add(name)
        worked = read_worked(name, question, answer)
        unusable += worked is None
        found += [worked] if worked else []
    if not found:
        raise InputError(f"{source}: no solution in it that can be worked out anew (calculator marks as in GSM8K)")
    return found, unusable


def checked_solutions(source: str) -> list[Planted]:
    """The solutions of a labelled file that have equations of numbers, as far as these agree with the labels.

    Raises:
        InputError: the file cannot be read, or a row has no label.
    """
    found: list[Planted] = []
    for solution in iterate_solutions(source):
        if solution.label is None:
            raise InputError(f"{source}: row {solution.id} has no label")
        named = solution.model_copy(update={"id": f"{Path(source).stem}/{solution.id}"})
        found += [planted] if (planted := checked(named)) else []
    return found


OFTEN = {Kind.SKIPPED_STEP: 3, Kind.WRONG_OPERAND: 2}
"""How much more often than others a kind is drawn: solutions that are wrong by their reasoning mostly are so."""


def plants(solutions: Iterable[WorkedSolution], seed: int = 0, most: int | None = None) -> Iterator[Planted]:
    """Each solution as it is, and with one error of every kind that it has room for.

    Args:
        solutions: right ones.
        seed: of the choices.
        most: errors per solution, of kinds drawn at random, some more `OFTEN`; all kinds without it.
    """
    for solution in solutions:
        yield unplanted(solution)
        kinds = list(Kind)
        if most is not None:
            chance = random.Random(f"{seed}/kinds/{solution.id}")
            kinds.sort(key=lambda kind: chance.random() ** (1 / OFTEN.get(kind, 1)), reverse=True)
        yield from islice(_different(plant(solution, kind, seed) for kind in kinds), most)


def _different(found: Iterable[Planted | None]) -> Iterator[Planted]:
    """The errors that are there, and each text once: a wrong operand can also be a misread one."""
    seen = set[tuple[str, ...]]()
    for planted in found:
        if planted is not None and planted.steps not in seen:
            seen.add(planted.steps)
            yield planted


def labelled(planted: Planted) -> LabelledSolution:
    """A planted solution as the row that a label run would have made of it."""
    solution = Solution(
        id=planted.id, problem=planted.problem, steps=planted.steps, label=planted.label, answer=planted.answer
    )
    return LabelledSolution.known(solution, "planted")


async def validate(solutions: Sequence[Planted], sandbox: Sandbox) -> list[Line]:
    """Send solutions with known truth through synthesis, and then with every fault.

    Raises:
        SandboxError: no code can be run.
    """
    lines = []
    for kind in (None, *Kind):
        chosen = [solution for solution in solutions if solution.kind is kind]
        records = await _synthesize(chosen, None, sandbox)
        lines.append(
            Line(
                name=kind.value if kind else "no error",
                tried=len(chosen),
                proven=sum(_proves(record) for record in records),
                as_expected=sum(record.kept is not None for record in records),
            )
        )
    for fault in FAULTS:
        chosen = [solution for solution in solutions if _applies(fault, solution)]
        records = await _synthesize(chosen, fault, sandbox)
        reasons = Counter(record.attempts[0].reason for record in records)
        lines.append(
            Line(name=fault.value.replace("_", " "), tried=len(chosen), proven=None, as_expected=reasons[fault])
        )
    return lines


async def _synthesize(chosen: Sequence[Planted], fault: Reason | None, sandbox: Sandbox) -> list[SynthRecord]:
    synthesizer = Synthesizer(GoldCritic(chosen, fault), sandbox, SynthOptions(tries=1))
    records: list[SynthRecord] = []
    for start in range(0, len(chosen), ROWS_AT_ONCE):
        rows = map(labelled, chosen[start : start + ROWS_AT_ONCE])
        records += await gather_all(synthesizer.synthesize(row, Memory()) for row in rows)
    return records


def _applies(fault: Reason, solution: Planted) -> bool:
    if fault is Reason.FALSE_ALARM:
        return solution.label == NO_ERROR
    if fault in (Reason.MISSED_ERROR, Reason.OTHER_ERROR):
        return solution.label != NO_ERROR and len(solution.steps) > 1
    return True


def _proves(record: SynthRecord) -> bool:
    """Whether code was run for every step, and found all right up to the error, and something wrong at it."""
    if record.kept is None:
        return False
    turns = [message.content for message in record.kept.messages if message.role == "assistant"]
    for index, turn in enumerate(turns[: len(judged_steps(record.solution.steps, record.solution.label))]):
        printed = turn.partition(MARK)[2].split("```")[1:2]
        said = {line.split()[-1] for line in "".join(printed).strip().splitlines()}
        if not said or not said <= {"True", "False"} or ("False" in said) is not (index == record.solution.label):
            return False
    return True


def _own() -> Iterator[tuple[str, object]]:
    text = resources.files("rationale_synth").joinpath("worked_problems.jsonl").read_text()
    return ((f"row {number}", json.loads(line)) for number, line in enumerate(text.splitlines(), 1))
