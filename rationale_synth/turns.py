"""Rationales step by step, written as the verifier writes in use: what the model wrote is a target, nothing else.

**With the verdicts of the labels**: what is a derivation worth that may be wrong? A verifier that was only shown
faultless derivations takes its own ones for faultless, and judges by them alone. Here it argues and computes, and
learns which verdict was right after that. Where it came to another one, only the verdict is a target.
"""

from __future__ import annotations

from collections.abc import Sequence

from genprm.chain import Chain
from genprm.models.base import Message
from genprm.records import NO_ERROR, StopReason, Verdict
from genprm.styles import genprm as style
from genprm.train.record import ASSISTANT, ChatMessage, Masked
from rationale_synth.consensus import Reason
from rationale_synth.critique import MARK
from rationale_synth.records import LabelledSolution
from rationale_synth.transcript import Transcript


async def write_turns(
    chain: Chain, solution: LabelledSolution, examples: Sequence[Message], *, by_labels: bool
) -> tuple[int, Transcript] | Reason:
    """Let the model verify a solution step by step.

    Args:
        chain: what it is written with.
        solution: with its label.
        examples: turns that show the model the format; the conversation that is kept has them not.
        by_labels: whatever it says, go on from the label's verdict, up to the first wrong step. Otherwise it goes on
            from its own, up to the first step that it finds wrong, and a rationale that was cut off is not kept.

    Returns:
        The first error that the model named itself, -1 for none, and the conversation; or why there is none.
    """
    system: Message = {"role": "system", "content": style.SYSTEM}
    messages: list[Message] = []
    masked: list[Masked] = []
    judged = NO_ERROR
    for index, step in enumerate(solution.steps):
        messages.append({"role": "user", "content": style.asked_about(solution.problem, step, index)})
        turn = style.Turn(chain, [system, *examples, *messages], index + 1)
        await turn.analyse()
        await turn.check()
        vote = await turn.judge()
        if any(MARK in text for text, own in turn.pieces if own):
            return Reason.FORGED_OUTPUT
        if vote.verdict is None:
            return Reason.NO_VERDICT
        if vote.stop_reason is StopReason.TOKEN_BUDGET and not by_labels:
            return Reason.TOO_LONG
        if vote.verdict is Verdict.INCORRECT and judged == NO_ERROR:
            judged = index
        label = Verdict.INCORRECT if index == solution.label else Verdict.CORRECT
        known = label if by_labels else vote.verdict
        *argued, _, ending = turn.pieces
        pieces = [(text, own and vote.verdict is known) for text, own in argued]
        pieces += [(style.WORDS[known], True), ending]
        place = 0
        for text, is_target in pieces:
            if text and not is_target:
                masked.append(Masked(message=1 + len(messages), start=place, end=place + len(text)))
            place += len(text)
        messages.append({"role": ASSISTANT, "content": "".join(text for text, _ in pieces)})
        if known is Verdict.INCORRECT:
            break
    kept = tuple(ChatMessage(**each) for each in (system, *messages))
    return judged, Transcript(messages=kept, masked=tuple(masked))
