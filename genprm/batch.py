"""One file through the verifier: the work behind `genprm verify` and `genprm eval`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, aclosing
from pathlib import Path

from genprm.journal import Journal, fingerprint
from genprm.options import RunOptions, open_verifier
from genprm.progress import RowProgress
from genprm.records import OutputRow, Solution


async def verify_rows(
    solutions: Sequence[Solution], options: RunOptions, output: Path | None, say: Callable[[str], None]
) -> list[OutputRow]:
    """Verify all ``solutions``; returns their rows in the order of the input.

    Args:
        solutions: the input.
        options: how to verify.
        output: where the rows are kept as they finish, so that an interrupted run can be continued.
        say: gets the lines that a user should see.

    Raises:
        GenprmError: the options, the model or the output are not usable.
        SandboxError: no code can be run.
    """
    with ExitStack() as stack:
        journal = None
        rows: dict[int, OutputRow] = {}
        if output is not None:
            mark = fingerprint(options.fingerprint_fields(), solutions)
            journal = stack.enter_context(Journal(output, mark))
            rows = journal.rows
            if rows:
                say(f"{len(rows)} of {len(solutions)} rows are done already: going on from {journal.partial}")
        missing = [index for index in range(len(solutions)) if index not in rows]
        if missing:
            async with open_verifier(options, say) as verifier:
                progress = stack.enter_context(RowProgress(len(solutions), len(rows)))
                todo = (solutions[index] for index in missing)
                async with aclosing(verifier.verify_many(todo, votes=options.votes)) as finished:
                    async for position, row in finished:
                        if journal is not None:
                            journal.add(missing[position], row)
                        rows[missing[position]] = row
                        progress.add(row)
        if journal is not None:
            journal.finish()
    return [rows[index] for index in range(len(solutions))]
