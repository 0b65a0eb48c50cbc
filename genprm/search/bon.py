"""Best of N: draw whole solutions, verify each, believe one of them (GenPRM, appendix A.1)."""

from __future__ import annotations

from genprm.search.base import Path, Search
from genprm.search.records import Spent
from genprm.search.select import Candidate, Rule, choose


async def best_of_n(search: Search, *, n: int, rule: Rule) -> None:
    """Offer what would be chosen from the first 1, 2, 4 ... ``n`` solutions, at the cost of those alone."""
    judged = await search.judge_all(await search.write(Path(), n))
    sizes = [2**power for power in range(len(judged).bit_length()) if 2**power < len(judged)]
    for size in (*sizes, len(judged)):
        paths = judged[:size]
        chosen = choose([Candidate(path.answer, path.score) for path in paths], rule)
        # Nothing to go by: the first one is as good as any.
        await search.offer(paths[chosen or 0], sum((path.spent for path in paths), Spent()))
