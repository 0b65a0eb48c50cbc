"""Training a tiny model for real: the same twice, killed and gone on with, and everything that is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from genprm import Sampling
from genprm.errors import ConfigError, InputError, ModelError, OutputError
from genprm.models.embedded import EMBEDDED, EMBEDDED_HUB_ID, embedded_folder
from genprm.models.transformers_backend import TransformersModel
from genprm.train.compiled import compile_layers
from genprm.train.lora import train as train_lora
from genprm.train.options import Machine, TrainOptions
from genprm.train.recipes import Recipe
from tests.cli.conftest import command
from tests.train.conftest import record, write_records

pytestmark = pytest.mark.model
RECIPE = Recipe(epochs=2, batch=2, learning_rate=1e-2, rank=4)


def train(data: Path, folder: Path, tiny: Path, said: list[str] | None = None, **more: Any) -> Any:
    dev, machine = more.pop("dev", None), more.pop("machine", None)
    options = TrainOptions(**{"base": str(tiny), "recipe": RECIPE, **more})
    say = (said if said is not None else []).append
    return train_lora(str(data), folder, options, machine, dev=dev and str(dev), say=say)


def losses(folder: Path) -> list[float]:
    entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [entry["loss"] for entry in entries if "loss" in entry]


def test_an_adapter_with_its_card(data: Path, tiny: Path, tmp_path: Path):
    measured = train(data, tmp_path / "adapter", tiny)
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors", "loss.png", "metrics.jsonl", "training.json",
    ]  # fmt: skip
    assert measured.steps == 12
    assert measured.conversations == 2 * measured.with_error == 12
    assert 0 < measured.targets < measured.tokens
    assert measured.final_loss < measured.first_loss - 0.1
    card = (tmp_path / "adapter" / "README.md").read_text()
    for words in (str(tiny), f"{measured.final_loss:.4f}", "| rank | 4 |", "| seed | 0 |", "not measured"):
        assert words in card
    saved = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (saved["base_model_name_or_path"], saved["r"]) == (str(tiny), 4)
    assert (tmp_path / "adapter" / "loss.png").read_bytes().startswith(b"\x89PNG")
    modes = {path.stat().st_mode for path in (tmp_path / "adapter").iterdir()}
    assert len(modes) == 1, "a server under another name could not read the weights"


async def test_it_goes_back_into_the_verifier(data: Path, tiny: Path, tmp_path: Path):
    train(data, tmp_path / "adapter", tiny)
    prompt, greedy = "What comes of it?", Sampling(temperature=0)
    scores = []
    for adapter in (None, str(tmp_path / "adapter")):
        model = TransformersModel.load(str(tiny), adapter)
        scores.append(await model.score(model.render([{"role": "user", "content": prompt}], ""), ["Yes", "No"]))
        assert await model.complete(prompt, stop=[], max_tokens=4, sampling=greedy)
        await model.close()
    bare, trained = scores
    assert all(abs(one - other) > 0.01 for one, other in zip(bare, trained, strict=True))


def test_an_adapter_of_the_embedded_model_names_it_as_the_hub_does(data: Path, tmp_path: Path):
    train(data, tmp_path / "adapter", tmp_path, base=EMBEDDED, limit=2, recipe=Recipe(batch=2, rank=2))
    saved = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert saved["base_model_name_or_path"] == EMBEDDED_HUB_ID


def test_the_same_seed_gives_the_same_adapter(data: Path, tiny: Path, tmp_path: Path):
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        train(data, tmp_path / name, tiny, seed=seed)
    one, again, other = [
        (tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("one", "again", "other")
    ]
    assert one == again
    assert one != other


@pytest.mark.alone
def test_killed_and_gone_on_with(data: Path, tiny: Path, tmp_path: Path):
    arguments = ["train", "sft", data, "--base", tiny, "--epochs", 6, "--batch", 2, "--learning-rate", 0.01,
                 "--rank", 4, "--save-every", 4]  # fmt: skip
    whole = subprocess.run(
        command(*arguments, "-o", tmp_path / "whole"), capture_output=True, text=True, timeout=240, check=False
    )
    assert whole.returncode == 0, whole.stderr
    process = subprocess.Popen(
        command(*arguments, "-o", tmp_path / "cut"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not [*(tmp_path / "cut").glob("checkpoints/checkpoint-*/trainer_state.json")][1:]:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    done = subprocess.run(
        command(*arguments, "-o", tmp_path / "cut"), capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "going on from step" in done.stderr
    assert losses(tmp_path / "cut") == pytest.approx(losses(tmp_path / "whole"), abs=1e-4)
    assert len(losses(tmp_path / "whole")) == 36


@pytest.mark.alone
def test_two_processes_do_what_one_does(data: Path, tiny: Path, tmp_path: Path):
    arguments = [
        "train",
        "sft",
        data,
        "--base",
        tiny,
        "--epochs",
        2,
        "--batch",
        4,
        "--learning-rate",
        0.01,
        "--rank",
        4,
    ]
    genprm = Path(sys.executable).with_name("genprm")
    for folder, launcher in (("one", []), ("two", ["-m", "torch.distributed.run", "--nproc_per_node", 2])):
        words = [sys.executable, *launcher, genprm, *arguments, "-o", tmp_path / folder]
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("final loss") == 1
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)


def test_the_best_on_the_dev_file_is_kept_and_it_stops_early(data: Path, tiny: Path, tmp_path: Path):
    other = write_records(tmp_path / "dev.jsonl", [record(n, steps=1, label=n % 2 - 1) for n in range(70, 74)])
    options = {"dev": other, "eval_every": 2, "patience": 2, "recipe": RECIPE.model_copy(update={"epochs": 60})}
    measured = train(data, tmp_path / "adapter", tiny, **options)
    entries = [json.loads(line) for line in (tmp_path / "adapter" / "metrics.jsonl").read_text().splitlines()]
    dev = [entry["eval_loss"] for entry in entries if "eval_loss" in entry]
    assert measured.steps < 360
    assert measured.dev_loss == min(dev) < dev[0]
    assert min(dev) not in dev[-2:]


def test_what_stopped_early_stays_stopped(data: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Cut off between its last checkpoint and its end."""
    other = write_records(tmp_path / "dev.jsonl", [record(n, steps=1, label=n % 2 - 1) for n in range(70, 74)])
    options = {"dev": other, "eval_every": 2, "patience": 2, "recipe": RECIPE.model_copy(update={"epochs": 60})}
    whole = train(data, tmp_path / "whole", tiny, **options)

    def cut(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("genprm.train.lora.finish", cut)
        train(data, tmp_path / "cut", tiny, **options)
    again = train(data, tmp_path / "cut", tiny, **options)
    assert (again.steps, again.dev_loss) == (whole.steps + 1, whole.dev_loss)
    one, other = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert one == other


@pytest.mark.parametrize(
    ("machine", "packing"), [(Machine(micro_batch=2), True), (Machine(activation_checkpointing=True), False)]
)
def test_packing_and_checkpointing(data: Path, tiny: Path, tmp_path: Path, machine: Machine, packing: bool):
    measured = train(data, tmp_path / "adapter", tiny, machine=machine, packing=packing, max_length=1000, dev=data)
    assert measured.final_loss < measured.first_loss
    entries = [json.loads(line) for line in (tmp_path / "adapter" / "metrics.jsonl").read_text().splitlines()]
    looks = [entry["step"] for entry in entries if "eval_loss" in entry]
    assert looks == list(range(1, measured.steps + 1))  # ten looks in 12 steps, or in fewer


@pytest.mark.alone
def test_compiled_layers_learn_the_same(data: Path, tiny: Path, tmp_path: Path):
    for name, machine in (("plain", Machine()), ("compiled", Machine(compile=True))):
        train(data, tmp_path / name, tiny, machine=machine)
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "plain"), rel=0.01)


def test_a_model_without_named_layers_is_not_compiled():
    with pytest.raises(ConfigError, match="does not say which of its modules are layers"):
        compile_layers(torch.nn.Sequential(torch.nn.Linear(2, 2)))


def test_nothing_to_compile_with(data: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match="there is no no-such-compiler"):
        train(data, tmp_path / "adapter", tiny, machine=Machine(compile=True))


def test_the_dev_loss_is_that_of_the_adapter_and_not_of_the_machine(data: Path, tiny: Path, tmp_path: Path):
    recipe = RECIPE.model_copy(update={"batch": 6, "epochs": 1})
    found = [
        train(data, tmp_path / str(size), tiny, machine=Machine(micro_batch=size), recipe=recipe, dev=data).dev_loss
        for size in (1, 6)
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-4)


# What is refused


def test_a_folder_with_an_adapter(data: Path, tiny: Path, tmp_path: Path):
    train(data, tmp_path / "adapter", tiny)
    with pytest.raises(InputError, match="a finished training is in it"):
        train(data, tmp_path / "adapter", tiny)


def test_a_folder_with_something_else(data: Path, tiny: Path, tmp_path: Path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mother.txt").write_text("Dear mother")
    with pytest.raises(InputError, match="is not empty, and no run of ours"):
        train(data, tmp_path / "letters", tiny)


def test_a_folder_with_another_run(data: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import trl

    def cut(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trl.SFTTrainer, "train", cut)
        for seed in (5, 0):  # there is nothing to lose: it is begun anew
            with pytest.raises(KeyboardInterrupt):
                train(data, tmp_path / "adapter", tiny, seed=seed)
    checkpoint = tmp_path / "adapter" / "checkpoints" / "checkpoint-4"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text("{}")
    with pytest.raises(InputError, match="a run with seed = 0 was begun here, not 3"):
        train(data, tmp_path / "adapter", tiny, seed=3)
    data.write_text(data.read_text() + data.read_text())
    with pytest.raises(InputError, match="a run with data = "):
        train(data, tmp_path / "adapter", tiny)


def test_conversations_that_are_too_long(data: Path, tiny: Path, tmp_path: Path):
    long = write_records(tmp_path / "some.jsonl", [record(n, steps=1 + 4 * (n < 2), label=n % 2 - 1) for n in range(8)])
    said: list[str] = []
    measured = train(long, tmp_path / "adapter", tiny, said, max_length=400)
    assert said == [f"{long}: 1 conversations are longer than 400 tokens, and are left out"]
    assert measured.conversations == 7
    with pytest.raises(InputError, match="every conversation is longer than --max-length 20"):
        train(data, tmp_path / "other", tiny, max_length=20)
    with pytest.raises(InputError, match=r"the context of .* is 2048 tokens"):
        train(data, tmp_path / "third", tiny, max_length=3000)
    assert not (tmp_path / "third").exists()


@pytest.mark.parametrize(("label", "kind"), [(-1, "without"), (0, "with")])
def test_one_class_only(tiny: Path, tmp_path: Path, label: int, kind: str):
    data = write_records(tmp_path / "data.jsonl", [record(n, label=label) for n in range(3)])
    with pytest.raises(InputError, match=f"all 3 solutions are {kind} an error"):
        train(data, tmp_path / "adapter", tiny)
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": None}, "line 2: no training record, field label: expected a whole number"),
        ({"label": 9}, "line 2: no training record: .*none with the index 9"),
        ({"messages": []}, "line 2: no training record: .*no part of an answer"),
        ({"messages": [], "masked": []}, "line 2: no training record: .*expected one of the role assistant"),
        ({"masked": [{"message": 2, "start": 5, "end": 5}]}, "no part of an answer"),
        ({"masked": [{"message": 2, "start": 5, "end": 9}, {"message": 2, "start": 7, "end": 12}]}, "in order"),
    ],
)
def test_broken_records(tiny: Path, tmp_path: Path, change: dict[str, Any], message: str):
    rows = [record(n).model_dump(mode="json") for n in range(2)]
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps(rows[0]) + "\n" + json.dumps({**rows[1], **change}) + "\n")
    with pytest.raises(InputError, match=message):
        train(data, tmp_path / "adapter", tiny)


@pytest.mark.parametrize("when", ["__init__", "train"])  # it moves the model to a GPU when it is made
def test_out_of_memory(data: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str):
    import trl

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(trl.SFTTrainer, when, fail)
    with pytest.raises(ModelError, match="lower --micro-batch or --max-length"):
        train(data, tmp_path / "adapter", tiny)


def test_a_full_disk(data: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """safetensors has an exception of its own for it."""

    def fail(*_: Any, **__: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("peft.peft_model.safe_save_file", fail)
    with pytest.raises(OutputError, match=r"checkpoints.*No space left on device"):
        train(data, tmp_path / "adapter", tiny)
    assert not (tmp_path / "adapter" / "README.md").exists()


def test_patience_without_a_dev_file(data: Path, tiny: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="--patience needs --dev"):
        train(data, tmp_path / "adapter", tiny, patience=2)


def test_a_base_model_without_a_chat_template(data: Path, tiny: Path, tmp_path: Path):
    from transformers import AutoTokenizer

    bare = tmp_path / "bare"
    tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
    tokenizer.chat_template = None
    tokenizer.save_pretrained(bare)
    (bare / "config.json").write_text((tiny / "config.json").read_text())
    with pytest.raises(ModelError, match="has no chat template"):
        train(data, tmp_path / "adapter", bare)


def test_a_training_that_diverges(data: Path, tiny: Path, tmp_path: Path):
    with pytest.raises(ModelError, match=r"step \d+: the (loss|grad_norm) is (nan|inf): lower --learning-rate"):
        train(data, tmp_path / "adapter", tiny, recipe=Recipe(epochs=4, batch=1, rank=2, learning_rate=100.0))
    assert not (tmp_path / "adapter" / "README.md").exists()


@pytest.mark.parametrize(("batch", "size"), [(4, 3), (4, 8)])
def test_a_batch_that_does_not_come_out_even(data: Path, tiny: Path, tmp_path: Path, batch: int, size: int):
    recipe = RECIPE.model_copy(update={"batch": batch})
    with pytest.raises(ConfigError, match=rf"--batch {batch} is no multiple of {size}, .*\(--micro-batch\)"):
        train(data, tmp_path / "adapter", tiny, recipe=recipe, machine=Machine(micro_batch=size))


def test_a_dev_file_that_would_never_be_looked_at(data: Path, tiny: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="--eval-every 99: the training has 12 steps"):
        train(data, tmp_path / "adapter", tiny, dev=data, eval_every=99)


def test_an_adapter_to_start_from_that_is_none(data: Path, tiny: Path, tmp_path: Path):
    (tmp_path / "start").mkdir()
    for text in ("[1]", '{"r": "x", "lora_alpha": 1, "lora_dropout": 0}', "nonsense"):
        (tmp_path / "start" / "adapter_config.json").write_text(text)
        with pytest.raises(InputError, match="no folder of a LoRA adapter"):
            train(data, tmp_path / "adapter", tiny, start=str(tmp_path / "start"))


def test_what_goes_on_from_a_hub_models_adapter_asks_no_hub(
    data: Path, tiny: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
):
    start = tmp_path / "start"
    train(data, start, tiny)
    config = json.loads((start / "adapter_config.json").read_text())
    (start / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "no-one/has-this"}))
    train(data, tmp_path / "adapter", tiny, start=str(start))
    assert [str(warning.message) for warning in recwarn if "remote file" in str(warning.message)] == []
