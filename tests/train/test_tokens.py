"""What the loss looks at: token by token, and the same tokens as when the model verifies."""

from __future__ import annotations

from copy import deepcopy
from importlib import resources
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from genprm.errors import ModelError
from genprm.models.chat import render_chat, split_tokens
from genprm.styles.genprm import ANALYZE, JUDGEMENT, JUDGEMENT_END, OUTPUT_OPEN, VERIFY
from genprm.train.record import ChatMessage, Masked, TrainingRecord
from genprm.train.rollouts import _tokens as rollout_tokens
from genprm.train.tokens import IGNORED, encode, pieces
from tests.train.conftest import record

pytestmark = pytest.mark.model


def conversation(*contents: str, masked: tuple[Masked, ...] = ()) -> TrainingRecord:
    """User and assistant in turn."""
    messages = tuple(
        ChatMessage(role="assistant" if number % 2 else "user", content=content)
        for number, content in enumerate(contents)
    )
    return TrainingRecord(
        id="x", style="judge", messages=messages, masked=masked, problem="P", steps=("s",), label=-1, model="m"
    )


def chat(one: TrainingRecord) -> tuple[tuple[ChatMessage, ...], tuple[Masked, ...]]:
    return one.messages, one.masked


def targets(tokenizer: Any, one: TrainingRecord) -> list[str]:
    """The runs of tokens that the loss looks at, as text."""
    runs: list[list[int]] = [[]]
    example = encode(tokenizer, *chat(one))
    for token, label in zip(example.input_ids, example.labels, strict=True):
        if label == IGNORED:
            runs.append([])
        else:
            assert label == token
            runs[-1].append(token)
    return [tokenizer.decode(run) for run in runs if run]


def test_the_loss_is_on_what_the_model_writes(tokenizer: Any):
    assert targets(tokenizer, record(6, steps=1)) == [
        "By the problem this is 6 + 0.</analyze>\n",
        "print(6 + 0)\n```\n",
        "The code agrees.\n</verify>\n<output>\n",
        "Yes",
    ]
    assert targets(tokenizer, record(6, steps=2, label=1))[-1] == "No"


def test_token_by_token(tokenizer: Any):
    one = conversation("2 + 2?", "It is 4.\n[out]\nYes", masked=(Masked(message=1, start=8, end=15),))
    example = encode(tokenizer, *chat(one))
    shown = [
        (tokenizer.decode([token]), label != IGNORED)
        for token, label in zip(example.input_ids, example.labels, strict=True)
    ]
    begin = len(shown) - shown[::-1].index(("istant", False)) - 1
    assert not any(is_target for _, is_target in shown[:begin])
    assert shown[begin:] == [
        ("istant", False), ("\n", False),
        ("It", True), (" is", True), (" ", True), ("4", True), (".", True),
        ("\n", False), ("[", False), ("out", False), ("]", False), ("\n", False),
        ("Yes", True), ("<|im_end|>", True), ("\n", False),
    ]  # fmt: skip


def test_a_turn_s_end_need_not_be_a_text_s(tokenizer: Any):
    gemma = deepcopy(tokenizer)
    gemma.eos_token = "<|endoftext|>"
    assert targets(gemma, conversation("2 + 2?", "It is 4."))[-1] == "It is 4.<|im_end|>"


def test_a_turn_that_the_verifier_ends_does_not_teach_the_end(tokenizer: Any):
    example = encode(tokenizer, *chat(record(1, steps=1)))
    assert tokenizer.eos_token_id in example.input_ids
    assert tokenizer.eos_token_id not in example.labels


def test_the_model_begins_to_write_behind_the_token_that_it_saw_in_training(tokenizer: Any):
    """A prompt that ends in a space ends in a token of its own, which it would not be in the whole text."""
    one = record(17, steps=3)
    ids = encode(tokenizer, *chat(one)).input_ids
    turns = [turn.model_dump() for turn in one.messages]
    rendered, at, ends = "", 0, list[int]()
    for text, is_target in pieces(tokenizer, *chat(one)):
        if is_target:
            ends.append(tokenizer.encode(rendered, add_special_tokens=False)[-1])
            assert ends[-1] == ids[at - 1], rendered[-60:]
        rendered += text
        at += len(tokenizer.encode(text, add_special_tokens=False))
    assert len(ends) == 3 * 4
    assert tokenizer.decode(ends[0]) == " "
    turn = one.messages[2].content
    asked = render_chat(tokenizer, turns[:2], ANALYZE.format(step=1))
    assert rendered.startswith(asked)
    assert turn.startswith(ANALYZE.format(step=1))
    for part in (VERIFY, OUTPUT_OPEN + JUDGEMENT, JUDGEMENT_END):
        assert part in turn


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)


@settings(deadline=None, max_examples=60)
@given(question=TEXT, parts=st.lists(st.tuples(TEXT, st.booleans()), min_size=1, max_size=5))
def test_nothing_is_lost_between_the_pieces(tokenizer: Any, question: str, parts: list[tuple[str, bool]]):
    at, masked = 0, []
    for text, is_given in parts:
        if is_given:
            masked.append(Masked(message=1, start=at, end=at + len(text)))
        at += len(text)
    one = conversation(question, "".join(text for text, _ in parts), masked=tuple(masked))
    turns = [turn.model_dump() for turn in one.messages]
    found = list(pieces(tokenizer, *chat(one)))
    assert "".join(text for text, _ in found) == tokenizer.apply_chat_template(turns, tokenize=False)
    own = "".join(text for text, is_target in found if is_target).removesuffix(tokenizer.eos_token)
    assert own == "".join(text for text, is_given in parts if not is_given)


OWN = [
    *("By the problem this is 6 + 0.</analyze>\n", "print(6 + 0)\n```\n", "The code agrees.\n</verify>\n<output>\n"),
    *("Yes", "By the problem this is 6 + 1.</analyze>\n", "print(6 + 1)\n```\n"),
    *("The code agrees.\n</verify>\n<output>\n", "No"),
]


@pytest.mark.parametrize(
    "name",
    ["llama3", "llama3_2", "gemma3", "qwen2_5", "qwen3", "qwen3_5_nothink", "deepseek_r1_distill", "glm4moe", "phi3"],
)
def test_templates_of_released_models(tokenizer: Any, name: str):
    """Some strip answers, some write other thoughts into answers that are over: what is learned is what is written."""
    other = deepcopy(tokenizer)
    other.chat_template = resources.files("trl").joinpath(f"chat_templates/{name}.jinja").read_text()
    one = record(6, steps=2, label=1)
    assert targets(other, one) == OWN
    found = list(pieces(other, *chat(one)))
    turns = [turn.model_dump() for turn in one.messages]
    assert found[0][0] == render_chat(other, turns[:2], "")  # as when it verifies
    rest = "".join(text for text, _ in found)
    for turn in turns:
        assert rest.count(turn["content"].strip()) == 1


def test_a_template_that_strips_answers(tokenizer: Any):
    other = deepcopy(tokenizer)
    other.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    masked = (Masked(message=1, start=0, end=3), Masked(message=1, start=7, end=9))
    found = list(pieces(other, *chat(conversation("2 + 2?", " It is 4.", masked=masked))))
    assert found == [("[user]2 + 2?\n[assistant]", False), ("It", False), (" is ", True), ("4.", False), ("\n", False)]


def test_a_template_that_rewrites_answers_is_refused(tokenizer: Any):
    other = deepcopy(tokenizer)
    other.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content | upper }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    with pytest.raises(ModelError, match="changes what stands in an answer"):
        encode(other, conversation("2 + 2?", "four", "It says four?", "Yes.").messages)


@pytest.fixture(scope="module")
def sentencepiece() -> Any:
    """A tokenizer with Llama 2's and Phi 3's way of writing spaces, which begins every text with one."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers
    from transformers import PreTrainedTokenizerFast

    own = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    own.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    own.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    texts = [turn.content for n in range(40) for turn in record(n).messages]
    special = ["<unk>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|end|>", "<|system|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=600, max_token_length=12, special_tokens=special, initial_alphabet=list("\n\u2581{}\\$`NYBT")
    )
    own.train_from_iterator(texts, trainer)
    found = PreTrainedTokenizerFast(tokenizer_object=own, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    found.chat_template = resources.files("trl").joinpath("chat_templates/phi3.jinja").read_text()
    return found


def test_no_spaces_where_the_model_begins_to_write(sentencepiece: Any):
    one = record(6, steps=2, label=1)
    whole = "".join(text for text, _ in pieces(sentencepiece, *chat(one)))
    ids = encode(sentencepiece, *chat(one)).input_ids
    assert sentencepiece.decode(ids) == sentencepiece.decode(sentencepiece.encode(whole, add_special_tokens=False))
    assert targets(sentencepiece, one) == OWN
    written = [("<output>\n**Judgement**: $\\boxed{", False), ("Yes", True)]
    tokens, own = rollout_tokens(sentencepiece, written)
    assert sentencepiece.decode([token for token, is_own in zip(tokens, own, strict=True) if is_own]) == "Yes"
    assert "".join(sentencepiece.convert_ids_to_tokens(tokens)).endswith("boxed{Yes")


def test_no_space_where_a_word_is_cut_behind_the_prompt(sentencepiece: Any):
    before, behind = split_tokens(sentencepiece, "the pa", "ragraph")
    assert "".join(sentencepiece.convert_ids_to_tokens(before + behind)) == "\u2581the\u2581paragraph"


def test_an_end_of_turn_that_has_no_name(tokenizer: Any):
    other = deepcopy(tokenizer)
    other.add_tokens([AddedToken("<|end|>", special=True)])
    other.chat_template = resources.files("trl").joinpath("chat_templates/phi3.jinja").read_text()
    assert targets(other, conversation("2 + 2?", "It is 4."))[-1] == "It is 4.<|end|>"


def test_no_template(tokenizer: Any):
    other = deepcopy(tokenizer)
    other.chat_template = None
    with pytest.raises(ModelError, match="has no chat template"):
        encode(other, *chat(record(1)))
