"""The openai backend against a real HTTP server on the loopback that misbehaves on demand."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from genprm import AsyncVerifier, Budget, ParseStatus, StopReason
from genprm.chain import Chain
from genprm.cli.main import app
from genprm.errors import ContextFullError, ModelError, ModelUnavailableError
from genprm.models.base import RESERVED, FinishReason, Sampling
from genprm.models.openai_backend import OpenAIModel
from genprm.styles import Direct, Judge
from tests.http_peer import Answer, http_peer

LOGPROBS = {
    "tokens": ["Yes"],
    "token_logprobs": [-0.2],
    "top_logprobs": [{"Yes": -0.2, "No": -1.8}],
    "text_offset": [0],
}


class Peer:
    """The server's side: what it was asked, and what it answers next."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.times: list[float] = []
        self.answers: list[Answer] = []
        self.served = ["served"]
        self.forces = False
        """Whether it draws the token it is told to, as vLLM does."""
        self.context: int | None = None
        self.repeats = False
        """Whether all completions of a request are drawn with its one seed."""
        self.slow = 0.0
        """Seconds that an answer takes."""

    def answer(self, body: dict[str, Any]) -> Answer:
        self.bodies.append(body)
        self.times.append(time.monotonic())
        time.sleep(self.slow)
        if self.answers:
            return self.answers.pop(0)
        if body.get("echo"):
            return 200, echo(body["prompt"])
        if body.get("allowed_token_ids"):
            return 200, self.drawn(body["allowed_token_ids"][0])
        choices = [
            {"index": index, "text": f"text {index}", "finish_reason": "stop", "logprobs": None}
            for index in reversed(range(body["n"]))
        ]
        if self.repeats:
            choices = [{**choice, "text": f"by {body['seed']}"} for choice in choices]
        if body.get("logprobs"):
            choices = [{"index": 0, "text": "Yes", "finish_reason": "length", "logprobs": LOGPROBS}]
        return 200, {"choices": choices, "usage": {"prompt_tokens": 11, "completion_tokens": 6}}

    def drawn(self, token: int) -> dict[str, Any]:
        name = f"token_id:{token}" if self.forces else "?"
        logprobs = {"tokens": [name], "token_logprobs": [token_logprob(token)], "top_logprobs": None}
        return {"choices": [{"index": 0, "text": "?", "finish_reason": "length", "logprobs": logprobs}]}


def token_logprob(token: int) -> float:
    return -token / 100


def echo(prompt: list[int]) -> dict[str, Any]:
    """The prompt's own log-probabilities as vLLM returns them: none of the first token, one more for what it wrote."""
    values = [None, *(token_logprob(token) for token in prompt[1:]), -9.0]
    logprobs = {"tokens": ["?"] * len(values), "token_logprobs": values, "top_logprobs": None}
    return {"choices": [{"index": 0, "text": "?", "finish_reason": "length", "logprobs": logprobs}]}


@pytest.fixture
def peer() -> Iterator[tuple[Peer, str]]:
    state = Peer()

    def get() -> Answer:
        return 200, {"data": [{"id": name, "max_model_len": state.context} for name in state.served]}

    def post(body: dict[str, Any], headers: Mapping[str, str]) -> Answer:
        state.headers.append(headers)
        return state.answer(body)

    with http_peer(get, post) as port:
        yield state, f"http://127.0.0.1:{port}/v1"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genprm.models.openai_backend.FIRST_WAIT", 0.01)
    monkeypatch.setattr("genprm.models.openai_backend.LONGEST_WAIT", 0.05)


async def connect(url: str, tiny_model: Path, **options) -> OpenAIModel:
    return await OpenAIModel.connect(url, options.pop("model", None), tokenizer=str(tiny_model), **options)


async def test_a_completion(peer, tiny_model: Path):
    state, url = peer
    model = await connect(url, tiny_model, api_key="secret")
    sampling = Sampling(temperature=0.3, top_p=0.8, top_k=7, seed=5)
    texts = await model.complete("Q", stop=("a", "b"), max_tokens=9, n=3, sampling=sampling)
    assert [each.text for each in texts] == ["text 0", "text 1", "text 2"]
    assert texts[0].finish_reason is FinishReason.STOP
    assert (texts[0].prompt_tokens, texts[0].completion_tokens) == (11, 2)
    [body] = state.bodies
    assert body == {
        "model": "served", "prompt": model._tokenizer.encode("Q"), "stop": ["a", "b"], "max_tokens": 9, "n": 3,
        "temperature": 0.3, "top_p": 0.8, "top_k": 7, "seed": 5, "repetition_penalty": 1, "repeat_penalty": 1,
        "presence_penalty": 0, "frequency_penalty": 0, "min_p": 0,
    }  # fmt: skip
    assert state.headers[0]["Authorization"] == "Bearer secret"
    await model.close()


async def test_logprobs(peer, tiny_model: Path):
    _, url = peer
    model = await connect(url, tiny_model)
    [one] = await model.complete("Q", stop=(), max_tokens=1, logprobs=20, sampling=Sampling())
    assert one.tokens[0].top == {"Yes": -0.2, "No": -1.8}
    assert one.finish_reason is FinishReason.LENGTH
    await model.close()


@pytest.mark.parametrize("repeats", [True, False])
async def test_a_server_that_draws_the_same_again_for_one_seed(peer, tiny_model: Path, repeats: bool, caplog):
    state, url = peer
    state.repeats = repeats
    model = OpenAIModel(url, "served", tokenizer=str(tiny_model))
    drawn = [
        await model.complete("Q", stop=[], max_tokens=9, n=3, sampling=Sampling(temperature=1, seed=7))
        for _ in range(2)
    ]
    await model.complete("Q", stop=[], max_tokens=9, n=3, sampling=Sampling(temperature=0, seed=7))
    await model.close()
    texts = [[each.text for each in done] for done in drawn]
    assert texts == [["by 7", "by 8", "by 9"] if repeats else ["text 0", "text 1", "text 2"]] * 2
    asked = [(body["n"], body["seed"]) for body in state.bodies]
    each = [(1, 7), (1, 8), (1, 9)]
    expected = [(3, 7), (1, 8), *each, *each, *each] if repeats else [(3, 7)] * 3
    assert sorted(asked) == sorted(expected)
    assert ("the server draws the same again" in caplog.text) is repeats


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_busy_or_failing_server_is_tried_again(peer, tiny_model: Path, status: int):
    state, url = peer
    state.answers = [(status, {}), (status, {})]
    model = await connect(url, tiny_model)
    [one] = await model.complete("Q", stop=(), max_tokens=1, sampling=Sampling())
    assert one.text == "text 0"
    assert len(state.bodies) == 3
    await model.close()


@pytest.mark.parametrize(
    ("answers", "error", "words"),
    [
        ([(500, {"error": "boom"})] * 4, ModelError, "failed 4 times, last status 500.*boom"),
        ([(401, {"error": "no key"})], ModelUnavailableError, "refuses: status 401.*no key"),
        ([(404, {"error": "no such model"})], ModelUnavailableError, "refuses: status 404.*no such model"),
        ([(400, {"message": "maximum context length is 10"})], ContextFullError, "context length"),
        ([(400, {"message": "bad"})], ModelError, "refuses"),
        ([(200, {"nothing": 1})], ModelError, "not a completion"),
        ([(200, {"choices": [{"index": 0}]})], ModelError, "not a completion"),
        ([(200, b"no JSON")], ModelError, "not a completion"),
        ([(200, b'{"choices": [{"index": 0, "text": "cut')], ModelError, "not a completion"),
        ([(200, [1, 2])], ModelError, "not a completion"),
        ([(200, {"choices": ["text"]})], ModelError, "not a completion"),
        (
            [(200, {"choices": [{"index": 0, "text": "t", "finish_reason": "stop", "logprobs": [1]}]})],
            ModelError,
            "not a completion",
        ),
        (
            [(200, {"choices": [{"index": 0, "text": "t", "finish_reason": "stop"}], "usage": "none"})],
            ModelError,
            "not a completion",
        ),
        ([(200, {"choices": [], "usage": {}})], ModelError, "0 choices, not 1"),
    ],
)
async def test_what_goes_wrong_is_named(peer, tiny_model: Path, answers, error: type[Exception], words: str):
    state, url = peer
    state.answers = list(answers)
    model = await connect(url, tiny_model)
    with pytest.raises(error, match=words):
        await model.complete("Q", stop=(), max_tokens=1, sampling=Sampling())
    assert len(state.bodies) == len(answers)
    await model.close()


async def test_a_server_says_when_to_come_back(peer, tiny_model: Path):
    state, url = peer
    state.answers = [(429, {}, {"Retry-After": "1"}), (503, {}, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"})]
    model = await connect(url, tiny_model)
    [one] = await model.complete("Q", stop=(), max_tokens=1, sampling=Sampling())
    assert one.text == "text 0"
    first, second = (after - before for before, after in itertools.pairwise(state.times))
    assert 1 <= first < 5
    assert second < 0.5
    await model.close()


async def test_a_server_that_asks_for_more_patience_than_there_is(peer, tiny_model: Path):
    state, url = peer
    state.answers = [(429, {}, {"Retry-After": "3600"})]
    model = await connect(url, tiny_model, patience=5)
    with pytest.raises(ModelUnavailableError, match="no answer for 5 s, last status 429"):
        await model.complete("Q", stop=(), max_tokens=1, sampling=Sampling())
    assert len(state.bodies) == 1
    await model.close()


@pytest.mark.parametrize(
    "headers", [{"Content-Length": "999"}, {"Content-Encoding": "gzip"}], ids=["cut", "not what it says it is"]
)
async def test_a_broken_answer_is_asked_for_again(peer, tiny_model: Path, headers: dict[str, str]):
    state, url = peer
    broken = (200, b'{"choices": [{"index": 0, "te', headers)
    state.answers = [broken]
    model = await connect(url, tiny_model, patience=30)
    [one] = await model.complete("Q", stop=(), max_tokens=1, sampling=Sampling())
    assert (one.text, len(state.bodies)) == ("text 0", 2)
    await model.close()
    model = await connect(url, tiny_model, patience=0.3)
    state.answers = [broken] * 99
    with pytest.raises(ModelUnavailableError, match=r"no answer for 0\.3 s, last (Remote|Decoding)"):
        await model.complete("Q", stop=(), max_tokens=1, sampling=Sampling())
    await model.close()


async def test_fewer_tokens_are_asked_for_where_the_context_is_nearly_full(peer, tiny_model: Path):
    state, url = peer
    state.answers = [(400, {"message": "This model's maximum context length is 10"})] * 2
    model = await connect(url, tiny_model)
    [one] = await model.complete("Q", stop=(), max_tokens=100, sampling=Sampling())
    assert one.text == "text 0"
    assert [body["max_tokens"] for body in state.bodies] == [100, 50, 25]
    await model.close()


# Texts that are scored


async def test_a_score_is_the_sum_of_the_echoed_logprobs(peer, tiny_model: Path):
    state, url = peer
    model = await connect(url, tiny_model)
    found = await model.score("Is it right? ", ["Yes", "No"])

    def tokens(text: str) -> list[int]:
        return model._tokenizer.encode(text, add_special_tokens=False)

    assert found == pytest.approx([sum(map(token_logprob, tokens(text))) for text in ("Yes", "No")])
    state.bodies = [body for body in state.bodies if "echo" in body]
    assert sorted(body["prompt"] for body in state.bodies) == sorted(
        [*tokens("Is it right? "), *tokens(text)] for text in ("Yes", "No")
    )
    for body in state.bodies:
        assert (body["echo"], body["max_tokens"], body["logprobs"], body["temperature"]) == (True, 1, 1, 0)
    await model.close()


async def test_a_score_is_the_sum_of_the_forced_tokens(peer, tiny_model: Path):
    state, url = peer
    state.forces = True
    model = await connect(url, tiny_model)
    [found] = await model.score("Is it right? ", ["Yes"])
    before, forced = (model._tokenizer.encode(text, add_special_tokens=False) for text in ("Is it right? ", "Yes"))
    assert found == pytest.approx(sum(map(token_logprob, forced)))
    asked = sorted((body["prompt"], body["allowed_token_ids"]) for body in state.bodies)
    assert asked == [([*before, *forced[:place]], [token]) for place, token in enumerate(forced)]
    await model.close()


async def test_a_verdict_that_is_cut_up_is_scored_whole(peer, tiny_model: Path):
    _, url = peer
    model = await connect(url, tiny_model)
    assert not model.is_token("Yes")
    yes, no = await model.score("any prompt", ["Yes", "No"])
    async with AsyncVerifier(model, None, style=Direct()) as verifier:
        report = await verifier.verify("p", ["s"])
    assert report.score == pytest.approx(1 / (1 + math.exp(no - yes)))


@pytest.mark.parametrize(
    "content",
    [
        {"choices": [{"index": 0, "text": "?", "finish_reason": "length", "logprobs": None}]},
        {"choices": [{"index": 0, "text": "?", "logprobs": {"token_logprobs": [None, -1.0]}}]},
        {"choices": [{"index": 0, "text": "?", "logprobs": {"token_logprobs": [None] * 99}}]},
        {"choices": []},
        {"choices": [{"index": 0, "logprobs": [1]}]},
        [],
    ],
)
async def test_a_server_that_does_not_echo(peer, tiny_model: Path, content: object):
    state, url = peer
    state.answers = [(200, content)] * 9
    model = await connect(url, tiny_model)
    with pytest.raises(ModelError, match="does not echo a prompt's log-probabilities"):
        await model.score("prompt", ["Yes"])
    await model.close()


# What a judgement makes of answers that are less than was asked for


def answer(text: str, logprobs: object = None, finish: str = "length", **more: object) -> tuple[int, object]:
    return 200, {"choices": [{"index": 0, "text": text, "finish_reason": finish, "logprobs": logprobs}], **more}


def chat_logprobs(**top: float) -> dict[str, object]:
    """As llama.cpp's server has them also where it only completes."""
    first = {"token": "Y", "logprob": -0.2, "bytes": [89]}
    others = [{"token": text, "logprob": value} for text, value in top.items()]
    return {"content": [{**first, "top_logprobs": others}]}


@pytest.mark.parametrize(
    ("reply", "score", "status"),
    [
        (answer("Y", {**LOGPROBS, "top_logprobs": [{"Y": -0.2, " N": -1.2, "y": -1.2}]}),
         (math.exp(-0.2) + math.exp(-1.2)) / (math.exp(-0.2) + 2 * math.exp(-1.2)), ParseStatus.OK),
        (answer("Y", chat_logprobs(Y=-0.2, N=-1.2)), 1 / (1 + math.exp(-1)), ParseStatus.OK),
        (answer("Y", chat_logprobs()), None, ParseStatus.NO_LOGPROBS),
        (answer("Y", {"tokens": ["Y"], "token_logprobs": [-0.2], "top_logprobs": None}), None, ParseStatus.NO_LOGPROBS),
        (answer("N", {"tokens": ["N"], "token_logprobs": [-3], "top_logprobs": [None]}), None, ParseStatus.NO_LOGPROBS),
        (answer("N", {"tokens": ["N"], "token_logprobs": [-0.001], "top_logprobs": [{}]}), 0, ParseStatus.OK),
        (answer("maybe", {"tokens": ["maybe"], "token_logprobs": [-0.2]}), None, ParseStatus.NO_VERDICT_TOKEN),
        (answer("Y", usage={"completion_tokens": 1}), None, ParseStatus.NO_LOGPROBS),
        (answer("Y"), None, ParseStatus.NO_LOGPROBS),
        (answer("", usage={"completion_tokens": 1}), None, ParseStatus.NO_LOGPROBS),
        (answer("", finish="stop", usage={"completion_tokens": 0}), None, ParseStatus.EMPTY),
        (answer("", {"tokens": [], "token_logprobs": [], "top_logprobs": []}), None, ParseStatus.EMPTY),
    ],
)  # fmt: skip
async def test_judgements(peer, tiny_model: Path, reply, score: float | None, status: ParseStatus):
    state, url = peer
    state.answers = [reply]
    model = await connect(url, tiny_model)
    reading = await Chain(model, None, Budget(), Sampling(), "key").choose("p", "Y", "N")
    assert reading.score == (None if score is None else pytest.approx(score))
    assert reading.status is status
    assert state.bodies[0]["logprobs"] == 20
    await model.close()


async def is_refused(url: str, tiny_model: Path, why: str) -> None:
    """What the server answers is no completion."""
    model = await connect(url, tiny_model)
    with pytest.raises(ModelError, match=why):
        await model.complete("p", stop=(), max_tokens=1, logprobs=20, sampling=Sampling())
    await model.close()


@pytest.mark.parametrize("finish", ["abort", "error", None])
async def test_a_completion_that_was_given_up_is_none(peer, tiny_model: Path, finish: str):
    state, url = peer
    state.answers = [answer("half of an analys", finish=finish)]
    await is_refused(url, tiny_model, f"finish_reason is {finish!r}")


@pytest.mark.parametrize("value", [1000.0, math.nan])
async def test_what_is_no_probability_is_no_completion(peer, tiny_model: Path, value: float):
    state, url = peer
    state.answers = [answer("Y", {"tokens": ["Y"], "token_logprobs": [value], "top_logprobs": [{"Y": value, "N": -1}]})]
    await is_refused(url, tiny_model, "log-probability of 'Y'")


async def test_half_a_character_is_replaced(peer, tiny_model: Path):
    state, url = peer
    state.answers = [answer("so\ud800", finish="stop")]
    model = await connect(url, tiny_model)
    [one] = await model.complete("p", stop=(), max_tokens=9, sampling=Sampling())
    assert one.text == "so\ufffd"
    await model.close()


async def test_a_server_that_does_not_count(peer, tiny_model: Path):
    """Budgets are kept all the same."""
    state, url = peer
    state.answers = [answer("six sevens are forty-two", finish="stop")]
    model = await connect(url, tiny_model)
    [one] = await model.complete("six times seven", stop=(), max_tokens=9, sampling=Sampling())
    assert (one.prompt_tokens, one.completion_tokens) == (model._count("six times seven"), model._count(one.text))
    assert one.completion_tokens > 3
    await model.close()


async def test_a_context_that_is_known_is_used_to_its_end(peer, tiny_model: Path):
    state, url = peer
    state.context = 100
    model = await connect(url, tiny_model)
    prompt = "six times seven"
    for wished in (2048, RESERVED):
        await model.complete(prompt, stop=(), max_tokens=wished, sampling=Sampling())
    left = 100 - model._count(prompt)
    assert [body["max_tokens"] for body in state.bodies] == [left - RESERVED, RESERVED], "a verdict needs room, too"
    with pytest.raises(ContextFullError, match="fills the context of 100"):
        await model.complete(prompt * 40, stop=(), max_tokens=1, sampling=Sampling())
    await model.close()


async def test_one_row_that_fails_makes_no_other_one_unavailable(peer, tiny_model: Path):
    """Status 500 for one request, and another that takes its time: that is not a server that is gone."""
    state, url = peer
    state.answers = [(500, {})] * 4
    model = await connect(url, tiny_model)
    with pytest.raises(ModelError, match="failed 4 times"):
        await model.complete("p", stop=(), max_tokens=1, sampling=Sampling())
    assert not model.away
    model.away = True  # as another caller's requests may have found it
    state.slow = 3.0
    async with AsyncVerifier(model, None, style=Direct(), budget=Budget(wall_seconds=1)) as verifier:
        report = await verifier.verify("p", ["s"])
    assert report.steps[0].stop_reason is StopReason.WALL_TIME


async def test_more_names_than_values_are_no_completion(peer, tiny_model: Path):
    state, url = peer
    state.answers = [answer("Y", {"tokens": ["Y", "N"], "token_logprobs": [-0.2]})]
    await is_refused(url, tiny_model, "not a completion")


async def test_a_truncated_chain_is_no_verdict(peer, tiny_model: Path):
    """A judge whose text is cut off is asked for the index; one that says nothing even then has none."""
    state, url = peer
    state.answers = [answer("On and on"), answer("", finish="stop")]
    model = await connect(url, tiny_model)
    async with AsyncVerifier(model, None, style=Judge()) as verifier:
        report = await verifier.verify("p", ["s"])
    assert (report.score, report.unscored, report.steps[0].stop_reason) == (None, 1, StopReason.TOKEN_BUDGET)
    asked, forced = (model._tokenizer.decode(body["prompt"]) for body in state.bodies)
    assert forced.startswith(asked + "On and on")


async def test_a_server_that_went_away(peer, tiny_model: Path):
    _, url = peer
    model = await connect(url, tiny_model, patience=0.5)
    model._client.base_url = "http://127.0.0.1:9/v1/"
    with pytest.raises(ModelUnavailableError, match=r"no answer for 0\.5 s, last ConnectError"):
        await model.complete("Q", stop=(), max_tokens=1, sampling=Sampling())
    await model.close()


async def test_time_that_passes_without_a_server_makes_no_row_unscored(peer, tiny_model: Path):
    """A chain's time may be up before patience is: the run ends, to be gone on with."""
    state, url = peer
    state.answers = [(503, {})] * 100_000
    model = await connect(url, tiny_model, patience=60)
    async with AsyncVerifier(model, None, style=Direct(), budget=Budget(wall_seconds=1.5)) as verifier:
        with pytest.raises(ModelUnavailableError, match=r"no answer for the rest of a chain's 1\.5 s"):
            await verifier.verify("p", ["s"])
        state.answers = [(503, {})]
        await model.complete("Q", stop=(), max_tokens=1, sampling=Sampling())
        assert not model.away


async def test_what_is_served_is_checked_first(peer, tiny_model: Path):
    _, url = peer
    with pytest.raises(ModelError, match="does not serve the model 'other', but served"):
        await connect(url, tiny_model, model="other")
    with pytest.raises(ModelError, match="does not serve the adapter 'mine', but served"):
        await connect(url, tiny_model, adapter="mine")
    with pytest.raises(ModelError, match="no OpenAI-compatible server answers"):
        await connect("http://127.0.0.1:9/v1", tiny_model)


def test_an_adapter_that_the_server_does_not_have(peer, tiny_model: Path, tmp_path: Path):
    state, url = peer
    state.served = ["base", "judge-lora", "other-lora"]
    (tmp_path / "rows.jsonl").write_text('{"id": "a", "problem": "p", "steps": ["s"]}')
    options = ["--base-url", url, "--tokenizer", str(tiny_model), "--style", "judge", "--model", "base"]
    done = CliRunner().invoke(app, ["verify", str(tmp_path / "rows.jsonl"), *options, "--adapter", "my-lora"])
    assert done.exit_code == 2
    said = f"genprm: {url} does not serve the adapter 'my-lora', but base, judge-lora, other-lora\n"
    assert done.stderr == said
    assert state.bodies == []


async def test_an_adapter_that_it_has_is_asked(peer, tiny_model: Path):
    state, url = peer
    state.served = ["base", "judge-lora"]
    model = await connect(url, tiny_model, model="base", adapter="judge-lora")
    await model.complete("Q", stop=(), max_tokens=1, sampling=Sampling())
    await model.score("Q", ["Yes"])
    assert {body["model"] for body in state.bodies} == {"judge-lora"}
    assert model.name == "base+judge-lora"
    with pytest.raises(ModelError, match="serves base, judge-lora: choose one with --model"):
        await connect(url, tiny_model)
    await model.close()


async def test_rendering_is_the_tokenizers(peer, tiny_model: Path):
    _, url = peer
    model = await connect(url, tiny_model)
    assert model.render([{"role": "user", "content": "Q"}], "x").endswith("<|im_start|>assistant\nx")
    await model.close()
