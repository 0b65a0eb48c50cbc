"""The transformers backend against transformers' own generation, and its promises to the loop."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from genprm import Budget, ParseStatus
from genprm.chain import Chain
from genprm.cli.main import app
from genprm.errors import ConfigError, ContextFullError, ModelError
from genprm.models.base import RESERVED, FinishReason, Sampling
from genprm.models.batching import Batcher, Request
from genprm.models.chat import load_tokenizer, render_plain
from genprm.models.embedded import EMBEDDED, EMBEDDED_HUB_ID
from genprm.models.slots import SlotCache
from genprm.models.transformers_backend import TransformersModel, _are_others

GREEDY = Sampling(temperature=0)


@pytest.fixture(scope="module")
async def model(tiny_model: Path) -> AsyncIterator[TransformersModel]:
    loaded = TransformersModel.load(str(tiny_model), slots=4)
    yield loaded
    await loaded.close()


def test_a_tokenizer_that_loses_spaces(tiny_model: Path, monkeypatch: pytest.MonkeyPatch):
    class LlamaTokenizer:
        def encode(self, text: str, **_: Any) -> list[int]:
            return [*text.replace(" ", "").encode()]

        def decode(self, tokens: list[int]) -> str:
            return bytes(tokens).decode()

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *_, **__: LlamaTokenizer())
    with pytest.raises(ModelError, match="loses the spaces of its texts"):
        load_tokenizer(str(tiny_model))


async def test_as_far_as_a_sliding_window_that_nobody_names(tiny_model: Path, tmp_path: Path):
    shutil.copytree(tiny_model, tmp_path / "mistral")
    config = json.loads((tmp_path / "mistral" / "config.json").read_text())
    config |= {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 64}
    config.pop("layer_types", None)
    (tmp_path / "mistral" / "config.json").write_text(json.dumps(config))
    model = TransformersModel.load(str(tmp_path / "mistral"))
    sampling = Sampling(temperature=0)
    [done] = await model.complete("one two", stop=[], max_tokens=3, sampling=sampling)
    assert done.completion_tokens <= 3
    with pytest.raises(ContextFullError):
        await model.complete("one " * 80, stop=[], max_tokens=3, sampling=sampling)
    await model.close()


async def test_a_prompt_that_fails_fails_alone(tiny_model: Path, monkeypatch: pytest.MonkeyPatch):
    model = TransformersModel.load(str(tiny_model), slots=4)
    forward = SlotCache.forward

    def failing(cache: SlotCache, start: int, tokens: list[list[int]], positions: list[int]) -> object:
        if len(tokens[0]) > 40:
            raise RuntimeError("out of memory")
        return forward(cache, start, tokens, positions)

    monkeypatch.setattr(SlotCache, "forward", failing)
    asked = ["One.", "two " * 60, "Three."]
    calls = [model.complete(prompt, stop=(), max_tokens=8, sampling=GREEDY) for prompt in asked]
    one, two, three = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(two, ModelError)
    assert "out of memory" in str(two)
    for prompt, found in ((asked[0], one), (asked[2], three)):
        assert found == await model.complete(prompt, stop=(), max_tokens=8, sampling=GREEDY)
    await model.close()


@pytest.fixture(scope="module")
def reference(tiny_model: Path):
    """Greedy continuation and log probabilities by transformers itself."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    network = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)

    def run(prompt: str, count: int):
        ids = torch.tensor([tokenizer.encode(prompt, add_special_tokens=False)])
        output = network.generate(
            ids, max_new_tokens=count, do_sample=False, return_dict_in_generate=True, output_logits=True,
            pad_token_id=0, attention_mask=torch.ones_like(ids),
        )  # fmt: skip
        logprobs = torch.log_softmax(output.logits[0][0].float(), -1)
        return tokenizer.decode(output.sequences[0][ids.shape[1] :], skip_special_tokens=True), logprobs

    return run


@pytest.fixture(scope="session")
def logprob(tiny_model: Path):
    """The natural log of the probability of a text behind a prompt, by the plain network, a token at a time."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    network = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)

    def run(prompt: str, text: str) -> float:
        before, total = tokenizer.encode(prompt, add_special_tokens=False), 0.0
        for token in tokenizer.encode(text, add_special_tokens=False):
            with torch.inference_mode():
                logits = network(torch.tensor([before])).logits[0, -1].float()
            total += float(torch.log_softmax(logits, -1)[token])
            before.append(token)
        return total

    return run


PROMPTS = ["a", "What is 6 * 7?", "x" * 100, "π ≤ ∑ 🙂", "The quick brown fox. " * 8]


async def test_greedy_text_is_transformers_own(model: TransformersModel, reference):
    for prompt in PROMPTS:
        [completion] = await model.complete(prompt, stop=(), max_tokens=20, sampling=GREEDY)
        assert completion.text == reference(prompt, 20)[0]
        assert completion.completion_tokens <= 20


async def test_a_batch_of_different_lengths_says_what_each_says_alone(model: TransformersModel, reference):
    work = [model.complete(prompt, stop=(), max_tokens=25, sampling=GREEDY) for prompt in PROMPTS * 3]
    texts = [completion.text for [completion] in await asyncio.gather(*work)]
    assert texts == [reference(prompt, 25)[0] for prompt in PROMPTS] * 3


async def test_a_growing_prompt_reuses_its_prefix_and_says_the_same(model: TransformersModel, reference):
    prompt = "Start"
    for _ in range(6):
        [completion] = await model.complete(prompt, stop=(), max_tokens=7, sampling=GREEDY)
        assert completion.text == reference(prompt, 7)[0]
        prompt += completion.text + " and"


async def test_logprobs_are_those_of_the_model(model: TransformersModel, reference):
    prompt = "The verdict is "
    [completion] = await model.complete(prompt, stop=(), max_tokens=1, logprobs=20, sampling=Sampling(seed=3))
    _, logprobs = reference(prompt, 1)
    [token] = completion.tokens
    assert len(token.top) <= 20
    assert max(token.top.values()) == pytest.approx(float(logprobs.max()), abs=1e-4)
    assert sum(math.exp(value) for value in token.top.values()) <= 1 + 1e-5


async def test_scores_are_sums_of_logprobs(model: TransformersModel, logprob):
    texts = ["Yes", "No", " Yes", "+", "a longer text, of which no word is likely", "<|im_end|>", "a<|im_end|>b"]
    for prompt in PROMPTS[:3]:
        expected = [logprob(prompt, text) for text in texts]
        assert await model.score(prompt, texts) == pytest.approx(expected, abs=1e-3)
        assert await model.score(prompt, texts[:1]) == pytest.approx(expected[:1], abs=1e-3)


async def test_scores_among_other_work_are_the_same(model: TransformersModel, logprob):
    """Batched with each other and with requests that write, more than there are slots."""
    scores = [model.score(prompt, ["Yes", "No"]) for prompt in PROMPTS]
    written = [model.complete(prompt, stop=(), max_tokens=15, sampling=GREEDY) for prompt in PROMPTS]
    found = await asyncio.gather(*scores, *written)
    expected = [[logprob(prompt, "Yes"), logprob(prompt, "No")] for prompt in PROMPTS]
    for one, other in zip(found[: len(PROMPTS)], expected, strict=True):
        assert one == pytest.approx(other, abs=1e-3)


async def test_a_text_that_does_not_fit_cannot_be_scored(model: TransformersModel, logprob):
    assert await model.score("x" * 253, ["Yes"]) == pytest.approx([logprob("x" * 253, "Yes")], abs=1e-3)
    with pytest.raises(ContextFullError, match="257 tokens do not fit the context of 256"):
        await model.score("x" * 254, ["Yes"])


def test_words_that_are_tokens(model: TransformersModel):
    assert [model.is_token(word) for word in ("Y", "+", "<|im_end|>", "Yes", " Y", "")] == [True] * 3 + [False] * 3


async def test_a_verdict_that_is_cut_up(model: TransformersModel, logprob):
    """Scored whole, it is P(Yes) / (P(Yes) + P(No)) all the same; and a first piece alone would say something else."""
    chain = Chain(model, None, Budget(), Sampling(), "key")
    reading = await chain.choose("The verdict is ")
    yes, no = (math.exp(logprob("The verdict is ", word)) for word in ("Yes", "No"))
    assert reading.score == pytest.approx(yes / (yes + no), abs=1e-4)
    assert reading.status is ParseStatus.OK
    first = [math.exp(logprob("The verdict is ", letter)) for letter in "YN"]
    assert abs(reading.score - first[0] / sum(first)) > 0.05
    assert (chain.usage.model_calls, chain.usage.completion_tokens) == (1, 0)


async def test_a_verdict_of_one_token(model: TransformersModel, logprob):
    """It is what scoring both words would say, as long as no other spelling of them is among the likeliest."""
    [likely] = await model.complete("So: ", stop=(), max_tokens=1, logprobs=20, sampling=GREEDY)
    spelled = [text.strip().lower() for text in likely.tokens[0].top]
    good, bad = [text for text in likely.tokens[0].top if text == text.strip().lower() and spelled.count(text) == 1][:2]
    chain = Chain(model, None, Budget(), Sampling(), "key")
    reading = await chain.choose("So: ", good, bad)
    yes, no = (math.exp(logprob("So: ", word)) for word in (good, bad))
    assert reading.score == pytest.approx(yes / (yes + no), abs=1e-4)
    assert chain.usage.completion_tokens == 1


def test_a_model_without_a_chat_template(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Refused before the first row, unless the style does without."""
    bare = tmp_path / "bare"
    shutil.copytree(tiny_model, bare)
    (bare / "chat_template.jinja").unlink()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"id": "a", "problem": "p", "steps": ["s"]}')
    before = sorted(tmp_path.iterdir())
    for style in ("direct", "judge", "genprm"):
        command = ["verify", "rows.jsonl", "--model", str(bare), "--style", style, "--no-execute", "-o", "out.jsonl"]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 2, done.output
        assert done.stderr == f"genprm: {bare} has no chat template: it was not trained on conversations\n"
        assert sorted(tmp_path.iterdir()) == before
    options = ["--style", "discriminative", "--prm-format", "math-shepherd", "-o", "out.jsonl"]
    done = CliRunner().invoke(app, ["verify", "rows.jsonl", "--model", str(bare), *options])
    assert done.exit_code in (0, 1), done.output
    assert (tmp_path / "out.jsonl").exists()


async def test_stop_strings_are_cut_off(model: TransformersModel):
    [whole] = await model.complete("abc", stop=(), max_tokens=30, sampling=GREEDY)
    stop = whole.text[5:8]
    [cut] = await model.complete("abc", stop=("never", stop), max_tokens=30, sampling=GREEDY)
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finish_reason is FinishReason.STOP
    assert whole.finish_reason is FinishReason.LENGTH


async def test_seeds_and_n(model: TransformersModel):
    async def draw(seed: int, n: int) -> list[str]:
        sampling = Sampling(temperature=1.0, top_k=50, seed=seed)
        return [each.text for each in await model.complete("abc", stop=(), max_tokens=12, n=n, sampling=sampling)]

    first = await draw(7, 3)
    assert first == await draw(7, 3)
    assert first[1:2] == await draw(8, 1)
    assert len(set(first)) == 3


async def test_more_requests_than_slots_all_finish(model: TransformersModel):
    work = [model.complete(f"p{n}", stop=(), max_tokens=5, sampling=Sampling(seed=n)) for n in range(20)]
    assert len(await asyncio.wait_for(asyncio.gather(*work), 60)) == 20


async def test_a_cancelled_request_frees_its_slot(model: TransformersModel):
    tasks = [
        asyncio.create_task(model.complete("abc", stop=(), max_tokens=200, sampling=Sampling(seed=n))) for n in range(4)
    ]
    await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    [completion] = await asyncio.wait_for(model.complete("x", stop=(), max_tokens=3, sampling=GREEDY), 10)
    assert completion.completion_tokens <= 3


async def test_a_full_context(model: TransformersModel):
    with pytest.raises(ContextFullError, match="256"):
        await model.complete("x" * 256, stop=(), max_tokens=5, sampling=GREEDY)
    [completion] = await model.complete("x" * 250, stop=(), max_tokens=50, sampling=GREEDY)
    assert completion.completion_tokens <= 6
    with pytest.raises(ContextFullError, match="256"):
        await model.complete("x" * (256 - RESERVED), stop=(), max_tokens=RESERVED + 1, sampling=GREEDY)


async def test_a_verdict_has_room_behind_a_text_that_fills_the_context(model: TransformersModel):
    [written] = await model.complete("x" * 100, stop=(), max_tokens=500, sampling=GREEDY)
    assert written.completion_tokens <= 256 - 100 - RESERVED
    behind = "x" * (256 - RESERVED) + "Verdict: "
    [verdict] = await model.complete(behind, stop=(), max_tokens=1, logprobs=20, sampling=GREEDY)
    assert verdict.tokens


async def test_a_sequence_without_probabilities_fails_alone(tiny_model: Path):
    """NaN, in half precision say: `torch.multinomial` refuses it."""
    model = TransformersModel.load(str(tiny_model), slots=4)
    assert model._batcher is not None
    cache = model._batcher._cache
    forward = cache.forward

    def broken(start: int, tokens: Any, positions: Any) -> Any:
        logits = forward(start, tokens, positions).clone()
        if len(tokens) > 1:
            logits[1] = float("nan")
        return logits

    cache.forward = broken
    work = [model.complete(text, stop=(), max_tokens=20, sampling=Sampling()) for text in ("one", "two", "three")]
    found = await asyncio.gather(*work, return_exceptions=True)
    await model.close()
    assert [isinstance(each, ModelError) for each in found].count(True) == 1, found


def test_a_word_with_its_space_and_without_is_one_word():
    """SentencePiece has a token for each, and a text that begins with either has no space."""
    import torch
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({"\u2581So": 0, "\u2581Yes": 1, "Yes": 2, "No": 3, "?": 4}, unk_token="?"))
    core.decoder = decoders.Metaspace()
    batcher = Batcher(None, PreTrainedTokenizerFast(tokenizer_object=core), 1, set())  # type: ignore[arg-type]
    batcher.close()
    choice = batcher._choice(torch.tensor([0.1, 0.3, 0.2, 0.3, 0.1]).log(), 1, 4)
    assert choice.top["Yes"] == pytest.approx(math.log(0.5))
    request = Request([0], (), 9, 0, GREEDY, lambda _: None, written=[1, 3])
    assert batcher._text(request) == " YesNo"


async def test_too_many_logprobs(model: TransformersModel):
    with pytest.raises(ConfigError, match="at most 20"):
        await model.complete("x", stop=(), max_tokens=1, logprobs=21, sampling=GREEDY)


def test_rendering_leaves_the_turn_open(model: TransformersModel):
    assert model.render([{"role": "user", "content": "Q"}], "<analyze>\n") == (
        "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n<analyze>\n"
    )


async def test_a_closed_model(tiny_model: Path):
    closed = TransformersModel.load(str(tiny_model))
    await closed.close()
    await closed.close()
    with pytest.raises(ModelError, match="was closed"):
        await closed.complete("x", stop=(), max_tokens=1, sampling=GREEDY)


@pytest.mark.parametrize("text", ["[]", "{", "{}"])
def test_an_adapter_whose_configuration_is_none(tiny_model: Path, tmp_path: Path, text: str):
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(ModelError, match=r"adapter_config\.json is no adapter's configuration"):
        TransformersModel.load(str(tiny_model), str(tmp_path))


def test_an_adapter_of_another_model_of_the_hub():
    assert _are_others("Qwen/Qwen2.5-Math-7B", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B")
    assert not _are_others(EMBEDDED_HUB_ID, EMBEDDED)
    assert not _are_others("Qwen/Qwen2.5-Math-7B", "/tmp")
    assert not _are_others(None, EMBEDDED)


def with_bos(core: Any) -> Any:
    from tokenizers.processors import TemplateProcessing

    core.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return core


def test_a_plain_text_has_its_first_token():
    """Math-Shepherd's prompt is no conversation: no template spells it out."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    def tokenizer() -> Any:
        return Tokenizer(models.WordLevel({"<s>": 0, "?": 1}, unk_token="?"))

    adding = PreTrainedTokenizerFast(tokenizer_object=with_bos(tokenizer()), bos_token="<s>")
    assert render_plain(adding, "p") == "<s>p"
    assert adding.encode(render_plain(adding, "p"), add_special_tokens=False) == adding.encode("p")
    assert render_plain(PreTrainedTokenizerFast(tokenizer_object=tokenizer(), bos_token="<s>"), "p") == "p"


def make_adapter(base: Path, folder: Path, scale: float) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    wrapped = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(r=4, target_modules=["q_proj", "v_proj"], base_model_name_or_path="the-base"),
    )
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, scale)
    wrapped.save_pretrained(folder)
    return folder


async def test_an_adapter_changes_what_is_said(tiny_model: Path, model: TransformersModel, tmp_path: Path):
    adapter = make_adapter(tiny_model, tmp_path / "adapter", 2.0)
    adapted = TransformersModel.load(str(tiny_model), str(adapter))
    [with_it] = await adapted.complete("abc", stop=(), max_tokens=20, sampling=GREEDY)
    [without] = await model.complete("abc", stop=(), max_tokens=20, sampling=GREEDY)
    assert with_it.text != without.text
    assert adapted.name.endswith("+adapter")
    await adapted.close()


@pytest.mark.parametrize(
    "quiet", [(), ("--adapter", "adapter"), ("--style", "judge"), ("--style", "genprm", "--example", "--no-execute")]
)
def test_a_style_that_the_model_may_not_know_is_warned_of(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet: tuple[str, ...]
):
    """Unless an adapter, a worked example or a plain question makes up for it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"id": "a", "problem": "p", "steps": ["s"]}')
    if "--adapter" in quiet:
        make_adapter(tiny_model, tmp_path / "adapter", 1.0)
    options = ["--style", "direct", "--model", str(tiny_model), "--chain-tokens", "1", *quiet]
    done = CliRunner().invoke(app, ["verify", "rows.jsonl", *options])
    assert done.exit_code in (0, 1), done.output
    warned = f"warning: {tiny_model} is not known to be trained for the style direct; a general model takes judge"
    assert (warned if not quiet else "") in done.stderr
    assert ("is not known to be trained" in done.stderr) == (not quiet)


def test_an_adapter_for_another_base(tiny_model: Path, tmp_path: Path):
    from transformers import LlamaConfig, LlamaForCausalLM

    other = tmp_path / "other"
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2,
        )
    ).save_pretrained(other)  # fmt: skip
    adapter = make_adapter(other, tmp_path / "adapter", 1.0)
    settings = json.loads((adapter / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = "some/other-base"
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="does not fit") as caught:
        TransformersModel.load(str(tiny_model), str(adapter))
    assert "some/other-base" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_that_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("no-such-org/no-such-model", str(tmp_path)):
        with pytest.raises(ModelError) as caught:
            TransformersModel.load(name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match=r"no adapter_config\.json"):
        TransformersModel.load(*_tiny_and_empty(tmp_path))


def test_weights_that_were_cut_off(tiny_model: Path, tmp_path: Path):
    """As a copy that was interrupted leaves them."""
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        TransformersModel.load(str(broken))
    assert "\n" not in str(caught.value)
    adapter = make_adapter(tiny_model, tmp_path / "adapter", 1.0)
    (adapter / "adapter_model.safetensors").write_bytes(b"cut off")
    with pytest.raises(ModelError, match="adapter"):
        TransformersModel.load(str(tiny_model), str(adapter))


def _tiny_and_empty(folder: Path) -> tuple[str, str]:
    import torch
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    model = folder / "model"
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    ).save_pretrained(model)
    core = Tokenizer(models.BPE(vocab={"a": 0, "<e>": 1}, merges=[]))
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<e>").save_pretrained(model)
    (folder / "empty").mkdir()
    return str(model), str(folder / "empty")
