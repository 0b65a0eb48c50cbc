"""A conversation as tokens, with the loss on what the model writes and on nothing else.

When it verifies, the model goes on from a prompt that ends where its own text begins: the prompt's tokens and its own
never merge. So the conversation is cut at the same places here, and each piece is tokenized by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from genprm.errors import ModelError
from genprm.models.chat import continuing_tokens, render_chat, render_whole_chat
from genprm.train.record import ASSISTANT, ChatMessage, Masked

_NOTHING_SAID = re.compile(r"\s*(?:<think>\s*</think>\s*)?")
"""What a template may put before an answer that is over, and not before one that is begun."""
IGNORED = -100
"""The label of a token that the loss leaves out."""


class Example(NamedTuple):
    """T tokens to train on."""

    input_ids: list[int]
    labels: list[int]
    """The token itself, or `IGNORED`; T of them."""

    @property
    def targets(self) -> int:
        """How many tokens the loss looks at."""
        return sum(label != IGNORED for label in self.labels)


def encode(tokenizer: Any, messages: Sequence[ChatMessage], masked: Sequence[Masked] = ()) -> Example:
    """The tokens of a conversation, by the tokenizer's own chat template.

    Args:
        tokenizer: the model's.
        messages: the conversation.
        masked: what of its answers is no target, in order.

    Raises:
        ModelError: there is no template, or it does not keep what stands in the answers.
    """
    example = Example([], [])
    for text, is_target in pieces(tokenizer, messages, masked):
        begins = not example.input_ids
        tokens = tokenizer.encode(text, add_special_tokens=False) if begins else continuing_tokens(tokenizer, text)
        example.input_ids.extend(tokens)
        example.labels.extend(tokens if is_target else [IGNORED] * len(tokens))
    return example


def pieces(
    tokenizer: Any, messages: Sequence[ChatMessage], masked: Sequence[Masked] = ()
) -> Iterator[tuple[str, bool]]:
    """The rendered conversation, cut where the model begins or ends to write; whether each piece is its own.

    The token that ends a turn is the model's where it wrote the turn's last character: it has to stop by itself.

    What an answer begins with is what the template opens it with when the model verifies: Qwen3's and DeepSeek's write
    other thoughts into an answer that is over. Where a template strips answers, so does this.
    """
    chat = [turn.model_dump() for turn in messages]
    answers = [index for index, turn in enumerate(messages) if turn.role == ASSISTANT]
    openings = [render_chat(tokenizer, chat[:index], "") for index in answers]
    between = openings[0] if openings else render_whole_chat(tokenizer, chat)
    endings = _ends_of_turns(tokenizer)
    for number, index in enumerate(answers):
        is_last = number + 1 == len(answers)
        behind = render_whole_chat(tokenizer, chat) if is_last else openings[number + 1]
        answer, shift, place = _found(messages[index].content, openings[number], behind)
        if place < 0:
            raise ModelError(
                f"the chat template of {tokenizer.name_or_path} changes what stands in an answer: not to be trained on"
            )
        yield between, False
        between = behind[place + len(answer) :]
        ends = [(mark.start - shift, mark.end - shift) for mark in masked if mark.message == index]
        marks = [(max(0, start), min(max(0, end), len(answer))) for start, end in ends]
        own = list(_own(answer, marks))
        # Not always what the tokenizer calls the end of a text: Gemma ends its turns with a token of their own.
        end_of_turn = next((token for token in endings if between.startswith(token)), "")
        if own[-1][1] and end_of_turn:
            own[-1] = (own[-1][0] + end_of_turn, True)
            between = between[len(end_of_turn) :]
        yield from own
    if between:
        yield between, False


def _found(content: str, opening: str, behind: str) -> tuple[str, int, int]:
    """An answer as it stands in what was rendered behind it, what it lost at its beginning, and where; -1: nowhere."""
    begin = len(opening)
    if not behind.startswith(opening):
        begin = next(at for at, pair in enumerate(zip(opening, behind + "\0", strict=False)) if pair[0] != pair[1])
        begin = max(0, begin - len(content))  # the answer itself may begin as what the opening ends with
    for answer in (content, content.strip()):
        place = behind.find(answer, begin)
        if place >= 0 and (begin < len(opening) or _NOTHING_SAID.fullmatch(behind, begin, place)):
            return answer, content.index(answer), place
    return content, 0, -1


def _ends_of_turns(tokenizer: Any) -> list[str]:
    """The tokens that may end a turn, the longest first: all special ones, not only those that have a name."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return sorted({*tokenizer.all_special_tokens, *added}, key=len, reverse=True)


def _own(answer: str, masked: Sequence[tuple[int, int]]) -> Iterator[tuple[str, bool]]:
    at = 0
    for start, end in masked:
        if start > at:
            yield answer[at:start], True
        yield answer[start:end], False
        at = end
    if at < len(answer) or not masked:
        yield answer[at:], True
