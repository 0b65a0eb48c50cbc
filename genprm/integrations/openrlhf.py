"""OpenRLHF's remote reward: a query is prompt and response in one string, special tokens of a chat included."""

from __future__ import annotations

import re
from collections.abc import Sequence

from genprm.errors import ConfigError
from genprm.integrations.completion import as_solution
from genprm.records import Solution

_SPECIAL = re.compile(
    r"<\|im_start\|>\w*\n?|<\|start_header_id\|>\w*<\|end_header_id\|>\s*|<\|[^<>|\n]{1,40}\|>|</?s>"
    r"|<start_of_turn>\w*\n?|<end_of_turn>|<bos>|<eos>|<｜[^<>｜\n]{1,40}｜>|\[/?INST\]"
)
_NOT_ASKED = re.compile(
    r"(?s)<\|im_start\|>system\n(?:(?!<\|im_start\|>).)*?<\|im_end\|>"
    r"|<\|start_header_id\|>system<\|end_header_id\|>(?:(?!<\|start_header_id\|>).)*?<\|eot_id\|>"
    r"|<think>\s*\Z"
)
"""What stands in a prompt and is no part of the problem: a system's turn, and where the response's thoughts begin."""


def as_solutions(queries: Sequence[str], prompts: Sequence[str]) -> list[Solution | None]:
    """A solution for each query: its steps are the paragraphs of the response; None where that is blank.

    Raises:
        ConfigError: a query does not begin with its prompt, or a prompt is blank.
    """
    if len(queries) != len(prompts):
        raise ConfigError(f"{len(queries)} queries and {len(prompts)} prompts: expected as many")
    found: list[Solution | None] = []
    for place, (query, prompt) in enumerate(zip(queries, prompts, strict=True)):
        written = _after(prompt, query)
        if written is None:
            raise ConfigError(f"query[{place}] does not begin with prompts[{place}]")
        problem, response = (_SPECIAL.sub("", text).strip() for text in (_NOT_ASKED.sub("", prompt), written))
        if not problem:
            raise ConfigError(f"prompts[{place}] has no problem")
        found.append(as_solution(str(place), problem, response))
    return found


def _after(prompt: str, query: str) -> str | None:
    """What follows the prompt. Its spaces may be others in the query, which a tokenizer has decoded from tokens."""
    if query.startswith(prompt):
        return query[len(prompt) :]
    place = 0
    for character in "".join(prompt.split()):
        while query[place : place + 1].isspace():
            place += 1
        if query[place : place + 1] != character:
            return None
        place += 1
    return query[place:]
