"""OpenRLHF's own client against our server: what it asks after a generation, and what becomes of the answer."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from genprm.models.chat import load_tokenizer
from genprm.models.embedded import embedded_folder
from tests.serve.conftest import Serve

PEER = Path(__file__).parents[2] / ".venv" / "openrlhf"
"""Where ``make`` puts it. At the end of the path: there is a package named ``tests`` beside it."""
PROBLEM = "What is 6 + 7 , and why ?"


@dataclass
class Sampling:
    """What its client reads of vLLM's parameters."""

    max_tokens: int = 64
    logprobs: int | None = None


class Engine:
    """Stands for the policy: it writes what it is told to."""

    def __init__(self, tokenizer: Any, text: str) -> None:
        self._tokens = tokenizer(text, add_special_tokens=False)["input_ids"]

    async def generate(self, prompt: list[int], sampling: Sampling, multi_modal_data: Any) -> Any:
        part = {"token_ids": self._tokens, "logprobs": None, "finish_reason": "stop"}
        return type("Answer", (), {"outputs": [type("Part", (), part)]})


@pytest.fixture
def client_class(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [*sys.path, str(PEER)])
    from openrlhf.utils.agent import SingleTurnAgentExecutor

    return SingleTurnAgentExecutor


async def rewarded(client: Any, text: str, moves_spaces: bool = False) -> dict[str, Any]:
    tokenizer = load_tokenizer(str(embedded_folder()))
    tokenizer.clean_up_tokenization_spaces = moves_spaces
    tokenizer.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output = moves_spaces
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": PROBLEM}], tokenize=False, add_generation_prompt=True
    )
    async with asyncio.timeout(60):
        return await client.execute(prompt, "13", Sampling(), 4096, tokenizer, Engine(tokenizer, text))


async def test_a_reward_for_each_generation(serve: Serve, client_class: Any):
    async with serve() as served:
        client = client_class(f"{served.client.base_url}/get_reward")
        for text, reward in (("one\n\ntwo<|im_end|>", 0.9), ("one\n\nwrong", 0.1)):
            found = await rewarded(client, text)
            assert found["reward"] == found["scores"] == [pytest.approx(reward)]
            assert found["extra_logs"] == {"unscored": [0]}


async def test_a_tokenizer_that_moves_spaces(serve: Serve, client_class: Any):
    """Some decode "6 + 7 ," as "6 + 7,": the query then begins with the prompt but for its spaces."""
    async with serve() as served:
        client = client_class(f"{served.client.base_url}/get_reward")
        found = await rewarded(client, "one\n\nwrong", moves_spaces=True)
        assert found["reward"] == [pytest.approx(0.1)]


async def test_the_unscored(serve: Serve, client_class: Any, monkeypatch: pytest.MonkeyPatch):
    """Without a number of the user's own it gets no reward: it asks five times, then goes on without one."""
    async with serve(unscored_reward=-1) as served:
        client = client_class(f"{served.client.base_url}/get_reward")
        found = await rewarded(client, "no verdict")
        assert (found["reward"], found["extra_logs"]) == ([-1], {"unscored": [1]})
    async with serve() as served:
        client = client_class(f"{served.client.base_url}/get_reward")
        found = await rewarded(client, "no verdict")
        assert (found["reward"], found["scores"]) == (None, None)
        assert await served.figure('genprm_requests_total{path="/get_reward",status="502"}') == 5
