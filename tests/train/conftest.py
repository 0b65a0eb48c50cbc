"""A tiny model with random weights and a small vocabulary, and a few records to train it on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from genprm.models.chat import load_tokenizer
from genprm.models.embedded import embedded_folder
from genprm.records import NO_ERROR, Segment, SegmentKind
from genprm.train.record import TrainingRecord
from rationale_synth.transcript import genprm_transcript


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return load_tokenizer(str(embedded_folder()))


@pytest.fixture(scope="session")
def tiny(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tokenizer, tmp_path_factory.mktemp("tiny") / "model")


def make_tiny(tokenizer: Any, folder: Path, context: int = 2048, end: float = 1.0) -> Path:
    """Write the model, with room for so many tokens; the larger ``end``, the sooner it ends."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    texts = [turn.content for number in range(12) for turn in record(number).messages]
    small = tokenizer.train_new_from_iterator(texts, 400)
    config = LlamaConfig(
        vocab_size=len(small), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=context, bos_token_id=small.bos_token_id, eos_token_id=small.eos_token_id,
        pad_token_id=small.pad_token_id,
        initializer_range=1.0,  # else it cannot be sure of anything
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.lm_head.weight.data[small.eos_token_id] *= end
    model.save_pretrained(folder)
    small.save_pretrained(folder)
    return folder


def record(number: int, steps: int = 2, label: int = NO_ERROR) -> TrainingRecord:
    """A verified solution as `genprm synth` writes it."""
    rationales = [
        (
            Segment(kind=SegmentKind.ANALYSIS, text=f"By the problem this is {number} + {step}."),
            Segment(kind=SegmentKind.CODE, text=f"print({number} + {step})"),
            Segment(kind=SegmentKind.OUTPUT, text=str(number + step)),
            Segment(kind=SegmentKind.ANALYSIS, text="The code agrees."),
        )
        for step in range(steps)
    ]
    texts = [f"{number} + {step} = {number + step + (step == label)}" for step in range(steps)]
    made = genprm_transcript("What comes of it?", texts, rationales, label)
    return TrainingRecord(
        id=f"r{number}", style="genprm", messages=made.messages, masked=made.masked, problem="What comes of it?",
        steps=tuple(texts), label=label, model="nobody",
    )  # fmt: skip


def write_records(path: Path, records: list[TrainingRecord]) -> Path:
    path.write_text("".join(json.dumps(each.model_dump(mode="json")) + "\n" for each in records))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve records, half of them with an error."""
    return write_records(tmp_path / "train.jsonl", [record(n, label=n % 2 - 1) for n in range(12)])
