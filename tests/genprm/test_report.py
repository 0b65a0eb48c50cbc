"""The page: complete, self-contained, and no way in for what a model or its code wrote."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from genprm.aggregate import Aggregate, ChainVotes, combine_chains
from genprm.errors import OutputError
from genprm.records import (
    FailedRow,
    OutputRow,
    ParseStatus,
    Segment,
    SegmentKind,
    Solution,
    StepVote,
    StopReason,
    Usage,
)
from genprm.report import render_report, write_report, write_text
from sandbox import RunResult, RunStatus

JUDGED = {"segments": (), "stop_reason": "judged", "parse": "ok"}
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}"


def rows() -> list[OutputRow]:
    run = RunResult(status=RunStatus.OK, stdout=EVIL, duration=0.012)
    segments = (
        Segment(kind=SegmentKind.ANALYSIS, text=f"argued {EVIL}"),
        Segment(kind=SegmentKind.CODE, text=f"print('{EVIL}')"),
        Segment(kind=SegmentKind.OUTPUT, text=f"printed {EVIL}", run=run),
        Segment(kind=SegmentKind.JUDGEMENT, text="No"),
    )
    solution = Solution(id=EVIL, problem=f"problem {EVIL}", steps=("first", f"second {EVIL}", "third"), label=1)
    scores = (0.9, 0.25, None)
    parse = {True: ParseStatus.OK, False: ParseStatus.EMPTY}
    votes = [
        StepVote(score=score, segments=segments, stop_reason=StopReason.JUDGED, parse=parse[score is not None])
        for score in scores
    ]
    chain = ChainVotes(tuple(votes), Usage(code_runs=3))
    done = combine_chains(solution, [chain, chain], "model", "genprm")
    return [done, FailedRow(id="broken", problem=EVIL, solution=("s",), error=EVIL)]


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def test_everything_is_there_and_nothing_is_alive():
    page = render_report(rows(), "Title <b>")
    tags = Tags()
    tags.feed(page)
    names = {tag for tag, _ in tags.seen}
    assert not names & {"script", "img", "iframe", "link", "object"}
    assert page.count("Title &lt;b&gt;") == 2
    assert not any(attribute.startswith("on") for _, attributes in tags.seen for attribute in attributes)
    assert "49" not in re.sub(r"<style>.*?</style>", "", page, flags=re.S)
    for words in (
        "argued",
        "printed",
        "problem",
        "0.250",
        "unscored",
        "first error: step 1",
        "broken",
        "12 ms",
        "votes:",
    ):
        assert words in page


def test_an_error_behind_a_step_without_a_verdict_is_not_called_the_first():
    said = ({"score": None, "parse": "empty"}, {"score": 0.1})
    votes = tuple(StepVote.model_validate(JUDGED | each) for each in said)
    solution = Solution(id="i", problem="p", steps=("a", "b"))
    page = render_report([combine_chains(solution, [ChainVotes(votes, Usage())], "m", "genprm")], "t")
    assert "no verdict on every step" in page
    assert "first error: step 1" not in page


def test_what_is_said_of_the_whole_solution_is_there():
    said = Segment(kind=SegmentKind.ANALYSIS, text="A critique of all of it.")
    vote = StepVote(score=0.9, segments=(), stop_reason=StopReason.JUDGED, parse=ParseStatus.OK)
    chain = ChainVotes((vote,), Usage(), vote.model_copy(update={"segments": (said,)}))
    page = render_report([combine_chains(Solution(id="i", problem="p", steps=("s",)), [chain], "model", "judge")], "t")
    assert "A critique of all of it." in page


def test_a_step_that_a_majority_calls_wrong_is_red():
    """Of five chains two name this step, and each other one another, or none: its score is 0.6."""
    votes = [
        ChainVotes(tuple(StepVote.model_validate(JUDGED | {"score": float(at != named)}) for at in range(4)), Usage())
        for named in (1, 1, 2, 3, -1)
    ]
    solution = Solution(id="i", problem="p", steps=("a", "b", "c", "d"))
    found = combine_chains(solution, votes, "model", "judge", aggregate=Aggregate.MAJORITY)
    assert (found.first_error, found.steps[1].score) == (1, 0.6)
    [page] = re.findall(r'background: hsl\((\d+) [^"]*" title="step 1', render_report([found], "t"))
    assert page == "4"


def test_a_title_that_is_no_text(tmp_path: Path):
    write_report(rows(), tmp_path / "r.html", "b\udcff.jsonl")
    assert "<h1>b?.jsonl</h1>" in (tmp_path / "r.html").read_text()
    with pytest.raises(OutputError, match="surrogates"):
        write_text(tmp_path / "odd.txt", "\udcff")
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]


def test_nothing_is_loaded_from_elsewhere():
    tags = Tags()
    tags.feed(render_report(rows(), "t"))
    links = [value for _, attributes in tags.seen for name, value in attributes.items() if name in ("href", "src")]
    assert links
    assert all(link.startswith("#") for link in links)
    assert "url(" not in render_report(rows(), "t")


def test_written_whole_or_not_at_all(tmp_path: Path):
    write_report(rows(), tmp_path / "r.html", "t")
    assert (tmp_path / "r.html").read_text().rstrip().endswith("</html>")
    with pytest.raises(OutputError, match="No such file"):
        write_report(rows(), tmp_path / "missing" / "r.html", "t")
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]
