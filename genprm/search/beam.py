"""Beam search: keep the best beginnings, and go on from each of them in several ways (ThinkPRM)."""

from __future__ import annotations

from genprm.search.base import Path, Search
from genprm.tasks import gather_all


async def beam_search(search: Search, *, beams: int, width: int, max_steps: int) -> None:
    """Grow ``beams`` paths a step at a time; after each step the best ``beams / width`` go on, each in ``width`` ways.

    A finished path keeps its place as long as it is among the best. Whenever one is the best of all finished ones,
    it is offered.
    """
    kept = [Path()]
    offered = None
    for step in range(max_steps):
        growing = [path for path in kept if not path.finished]
        if not growing:
            break
        ways = beams if step == 0 else width
        grown = [path for each in await gather_all(search.write_step(path, ways) for path in growing) for path in each]
        distinct = list({path.steps: path for path in reversed(grown)}.values())[::-1]
        finished = [path for path in kept if path.finished]
        pool = [*finished, *await search.judge_all(distinct)]
        kept = sorted(pool, key=lambda path: path.rank, reverse=True)[: max(1, beams // width)]
        best = next((path for path in kept if path.finished), None)
        if best is not None and best is not offered:
            offered = best
            await search.offer(best)
    last = next((path for path in kept if path.finished), kept[0])
    if last is not offered:
        await search.offer(last)
