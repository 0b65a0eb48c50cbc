"""GenPRM's own style (arXiv 2504.00891, section 3): analyse, write code, read its output, judge.

One chat turn per step; the assistant's earlier turns stay in the context. A turn looks like this, where the
lines marked ``|`` are written for the model and the rest by it:

    | <analyze>
    | Let's analyze the Paragraph 1 step by step: ...</analyze>
    | <verify>
    | Let's use python code to find any potential error:
    | ```python
      ...
    | ```
    | [Code Output]
    |
    | ```
    | 42
    | ```
      ... (more argument, or more code) ...</verify>
    | <output>
    | **Judgement**: $\\boxed{Yes}$
    | </output>

The verdict token is not sampled: its probabilities are read, and the likelier word is written into the transcript,
so that score, verdict and transcript always agree.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Sequence
from enum import Enum

from genprm.chain import Chain
from genprm.errors import ContextFullError
from genprm.models.base import FinishReason, Message
from genprm.records import Segment, SegmentKind, Solution, StepVote, StopReason, Verdict
from genprm.styles.base import Style
from genprm.styles.execution import NO_CODE, OutputFormat, format_output

SYSTEM = "You are a math teacher. Your task is to review and critique the paragraphs in solution step by step."
ANALYZE = "<analyze>\nLet's analyze the Paragraph {step} step by step: "
ANALYZE_END = "</analyze>\n"
VERIFY = "<verify>\nLet's use python code to find any potential error:\n```python\n"
VERIFY_END = "</verify>\n"
FENCE = "```"
PYTHON = "```python\n"
CODE_END = "\n```\n"
CODE_OUTPUT = "[Code Output]\n\n```\n{output}\n```\n"
OUTPUT_OPEN = "<output>\n"
JUDGEMENT = "**Judgement**: $\\boxed{"
JUDGEMENT_END = "}$\n</output>\n"
DIRECT_OPENING = OUTPUT_OPEN + JUDGEMENT
"""What stands before a verdict that nothing was argued for."""
WORDS = {Verdict.CORRECT: "Yes", Verdict.INCORRECT: "No"}


class History(str, Enum):
    """What a step's judgement sees of the earlier ones. An early verdict that is wrong drags later ones with it."""

    FULL = "full"
    """Rationales and verdicts, as the released models were trained."""
    RATIONALES = "rationales"
    """Arguments, code and outputs, but no verdict."""
    NONE = "none"
    """Nothing but the steps themselves. Variables of earlier code are there, unless the earlier steps were given."""


class GenPRM(Style):
    """GenPRM, with all of its parts (the paper's Table 5) or some of them.

    Args:
        analyze: let the model argue first.
        verify: let it write code.
        output_format: how a run is told to the model.
        examples: chat turns that show the format to a model that was not trained on it.
        history: what a step's turn sees of the earlier ones.
    """

    name = "genprm"

    def __init__(
        self,
        *,
        analyze: bool = True,
        verify: bool = True,
        output_format: OutputFormat = OutputFormat.REFERENCE,
        examples: Sequence[Message] = (),
        history: History = History.FULL,
    ) -> None:
        self._analyze = analyze
        self._verify = verify
        self._output_format = output_format
        self._examples = list(examples)
        self._history = history
        self.writes_code = verify
        self.independent = history is History.NONE

    async def verify(self, chain: Chain, solution: Solution, first: int = 0) -> AsyncGenerator[StepVote, None]:
        opening: list[Message] = [{"role": "system", "content": SYSTEM}, *self._examples]
        messages = list(opening)
        for index, step in enumerate(solution.steps[first:], first):
            asked = asked_about(solution.problem, step, index)
            if self._history is History.NONE:
                seen = "\n\n".join(solution.steps[: index + 1])
                messages, asked = list(opening), f"Question: {solution.problem}\n\n{seen}"
            messages.append({"role": "user", "content": asked})
            turn = Turn(chain, messages, index + 1, self._output_format)
            if self._analyze:
                await turn.analyse()
            if self._verify:
                await turn.check()
            yield await turn.judge()
            kept = turn.text if self._history is History.FULL else turn.text.rpartition(OUTPUT_OPEN)[0]
            messages.append({"role": "assistant", "content": kept})


class Direct(GenPRM):
    """Yes or No at once, without a rationale (GenPRM, Table 5, "direct generative")."""

    name = "direct"

    def __init__(self, *, history: History = History.FULL) -> None:
        super().__init__(analyze=False, verify=False, history=history)


def directly_judged(problem: str, steps: Sequence[str], verdicts: Sequence[Verdict]) -> list[Message]:
    """The conversation of the style `direct` in which these verdicts were given."""
    messages: list[Message] = [{"role": "system", "content": SYSTEM}]
    for index, (step, verdict) in enumerate(zip(steps, verdicts, strict=True)):
        judged = DIRECT_OPENING + WORDS[verdict] + JUDGEMENT_END
        messages += [
            {"role": "user", "content": asked_about(problem, step, index)}, {"role": "assistant", "content": judged},
        ]  # fmt: skip
    return messages


def asked_about(problem: str, step: str, index: int) -> str:
    """What is asked about a step, whose earlier ones stand before it."""
    return step if index else f"Question: {problem}\n\n{step}"


class Turn:
    """The assistant's turn for one step, while it is being written.

    Args:
        chain: what it is written with.
        messages: the conversation up to the question about the step.
        step: the step's number, from 1.
        output_format: how a run is told to the model.
    """

    def __init__(
        self,
        chain: Chain,
        messages: Sequence[Message],
        step: int,
        output_format: OutputFormat = OutputFormat.REFERENCE,
    ) -> None:
        self.pieces: list[tuple[str, bool]] = []
        """The turn's text, cut where the model begins or ends to write; and whether each piece is the model's."""
        self._chain = chain
        self._messages = messages
        self._step = step
        self._output_format = output_format
        self._segments: list[Segment] = []
        self._left = min(chain.budget.step_tokens, chain.tokens_left)
        self._stop_reason = StopReason.JUDGED
        self._stopped = False

    @property
    def text(self) -> str:
        """What stands in it so far."""
        return "".join(text for text, _ in self.pieces)

    async def analyse(self) -> None:
        """Write the ``<analyze>`` part."""
        if self._left <= 0:
            self._stop_reason = StopReason.TOKEN_BUDGET
            return
        self._give(ANALYZE.format(step=self._step))
        written, finish = await self._write([ANALYZE_END], min(self._left, self._chain.budget.analysis_tokens))
        self._keep(SegmentKind.ANALYSIS, written)
        self._end(ANALYZE_END)
        if finish is FinishReason.LENGTH:
            self._stop_reason = StopReason.TOKEN_BUDGET

    async def check(self) -> None:
        """Write the ``<verify>`` part: code, its output, argument, more code ... until the model has enough."""
        if self._left <= 0:
            self._stop_reason = StopReason.TOKEN_BUDGET
            return
        if self._chain.executes and not self._chain.budget.runs:
            self._stop_reason = StopReason.RUN_BUDGET
            return
        self._give(VERIFY)
        if self._chain.executes:
            await self._check_with_code()
        else:
            written, finish = await self._write([OUTPUT_OPEN], self._left)
            self._keep(SegmentKind.CODE, written.removesuffix(VERIFY_END))
            self._stop_reason = _reason(written, finish)
        if not self.text.endswith(VERIFY_END):
            self._strip_lines()
            self._give("\n" + VERIFY_END)

    async def _check_with_code(self) -> None:
        in_code = True
        for run in range(1, self._chain.budget.runs + 1):
            written, finish = await self._write([CODE_END, OUTPUT_OPEN], self._left)
            argument, code, in_code = _split(written, in_code)
            self._keep(SegmentKind.ANALYSIS, argument.removesuffix(VERIFY_END))
            if finish is FinishReason.LENGTH:
                self._keep(SegmentKind.CODE, code)
                if in_code:
                    self._give(CODE_END)
            if finish is FinishReason.LENGTH or not in_code:
                self._stop_reason = _reason(written, finish)
                return
            await self._run(code)
            in_code = False
            if self._left <= 0:
                self._stop_reason = StopReason.TOKEN_BUDGET
                return
            if run == self._chain.budget.runs:
                self._stop_reason = StopReason.RUN_BUDGET

    async def judge(self, chance: random.Random | None = None) -> StepVote:
        """Read the verdict's probabilities, and write the likelier word.

        Args:
            chance: draw the word by its probability instead, as training by its own rollouts does.
        """
        self._end(OUTPUT_OPEN)
        self._give(JUDGEMENT)
        score, parse = await self._chain.choose(self._prompt())
        word = "?"
        if score is not None:
            drawn = Verdict.of(score) if chance is None else Verdict.of(float(chance.random() < score))
            word = WORDS[drawn]
        self._add(Segment(kind=SegmentKind.JUDGEMENT, text=word))
        self.pieces.append((word, score is not None))
        self._give(JUDGEMENT_END)
        return StepVote(score=score, segments=tuple(self._segments), stop_reason=self._stop_reason, parse=parse)

    async def _run(self, code: str) -> None:
        """Run a code block and splice what came of it into the turn."""
        if code and self.text.rstrip().endswith(FENCE):
            self._give("\n")  # it ended its turn right behind the block
        else:
            self._end(CODE_END)
        self._keep(SegmentKind.CODE, code)
        run = await self._chain.run(code) if code else None
        shown = NO_CODE if run is None else format_output(run, self._output_format, self._chain.budget.output_chars)
        self._add(Segment(kind=SegmentKind.OUTPUT, text=shown, run=run))
        self._give(CODE_OUTPUT.format(output=shown))

    async def _write(self, stop: Sequence[str], max_tokens: int) -> tuple[str, FinishReason]:
        try:
            completion = await self._chain.write(self._prompt(), stop, max_tokens)
        except ContextFullError:
            if not any(own for _, own in self.pieces):
                raise
            self._left = 0  # what has been argued is judged, with the room that is kept for that
            return "", FinishReason.LENGTH
        self._left -= completion.completion_tokens
        self.pieces.append((completion.text, True))
        self._stopped = completion.finish_reason is FinishReason.STOP
        return completion.text, completion.finish_reason

    def _give(self, text: str) -> None:
        """Write for the model."""
        self.pieces.append((text, False))
        self._stopped = False

    def _end(self, stop: str) -> None:
        """Write the string that ends a part: the model's own where it stopped there, and nothing was given since."""
        self.pieces.append((stop, self._stopped))
        self._stopped = False

    def _strip_lines(self) -> None:
        """Take back the line breaks at the end."""
        while self.pieces and self.pieces[-1][0].endswith("\n"):
            text, own = self.pieces.pop()
            if kept := text.rstrip("\n"):
                self.pieces.append((kept, own))

    def _prompt(self) -> str:
        return self._chain.render(self._messages, self.text)

    def _keep(self, kind: SegmentKind, text: str) -> None:
        if text.strip():
            self._add(Segment(kind=kind, text=text.strip("\n")))

    def _add(self, segment: Segment) -> None:
        self._segments.append(segment)
        self._chain.show(self._step - 1, segment)


def _reason(written: str, finish: FinishReason) -> StopReason:
    """Why the model stopped arguing: a model that closes ``<verify>`` goes on to its judgement."""
    if finish is FinishReason.LENGTH:
        return StopReason.TOKEN_BUDGET
    return StopReason.JUDGED if written.rstrip().endswith(VERIFY_END.strip()) else StopReason.END_OF_TEXT


def _split(written: str, in_code: bool) -> tuple[str, str, bool]:
    """Split what the model wrote since the last execution into argument and code.

    Args:
        written: the text, without the stop string that ended it.
        in_code: whether it began inside a code block.

    Returns:
        The argument, the code of the block after it ("" if there is none, or if it is not Python), and whether
        that block is the end of the text, waiting to be run.
    """
    text = PYTHON + written if in_code else written
    if text.count(FENCE) % 2 == 0:
        # A model that ends its turn right behind a block closes it without the line break we stop at.
        if not text.rstrip().endswith(FENCE):
            return written, "", False
        text = text.rstrip().removesuffix(FENCE)
    argument, _, block = text.rpartition(FENCE)
    if not block.startswith("python"):
        return argument, "", True
    return argument, block.removeprefix("python").strip(), True
