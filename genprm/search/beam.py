"""Beam search: keep the best beginnings, and go on from each of them in several ways (ThinkPRM)."""

from __future__ import annotations

from genprm.errors import ContextFullError
from genprm.search.base import Path, Search
from genprm.tasks import gather_all


async def beam_search(search: Search, *, beams: int, width: int, max_steps: int) -> None:
    """Grow ``beams`` paths a step at a time; after each step the best ``beams / width`` go on, each in ``width`` ways.

    A finished path keeps its place as long as it is among the best. Whenever one is better than all that were finished
    before, it is offered; where none ever is, the best beginning.
    """
    kept = [Path()]
    offered: Path | None = None
    for step in range(max_steps):
        growing = [path for path in kept if not path.finished]
        if not growing:
            break
        ways = beams if step == 0 else width
        grown = [path for each in await gather_all(_grown(search, path, ways) for path in growing) for path in each]
        if not grown:
            break
        distinct = list({path.steps: path for path in reversed(grown)}.values())[::-1]
        finished = [path for path in kept if path.finished]
        pool = [*finished, *await search.judge_all(distinct)]
        kept = sorted(pool, key=lambda path: path.rank, reverse=True)[: max(1, beams // width)]
        best = max((path for path in pool if path.finished), key=lambda path: path.worth, default=None)
        if best is not None and (offered is None or best.worth > offered.worth):
            offered = best
            await search.offer(best)
    if offered is None:
        await search.offer(kept[0])


async def _grown(search: Search, path: Path, ways: int) -> list[Path]:
    """A path in several ways; in none where it has no room to go on, which others have."""
    try:
        return await search.write_step(path, ways)
    except ContextFullError:
        if not path.steps:
            raise
        return []
