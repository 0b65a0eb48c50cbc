"""Step-label interference: how far does a verdict that is written early drag the later ones with it?

    python benchmarks/interference.py ROWS.jsonl [--limit N] [--style direct|genprm] [--model M] [--adapter A]

Each solution's turns are written once, at temperature 0. Then the verdicts that stand in the earlier turns are
replaced, all by Yes or all by No, and P(Yes) is read again for each later step: nothing else differs. Where verdicts do
not matter to each other, both readings are the same. So they are by construction with ``--history rationales`` and
``none``, which show no earlier verdict; what those cost or gain in F1 is for ``genprm eval`` to say.

Reported by how many verdicts were replaced: the mean of P(Yes) after Yes less that after No, and the share of steps
whose verdict flips. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from statistics import mean
from typing import NamedTuple

from genprm.budget import Budget
from genprm.chain import Chain
from genprm.models.base import Message, ModelBackend, Sampling
from genprm.options import ModelOptions
from genprm.records import Solution
from genprm.rows import read_solutions
from genprm.styles import Direct, GenPRM
from genprm.styles.examples import worked_example
from genprm.tasks import map_unordered
from sandbox import Sandbox

OPENING = "**Judgement**: $\\boxed{"
AT_ONCE = 16


class Reading(NamedTuple):
    """One step, read twice."""

    forced: int
    """How many earlier turns had their verdicts replaced."""
    after_yes: float
    after_no: float


class Recorder:
    """Stands between a style and its model, and keeps the conversation."""

    def __init__(self, chain: Chain) -> None:
        self.chats: list[tuple[list[Message], str]] = []
        """At each judgement: the messages, and the open turn."""
        self._render = chain.render

    def render(self, messages: Sequence[Message], prefix: str) -> str:
        if prefix.endswith(OPENING):
            self.chats.append((list(messages), prefix))
        return self._render(messages, prefix)


def forced(messages: Sequence[Message], word: str, shown: int) -> list[Message]:
    """The conversation with this verdict in all earlier turns of the assistant, those of the example left alone."""
    changed = []
    for index, message in enumerate(messages):
        content = message["content"]
        if message["role"] == "assistant" and index >= shown:
            head, _, tail = content.rpartition(OPENING)
            content = head + OPENING + word + tail[tail.index("}") :]
        changed.append({**message, "content": content})
    return changed


async def read(
    model: ModelBackend, sandbox: Sandbox | None, style: GenPRM, solution: Solution, budget: Budget, shown: int
) -> list[Reading]:
    async with Chain(model, sandbox, budget, Sampling(temperature=0), solution.id) as chain:
        recorder = Recorder(chain)
        chain.render = recorder.render  # type: ignore[method-assign]
        async for _ in style.verify(chain, solution):
            pass
        found = []
        for step, (messages, prefix) in enumerate(recorder.chats):
            if step:
                yes, no = [
                    (await chain.choose(model.render(forced(messages, word, shown), prefix))).score
                    for word in ("Yes", "No")
                ]
                if yes is not None and no is not None:
                    found.append(Reading(step, yes, no))
        return found


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("rows")
    parser.add_argument("--limit", type=int, default=50)
    parser.add_argument("--style", choices=["direct", "genprm"], default="direct")
    parser.add_argument("--model")
    parser.add_argument("--adapter")
    parser.add_argument("--base-url")
    parser.add_argument("--tokenizer")
    parser.add_argument("--step-tokens", type=int, default=96)
    options = parser.parse_args()
    wanted = ModelOptions(
        model=options.model, adapter=options.adapter, base_url=options.base_url, tokenizer=options.tokenizer
    )
    budget = Budget(step_tokens=options.step_tokens, analysis_tokens=options.step_tokens // 2, runs=1)
    examples = worked_example() if wanted.is_embedded and options.style == "genprm" else ()
    style = GenPRM(examples=examples) if options.style == "genprm" else Direct()
    solutions = read_solutions(options.rows, options.limit)
    model = await wanted.make_model()
    sandbox = Sandbox("local") if options.style == "genprm" else None
    if sandbox:
        await sandbox.start()
    try:
        shown = 1 + len(examples)
        readings = [
            reading
            async for _, several in map_unordered(
                lambda one: read(model, sandbox, style, one, budget, shown), solutions, AT_ONCE
            )
            for reading in several
        ]
    finally:
        await model.close()
        if sandbox:
            await sandbox.close()
    by_count = {"1": (1, 1), "2 or 3": (2, 3), "4 and more": (4, 10**9)}
    for name, (low, high) in by_count.items():
        some = [each for each in readings if low <= each.forced <= high]
        if some:
            print(f"{name} earlier verdicts, {len(some)} steps: {describe(some)}")
    print(json.dumps({"style": options.style, "model": model.name, "steps": len(readings), **figures(readings)}))


def figures(readings: Sequence[Reading]) -> dict[str, float]:
    return {
        "drag": round(mean(each.after_yes - each.after_no for each in readings), 3),
        "after_yes": round(mean(each.after_yes for each in readings), 3),
        "after_no": round(mean(each.after_no for each in readings), 3),
        "flipped": round(mean((each.after_yes < 0.5) != (each.after_no < 0.5) for each in readings), 3),
    }


def describe(readings: Sequence[Reading]) -> str:
    found = figures(readings)
    return (
        f"P(Yes) {found['after_yes']:.3f} after Yes, {found['after_no']:.3f} after No ({found['drag']:+.3f}); "
        f"{found['flipped']:.1%} of the verdicts flip"
    )


asyncio.run(main())
