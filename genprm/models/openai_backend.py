"""The ``openai`` backend: any server with OpenAI's completions endpoint and logprobs (vLLM, SGLang, llama.cpp).

Chat messages are rendered here, with the tokenizer of the model, and sent as its tokens: a chat endpoint could not
continue a turn that is already begun.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import re
import time
from collections.abc import Sequence
from typing import Any

import httpx

from genprm.errors import ContextFullError, ModelError, ModelUnavailableError
from genprm.models.base import (
    HEARD,
    PATIENCE,
    Completion,
    FinishReason,
    Message,
    ModelBackend,
    Sampling,
    TokenChoice,
    fitting,
)
from genprm.models.chat import encode, is_one_token, load_tokenizer, render_chat, render_plain, split_tokens
from genprm.records import as_text
from genprm.tasks import gather_all

MOST_LOGPROB = 0.01
"""Of a token: 0, but for rounding."""
_LOG = logging.getLogger(__name__)
ATTEMPTS = 4
"""Tries of a request on which the server fails (status 500): another try may do, but the request may be the cause."""
FIRST_WAIT = 0.5
"""Seconds before the second try; doubled before each further one, up to `LONGEST_WAIT`."""
LONGEST_WAIT = 10.0
WARN_AFTER = 3.0
"""Seconds of that, before it is said."""
REQUEST_DEADLINE = 600.0
"""Seconds for one request."""
IN_FLIGHT = 64
GIVEN_UP = (None, "abort", "error", "cancelled", "content_filter")
"""How servers call the end of a completion that was not to end there."""
COMES_BACK = (408, 429, 502, 503, 504)
"""Statuses of a server, or of what stands before it, that will serve the same request later."""
GONE = (502, 503, 504)
"""Those of them that tell of a server that is not there."""
UNCHANGED = {
    "repetition_penalty": 1.0, "repeat_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "min_p": 0.0,
}  # fmt: skip
"""What servers change probabilities by: unsaid, vLLM takes what the model's own files say, llama.cpp its defaults."""
CONTEXT_FULL = re.compile(r"context[ _](length|size|window)|maximum model length", re.IGNORECASE)
"""How servers say that a prompt and what it asks for are longer than the context."""


class OpenAIModel(ModelBackend):
    """A model behind a server.

    Args:
        base_url: the server's address, ending in ``/v1``.
        model: the model's name at the server.
        tokenizer: hub id or folder of its tokenizer; the model's name by default.
        api_key: sent as a bearer token; ``$OPENAI_API_KEY`` by default.
        adapter: the name under which the server has a LoRA adapter for the model.
        patience: seconds for which a server that is not there is asked again.
        context: tokens of the model's context, where that is known.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        tokenizer: str | None = None,
        api_key: str | None = None,
        adapter: str | None = None,
        patience: float = PATIENCE,
        context: int | None = None,
    ) -> None:
        self.name = model if adapter is None else f"{model}+{adapter}"
        self.concurrency = IN_FLIGHT
        self._asked_for = adapter or model
        self._patience = patience
        self._context = context
        self._told = False
        """Whether the user has been told that the server is away."""
        self._forces = True
        """Whether the server can be made to draw a token, as far as is known."""
        self._varies: bool | None = None
        """Whether it draws the completions of one request with seeds of their own; None: not known yet."""
        self._tokenizer: Any = load_tokenizer(tokenizer or model)
        key = api_key or os.environ.get("OPENAI_API_KEY", "")
        self._client = httpx.AsyncClient(
            base_url=base_url.rstrip("/") + "/",
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(REQUEST_DEADLINE, connect=10),
            limits=httpx.Limits(max_connections=2 * IN_FLIGHT),
        )

    @classmethod
    async def connect(
        cls,
        base_url: str,
        model: str | None,
        *,
        tokenizer: str | None = None,
        api_key: str | None = None,
        adapter: str | None = None,
        patience: float = PATIENCE,
    ) -> OpenAIModel:
        """Look up what the server serves, and check that ``model`` and ``adapter`` are among it.

        Raises:
            ModelError: no server answers there, or it does not know them.
        """
        served = await _served_models(base_url, api_key or os.environ.get("OPENAI_API_KEY", ""))
        if model is None and len(served) != 1:
            raise ModelError(f"{base_url} serves {', '.join(served) or 'no model'}: choose one with --model")
        for name in (model, adapter):
            if name is not None and served and name not in served:
                kind = "adapter" if name is adapter else "model"
                raise ModelError(f"{base_url} does not serve the {kind} {name!r}, but {', '.join(served)}")
        name = model or next(iter(served))
        return cls(
            base_url, name, tokenizer=tokenizer, api_key=api_key, adapter=adapter, patience=patience,
            context=served.get(name),
        )  # fmt: skip

    async def complete(
        self, prompt: str, *, stop: Sequence[str], max_tokens: int, logprobs: int = 0, n: int = 1, sampling: Sampling
    ) -> list[Completion]:
        async def ask(number: int, n: int = 1) -> list[Completion]:
            seeded = sampling.model_copy(update={"seed": sampling.seed + number})
            return await self._ask(prompt, stop, max_tokens, logprobs, n, seeded)

        if n == 1 or self._varies is not False:
            done = await ask(0, n)
            if n == 1 or self._varies or sampling.temperature == 0:
                return done
            if len({completion.text for completion in done}) > 1:
                self._varies = True
            if self._varies or (await ask(1))[0].text == done[1].text:
                return done
            self._varies = False
            _LOG.warning("%s: the server draws the same again for one seed: each draw is a request", self.name)
        return [each for [each] in await gather_all(ask(number) for number in range(n))]

    async def _ask(
        self, prompt: str, stop: Sequence[str], max_tokens: int, logprobs: int, n: int, sampling: Sampling
    ) -> list[Completion]:
        # Tokens, not text: before a text SGLang and llama.cpp would put a first token that it has already.
        tokens = await encode(self._tokenizer, prompt)
        if self._context is not None:
            max_tokens = fitting(self.name, len(tokens), max_tokens, self._context)
        body = {
            "model": self._asked_for, "prompt": tokens, "stop": list(stop) or None, "max_tokens": max_tokens, "n": n,
            "logprobs": logprobs or None, "temperature": sampling.temperature, "top_p": sampling.top_p,
            "top_k": sampling.top_k, "seed": sampling.seed, **UNCHANGED,
        }  # fmt: skip
        answer = await self._post_fitting({name: value for name, value in body.items() if value is not None})
        try:
            usage = answer.get("usage") or {}
            choices = sorted(answer["choices"], key=lambda choice: choice["index"])
            if len(choices) != n:
                raise ValueError(f"{len(choices)} choices, not {n}")
            return [self._completion(choice, usage, len(tokens), n) for choice in choices]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{self.name}: the server's answer is not a completion: {error!r}") from error

    def _completion(self, choice: dict[str, Any], usage: dict[str, Any], taken: int, n: int) -> Completion:
        text, ended = as_text(choice["text"]), choice["finish_reason"]
        if ended in GIVEN_UP:
            raise ValueError(f"finish_reason is {ended!r}: it was given up")
        counted = usage.get("completion_tokens")  # not every server counts
        return Completion(
            text=text,
            finish_reason=FinishReason.LENGTH if ended == "length" else FinishReason.STOP,
            tokens=_tokens(choice.get("logprobs") or {}),
            prompt_tokens=taken if counted is None else int(usage.get("prompt_tokens") or 0),
            completion_tokens=self._count(text) if counted is None else int(counted) // n,
        )

    def _count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False))

    async def score(self, prompt: str, continuations: Sequence[str]) -> list[float]:
        return await gather_all(self._logprob(prompt, text) for text in continuations)

    async def _logprob(self, prompt: str, text: str) -> float:
        tokens, forced = split_tokens(self._tokenizer, prompt, text)
        if self._forces:
            values = await gather_all(self._forced([*tokens, *forced[:n]], each) for n, each in enumerate(forced))
            if None not in values:
                return sum(value for value in values if value is not None)
            self._forces = False
        return await self._echoed(tokens, forced)

    async def _forced(self, tokens: Sequence[int], token: int) -> float | None:
        """The log-probability of a token after these, where it is the only one that may be drawn: vLLM's way.

        It reads from the cached prefix, as an echo cannot. None: this server draws what it likes.
        """
        body = {
            "model": self._asked_for, "prompt": [*tokens], "max_tokens": 1, "logprobs": 1, "temperature": 0,
            "allowed_token_ids": [token], "return_tokens_as_token_ids": True,
        }  # fmt: skip
        answer = await self._post(body)
        try:
            logprobs = answer["choices"][0]["logprobs"]
            return float(logprobs["token_logprobs"][0]) if logprobs["tokens"] == [f"token_id:{token}"] else None
        except (KeyError, TypeError, ValueError, IndexError):
            return None

    async def _echoed(self, tokens: Sequence[int], forced: Sequence[int]) -> float:
        """By the prompt's own log-probabilities, which SGLang and others return where a prompt is echoed."""
        body = {
            "model": self._asked_for, "prompt": [*tokens, *forced], "max_tokens": 1, "logprobs": 1, "echo": True,
            "temperature": 0,
        }  # fmt: skip
        answer = await self._post(body)
        try:
            values = answer["choices"][0]["logprobs"]["token_logprobs"][len(tokens) : len(tokens) + len(forced)]
            if len(values) != len(forced):
                raise ValueError(f"{len(values)} log-probabilities, not {len(forced)}")
            return sum(float(value) for value in values)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ModelError(
                f"{self.name}: the server does not echo a prompt's log-probabilities: {error!r}"
            ) from error

    def is_token(self, word: str) -> bool:
        return is_one_token(self._tokenizer, word)

    def render(self, messages: Sequence[Message], prefix: str) -> str:
        return render_chat(self._tokenizer, messages, prefix)

    def plain(self, text: str) -> str:
        return render_plain(self._tokenizer, text)

    async def close(self) -> None:
        await self._client.aclose()

    async def _post_fitting(self, body: dict[str, Any]) -> dict[str, Any]:
        """Post; ask for fewer tokens where a context that is not known has no room for as many as would be allowed."""
        while True:
            try:
                return await self._post(body)
            except ContextFullError:
                if body["max_tokens"] == 1:
                    raise
                body = {**body, "max_tokens": body["max_tokens"] // 2}

    async def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        begun = time.monotonic()
        wait, failures = FIRST_WAIT, 0
        while True:
            told = 0.0
            try:
                response = await self._client.post("completions", json=body)
            except httpx.RequestError as error:
                problem = f"{type(error).__name__} {error}".strip()
                self._hear(away=True)
            else:
                if response.status_code < 400:
                    self._told = False
                    self._hear(away=False)
                    return _object(response, self.name)
                problem = f"status {response.status_code}: {response.text[:300]}"
                told = self._must_wait(response, problem)
                self._hear(away=response.status_code in GONE)
                failures += response.status_code not in COMES_BACK
            if failures >= ATTEMPTS:
                raise ModelError(f"{self.name}: the server failed {ATTEMPTS} times, last {problem}")
            pause = max(told, wait * random.uniform(0.5, 1.0))  # so that not all come back at once
            if time.monotonic() - begun + pause > self._patience:
                raise ModelUnavailableError(f"{self.name}: no answer for {self._patience:g} s, last {problem}")
            if not self._told and time.monotonic() - begun + pause > WARN_AFTER:
                self._told = True
                _LOG.warning("%s does not answer (%s): asking again for %g s", self.name, problem, self._patience)
            await asyncio.sleep(pause)
            wait = min(2 * wait, LONGEST_WAIT)

    def _hear(self, *, away: bool) -> None:
        self.away = away
        if heard := HEARD.get():
            heard.away = away

    def _must_wait(self, response: httpx.Response, problem: str) -> float:
        """Seconds that a server which refuses for now asks for.

        Raises:
            ModelUnavailableError: it lets nobody in, or does not serve this model any more: no row's own fault.
            ModelError: it refuses for good.
        """
        status = response.status_code
        if status == 400 and CONTEXT_FULL.search(response.text):
            raise ContextFullError(f"{self.name}: {problem}")
        if status in (401, 403, 404):
            raise ModelUnavailableError(f"{self.name}: the server refuses: {problem}")
        if status < 500 and status not in COMES_BACK:
            raise ModelError(f"{self.name}: the server refuses: {problem}")
        told = response.headers.get("retry-after", "")
        return float(told) if told.isascii() and told.isdecimal() else 0.0


def _object(response: httpx.Response, name: str) -> dict[str, Any]:
    try:
        return dict(response.json())
    except (TypeError, ValueError) as error:
        raise ModelError(f"{name}: the server's answer is not a completion: {response.text[:100]!r}") from error


async def _served_models(base_url: str, key: str) -> dict[str, int | None]:
    """What a server serves, and each one's context, where it tells that (vLLM and SGLang do)."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        async with httpx.AsyncClient(headers=headers, timeout=10) as client:
            response = await client.get(base_url.rstrip("/") + "/models")
            response.raise_for_status()
            served = {str(model["id"]): model.get("max_model_len") for model in response.json()["data"]}
            return {name: context if isinstance(context, int) else None for name, context in served.items()}
    except (httpx.HTTPError, httpx.InvalidURL, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"no OpenAI-compatible server answers at {base_url}: {error!r}") from error


def _tokens(logprobs: dict[str, Any]) -> tuple[TokenChoice, ...]:
    """The tokens as OpenAI's completions have them, or as its chat has them: so llama.cpp sends them here, too.

    Some servers name the written token only, or fewer alternatives than were asked for.
    """
    if logprobs.get("content"):
        entries = [
            (one["token"], one["logprob"], {each["token"]: each["logprob"] for each in one.get("top_logprobs") or ()})
            for one in logprobs["content"]
        ]
    else:
        names, values = logprobs.get("tokens") or [], logprobs.get("token_logprobs") or []
        entries = list(zip(names, values, logprobs.get("top_logprobs") or [None] * len(names), strict=True))
    found = tuple(TokenChoice(text=text, logprob=value, top=top or {text: value}) for text, value, top in entries)
    for each in found:
        if not all(value <= MOST_LOGPROB for value in (each.logprob, *each.top.values())):  # nor is nan
            raise ValueError(f"the log-probability of {each.text!r} is none: {each.top}")
    return found
