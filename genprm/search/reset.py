"""Chunk-reset search: a chunk that the verifier rejects is thrown away and drawn anew (StepWiser, Table 7)."""

from __future__ import annotations

from genprm.errors import ContextFullError, NothingWrittenError
from genprm.records import Verdict
from genprm.search.base import Path, Search


async def chunk_reset(search: Search, *, attempts: int, max_steps: int) -> None:
    """Write one solution, a chunk at a time; each chunk gets ``attempts`` draws until one is judged correct.

    Where none is, the one with the highest score is kept. A chunk without a score is not taken for correct.
    """
    path = Path()
    for _ in range(max_steps):
        drawn: list[Path] = []
        for attempt in range(attempts):
            try:
                [grown] = await search.write_step(path, first=attempt)
            except ContextFullError:
                if not path.steps:
                    raise
                await search.offer(path)  # it has no room to end
                return
            except NothingWrittenError:
                if attempt == attempts - 1 and not drawn:
                    raise
                continue
            judged = await search.judge(grown)
            drawn.append(judged)
            score = judged.scores[-1]
            if score is not None and Verdict.of(score) is Verdict.CORRECT:
                break
        else:
            judged = max(drawn, key=lambda each: -1.0 if each.scores[-1] is None else each.scores[-1])
        path = judged
        if path.finished:
            break
    await search.offer(path)
