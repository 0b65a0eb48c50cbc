"""The openai backend against a real HTTP server on the loopback that misbehaves on demand."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from genprm.errors import ContextFullError, ModelError, ModelUnavailableError
from genprm.models.base import FinishReason, Sampling
from genprm.models.openai_backend import OpenAIModel

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
        self.headers: list[dict[str, str]] = []
        self.answers: list[tuple[int, object]] = []

    def answer(self, body: dict[str, Any]) -> tuple[int, object]:
        self.bodies.append(body)
        if self.answers:
            return self.answers.pop(0)
        choices = [
            {"index": index, "text": f"text {index}", "finish_reason": "stop", "logprobs": None}
            for index in reversed(range(body["n"]))
        ]
        if body.get("logprobs"):
            choices = [{"index": 0, "text": "Yes", "finish_reason": "length", "logprobs": LOGPROBS}]
        return 200, {"choices": choices, "usage": {"prompt_tokens": 11, "completion_tokens": 6}}


@pytest.fixture
def peer() -> Iterator[tuple[Peer, str]]:
    state = Peer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(200, {"data": [{"id": "served"}]})

        def do_POST(self) -> None:
            state.headers.append(dict(self.headers))
            self._send(*state.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

        def _send(self, status: int, content: object) -> None:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield state, f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


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
        "model": "served", "prompt": "Q", "stop": ["a", "b"], "max_tokens": 9, "n": 3, "temperature": 0.3,
        "top_p": 0.8, "top_k": 7, "seed": 5, "add_special_tokens": False,
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
        ([(401, {"error": "no key"})], ModelError, "refuses: status 401.*no key"),
        ([(400, {"message": "maximum context length is 10"})], ContextFullError, "context length"),
        ([(400, {"message": "bad"})], ModelError, "refuses"),
        ([(200, {"nothing": 1})], ModelError, "not a completion"),
        ([(200, {"choices": [{"index": 0}]})], ModelError, "not a completion"),
        ([(200, b"no JSON")], ModelError, "not a completion"),
    ],
)
async def test_what_goes_wrong_is_named(peer, tiny_model: Path, answers, error: type[Exception], words: str):
    state, url = peer
    state.answers = list(answers)
    model = await connect(url, tiny_model)
    with pytest.raises(error, match=words):
        await model.complete("Q", stop=(), max_tokens=1, sampling=Sampling())
    await model.close()


async def test_a_server_that_went_away(peer, tiny_model: Path):
    _, url = peer
    model = await connect(url, tiny_model, patience=0.5)
    model._client.base_url = "http://127.0.0.1:9/v1/"
    with pytest.raises(ModelUnavailableError, match=r"no answer for 0\.5 s, last ConnectError"):
        await model.complete("Q", stop=(), max_tokens=1, sampling=Sampling())
    await model.close()


async def test_what_is_served_is_checked_first(peer, tiny_model: Path):
    _, url = peer
    with pytest.raises(ModelError, match="does not serve the model 'other', but served"):
        await connect(url, tiny_model, model="other")
    with pytest.raises(ModelError, match="does not serve the adapter 'mine', but served"):
        await connect(url, tiny_model, adapter="mine")
    with pytest.raises(ModelError, match="no OpenAI-compatible server answers"):
        await connect("http://127.0.0.1:9/v1", tiny_model)


async def test_rendering_is_the_tokenizers(peer, tiny_model: Path):
    _, url = peer
    model = await connect(url, tiny_model)
    assert model.render([{"role": "user", "content": "Q"}], "x").endswith("<|im_start|>assistant\nx")
    await model.close()
