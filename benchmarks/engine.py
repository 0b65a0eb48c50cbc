"""Our loop against the reference's one-at-a-time loop: the same model server, the same prompts, the same code, one run.

    python benchmarks/engine.py                                             # a scripted model, fixed token latency
    python benchmarks/engine.py --base-url URL --model NAME --tokenizer T   # a server, vLLM on a CPU say

The reference is `benchmarks.reference_loop`; it gets the same sandbox and verifies ``--alone`` solutions one after the
other, from which its time for all is extrapolated. Ours verifies all of them, with ``--in-flight`` chains at once.

The scripted model writes what a verifier writes at ``--token-ms`` per token, however many requests are in flight: what
is left to measure is the engine. Every step runs code that sleeps 50 ms. With a server the texts are the model's own,
at temperature 0; both sides have the same limits.

Reported: seconds per solution of both, the ratio (`speedup`), and `model_idle_share`: the share of our wall time in
which no request was at the model. With ``--scaling`` also both figures for 1 to 256 chains in flight. The last line is
JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.reference_loop import Limits, reference_verify
from genprm import AsyncVerifier, Budget, Sampling, Solution
from genprm.models.base import Completion, Message, ModelBackend
from genprm.models.scripted import Rule, ScriptedModel
from genprm.styles import GenPRM
from genprm.styles.examples import worked_example
from sandbox import Sandbox

STEPS = 4
CODE = "import time\ntime.sleep(0.05)\nprint(6 * 7)\n```\n"
ANALYSIS = "The step claims that six times seven is forty-two. " * 6 + "</analyze>\n"
CLOSING = "The code agrees with the step.\n</verify>\n<output>\n"
SCRIPT = (
    Rule(when=r"boxed\{$", choice={"Yes": 0.8, "No": 0.2}),
    Rule(when=r"step by step: $", text=ANALYSIS),
    Rule(when=r"python\n$", text=CODE),
    Rule(text=CLOSING),
)
SCALING = (1, 4, 16, 64, 256)
GREEDY = Sampling(temperature=0)


class Metered(ModelBackend):
    """A model whose idle time is measured."""

    def __init__(self, model: ModelBackend, token_seconds: float) -> None:
        self.name = model.name
        self.concurrency = model.concurrency
        self._model = model
        self._token_seconds = token_seconds
        self._busy = 0
        self._since = 0.0
        self.idle = 0.0
        """Seconds in which no request was here, since `reset`."""

    def reset(self) -> None:
        self.idle, self._since = 0.0, time.perf_counter()

    def settle(self) -> None:
        """Count the idle time up to now."""
        if not self._busy:
            self.idle += time.perf_counter() - self._since
            self._since = time.perf_counter()

    async def complete(self, prompt: str, **options: Any) -> list[Completion]:
        self.settle()
        self._busy += 1
        try:
            done = await self._model.complete(prompt, **options)
            tokens = max(completion.completion_tokens for completion in done)
            await asyncio.sleep(tokens * self._token_seconds)
            return done
        finally:
            self._busy -= 1
            self._since = time.perf_counter()

    def render(self, messages: Sequence[Message], prefix: str) -> str:
        return self._model.render(messages, prefix)

    def is_token(self, word: str) -> bool:
        return self._model.is_token(word)

    async def close(self) -> None:
        await self._model.close()


class Work(NamedTuple):
    """What both sides do."""

    model: Metered
    sandbox: Sandbox
    limits: Limits
    examples: list[Message]


def solutions(count: int) -> list[Solution]:
    """Of `STEPS` steps each; no two have a common beginning behind the question."""
    return [
        Solution(id=str(n), problem=f"What is 6 times {n + 7}?", steps=(f"6 * {n + 7} is {6 * n + 42}.",) * STEPS)
        for n in range(count)
    ]


async def reference(work: Work, count: int) -> float:
    """Seconds per solution."""
    begun = time.perf_counter()
    for solution in solutions(count):
        await reference_verify(
            work.model, work.sandbox, solution, sampling=GREEDY, examples=work.examples, limits=work.limits
        )
    return (time.perf_counter() - begun) / count


async def ours(work: Work, count: int, in_flight: int) -> tuple[float, float]:
    """Seconds per solution, and the share of the time in which the model had nothing to do."""
    budget = Budget(step_tokens=work.limits.tokens, analysis_tokens=work.limits.analysis_tokens, runs=work.limits.runs)
    verifier = AsyncVerifier(
        work.model, work.sandbox, style=GenPRM(examples=work.examples), budget=budget, sampling=GREEDY,
        in_flight=in_flight,
    )  # fmt: skip
    work.model.reset()
    begun = time.perf_counter()
    rows = [row async for _, row in verifier.verify_many(solutions(count))]
    seconds = time.perf_counter() - begun
    work.model.settle()
    assert len(rows) == count
    return seconds / count, work.model.idle / seconds


async def open_model(options: argparse.Namespace) -> ModelBackend:
    if not options.base_url:
        return ScriptedModel(SCRIPT, remembers=False)
    from genprm.models.openai_backend import OpenAIModel

    return await OpenAIModel.connect(options.base_url, options.model, tokenizer=options.tokenizer)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--solutions", type=int, default=192)
    parser.add_argument("--alone", type=int, default=3)
    parser.add_argument("--token-ms", type=float, default=10.0)
    parser.add_argument("--sandbox", default="local")
    parser.add_argument("--scaling", action="store_true")
    parser.add_argument("--base-url")
    parser.add_argument("--model")
    parser.add_argument("--tokenizer")
    parser.add_argument("--step-tokens", type=int, default=2048, help="with a server: what the model may write a step")
    options = parser.parse_args()
    limits = Limits(options.step_tokens, options.step_tokens // 2, runs=1 if options.base_url else 3)
    async with Sandbox(options.sandbox, sessions=512) as sandbox:
        scripted = not options.base_url
        model = Metered(await open_model(options), options.token_ms / 1000 if scripted else 0.0)
        work = Work(model, sandbox, limits, [] if scripted else worked_example())
        await ours(work, 2, 2)  # warm
        alone = await reference(work, options.alone)
        print(f"reference, one at a time: {alone:.2f} s per solution")
        for in_flight in SCALING if options.scaling else ():
            each, idle = await ours(work, max(8, min(options.solutions, 3 * in_flight)), in_flight)
            print(f"{in_flight:4d} in flight: {each:.3f} s per solution ({alone / each:.1f}x), idle {idle:.1%}")
        each, idle = await ours(work, options.solutions, options.in_flight)
        await model.close()
    print(json.dumps({
        "speedup": round(alone / each, 1), "model_idle_share": round(idle, 4), "in_flight": options.in_flight,
        "solutions": options.solutions, "reference_s": round(alone, 3), "ours_s": round(each, 4),
        "model": model.name, "sandbox": options.sandbox,
    }))  # fmt: skip


asyncio.run(main())
