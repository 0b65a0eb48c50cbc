"""The verifier in other people's loops, each with the real thing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genprm.integrations.datasets import batch_function
from genprm.integrations.openrlhf import as_solutions
from genprm.integrations.prm import PRM
from genprm.integrations.trl import reward_function
from genprm.models.scripted import ScriptedModel
from genprm.verifier import AsyncVerifier, Verifier
from sandbox import Sandbox
from tests.serve.conftest import RULES
from tests.train.conftest import tiny, tokenizer  # noqa: F401 - fixtures

A_TENTH = pytest.approx(0.1)
FEW = "field steps: expected at least 1"


@pytest.fixture
def verifier() -> Iterator[Verifier]:
    async def make() -> AsyncVerifier:
        box = Sandbox("local")
        await box.start()
        return AsyncVerifier(ScriptedModel(RULES), box)

    with Verifier(make) as made:
        yield made


def test_datasets(verifier: Verifier, tmp_path: Path):
    import datasets

    steps = [["one", "two"], ["one", "wrong"], ["no verdict"], [], ["one\0"], None]
    rows = {"problem": ["P"] * 6, "steps": steps}
    found = datasets.Dataset.from_dict(rows).map(batch_function(verifier), batched=True, batch_size=2)
    assert list(found["score"]) == [0.9, A_TENTH, None, None, 0.9, None]
    assert list(found["step_scores"]) == [[0.9, 0.9], [0.9, A_TENTH], [None], None, [0.9], None]
    assert list(found["first_error"]) == [-1, 1, None, None, -1, None]
    assert list(found["unscored"]) == [0, 0, 1, None, 0, None]
    assert [error.partition(", ")[2] for error in found["error"][:4]] == ["", "", "", FEW]
    assert found["error"][5].endswith("a list of them for the steps")
    assert list(found["problem"]) == ["P"] * 6


def test_a_process_reward_model(verifier: Verifier):
    outputs = [["one\n\ntwo", "wrong"], ["", "no verdict\n\none"]]
    assert PRM(verifier).score(["P", "Q"], outputs) == [[[0.9, 0.9], [A_TENTH]], [[None], [None, None]]]
    assert PRM(verifier, unscored=0.0).score(["P"], [["", "no verdict"]]) == [[[0.0], [0.0]]]
    with pytest.raises(ValueError, match="shorter"):
        PRM(verifier).score(["P", "Q"], [["one"]])


def test_rewards(verifier: Verifier):
    reward = reward_function(verifier)
    chat: list[Any] = [[{"role": "user", "content": "P"}]] * 2
    assert reward(chat, [[{"role": "assistant", "content": text}] for text in ("one", "wrong")]) == [0.9, A_TENTH]
    assert reward(["P"] * 3, ["one", " ", "no verdict"], problem=["Q"] * 3) == [0.9, None, None]
    odd: list[Any] = ["one\0\ud800", [{"role": "assistant", "content": None}], []]
    assert reward(["P\0"] * 3, odd) == [0.9, None, None]


CHATS = (
    "<bos><start_of_turn>user\nWhat is 6+7?<end_of_turn>\n<start_of_turn>model\n|It is 13.<end_of_turn>\n<eos>",
    "<｜begin▁of▁sentence｜><｜User｜>What is 6+7?<｜Assistant｜><think>\n|It is 13.<｜end▁of▁sentence｜>",
    "<s>[INST] What is 6+7? [/INST]|It is 13.</s>",
    "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is 6+7?<|im_end|>\n<|im_start|>assistant\n"
    "|It is 13.<|im_end|>",
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user"
    "<|end_header_id|>\n\nWhat is 6+7?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n|It is 13.<|eot_id|>",
)


@pytest.mark.parametrize("chat", CHATS, ids=("gemma", "deepseek", "mistral", "qwen", "llama"))
def test_what_is_a_chats_own_is_no_part_of_the_problem(chat: str):
    at = chat.index("|It is")
    prompt, response = chat[:at], chat[at + 1 :]
    [found] = as_solutions([prompt + response], [prompt])
    assert found is not None
    assert (found.problem, found.steps) == ("What is 6+7?", ("It is 13.",))


def test_a_system_turn_that_is_not_closed_takes_nothing_with_it():
    opened = "<|im_start|>system\n"
    prompt = f"{opened * 100_000}Be brief.\n<|im_start|>user\nWhat is 6+7?<|im_end|>\n<|im_start|>assistant\n"
    [found] = as_solutions([prompt + "It is 13."], [prompt])
    assert found is not None
    assert found.problem == "Be brief.\nWhat is 6+7?"


@pytest.mark.model
def test_a_reward_in_a_real_run_of_grpo(verifier: Verifier, tiny: Path, tmp_path: Path):  # noqa: F811
    import trl
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    arguments = trl.GRPOConfig(
        output_dir=str(tmp_path), max_steps=2, per_device_train_batch_size=4, num_generations=4,
        max_completion_length=8, use_cpu=True, bf16=False, report_to="none", logging_steps=1, save_strategy="no",
    )  # fmt: skip
    trainer = trl.GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(tiny),
        reward_funcs=reward_function(verifier),
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": ["What is 6 + 7?"] * 8}),
        processing_class=AutoTokenizer.from_pretrained(tiny),
    )
    trainer.train()
    rewards = [entry["rewards/genprm/mean"] for entry in trainer.state.log_history if "rewards/genprm/mean" in entry]
    assert len(rewards) == 2
    assert all(0 < each <= 1 for each in rewards)
