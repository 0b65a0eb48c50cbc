"""A worked conversation that shows the GenPRM format to a model that was not trained on it.

A released GenPRM model needs none of this, and must not get it. A small general model, without it, writes neither
code nor a verdict. Both verdicts occur, and the code re-derives the step's claim from the problem's own numbers.
"""

from __future__ import annotations

from genprm.models.base import Message

_QUESTION = "A shop sells pens at 3 dollars each. Tom buys 4 pens and pays with a 20 dollar note. What is his change?"

_STEPS = (
    (
        f"Question: {_QUESTION}\n\nTom buys 4 pens at 3 dollars each, so the pens cost 4 * 3 = 12 dollars.",
        "The problem gives 4 pens and a price of 3 dollars, so the cost must be 12 dollars. The step says 12.",
        "pens = 4\nprice = 3\ncost = pens * price\nprint(cost)\nprint(cost == 12)",
        "12\nTrue",
        "The code gives 12, as the step says.",
        "Yes",
    ),
    (
        "He pays with 20 dollars, so his change is 20 - 12 = 9 dollars.",
        "He pays with 20 dollars and the pens cost 12 dollars, so the change must be 8 dollars. The step says 9.",
        "paid = 20\nchange = paid - cost\nprint(change)\nprint(change == 9)",
        "8\nFalse",
        "The code gives 8, but the step says 9.",
        "No",
    ),
)


def worked_example() -> list[Message]:
    """The chat turns: two steps of one problem, the first right, the second wrong."""
    messages: list[Message] = []
    for number, (asked, analysis, code, output, reflection, word) in enumerate(_STEPS, 1):
        turn = (
            f"<analyze>\nLet's analyze the Paragraph {number} step by step: {analysis}</analyze>\n"
            f"<verify>\nLet's use python code to find any potential error:\n```python\n{code}\n```\n"
            f"[Code Output]\n\n```\n{output}\n```\n{reflection}\n</verify>\n"
            f"<output>\n**Judgement**: $\\boxed{{{word}}}$\n</output>\n"
        )
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": turn}]
    return messages
