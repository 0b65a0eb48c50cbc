"""Training by reinforcement: what a rollout is made of, what is rewarded, and a tiny model that learns."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from genprm import Sampling
from genprm.budget import Budget
from genprm.errors import ConfigError, InputError, ModelError
from genprm.models.base import Message
from genprm.models.chat import render_chat
from genprm.models.scripted import Rule, ScriptedModel
from genprm.models.transformers_backend import TransformersModel
from genprm.train.base import load_for_training, open_base
from genprm.train.folder import TrainFolder
from genprm.train.grpo import FLAT, GRPOMeasured, Rollouts, _dev_questions, agreement, train_grpo, writer
from genprm.train.options import GRPOOptions, Machine
from genprm.train.recipes import WINDOW, GRPORecipe
from genprm.train.rollouts import Question, Rollout, balanced, questions, roll_out
from genprm.train.tokens import encode
from sandbox import Sandbox, SandboxLostError, Session
from tests.cli.conftest import command
from tests.train.conftest import record, write_records

pytestmark = pytest.mark.model
RECORDS = [record(n, steps=2, label=(-1, 0, 1)[n % 3]) for n in range(9)]


class Scripted(ScriptedModel):
    """With the chat template of a real tokenizer, so that its prompts are tokens of that one."""

    def __init__(self, tokenizer: Any, *rules: Rule) -> None:
        super().__init__(rules)
        self._tokenizer = tokenizer

    def render(self, messages: list[Message], prefix: str) -> str:
        return render_chat(self._tokenizer, messages, prefix)


def question(step: int = 2, right: bool = True) -> Question:
    [found] = [one for one in questions("f", [record(4)]) if one.step == step]
    return found._replace(right=right)


async def rollout(tokenizer: Any, sandbox: Sandbox, *rules: Rule, right: bool = True, **more: Any) -> Rollout:
    budget = more.pop("budget", Budget(step_tokens=64, analysis_tokens=32))
    model = Scripted(tokenizer, *rules)
    return await roll_out(question(right=right), model, tokenizer, sandbox, budget, Sampling(), "k", **more)


ARGUES = (
    Rule(when=r"step by step: $", text="It is 5.</analyze>\n"),
    Rule(when=r"```python\n$", text="print(4 + 1)\n```\n"),
    Rule(when=r"\[Code Output\]\n\n```\n5\n```\n$", text="They agree.\n</verify>\n<output>\n"),
)


def own(tokenizer: Any, one: Rollout) -> list[str]:
    runs: list[list[int]] = [[]]
    for token, is_own in zip(one.completion_ids, one.own, strict=True):
        runs.append([]) if not is_own else runs[-1].append(token)
    return [tokenizer.decode(run) for run in runs if run]


# Rollouts


async def test_only_what_the_model_wrote_is_learned(tokenizer: Any, local_sandbox: Sandbox):
    one = await rollout(tokenizer, local_sandbox, *ARGUES, Rule(when=r"boxed\{$", yes=1.0))
    assert own(tokenizer, one) == [
        "It is 5.</analyze>\n",
        "print(4 + 1)\n```\n",
        "They agree.\n</verify>\n<output>\n",
        "Yes",
    ]
    assert one.reward == 1.0
    whole = tokenizer.decode(one.completion_ids)
    assert whole.startswith("<analyze>\nLet's analyze the Paragraph 2 step by step: ")
    assert "[Code Output]\n\n```\n5\n```\n" in whole
    assert whole.endswith("$\\boxed{Yes")
    asked = [{"role": turn.role, "content": turn.content} for turn in record(4).messages[:4]]
    assert tokenizer.decode(one.prompt_ids) == render_chat(tokenizer, asked, "")


async def test_what_is_cut_off_is_closed_for_the_model(tokenizer: Any, local_sandbox: Sandbox):
    rules = [Rule(when=r"step by step: $", text="It is five and more."), Rule(when=r"python\n$", text="x = 1\ny = 2")]
    budget = Budget(step_tokens=6, analysis_tokens=3)
    one = await rollout(tokenizer, local_sandbox, *rules, Rule(when=r"boxed\{$", yes=0.0), budget=budget)
    assert own(tokenizer, one) == ["It is five ", "x = 1\n", "No"]


@pytest.mark.parametrize(
    ("yes", "right", "brier", "reward"),
    [(1.0, True, 0.0, 1.0), (1.0, False, 0.0, 0.0), (0.0, False, 0.0, 1.0), (0.0, True, 0.0, 0.0),
     (1.0, True, 0.5, 1.0), (1.0, False, 0.5, -0.5)],
)  # fmt: skip
async def test_the_reward(tokenizer: Any, local_sandbox: Sandbox, yes: float, right: bool, brier: float, reward: float):
    judge = Rule(when=r"boxed\{$", yes=yes)
    one = await rollout(tokenizer, local_sandbox, *ARGUES, judge, right=right, brier=brier)
    assert one.reward == reward


async def test_code_finds_what_the_code_of_earlier_steps_has_left(tokenizer: Any, local_sandbox: Sandbox):
    asked = question()
    earlier = [
        {**turn, "content": turn["content"].replace("print(4 + 0)", "x = 41\nprint(4 + 0)")} for turn in asked.messages
    ]
    rules = [ARGUES[0], Rule(when=r"python\n$", text="print(x + 1)\n```\n"), Rule(when=r"boxed\{$", yes=1.0)]
    model = Scripted(tokenizer, *rules, Rule(text="So.\n</verify>\n<output>\n"))
    budget = Budget(step_tokens=64, analysis_tokens=32)
    asked = asked._replace(messages=earlier)
    one = await roll_out(asked, model, tokenizer, local_sandbox, budget, Sampling(), "k")
    assert "[Code Output]\n\n```\n42\n```\n" in tokenizer.decode(one.completion_ids)


def test_a_group_is_flat_where_its_verdicts_do_not_differ():
    """Whatever their Brier terms are; a single verdict differs from none."""
    logged: dict[str, float] = {}
    rewards = [0.9, -0.1, 0.9, 0.8, None, 0.9]
    verdicts = [True, False, True, True, None, True]
    assert agreement(list("aabbcc"), rewards, verdicts, logged.__setitem__, completions=[]) == rewards
    assert logged == {FLAT: pytest.approx(2 / 3)}


async def test_an_end_of_text_is_not_the_stop_string(tokenizer: Any, local_sandbox: Sandbox):
    rules = [Rule(when=r"step by step: $", text="It is five."), Rule(when=r"python\n$", text="x = 1\n```")]
    one = await rollout(tokenizer, local_sandbox, *rules, Rule(when=r"boxed\{$", yes=1.0), Rule(text="Done."))
    assert own(tokenizer, one) == ["It is five.", "x = 1\n```", "Done.", "Yes"]


async def test_without_a_verdict_there_is_no_reward(tokenizer: Any, local_sandbox: Sandbox):
    one = await rollout(tokenizer, local_sandbox, *ARGUES, Rule(when=r"boxed\{$", choice={"Maybe": 1.0}))
    assert one.reward is None
    assert "?" not in own(tokenizer, one)


async def test_a_sandbox_that_fails_before_anything_is_said(tokenizer: Any, local_sandbox: Sandbox, monkeypatch: Any):
    """TRL takes no completion without a token."""

    async def lost(*_: Any, **__: Any) -> None:
        raise SandboxLostError("the container's memory")

    monkeypatch.setattr(Session, "run", lost)
    one = await rollout(tokenizer, local_sandbox, *ARGUES)
    assert (one.agrees, one.reward) == (None, None)
    assert (one.completion_ids, one.own) == ([tokenizer.eos_token_id], [0])


async def test_the_verdict_is_drawn_by_its_probability(tokenizer: Any, local_sandbox: Sandbox):
    model = Scripted(tokenizer, Rule(when=r"boxed\{$", yes=0.7), Rule(text="So.</analyze>\n"))
    budget = Budget(step_tokens=64, analysis_tokens=32)
    drawn = [
        (await roll_out(question(), model, tokenizer, None, budget, Sampling(), f"{n}", brier=1.0)).reward
        for n in range(200)
    ]
    assert {round(reward, 2) for reward in drawn if reward is not None} == {0.91, -0.09}
    assert 120 <= sum(reward > 0 for reward in drawn if reward is not None) <= 160


# Questions


def test_a_question_for_every_step_up_to_the_first_error():
    asked = questions("f", RECORDS[:3])
    assert [(one.step, one.right) for one in asked] == [
        (1, True), (2, True), (1, False), (1, True), (2, False),
    ]  # fmt: skip
    assert [turn["role"] for turn in asked[1].messages] == ["system", "user", "assistant", "user"]
    behind = record(1, steps=3).model_copy(update={"label": 1})
    assert [one.right for one in questions("f", [behind])] == [True, False]


def test_as_many_right_as_wrong_ones():
    asked = questions("f", RECORDS)
    kept = balanced("f", asked, 0)
    assert len(asked) == 15
    assert len(kept) == 12
    for step in (1, 2):
        assert [sum(one.right is right for one in kept if one.step == step) for right in (True, False)] == [3, 3]
    assert balanced("f", asked, 0) == kept != balanced("f", asked, 1)
    with pytest.raises(InputError, match="f: all 2 steps are right: expected some of both"):
        balanced("f", asked[:2], 0)


def test_conversations_of_another_style():
    turn = RECORDS[0].messages[-1].model_copy(update={"content": "It is correct."})
    other = RECORDS[0].model_copy(update={"messages": (*RECORDS[0].messages[:-1], turn), "style": "thinkprm"})
    with pytest.raises(InputError, match="f, id r0: style thinkprm: expected conversations in GenPRM's style"):
        questions("f", [other])


# Training

SHORT = Budget(step_tokens=4, analysis_tokens=2)


def telling(count: int, told: bool = True) -> list[Any]:
    """Solutions of one step: a wrong one says that it is; or, untold, says nothing about it."""
    rows = []
    for number in range(count):
        one = record(number, steps=1, label=number % 2 - 1)
        says_wrong = one.label == 0 if told else number % 4 < 2
        asked = one.messages[1].model_copy(update={"content": "bad bad bad" if says_wrong else "4 + 4 + 4"})
        rows.append(one.model_copy(update={"messages": (one.messages[0], asked, one.messages[2])}))
    return rows


def test_questions_of_the_dev_file_are_not_those_of_the_training_file(tiny: Path):
    one, other = [[question(right=right)] for right in (True, False)]
    with asyncio.Runner() as runner:
        rollouts = Rollouts(runner, None, open_base(str(tiny), 64), GRPOOptions(), {"train": one, "dev": other})
    assert (rollouts.names("train"), rollouts.names("dev")) == (["train/0"], ["dev/0"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"questions": 3, "micro_batch": 16}, "--questions 3 times --group 8 is no multiple of 16"),
        ({"questions": 4, "updates": 3}, "--updates 3: a round has 4 batches"),
        ({"questions": 40}, "8 questions in it, a round takes --questions 40"),
    ],
)
def test_rounds_that_do_not_come_out(tiny: Path, tmp_path: Path, options: dict[str, Any], message: str):
    data = write_records(tmp_path / "train.jsonl", telling(8))
    machine = Machine(micro_batch=options.pop("micro_batch", None))
    recipe = GRPORecipe(group=8, **options)
    with pytest.raises((ConfigError, InputError), match=message):
        train_grpo(str(data), tmp_path / "adapter", GRPOOptions(base=str(tiny), recipe=recipe), machine)
    assert not (tmp_path / "adapter").exists()


def test_a_model_that_knows_no_verdict(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async def mute(*_: Any, **__: Any) -> Rollout:
        return Rollout([1], [2], [1], None, None)

    monkeypatch.setattr("genprm.train.grpo.roll_out", mute)
    data = write_records(tmp_path / "train.jsonl", telling(8))
    with pytest.raises(ModelError, match="no judgement reached a verdict: --start from an adapter"):
        train(data, tmp_path / "adapter", tiny)


@pytest.fixture(scope="session")
def unsure(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that judges, but knows nothing: the judgements of a step differ."""
    import torch
    from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("unsure") / "model"
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(tiny)
    config.initializer_range = 0.1
    model = LlamaForCausalLM(config)
    examples = [encode(tokenizer, one.messages, one.masked) for one in telling(16, told=False)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(12):
        for example in examples:
            tokens, labels = torch.tensor([example.input_ids]), torch.tensor([example.labels])
            model(input_ids=tokens, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def train(
    data: Path, folder: Path, base: Path, dev: Path | None = None, start: Path | None = None, **recipe: Any
) -> GRPOMeasured:
    given = {"steps": 4, "questions": 4, "group": 8, "learning_rate": 1e-2, "rank": 8, **recipe}
    options = GRPOOptions(
        base=str(base), start=start and str(start), recipe=GRPORecipe(**given), budget=SHORT, code=False
    )
    return train_grpo(str(data), folder, options, dev=dev and str(dev), say=lambda _: None)


def entries(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


async def test_what_writes_the_rollouts_is_the_policy_as_it_is_now(unsure: Path):
    """Up to 1,024 tokens a CPU trains with another attention than it writes with, and TRL changes what is trained."""
    import torch
    from trl.trainer.utils import add_fused_lm_head

    base = open_base(str(unsure), 512)
    model = load_for_training(base, GRPORecipe(rank=4), 512)
    add_fused_lm_head(model.get_base_model())
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "lora_B" in name:
                weights.normal_(std=0.3)
    asked = render_chat(base.tokenizer, question().messages, "It is")
    [tokens] = base.tokenizer([asked + " 5"], return_tensors="pt")["input_ids"]
    prompt = len(base.tokenizer.encode(asked, add_special_tokens=False))
    with torch.no_grad():
        likely = model(input_ids=tokens[None]).logits[0, prompt - 1 : -1].log_softmax(-1)
        expected = likely.gather(1, tokens[prompt:, None]).sum().item()
    with writer(model, mixed=False) as copy:
        with torch.no_grad():
            model.get_base_model().lm_head.weight.zero_()  # of which the copy does not hear
        policy = TransformersModel(copy, base.tokenizer, base.name)
        [found] = await policy.score(asked, [" 5"])
        await policy.close()
    assert found == pytest.approx(expected, abs=1e-3)


@pytest.mark.alone
def test_the_dev_reward_rises(unsure: Path, tmp_path: Path):
    data, dev = write_records(tmp_path / "train.jsonl", telling(16)), write_records(tmp_path / "dev.jsonl", telling(6))
    measured = train(data, tmp_path / "adapter", unsure, dev, steps=25, agreed=1.0)
    assert measured.dev_rewards[0] < 0.75
    assert measured.dev_rewards[-1] > 0.9
    assert measured.final_reward > measured.first_reward
    assert measured.rollouts == 32 * measured.steps
    assert measured.without_verdict == 0
    assert "Use it with `genprm verify" in (tmp_path / "adapter" / "README.md").read_text()
    assert (tmp_path / "adapter" / "reward.png").read_bytes().startswith(b"\x89PNG")
    TransformersModel.load(str(unsure), str(tmp_path / "adapter"))


def test_it_stops_when_the_judgements_of_a_group_agree(tiny: Path, tmp_path: Path):
    data = write_records(tmp_path / "train.jsonl", telling(8))
    measured = train(data, tmp_path / "adapter", tiny, steps=50, agreed=0.5, learning_rate=1e-6)
    assert measured.stopped_early
    assert measured.steps == WINDOW


def test_the_same_seed_gives_the_same_adapter_and_updates_are_counted(unsure: Path, tmp_path: Path):
    data = write_records(tmp_path / "train.jsonl", telling(8))
    for name in ("one", "again"):
        assert train(data, tmp_path / name, unsure, updates=2).rollouts == 2 * 32
    one, again = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("one", "again")]
    assert one == again


def test_it_goes_on_from_an_adapter(tiny: Path, tmp_path: Path):
    data = write_records(tmp_path / "train.jsonl", telling(8))
    train(data, tmp_path / "start", tiny, steps=1, rank=2)
    train(data, tmp_path / "adapter", tiny, start=tmp_path / "start", steps=1)
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["r"] == 2
    with pytest.raises(InputError, match=r"nowhere: no folder of a LoRA adapter"):
        train(data, tmp_path / "other", tiny, start=tmp_path / "nowhere")
    assert not (tmp_path / "other").exists()
    (tmp_path / "start" / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"the adapter .*start does not fit"):
        train(data, tmp_path / "third", tiny, start=tmp_path / "start")


def test_questions_that_are_too_long(tiny: Path, tmp_path: Path):
    data = write_records(tmp_path / "train.jsonl", telling(8))
    options = GRPOOptions(base=str(tiny), max_length=20, budget=SHORT, code=False)
    with pytest.raises(InputError, match="every question is longer than --max-length less --step-tokens, 16 tokens"):
        train_grpo(str(data), tmp_path / "adapter", options)
    assert not (tmp_path / "adapter").exists()


@pytest.mark.alone
def test_interrupted_then_killed_while_code_runs_and_gone_on_with(tiny: Path, tmp_path: Path):
    data = write_records(tmp_path / "train.jsonl", telling(8))
    arguments = ["train", "grpo", data, "--base", tiny, "--steps", 6, "--questions", 4, "--learning-rate", 0.02,
                 "--rank", 4, "--save-every", 2, "--step-tokens", 6, "--analysis-tokens", 2, "--sandbox", "local",
                 "-o", tmp_path / "cut"]  # fmt: skip
    for checkpoint, ending, status in ((2, signal.SIGINT, 130), (4, signal.SIGKILL, -9)):
        process = subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while not list((tmp_path / "cut").glob(f"checkpoints/checkpoint-{checkpoint}/trainer_state.json")):
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.01)
        process.send_signal(ending)
        process.communicate(timeout=60)
        assert process.returncode == status
        assert ending is signal.SIGKILL or not _children_of(process.pid)
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "going on from step" in done.stderr
    assert [entry["step"] for entry in entries(tmp_path / "cut") if "reward" in entry] == [1, 2, 3, 4, 5, 6]


def test_a_checkpoint_that_was_cut_off_is_none(tmp_path: Path):
    for step, state in ((2, "{}"), (4, ""), (6, '{"epoch": 1'), (8, None)):
        checkpoint = tmp_path / "checkpoints" / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        if state is not None:
            (checkpoint / "trainer_state.json").write_text(state)
    assert TrainFolder(tmp_path).last_checkpoint == tmp_path / "checkpoints" / "checkpoint-2"


def _children_of(pid: int) -> list[str]:
    """Processes that still know this one as the leader of their session or as their parent."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if str(pid) in (fields[1], fields[3]) and fields[0] != "Z":
            found.append(entry)
    return found


@pytest.mark.parametrize(
    ("dev", "micro", "at_once"), [(32, None, 8), (9, None, 3), (7, None, 7), (31, None, 1), (32, 8, 2), (32, 1, 1)]
)
def test_a_dev_file_is_looked_at_in_equal_parts(dev: int, micro: int | None, at_once: int):
    recipe = GRPORecipe(group=4)
    assert _dev_questions(dev, recipe, Machine(micro_batch=micro)) == at_once
