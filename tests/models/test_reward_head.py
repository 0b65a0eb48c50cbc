"""Reward heads against plain transformers code, on tiny models with random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForTokenClassification, Qwen2Config, Qwen2Model
from typer.testing import CliRunner

from genprm import AsyncVerifier, parse_row
from genprm.cli.main import app
from genprm.errors import ContextFullError, ModelError, VerificationError
from genprm.models.base import Sampling
from genprm.models.reward_head import RewardHead
from genprm.styles import Discriminative, PRMFormat
from genprm.styles.discriminative import QWEN_SYSTEM, QWEN_TAG

from .conftest import bytewise_tokenizer

SIZES = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip
TEXT = f"Six times seven? It is 42.{QWEN_TAG}So, 43.{QWEN_TAG}π ≤ 4{QWEN_TAG}"


def save_tokenizer(folder: Path) -> None:
    tokenizer = bytewise_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": [QWEN_TAG]})
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Any token classifier with two classes."""
    folder = tmp_path_factory.mktemp("classifier")
    save_tokenizer(folder)
    torch.manual_seed(0)
    LlamaForTokenClassification(LlamaConfig(**SIZES, num_labels=2)).save_pretrained(folder)
    return folder


class Released(torch.nn.Module):
    """Qwen2.5-Math-PRM as its own code has it (arXiv 2501.07301): its names of weights, its two-layer head."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.model = Qwen2Model(config)
        size = config.hidden_size
        self.score = torch.nn.Sequential(torch.nn.Linear(size, size), torch.nn.ReLU(), torch.nn.Linear(size, 2))


@pytest.fixture(scope="module")
def qwen_prm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the released one, whose configuration points to code that is not there."""
    folder = tmp_path_factory.mktemp("Qwen2.5-Math-PRM-tiny")
    save_tokenizer(folder)
    torch.manual_seed(1)
    config = Qwen2Config(**SIZES)
    settings = config.to_dict() | {
        "architectures": ["Qwen2ForProcessRewardModel"],
        "auto_map": {
            "AutoConfig": "configuration_qwen2_rm.Qwen2RMConfig",
            "AutoModel": "modeling_qwen2_rm.Qwen2ForProcessRewardModel",
        },
    }
    (folder / "config.json").write_text(json.dumps(settings))
    save_file(Released(config).state_dict(), folder / "model.safetensors", {"format": "pt"})
    return folder


def expected(folder: Path, text: str) -> list[float]:
    """P(right) at every tag."""
    tokens = bytewise_tokenizer_of(folder).encode(text, add_special_tokens=False)
    ids = torch.tensor([tokens])
    with torch.inference_mode():
        if "classifier" in folder.name:
            logits = LlamaForTokenClassification.from_pretrained(folder, dtype=torch.float32).eval()(ids).logits
        else:
            from safetensors.torch import load_file

            model = Released(Qwen2Config.from_pretrained(folder)).eval()
            model.load_state_dict(load_file(folder / "model.safetensors"))
            logits = model.score(model.model(ids).last_hidden_state)
    [tag] = bytewise_tokenizer_of(folder).encode(QWEN_TAG, add_special_tokens=False)
    return [torch.softmax(logits[0, place], -1)[1].item() for place, token in enumerate(tokens) if token == tag]


def bytewise_tokenizer_of(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("kind", ["classifier", "qwen_prm"])
async def test_rewards_are_those_of_the_head(kind: str, request: pytest.FixtureRequest):
    folder = request.getfixturevalue(kind)
    model = RewardHead.load(str(folder))
    rewards = await model.step_rewards(TEXT, QWEN_TAG)
    assert rewards == pytest.approx(expected(folder, TEXT), abs=1e-6)
    assert len(set(rewards)) == 3
    assert all(0 < reward < 1 for reward in rewards)
    assert await model.step_rewards("no tag at all", QWEN_TAG) == []
    await model.close()


@pytest.mark.parametrize("kind", ["classifier", "qwen_prm"])
async def test_a_solution(kind: str, request: pytest.FixtureRequest):
    """Every step has the reward at the tag behind it, also one whose text has such a tag itself."""
    folder = request.getfixturevalue(kind)
    async with AsyncVerifier(RewardHead.load(str(folder)), None, style=Discriminative(PRMFormat.QWEN)) as verifier:
        report = await verifier.verify("Six times seven?", ["It is 42.", f"So,{QWEN_TAG} 43."])
    text = (
        f"<|im_start|>system\n{QWEN_SYSTEM}<|im_end|>\n<|im_start|>user\nSix times seven?<|im_end|>\n"
        f"<|im_start|>assistant\nIt is 42.{QWEN_TAG}So, 43.{QWEN_TAG}"
    )
    assert [step.score for step in report.steps] == pytest.approx(expected(folder, text), abs=1e-6)
    assert (report.usage.model_calls, report.usage.completion_tokens) == (1, 0)


async def test_a_marker_that_the_model_does_not_know(tiny_model: Path, classifier: Path, tmp_path: Path):
    """Neither read as some other token, nor found in the middle of a text that has none."""
    folder = tmp_path / "unmarked"
    shutil.copytree(classifier, folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_model / name, folder / name)
    model = RewardHead.load(str(folder))
    with pytest.raises(ModelError, match="<extra_0> is no token of"):
        await model.step_rewards(TEXT, QWEN_TAG)
    async with AsyncVerifier(model, None, style=Discriminative(PRMFormat.QWEN)) as verifier:
        with pytest.raises(VerificationError, match="<extra_0> is no token of"):
            await verifier.verify("p", ["s"])


async def test_a_marker_that_would_be_read_as_unknown(classifier: Path, tmp_path: Path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]")
    model = RewardHead(LlamaForTokenClassification.from_pretrained(classifier).eval(), tokenizer, "words")
    with pytest.raises(ModelError, match="<extra_0> is no token of words"):
        await model.step_rewards(f"a {QWEN_TAG} b", QWEN_TAG)


async def test_a_text_that_is_too_long(classifier: Path):
    model = RewardHead.load(str(classifier))
    with pytest.raises(ContextFullError, match="513 tokens do not fit the context of 512"):
        await model.step_rewards("x" * 512 + QWEN_TAG, QWEN_TAG)
    assert len(await model.step_rewards("x" * 511 + QWEN_TAG, QWEN_TAG)) == 1
    async with AsyncVerifier(model, None, style=Discriminative(PRMFormat.QWEN)) as verifier:
        report = await verifier.verify("p", ["x" * 300, "x" * 300])
    assert [step.stop_reason.value for step in report.steps] == ["context_full"] * 2
    assert report.unscored == 2


async def test_it_writes_nothing_and_can_be_closed(classifier: Path):
    model = RewardHead.load(str(classifier))
    with pytest.raises(ModelError, match="writes nothing"):
        await model.complete("p", stop=(), max_tokens=1, sampling=Sampling())
    await model.close()
    await model.close()
    with pytest.raises(ModelError, match="was closed"):
        await model.step_rewards(TEXT, QWEN_TAG)


def test_models_without_such_a_head(tiny_model: Path, tmp_path: Path):
    with pytest.raises(ModelError, match="has no reward head: it is a LlamaForCausalLM"):
        RewardHead.load(str(tiny_model))
    save_tokenizer(tmp_path / "three")
    LlamaForTokenClassification(LlamaConfig(**SIZES, num_labels=3)).save_pretrained(tmp_path / "three")
    with pytest.raises(ModelError, match="its head has 3 classes, expected 2"):
        RewardHead.load(str(tmp_path / "three"))
    (tmp_path / "three" / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        RewardHead.load(str(tmp_path / "three"))
    assert "\n" not in str(caught.value)


def test_a_head_whose_weights_are_missing_is_not_made_up(classifier: Path, tmp_path: Path):
    """A body without its head would be loaded with a random one, and say numbers that mean nothing."""
    folder = tmp_path / "classifier"
    save_tokenizer(folder)
    LlamaForCausalLM(LlamaConfig(**SIZES)).save_pretrained(folder)
    (folder / "config.json").write_text((classifier / "config.json").read_text())
    with pytest.raises(ModelError, match="score"):
        RewardHead.load(str(folder))


def test_the_command_line(qwen_prm: Path, classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A released model's format is known by its name; another's has to be told."""
    monkeypatch.chdir(tmp_path)
    row = {"id": "a", "problem": "Six times seven?", "steps": ["It is 42.", "So, 43."]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    for folder, told in ((qwen_prm, ()), (classifier, ("--prm-format", "qwen"))):
        options = ["--style", "discriminative", "--model", str(folder), *told]
        done = CliRunner().invoke(app, ["verify", "rows.jsonl", *options, "-o", f"{folder.name}.jsonl"])
        assert done.exit_code == 0, done.output
        assert ("not known to be trained" in done.stderr) == bool(told)
        found = parse_row((tmp_path / f"{folder.name}.jsonl").read_text())
        assert [step.score for step in found.steps] == pytest.approx(expected(folder, prompt(row)), abs=1e-6)
    done = CliRunner().invoke(app, ["verify", "rows.jsonl", "--style", "discriminative", "--model", str(classifier)])
    assert done.exit_code == 2
    assert "is not known: choose --prm-format" in done.stderr


def prompt(row: dict[str, Any]) -> str:
    tagged = "".join(step + QWEN_TAG for step in row["steps"])
    return (
        f"<|im_start|>system\n{QWEN_SYSTEM}<|im_end|>\n<|im_start|>user\n{row['problem']}<|im_end|>\n"
        f"<|im_start|>assistant\n{tagged}"
    )
