"""Everything the ``vllm`` backend does, in a process with vLLM: prints what came of it as JSON.

Usage: in_process.py MODEL ADAPTER
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from genprm.budget import Budget
from genprm.models.base import Sampling
from genprm.options import Backend, RunOptions, open_verifier
from genprm.styles import Direct
from genprm.verifier import AsyncVerifier
from tests.vllm.work import LONG_WORD, PROMPT, SOLUTIONS, WORDS


async def work(model: str, adapter: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    options = RunOptions(
        backend=Backend.VLLM, model=model, adapter=adapter, sandbox="local", example=True, temperature=0,
        budget=Budget(step_tokens=80, analysis_tokens=30, runs=1),
    )  # fmt: skip
    async with open_verifier(options, lambda _: None) as verifier:
        report = await verifier.verify_solution(SOLUTIONS[0])
        found["code"] = report.model_dump(mode="json")
        backend = verifier.model
        direct = AsyncVerifier(backend, None, style=Direct(), sampling=Sampling(temperature=0))
        found["scores"] = [[step.score for step in (await direct.verify_solution(one)).steps] for one in SOLUTIONS]
        prompt = backend.render([{"role": "user", "content": PROMPT}], "")
        found["words"] = await backend.score(prompt, WORDS)
        found["one_token"] = [backend.is_token(word) for word in ("Yes", LONG_WORD)]

        async def draw(n: int, seed: int) -> list[str]:
            how = Sampling(temperature=1, seed=seed)
            done = await backend.complete(prompt, stop=["."], max_tokens=12, n=n, sampling=how)
            return [each.text for each in done]

        found["drawn"] = await draw(3, 5)
        found["again"] = [(await draw(1, seed))[0] for seed in (5, 6, 7)]
        endless = asyncio.create_task(backend.complete(prompt, stop=(), max_tokens=4000, sampling=Sampling()))
        await asyncio.sleep(0.5)
        endless.cancel()
        await asyncio.gather(endless, return_exceptions=True)
        found["after_cancelling"] = await draw(1, 5)
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(work(*sys.argv[1:]))))
