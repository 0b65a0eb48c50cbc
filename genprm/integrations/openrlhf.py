"""OpenRLHF's remote reward: a query is prompt and response in one string, special tokens of a chat included."""

from __future__ import annotations

import re
from collections.abc import Sequence

from genprm.errors import ConfigError
from genprm.records import Solution
from genprm.solving import paragraphs

_SPECIAL = re.compile(r"<\|im_start\|>\w*\n?|<\|start_header_id\|>\w*<\|end_header_id\|>\s*|<\|[^<>|\n]{1,40}\|>|</?s>")


def as_solutions(queries: Sequence[str], prompts: Sequence[str]) -> list[Solution]:
    """A solution for each query: its steps are the paragraphs of the response.

    Raises:
        ConfigError: a query does not begin with its prompt, or has no response.
    """
    if len(queries) != len(prompts):
        raise ConfigError(f"{len(queries)} queries and {len(prompts)} prompts: expected as many")
    found = []
    for place, (query, prompt) in enumerate(zip(queries, prompts, strict=True)):
        if not query.startswith(prompt):
            raise ConfigError(f"query[{place}] does not begin with prompts[{place}]")
        problem, response = (_SPECIAL.sub("", text).strip() for text in (prompt, query[len(prompt) :]))
        if not problem or not response:
            raise ConfigError(f"query[{place}] has no response" if problem else f"prompts[{place}] has no problem")
        found.append(Solution(id=str(place), problem=problem, steps=paragraphs(response)))
    return found
