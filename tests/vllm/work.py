"""What both ways to vLLM are asked, so that their answers can be compared."""

from genprm.records import Solution

SOLUTIONS = [
    Solution(id="a", problem="Ann has 3 bags of 5 nuts. She eats 4 nuts. How many are left?",
             steps=("She has 3 * 5 = 15 nuts.", "She has 15 - 4 = 12 nuts left.", "The answer is 12.")),
    Solution(id="b", problem="What is 2 + 2 * 3?", steps=("2 * 3 is 6.", "2 + 6 is 8.")),
]  # fmt: skip
PROMPT = "Say something about the sea."
LONG_WORD = "Incorrectly"
WORDS = ["Yes", LONG_WORD, " perhaps so"]
