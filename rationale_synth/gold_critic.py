"""A critic that knows: it writes the rationale of a planted error, or, on purpose, one with a known fault.

It stands where a model stands, so that what it writes goes through the same loop, sandbox, parser and filter. Its
rationales are training data where no strong model is at hand; its faults test that each is rejected for its reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from genprm.errors import ConfigError
from genprm.models.base import Completion, FinishReason, Message, ModelBackend, Sampling
from genprm.records import NO_ERROR, judged_steps
from rationale_synth.consensus import Reason
from rationale_synth.critique import MARK, critique_messages
from rationale_synth.planted import Check, Planted
from rationale_synth.thinkprm import chain_messages
from rationale_synth.worked import evaluate, shown

_PART = "\x1e"
_SOURCE = 'The problem says: "{}" '
_CLAIM = "So it must be {work}. The {part} says {claim}."
_REPEATED = "The {part} says again what was found, {claim}."
_PROSE = "The {part} computes nothing."
_NO_WORK = "# nothing to work out"
_SET_UP = re.compile(r"\b([A-Za-z]) = \d|= ([A-Za-z])\b")
_LEAP = " Nothing before this leads to that answer."
_AGREES = "The paragraph agrees."
_FAILED = "That did not run, and says nothing against it. "
_DISAGREES = "The paragraph does not agree: it is wrong."
FAULTS = (
    Reason.NO_VERDICT, Reason.NO_SUCH_STEP, Reason.MISSING_SECTION, Reason.FORGED_OUTPUT, Reason.OTHER_ERROR,
    Reason.MISSED_ERROR, Reason.FALSE_ALARM,
)  # fmt: skip
"""Reasons for which a rationale can be made to be rejected."""


class GoldCritic(ModelBackend):
    """Writes the rationales of these solutions: critiques with code, and ThinkPRM's chains, without any.

    Args:
        solutions: what it will be asked about.
        fault: what is to be wrong with its critiques.
    """

    name = "planted"
    concurrency = 64

    def __init__(self, solutions: Iterable[Planted], fault: Reason | None = None) -> None:
        self._fault = fault
        self._critiques: dict[str, Planted] = {}
        self._chains: dict[str, Planted] = {}
        for solution in solutions:
            self._critiques[critique_messages(solution.problem, solution.steps)[-1]["content"]] = solution
            self._chains[chain_messages(solution.problem, solution.steps)[-1]["content"]] = solution

    async def complete(
        self, prompt: str, *, stop: Sequence[str], max_tokens: int, logprobs: int = 0, n: int = 1, sampling: Sampling
    ) -> list[Completion]:
        asked, _, written = prompt.partition(_PART)
        if asked in self._critiques:
            parts = _parts(self._critiques[asked], self._fault)
        elif asked in self._chains:
            parts = [_chain(self._chains[asked])]
        else:
            raise ConfigError("the gold critic was asked about a solution that it does not know")
        done = written.count(MARK)
        text = parts[done] if done < len(parts) and not written.endswith("{") else ""
        return [Completion(text=text, finish_reason=FinishReason.STOP, completion_tokens=len(text) // 4 + 1)] * n

    def render(self, messages: Sequence[Message], prefix: str) -> str:
        return messages[-1]["content"] + _PART + prefix

    async def close(self) -> None:
        """Nothing to release."""


def _parts(solution: Planted, fault: Reason | None) -> list[str]:
    """The rationale, cut where its code is run."""
    judged = _named(solution, fault)
    last = len(solution.steps) if judged == NO_ERROR else min(judged, len(solution.steps))
    text = "".join(_section(solution, index, fault) for index in range(last))
    if fault is Reason.MISSING_SECTION:
        text = text.replace("### Paragraph 1\n", "### About the first paragraph\n")
    if fault is not Reason.NO_VERDICT:
        text += f"\nThe first wrong paragraph: \\boxed{{{judged}}}\n"
    return text.split(_PART)


def _named(solution: Planted, fault: Reason | None) -> int:
    """The number of the paragraph to name, from 1."""
    right = NO_ERROR if solution.label == NO_ERROR else solution.label + 1
    match fault:
        case Reason.NO_SUCH_STEP:
            return len(solution.steps) + 7
        case Reason.MISSED_ERROR:
            return NO_ERROR
        case Reason.FALSE_ALARM:
            return 1
        case Reason.OTHER_ERROR:
            return right - 1 if right > 1 else right + 1
        case _:
            return right


def _section(solution: Planted, index: int, fault: Reason | None) -> str:
    checks = _checks(solution, index)
    analysis = _analysis(solution, index, "paragraph", [check.work for check in checks])
    letter = _letter(solution, index)
    code = _code(solution, index, letter)
    reflection = _DISAGREES if index == solution.label else _FAILED + _AGREES if letter else _AGREES
    # The part ends where the block is closed: that is the stop string, which the loop writes itself.
    text = f"### Paragraph {index + 1}\n<analyze>\n{analysis}\n</analyze>\n"
    text += f"<verify>\n```python\n{code}{_PART}{reflection}\n</verify>\n"
    if fault is Reason.FORGED_OUTPUT and index == 0:
        text += f"{MARK}\n\n```\nTrue\n```\n"
    return text + "\n"


def _chain(solution: Planted) -> str:
    """ThinkPRM's chain: what a step must be is worked out in its words."""
    text = ""
    for index, _ in enumerate(judged_steps(solution.steps, solution.label)):
        analysis = _analysis(solution, index, "step", list(map(_worked_out, _checks(solution, index))))
        word = "incorrect" if index == solution.label else "correct"
        text += f"\nStep {index + 1}: {analysis} The step is \\boxed{{{word}}}"
    return text


def _checks(solution: Planted, index: int) -> tuple[Check, ...]:
    return solution.checks[index] if index < len(solution.checks) else ()


def _analysis(solution: Planted, index: int, part: str, works: Sequence[str]) -> str:
    """What the problem gives for a step, and what its claims must be."""
    checks = _checks(solution, index)
    sources = dict.fromkeys(source for check in checks if not check.is_repeated for source in check.sources)
    text = "".join(map(_SOURCE.format, sources))
    claims = (
        (_REPEATED if check.is_repeated else _CLAIM).format(work=work, part=part, claim=check.claim)
        for work, check in zip(works, checks, strict=True)
    )
    text += " ".join(claims) or _PROSE.format(part=part)
    return text + _LEAP if index == solution.label and solution.is_leap else text


def _worked_out(check: Check) -> str:
    """What a claim must be, with its value where it is plain arithmetic."""
    value = evaluate(check.work, ())
    found = None if value is None else shown(value)
    return check.work if found in (None, check.work) else f"{check.work} = {found}"


def _code(solution: Planted, index: int, letter: str) -> str:
    """Code that works a step's claims out; what is imported for the first one stays in the kernel."""
    lines = [] if index else ["import math"]
    work = [f"found = {letter}", "print(found)"] if letter else [_NO_WORK]
    return "\n".join([*lines, *([check.code for check in _checks(solution, index)] or work)])


def _letter(solution: Planted, index: int) -> str:
    """The letter that code asks for the value of, which it has not got; in half of the steps that set one up.

    A verifier has to have seen code that fails, or it takes an exception for a disagreement.
    """
    step = solution.steps[index]
    found = _SET_UP.search(step) if len(step) % 2 and not _checks(solution, index) else None
    letter = found and (found[1] or found[2])
    given = [check.setup.partition(" ")[0] for checks in solution.checks[:index] for check in checks]
    return letter if letter and letter not in given else ""
