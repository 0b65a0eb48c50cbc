"""Chat messages to prompt text, by the template that a model brings along."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from jinja2.exceptions import TemplateError

from genprm.errors import ModelError
from genprm.models.base import Message

LONG_TEXT = 20_000
"""Characters, which take some hundredths of a second."""
SPACE = "\u2581"
"""As SentencePiece writes it."""
ANCHORS = ("\n", ".", "0", "x")
"""Texts to go on from, until one does not merge with what follows."""
DATE = "26 Jul 2024"
"""What templates that name the day (Llama's) are given: a run that goes on tomorrow must ask the same."""
HUB_DEADLINE = 5.0
"""Seconds within which the hub must answer before it counts as out of reach."""


def render_chat(tokenizer: Any, messages: Sequence[Message], prefix: str) -> str:
    """The prompt for ``messages`` with an assistant's turn that begins with ``prefix`` and stays open.

    Raises:
        ModelError: the tokenizer has no chat template, or it refuses these messages (some know no system role).
    """
    return _rendered(tokenizer, messages, is_open=True) + prefix


def render_whole_chat(tokenizer: Any, messages: Sequence[Message]) -> str:
    """A conversation that is over, as text.

    Raises:
        ModelError: as for `render_chat`.
    """
    return _rendered(tokenizer, messages, is_open=False)


def render_plain(tokenizer: Any, text: str) -> str:
    """A text behind the token that its tokenizer puts before every text, if it does: spelled out, as in templates."""
    first = tokenizer.bos_token
    return f"{first}{text}" if first and tokenizer.encode("")[:1] == [tokenizer.bos_token_id] else text


def _rendered(tokenizer: Any, messages: Sequence[Message], *, is_open: bool) -> str:
    if not tokenizer.chat_template:
        raise ModelError(f"{tokenizer.name_or_path} has no chat template: it was not trained on conversations")
    try:
        return str(
            tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=is_open, date_string=DATE
            )
        )
    except TemplateError as error:
        raise ModelError(f"the chat template of {tokenizer.name_or_path} refuses: {first_line(error)}") from error


async def encode(tokenizer: Any, text: str) -> list[int]:
    """The tokens of a text, as it stands. A long one does not keep everybody else waiting."""
    encoding = functools.partial(tokenizer.encode, text, add_special_tokens=False)
    return list(await asyncio.to_thread(encoding) if len(text) > LONG_TEXT else encoding())


def is_one_token(tokenizer: Any, word: str) -> bool:
    """Whether a word is a single token, as it stands behind other text."""
    return len(continuing_tokens(tokenizer, word)) == 1


def continuing_tokens(tokenizer: Any, text: str) -> list[int]:
    """The tokens of a text that goes on from another, cut where it begins.

    A SentencePiece tokenizer begins every text with a space, which this one has not.
    """
    tokens = list(tokenizer.encode(text, add_special_tokens=False))
    first = tokenizer.convert_ids_to_tokens(tokens[:1])
    if not first or not first[0].startswith(SPACE):
        return tokens
    for anchor in ANCHORS:
        before, whole = (list(tokenizer.encode(each, add_special_tokens=False)) for each in (anchor, anchor + text))
        if whole[: len(before)] == before:
            return whole[len(before) :]
    return tokens


def split_tokens(tokenizer: Any, prompt: str, text: str) -> tuple[list[int], list[int]]:
    """The tokens of ``prompt`` and those of ``text`` behind it, without a new cut at the seam."""
    encode = functools.partial(tokenizer.encode, add_special_tokens=False)
    before, whole = encode(prompt), encode(prompt + text)
    if whole[: len(before)] == before:
        return before, whole[len(before) :]
    return before, continuing_tokens(tokenizer, text)


def load_tokenizer(name: str, **options: Any) -> Any:
    """The tokenizer of a hub id or local folder.

    Raises:
        ModelError: there is none, or transformers is not installed.
    """
    _settle_hub(name)
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise ModelError("this backend needs the extra 'transformers': pip install 'genprm[transformers]'") from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{name!r} cannot be loaded: {first_line(error)}") from error
    # Some of DeepSeek's call themselves Llama's, and before transformers 5.20 are read as such.
    if type(tokenizer).__name__.startswith("Llama"):
        tokens = tokenizer.encode("a b", add_special_tokens=False)
        if " " not in tokenizer.decode(tokens).strip():
            raise ModelError(
                f"{name!r}: this version of transformers loses the spaces of its texts; take 5.20 or later"
            )
    return tokenizer


def _settle_hub(name: str) -> None:
    """Where the hub cannot be reached, use what it sent earlier, at once: by itself it would try for a minute."""
    if Path(name).exists() or importlib.util.find_spec("huggingface_hub") is None:
        return
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE:
        try:
            httpx.head(constants.ENDPOINT, timeout=HUB_DEADLINE)
        except httpx.HTTPError:
            constants.HF_HUB_OFFLINE = True


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, for messages that must fit on one."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
