"""The ``openai`` backend: any server with OpenAI's completions endpoint and logprobs (vLLM, SGLang, llama.cpp).

Chat messages are rendered here, with the tokenizer of the model, and sent as plain text: a chat endpoint could
not continue a turn that is already begun.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from typing import Any

import httpx

from genprm.errors import ContextFullError, ModelError, ModelUnavailableError
from genprm.models.base import Completion, FinishReason, Message, ModelBackend, Sampling, TokenChoice
from genprm.models.chat import load_tokenizer, render_chat

ATTEMPTS = 4
"""Tries of a request that the server did not answer, or answered with "busy" or "failed"."""
FIRST_WAIT = 0.5
"""Seconds before the second try; doubled before each further one."""
REQUEST_DEADLINE = 600.0
"""Seconds for one request."""
IN_FLIGHT = 64
CONTEXT_FULL = re.compile(r"context[ _](length|size|window)|maximum model length", re.IGNORECASE)
"""How servers say that a prompt and what it asks for are longer than the context."""


class OpenAIModel(ModelBackend):
    """A model behind a server.

    Args:
        base_url: the server's address, ending in ``/v1``.
        model: the model's name at the server.
        tokenizer: hub id or folder of its tokenizer; the model's name by default.
        api_key: sent as a bearer token; ``$OPENAI_API_KEY`` by default.
    """

    def __init__(self, base_url: str, model: str, *, tokenizer: str | None = None, api_key: str | None = None) -> None:
        self.name = model
        self.concurrency = IN_FLIGHT
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
        cls, base_url: str, model: str | None, *, tokenizer: str | None = None, api_key: str | None = None
    ) -> OpenAIModel:
        """Look up what the server serves, and check that ``model`` is among it.

        Raises:
            ModelError: no server answers there, or it does not know the model.
        """
        served = await _served_models(base_url, api_key or os.environ.get("OPENAI_API_KEY", ""))
        if model is None and len(served) != 1:
            raise ModelError(f"{base_url} serves {', '.join(served) or 'no model'}: choose one with --model")
        if model is not None and served and model not in served:
            raise ModelError(f"{base_url} does not serve {model!r}, but {', '.join(served)}")
        return cls(base_url, model or served[0], tokenizer=tokenizer, api_key=api_key)

    async def complete(
        self, prompt: str, *, stop: Sequence[str], max_tokens: int, logprobs: int = 0, n: int = 1, sampling: Sampling
    ) -> list[Completion]:
        body = {
            "model": self.name, "prompt": prompt, "stop": list(stop) or None, "max_tokens": max_tokens, "n": n,
            "logprobs": logprobs or None, "temperature": sampling.temperature, "top_p": sampling.top_p,
            "top_k": sampling.top_k, "seed": sampling.seed, "add_special_tokens": False,
        }  # fmt: skip
        answer = await self._post_fitting({name: value for name, value in body.items() if value is not None})
        try:
            usage = answer.get("usage") or {}
            choices = sorted(answer["choices"], key=lambda choice: choice["index"])
            if len(choices) != n:
                raise ValueError(f"{len(choices)} choices, not {n}")
            return [_completion(choice, usage, n) for choice in choices]
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{self.name}: the server's answer is not a completion: {error!r}") from error

    def render(self, messages: Sequence[Message], prefix: str) -> str:
        return render_chat(self._tokenizer, messages, prefix)

    async def close(self) -> None:
        await self._client.aclose()

    async def _post_fitting(self, body: dict[str, Any]) -> dict[str, Any]:
        """Post; ask for fewer tokens where the context has no room for as many as would be allowed."""
        while True:
            try:
                return await self._post(body)
            except ContextFullError:
                if body["max_tokens"] == 1:
                    raise
                body = {**body, "max_tokens": body["max_tokens"] // 2}

    async def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        wait = FIRST_WAIT
        for attempt in range(1, ATTEMPTS + 1):
            try:
                response = await self._client.post("completions", json=body)
            except httpx.TransportError as error:
                problem = f"{type(error).__name__} {error}".strip()
            else:
                if response.status_code < 400:
                    return _object(response, self.name)
                problem = f"status {response.status_code}: {response.text[:300]}"
                if response.status_code == 400 and CONTEXT_FULL.search(response.text):
                    raise ContextFullError(f"{self.name}: {problem}")
                if response.status_code < 500 and response.status_code not in (408, 429):
                    raise ModelError(f"{self.name}: the server refuses: {problem}")
            if attempt < ATTEMPTS:
                await asyncio.sleep(wait)
                wait *= 2
        raise ModelUnavailableError(f"{self.name}: no answer after {ATTEMPTS} tries, last {problem}")


def _object(response: httpx.Response, name: str) -> dict[str, Any]:
    try:
        return dict(response.json())
    except (TypeError, ValueError) as error:
        raise ModelError(f"{name}: the server's answer is not a completion: {response.text[:100]!r}") from error


async def _served_models(base_url: str, key: str) -> list[str]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        async with httpx.AsyncClient(headers=headers, timeout=10) as client:
            response = await client.get(base_url.rstrip("/") + "/models")
            response.raise_for_status()
            return [str(model["id"]) for model in response.json()["data"]]
    except (httpx.HTTPError, httpx.InvalidURL, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"no OpenAI-compatible server answers at {base_url}: {error!r}") from error


def _completion(choice: dict[str, Any], usage: dict[str, Any], n: int) -> Completion:
    logprobs = choice.get("logprobs") or {}
    tokens = [
        TokenChoice(text=text, logprob=value, top=top or {text: value})
        for text, value, top in zip(
            logprobs.get("tokens") or [],
            logprobs.get("token_logprobs") or [],
            logprobs.get("top_logprobs") or [],
            strict=True,
        )
    ]
    return Completion(
        text=choice["text"],
        finish_reason=FinishReason.LENGTH if choice["finish_reason"] == "length" else FinishReason.STOP,
        tokens=tuple(tokens),
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        completion_tokens=int(usage.get("completion_tokens") or 0) // n,
    )
