"""Steps: nothing is lost or changed by cutting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rationale_synth.segment import Segmentation, forced_start, policy_messages, read_chunks, split

TEXT = st.text(alphabet="ab1 \t\n.<>", max_size=60) | st.lists(
    st.sampled_from(["Step 1: a", "Step 2: b", "\n", "\n\n", "\n \n", " ", "x = 1", "Step two"]), max_size=12
).map("".join)


@given(st.sampled_from([Segmentation.BLANK_LINE, Segmentation.STEP_FORCING]), TEXT)
def test_pieces_are_the_text(segmentation: Segmentation, text: str):
    pieces = split(segmentation, text)
    assert "".join(pieces) == (text if text.strip() else "")
    assert all(piece.strip() for piece in pieces)


def test_blank_lines():
    assert split(Segmentation.BLANK_LINE, "a\nb\n\nc\n \n\n d\n") == ("a\nb\n\n", "c\n \n\n ", "d\n")


def test_step_forcing():
    text = forced_start(Segmentation.STEP_FORCING) + " a\n\nb\nStep 2: c, as in Step 1: no\nStep 10. d"
    assert split(Segmentation.STEP_FORCING, text) == (
        "Step 1: a\n\nb\n",
        "Step 2: c, as in Step 1: no\n",
        "Step 10. d",
    )


@given(st.lists(st.text(alphabet="ab \n", min_size=1, max_size=8).filter(str.strip), min_size=1, max_size=6), st.data())
def test_chunks_that_reproduce_the_solution_are_read(parts: list[str], data: st.DataObject):
    text = "".join(parts)
    marked = "".join(f"<chunk>{part}</chunk>" for part in parts)
    chunks = read_chunks(marked, text)
    assert chunks is not None
    assert "".join(chunks) == text
    place = data.draw(st.integers(0, len(marked)))
    damaged = read_chunks(marked[:place] + "c" + marked[place:], text)
    assert damaged is None or "".join(damaged) == text


@pytest.mark.parametrize(
    "marked",
    [
        "",
        "a b",
        "<chunk>a</chunk>",
        "<chunk>a</chunk> b",
        "<chunk>a </chunk><chunk>B</chunk>",
        "Sure! <chunk>a b</chunk>",
    ],
)
def test_chunks_that_change_the_solution_are_refused(marked: str):
    assert read_chunks(marked, "a b") is None


def test_blank_space_may_stand_on_either_side_of_a_tag():
    assert read_chunks("<chunk>a</chunk>\n\n<chunk>b</chunk>\n", "a\n\nb") == ("a\n\n", "b")
    assert read_chunks("<chunk>a\n\n</chunk><chunk>b</chunk>", " a\n\nb\n") == (" a\n\n", "b\n")


@pytest.mark.parametrize("segmentation", list(Segmentation))
def test_the_example_is_in_the_format_that_is_asked_for(segmentation: Segmentation):
    shown = policy_messages(segmentation, "P", example=True)
    assert [message["role"] for message in shown] == ["user", "assistant", "user"]
    assert shown[-1] == policy_messages(segmentation, "P")[-1]
    if segmentation is not Segmentation.CHUNK:
        assert len(split(segmentation, shown[1]["content"])) == 3


def test_steps_with_marks_around_them_and_lines_of_another_system():
    text = "Step 1: a\n**Step 2:** b\n### Step 3: c\nIn Step 2: d"
    assert split(Segmentation.STEP_FORCING, text) == ("Step 1: a\n", "**Step 2:** b\n", "### Step 3: c\nIn Step 2: d")
    assert split(Segmentation.BLANK_LINE, "a\r\n\r\nb\r\nc") == ("a\r\n\r\n", "b\r\nc")
