"""Backends whose engines fail, without the engines."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch

from genprm.errors import InputError, ModelError, ModelUnavailableError
from genprm.models.base import Completion, Sampling
from genprm.models.batching import COPY_FROM, Batcher, Request
from genprm.models.scripted import ScriptedModel
from genprm.models.vllm_backend import VLLMModel


class Engine:
    """vLLM's, which fails."""

    def __init__(self, *, errored: bool) -> None:
        self.errored = errored

    async def generate(self, *_: object, **__: object) -> AsyncIterator[object]:
        raise RuntimeError("EngineCore encountered an issue")
        yield

    def shutdown(self) -> None:
        pass


@pytest.mark.parametrize(("dead", "kind"), [(True, ModelUnavailableError), (False, ModelError)])
async def test_a_dead_engine_ends_the_run_and_a_failed_request_its_row(dead: bool, kind: type[Exception]):
    model = VLLMModel(Engine(errored=dead), None, "m", 100, None)
    with pytest.raises(kind) as raised:
        await model._generate([1], None)
    assert type(raised.value) is kind


class Cache:
    """Keys and values that cannot be copied."""

    def forward(self, start: int, tokens: list[list[int]], positions: list[int]) -> torch.Tensor:
        return torch.zeros(len(tokens), 9)

    def copy(self, *_: int) -> None:
        raise RuntimeError("no memory")


class Tokenizer:
    def decode(self, tokens: list[int], **_: object) -> str:
        return "x" * len(tokens)


async def test_whoever_waits_for_a_slot_hears_of_a_failure():
    """And nobody else: what runs goes on."""
    batcher = Batcher(Cache(), Tokenizer(), 2, {99})
    loop = asyncio.get_running_loop()

    def ask(tokens: int) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = loop.create_future()

        def resolve(outcome: Completion | Exception) -> None:
            loop.call_soon_threadsafe(lambda: future.done() or future.set_result(outcome))

        batcher.submit(Request([1] * (2 * COPY_FROM), (), tokens, 0, Sampling(temperature=0), resolve))
        return future

    first = ask(1_000_000)
    await asyncio.sleep(0.2)
    second = ask(1)
    assert str(await asyncio.wait_for(second, 10)) == "no memory"
    assert not first.done()
    await asyncio.to_thread(batcher.close)
    assert str(await asyncio.wait_for(first, 10)) == "the model was closed"


def test_a_script_with_a_pattern_that_is_none(tmp_path: Path):
    path = tmp_path / "script.json"
    path.write_text(json.dumps([{"when": "(", "text": "x"}]))
    with pytest.raises(InputError, match=r"script\.json: no model script: .* is no regular expression"):
        ScriptedModel.from_file(str(path))
