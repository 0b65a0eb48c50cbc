"""Chains whose code takes a second each: one after the other, and side by side. Both sides in one run.

    python benchmarks/overlap.py [--chains 64] [--alone 4]

The model is scripted and takes no time, so that what is measured is whether code runs beside code. Its last line is
one JSON object; `speedup` is the time of the chains one after the other (extrapolated from ``--alone`` of them) over
the time of all of them at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time

from genprm import AsyncVerifier, Solution
from genprm.models.scripted import Rule, ScriptedModel
from genprm.records import Verification
from sandbox import Sandbox

RULES = [
    Rule(when=r"```python\n$", text="import time\ntime.sleep(1)\nprint('slept')\n```\n"),
    Rule(when=r"boxed\{$", yes=0.9),
    Rule(text="Fine.</analyze>\n</verify>\n<output>\n"),
]


async def measure(sandbox: str, chains: int, in_flight: int) -> float:
    async with AsyncVerifier(ScriptedModel(RULES), Sandbox(sandbox, sessions=256), in_flight=in_flight) as verifier:
        await verifier.verify("warm up", ["s"])
        begun = time.perf_counter()
        solutions = [Solution(id=str(n), problem="p", steps=("s",)) for n in range(chains)]
        rows = [row async for _, row in verifier.verify_many(solutions)]
        assert all(isinstance(row, Verification) and row.steps[0].segments[2].text == "slept" for row in rows)
    return time.perf_counter() - begun


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--chains", type=int, default=64)
    parser.add_argument("--alone", type=int, default=4)
    parser.add_argument("--sandbox", default="local")
    options = parser.parse_args()
    alone = await measure(options.sandbox, options.alone, 1) / options.alone * options.chains
    together = await measure(options.sandbox, options.chains, options.chains)
    figures = {"alone_s": round(alone, 2), "together_s": round(together, 2), "speedup": round(alone / together, 1)}
    print(json.dumps({"sandbox": options.sandbox, "chains": options.chains, **figures}))


asyncio.run(main())
