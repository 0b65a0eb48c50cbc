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
from genprm.models.vllm_backend import VLLMModel, lora_rank


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

    def empty(self, slots: int) -> None:
        pass


class SmallGPU(Cache):
    """Has room for so many sequences, and forgets nothing by itself."""

    def __init__(self, room: int) -> None:
        self._room = room
        self.seen: list[list[int]] = [[] for _ in range(32)]

    def forward(self, start: int, tokens: list[list[int]], positions: list[int]) -> torch.Tensor:
        for slot, (more, at) in enumerate(zip(tokens, positions, strict=True), start):
            self.seen[slot][at:] = more
        if sum(len(each) > 4 for each in self.seen) > self._room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        # What comes next goes by all that was seen.
        return torch.stack(
            [torch.nn.functional.one_hot(torch.tensor(sum(each) % 7), 9) for each in self.seen[start:][: len(tokens)]]
        ).float()

    def empty(self, slots: int) -> None:
        self.seen = [[] for _ in range(32)]


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


@pytest.mark.parametrize("room", [32, 3, 1, 0])
async def test_memory_that_runs_out_costs_nothing_but_time(room: int, caplog: pytest.LogCaptureFixture):
    loop = asyncio.get_running_loop()
    batcher = Batcher(SmallGPU(room), Numbers(), 8, {99})
    futures: list[asyncio.Future[Any]] = []
    for number in range(8):
        future: asyncio.Future[Any] = loop.create_future()
        futures.append(future)

        def resolve(outcome: Completion | Exception, future: asyncio.Future[Any] = future) -> None:
            loop.call_soon_threadsafe(lambda: future.done() or future.set_result(outcome))

        batcher.submit(Request([number, 1], (), 9, 1, Sampling(temperature=0), resolve))
    found = await asyncio.wait_for(asyncio.gather(*futures), 20)
    await asyncio.to_thread(batcher.close)
    if not room:
        assert [str(each) for each in found] == ["CUDA out of memory"] * 8
        return
    for number, each in enumerate(found):
        tokens = [number, 1]
        for _ in range(9):
            tokens.append(sum(tokens) % 7)
        assert [*map(int, each.text.split())] == tokens[2:]
        assert len(each.tokens) == 9
    assert ("out of memory: from here on" in caplog.text) is (room < 8)


class Numbers:
    def decode(self, tokens: list[int], **_: object) -> str:
        return " ".join(map(str, tokens))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ({"r": 16}, 16),
        ({"r": 4, "rank_pattern": {"q_proj": 100}}, 128),
        ({"r": 8, "use_dora": True}, "vLLM takes no adapter with DoRA"),
        ({"r": 8, "bias": "all"}, "vLLM takes no adapter with DoRA, biases"),
        ({"r": 1000}, "or a rank over 512"),
        ({}, "no LoRA adapter"),
    ],
)
def test_what_vllm_makes_room_for(tmp_path: Path, shape: dict[str, Any], expected: int | str):
    (tmp_path / "adapter_config.json").write_text(json.dumps(shape))
    if isinstance(expected, int):
        assert lora_rank(str(tmp_path)) == expected
    else:
        with pytest.raises(ModelError, match=expected):
            lora_rank(str(tmp_path))


def test_a_script_with_a_pattern_that_is_none(tmp_path: Path):
    path = tmp_path / "script.json"
    path.write_text(json.dumps([{"when": "(", "text": "x"}]))
    with pytest.raises(InputError, match=r"script\.json: no model script: .* is no regular expression"):
        ScriptedModel.from_file(str(path))
