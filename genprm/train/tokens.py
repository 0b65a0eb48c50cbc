"""A conversation as tokens, with the loss on what the model writes and on nothing else.

When it verifies, the model goes on from a prompt that ends where its own text begins: the prompt's tokens and its own
never merge. So the conversation is cut at the same places here, and each piece is tokenized by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from genprm.errors import ModelError
from genprm.models.chat import render_chat, render_whole_chat
from genprm.train.record import ASSISTANT, ChatMessage, Masked

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
        tokens = tokenizer.encode(text, add_special_tokens=False)
        example.input_ids.extend(tokens)
        example.labels.extend(tokens if is_target else [IGNORED] * len(tokens))
    return example


def pieces(
    tokenizer: Any, messages: Sequence[ChatMessage], masked: Sequence[Masked] = ()
) -> Iterator[tuple[str, bool]]:
    """The rendered conversation, cut where the model begins or ends to write; whether each piece is its own.

    The token that ends a turn is the model's where it wrote the turn's last character: it has to stop by itself.
    """
    chat = [turn.model_dump() for turn in messages]
    whole = render_whole_chat(tokenizer, chat)
    at = 0
    for index, turn in enumerate(messages):
        if turn.role != ASSISTANT:
            continue
        opening = render_chat(tokenizer, chat[:index], "")
        if not whole.startswith(opening + turn.content):
            raise ModelError(
                f"the chat template of {tokenizer.name_or_path} changes what stands in an answer: not to be trained on"
            )
        yield whole[at : len(opening)], False
        own = list(_own(turn, [(place.start, place.end) for place in masked if place.message == index]))
        at = len(opening) + len(turn.content)
        # Not always what the tokenizer calls the end of a text: Gemma ends its turns with a token of their own.
        end_of_turn = next((token for token in tokenizer.all_special_tokens if whole.startswith(token, at)), "")
        if own[-1][1] and end_of_turn:
            own[-1] = (own[-1][0] + end_of_turn, True)
            at += len(end_of_turn)
        yield from own
    if at < len(whole):
        yield whole[at:], False


def _own(turn: ChatMessage, masked: Sequence[tuple[int, int]]) -> Iterator[tuple[str, bool]]:
    at = 0
    for start, end in masked:
        if start > at:
            yield turn.content[at:start], True
        yield turn.content[start:end], False
        at = end
    if at < len(turn.content) or not masked:
        yield turn.content[at:], True
