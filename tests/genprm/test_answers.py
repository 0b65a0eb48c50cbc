"""Final answers: found, compared, and never able to hang or kill the process that asks."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import AsyncIterator
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genprm import answers
from genprm.answers import AnswerChecker, exact_number, final_answer


@pytest.fixture(scope="module")
async def checker() -> AsyncIterator[AnswerChecker]:
    async with AnswerChecker() as it:
        yield it


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so \\boxed{1} and then \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("so it is 24.\n#### 1,024", "1,024"),
        ("#### Step 1: Add\n\nSo it is 2.\n\n#### 3", "3"),
        ("#### Step 1: Add\n\nThe answer is 2.", "2"),
        ("#### 1. Add them", None),
        ("#### $1,200.50\n", "$1,200.50"),
        ("The answer is $42.", "42"),
        ("Final Answer: 3/4", "3/4"),
        ("The answer is **42**.", "42"),
        ("**Answer:** 42", "42"),
        ("The answer is 42 (forty-two).", "42"),
        ("The answer is 42%", "42"),
        ("The answer is $5\\sqrt{2}$.", None),
        ("The answer is 2x+1.", None),
        ("The answer is 5.2x.", None),
        ("The answer is 10^6.", None),
        ("The answer is 3 - 4i", None),
        ("The answer is 1" + "0" * 50_000 + "x", None),
        ("\\boxed{unclosed", None),
        ("\\boxed{4}. Check: \\boxed{", "4"),
        ("\\boxed{a \\boxed{b} c}", "b"),
        ("the answer" + " " * 50_000 + "is" + " " * 50_000 + "x", None),
        ("\\boxed{" * 50_000, None),
        ("\\boxed{}", None),
        ("I do not know", None),
        ("", None),
    ],
)
def test_final_answer(text: str, answer: str | None):
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("72", Fraction(72)), ("-3.50", Fraction(-7, 2)), ("$1,200", Fraction(1200)), ("\\$5.", Fraction(5)),
        ("3/4", Fraction(3, 4)), ("-\\frac{3}{4}", Fraction(-3, 4)), ("\\dfrac{3}{4}", Fraction(3, 4)),
        ("\\frac34", Fraction(3, 4)), (".5", Fraction(1, 2)),
        ("12\\,650", Fraction(12650)), ("10 000", Fraction(10000)), ("1 20", None),
        ("\\$10\\,000", Fraction(10000)), ("\\text{10,000}", Fraction(10000)), ("x = 12,\\!650", Fraction(12650)),
        ("1 1/2", Fraction(3, 2)), ("-2 3/4", Fraction(-11, 4)), ("1 1/0", None),
        ("1/0", None), ("1,20", None), ("x", None), ("", None), ("-", None), ("1e5", None),
        ("50\\%", None), ("9" * 100, None),
    ],
)  # fmt: skip
def test_exact_number(text: str, number: Fraction | None):
    assert exact_number(text) == number


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        ("72", "72.0", True),
        ("72", "73", False),
        ("72", None, False),
        ("\\frac{1}{4}", "0.25", True),
        ("x+1", "1+x", True),
        ("\\sqrt{8}", "2\\sqrt{2}", True),
        ("(1,2)", "(1, 2)", True),
        ("(1,2)", "(2,1)", False),
        ("even", "even", True),
        ("18", "18 dollars", True),
        ("18", "\\text{18 dollars}", True),
        ("18", "18~\\text{m}.", True),
        ("18 cupcakes", "18", True),
        ("18", "18 thousand", False),
        ("18", "18 squared", False),
        ("18", "18 times x", False),
        ("18", "18 or 19", False),
        ("0", "0 apples", True),
        ("\\frac{\\pi}{16}", "\\frac{\\pi}{16}.", True),
        ("5", "\\begin{pmatrix}1\\\\2\\end{pmatrix}", False),
        ("5", "}{", False),
    ],
)
async def test_comparisons(checker: AnswerChecker, gold: str, answer: str | None, right: bool):
    assert await checker.is_right(gold, answer) is right


@given(st.fractions(max_denominator=40).filter(lambda f: abs(f) < 1000), st.fractions(max_denominator=40))
def test_numbers_are_compared_exactly(one: Fraction, other: Fraction):
    for text in (f"{one.numerator}/{one.denominator}", f"\\frac{{{one.numerator}}}{{{one.denominator}}}"):
        assert exact_number(text) == one
        assert (exact_number(text) == exact_number(f"{other.numerator}/{other.denominator}")) is (one == other)


async def test_plain_numbers_agree_with_math_verify(checker: AnswerChecker):
    cases = [("0.5", "1/2"), ("1200", "1,200"), ("-3", "3"), ("2.50", "2.5"), ("1/3", "0.33"), ("7", "7.0001")]
    for gold, answer in cases:
        ours = await checker.is_right(gold, answer)
        assert await checker._compare(gold, answer) is ours, (gold, answer)


async def test_a_hostile_answer_ends_with_its_process(checker: AnswerChecker, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(answers, "DEADLINE", 2.0)
    started = time.monotonic()
    assert await checker.is_right("1", "9^{9^{9^{9}}}") is None
    assert time.monotonic() - started < 20
    assert await checker.is_right("1", "x" * 2000) is None
    assert await checker.is_right("x+1", "x+1.0") in (True, False)


async def test_giving_up_a_comparison_harms_nobody(checker: AnswerChecker):
    task = asyncio.create_task(checker.is_right("1", "8^{8^{8^{8}}}"))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await checker.is_right("y+1", "1+y") is True


async def test_processes_that_are_killed_while_they_have_nothing_to_do():
    async with AnswerChecker(workers=1) as checker:
        assert await checker.is_right("x+1", "1+x") is True
        for process in multiprocessing.active_children():
            process.kill()
        await asyncio.sleep(1)
        assert await checker.is_right("y+1", "1+y") is True


async def test_gold_answers_that_nothing_can_equal(checker: AnswerChecker):
    assert await checker.can_compare("\\frac{x}{2}")
    assert await checker.can_compare("12")
    assert not await checker.can_compare("")
    assert not await checker.can_compare("x" * 2000)


async def test_closing_leaves_no_process():
    before = set(multiprocessing.active_children())
    async with AnswerChecker(workers=2) as it:
        assert await it.is_right("a+b", "b+a") is True
        assert set(multiprocessing.active_children()) - before
    assert not set(multiprocessing.active_children()) - before
