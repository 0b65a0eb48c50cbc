"""A model server for the pages' commands: OpenAI's completions, answered by a script."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from genprm.models.base import Completion, FinishReason, Sampling
from genprm.models.chat import load_tokenizer
from genprm.models.scripted import Rule, ScriptedModel
from tests.http_peer import Answer, http_peer

_CRITIC = "(?s)Check the solution below"
_RUN = r"\[Code Output\]\n\n```\n42\n```\n$"
RULES = (
    # A critic
    Rule(when=_CRITIC + r".* 13\b.*" + _RUN, text="</verify>\n\\boxed{1}"),
    Rule(
        when=_CRITIC + ".*" + _RUN,
        text="</verify>\n\n### Paragraph 2\n<analyze>\nIt is.\n</analyze>\n<verify>\nSeen.\n</verify>\n\\boxed{-1}",
    ),
    Rule(
        when=_CRITIC,
        text="### Paragraph 1\n<analyze>\nSix sevens.\n</analyze>\n<verify>\n```python\nprint(6 * 7)\n```\n",
    ),
    # A verifier: GenPRM's, then ThinkPRM's
    Rule(when=r"```python\n$", text="print(6 * 7)\n```\n"),
    Rule(when=r"<analyze>\n?[^<]*$", text="It looks right.</analyze>\n"),
    Rule(when=r"(?s)<verify>(?!.*</verify>).*$", text="So it is.\n</verify>\n<output>\n"),
    Rule(when=r"boxed\{$", yes=0.9),
    Rule(when=r"Is the solution correct\?$", choice={" Yes": 0.8, " No": 0.2}),
    Rule(when=r"Let's verify step by step:$", text=" Step 1: \\boxed{correct}\nStep 2: \\boxed{correct}\n</think>"),
    # A policy that is right now and then, and stays with what it has said
    Rule(when=r"is 42\.\s*$", text="The answer is \\boxed{42}."),
    Rule(when=r"is 13\.\s*$", text="The answer is \\boxed{13}."),
    Rule(one_of=("6 * 7 is 42.\n\nThe answer is \\boxed{42}.", "6 * 7 is 13.\n\nThe answer is \\boxed{13}.")),
)


@contextmanager
def model_server(tokenizer: str, *served: str) -> Iterator[int]:
    """Serve these names, all with the tokenizer of a folder; the port."""
    decoding = load_tokenizer(tokenizer)
    model = ScriptedModel(RULES, remembers=False)

    def get() -> Answer:
        return 200, {"data": [{"id": name} for name in served]}

    def post(asked: dict[str, Any], _: Mapping[str, str]) -> Answer:
        if forced := asked.get("allowed_token_ids"):
            return 200, drawn(forced[0])
        sampling = Sampling(seed=asked.get("seed", 0))
        found = asyncio.run(
            model.complete(
                decoding.decode(asked["prompt"]), stop=asked.get("stop") or (), max_tokens=asked["max_tokens"],
                n=asked.get("n", 1), sampling=sampling,
            )
        )  # fmt: skip
        used = {"prompt_tokens": 1, "completion_tokens": sum(each.completion_tokens for each in found)}
        return 200, {"choices": [choice(place, each) for place, each in enumerate(found)], "usage": used}

    with http_peer(get, post) as port:
        yield port


def drawn(token: int) -> dict[str, Any]:
    """The one token that may be drawn, as vLLM answers; each as likely as the other."""
    said = {"tokens": [f"token_id:{token}"], "token_logprobs": [-0.7], "top_logprobs": None}
    return {"choices": [{"index": 0, "text": "?", "finish_reason": "length", "logprobs": said}]}


def choice(place: int, said: Completion) -> dict[str, Any]:
    tokens = {
        "tokens": [token.text for token in said.tokens],
        "token_logprobs": [token.logprob for token in said.tokens],
        "top_logprobs": [dict(token.top) for token in said.tokens],
    }
    ended = "length" if said.finish_reason is FinishReason.LENGTH else "stop"
    return {"index": place, "text": said.text, "finish_reason": ended, "logprobs": tokens}
