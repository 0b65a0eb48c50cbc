"""The ``vllm`` backend: vLLM's asynchronous engine in this process, with prefix caching and a LoRA adapter.

Every call of every chain is a request of its own; the engine batches what is in flight, and a prompt that grew since
the last call of its chain costs its new tokens only.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from genprm.errors import ContextFullError, ModelError, ModelUnavailableError
from genprm.models.base import Completion, FinishReason, Message, ModelBackend, Sampling, TokenChoice, fitting
from genprm.models.chat import (
    encode,
    first_line,
    is_one_token,
    load_tokenizer,
    render_chat,
    render_plain,
    split_tokens,
)
from genprm.models.embedded import model_source
from genprm.tasks import gather_all

IN_FLIGHT = 64
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM makes room for."""
UNKNOWN_RANK = 64
"""Room for an adapter of the hub, whose rank is not known before the engine starts."""
FITTING = -1
"""As much of the model's context as the GPU has room for."""
MAX_LOGPROBS = 20


def lora_rank(adapter: str) -> int:
    """The rank that an adapter needs room for.

    Raises:
        ModelError: vLLM cannot use the adapter, which it would find out in the middle of a run.
    """
    config = Path(adapter) / "adapter_config.json"
    if not config.is_file():  # of the hub
        return UNKNOWN_RANK
    try:
        shape = json.loads(config.read_text())
        largest = max([int(shape["r"]), *map(int, (shape.get("rank_pattern") or {}).values())])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{adapter}: no LoRA adapter (adapter_config.json)") from error
    if shape.get("use_dora") or shape.get("bias", "none") != "none" or largest > LORA_RANKS[-1]:
        raise ModelError(f"{adapter}: vLLM takes no adapter with DoRA, biases or a rank over {LORA_RANKS[-1]}")
    return next(rank for rank in LORA_RANKS if rank >= largest)


class VLLMModel(ModelBackend):
    """A model in vLLM's engine."""

    def __init__(self, engine: Any, tokenizer: Any, name: str, context: int, lora: Any | None) -> None:
        self.name = name
        self.concurrency = IN_FLIGHT
        self._engine: Any = engine
        self._tokenizer = tokenizer
        self._context = context
        self._lora = lora
        self._numbers = itertools.count()

    @classmethod
    def load(cls, name: str, adapter: str | None = None, **engine: Any) -> VLLMModel:
        """Start an engine.

        Args:
            name: hub id, local folder, or `EMBEDDED`.
            adapter: hub id or folder of a LoRA adapter for the model.
            engine: further arguments of vLLM's engine, like ``max_model_len`` or ``tensor_parallel_size``.

        Raises:
            ModelError: vLLM is not installed, or the model does not load.
        """
        try:
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.lora.request import LoRARequest
            from vllm.platforms import current_platform
            from vllm.v1.engine.async_llm import AsyncLLM
        except ImportError as error:
            raise ModelError("this backend needs vLLM: pip install 'genprm[vllm]'") from error
        source = model_source(name)
        tokenizer = load_tokenizer(source)
        arguments: dict[str, Any] = {
            "model": source, "enable_prefix_caching": True, "max_logprobs": MAX_LOGPROBS,
            "enable_lora": adapter is not None, "disable_log_stats": True,
        }  # fmt: skip
        if adapter is not None:
            arguments["max_lora_rank"] = lora_rank(adapter)
        if not current_platform.is_cpu():
            arguments["max_model_len"] = FITTING
        else:
            # bfloat16 is several times slower there; a seeded request whose prompt is read in chunks ends the engine.
            arguments |= {"dtype": "float32", "enforce_eager": True, "enable_chunked_prefill": False}
            arguments["gpu_memory_utilization"] = 0.4  # of main memory, which others need, too
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        try:
            built = AsyncLLM.from_engine_args(AsyncEngineArgs(**{**arguments, **engine}))
        except Exception as error:
            raise ModelError(f"vLLM cannot start {name!r}: {first_line(error)}") from error
        lora = LoRARequest(Path(adapter).name, 1, adapter) if adapter is not None else None
        full = name if adapter is None else f"{name}+{Path(adapter).name}"
        model = cls(built, tokenizer, full, int(built.model_config.max_model_len), lora)
        del built  # vLLM keeps this frame alive; at the interpreter's end the engine could not be taken down any more
        return model

    async def complete(
        self, prompt: str, *, stop: Sequence[str], max_tokens: int, logprobs: int = 0, n: int = 1, sampling: Sampling
    ) -> list[Completion]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        tokens = await encode(self._tokenizer, prompt)
        most = fitting(self.name, len(tokens), max_tokens, self._context)
        how = SamplingParams(
            n=n, stop=list(stop), max_tokens=most, logprobs=logprobs or None,
            temperature=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k, seed=sampling.seed,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )  # fmt: skip
        output = await self._generate(tokens, how)
        return [self._completion(one, len(tokens)) for one in sorted(output.outputs, key=lambda one: one.index)]

    async def score(self, prompt: str, continuations: Sequence[str]) -> list[float]:
        return await gather_all(self._logprob(prompt, text) for text in continuations)

    async def _logprob(self, prompt: str, text: str) -> float:
        """One call per token of the text, in which no other may be drawn; its log-probability is as if any could.

        Log-probabilities of a prompt would be one call, which reads the whole prompt anew: no cached prefix has them.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        tokens, forced = split_tokens(self._tokenizer, prompt, text)
        if len(tokens) + len(forced) > self._context:
            raise ContextFullError(f"{len(tokens) + len(forced)} tokens do not fit the context of {self._context}")

        async def one(place: int) -> float:
            how = SamplingParams(
                max_tokens=1, temperature=0, logprobs=1, allowed_token_ids=[forced[place]],
                output_kind=RequestOutputKind.FINAL_ONLY,
            )  # fmt: skip
            output = await self._generate([*tokens, *forced[:place]], how)
            return float(output.outputs[0].logprobs[0][forced[place]].logprob)

        return sum(await gather_all(one(place) for place in range(len(forced))))

    def is_token(self, word: str) -> bool:
        return is_one_token(self._tokenizer, word)

    def render(self, messages: Sequence[Message], prefix: str) -> str:
        return render_chat(self._tokenizer, messages, prefix)

    def plain(self, text: str) -> str:
        return render_plain(self._tokenizer, text)

    async def close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.shutdown()

    async def _generate(self, tokens: list[int], how: Any) -> Any:
        if self._engine is None:
            raise ModelError(f"{self.name} was closed")
        last = None
        try:
            request = str(next(self._numbers))
            prompt = {"prompt_token_ids": tokens}
            # Where the caller is cancelled, closing the generator takes the request out of the engine.
            async with aclosing(self._engine.generate(prompt, how, request, lora_request=self._lora)) as outputs:
                async for output in outputs:
                    last = output
        except asyncio.CancelledError:
            raise
        except Exception as error:
            if self._engine is None or self._engine.errored:  # it is dead: no other row would fare better
                raise ModelUnavailableError(f"{self.name}: the engine has ended: {first_line(error)}") from error
            raise ModelError(f"{self.name}: {first_line(error)}") from error
        if last is None:
            raise ModelError(f"{self.name}: the engine returned nothing")
        return last

    def _completion(self, output: Any, prompt_tokens: int) -> Completion:
        choices = []
        for token, likely in zip(output.token_ids, output.logprobs or [], strict=False):
            top: dict[str, float] = {}
            for each in sorted(likely.values(), key=lambda one: one.rank):
                top.setdefault(each.decoded_token, each.logprob)
            choices.append(TokenChoice(text=likely[token].decoded_token, logprob=likely[token].logprob, top=top))
        return Completion(
            text=output.text,
            finish_reason=_finish_reason(output),
            tokens=tuple(choices),
            prompt_tokens=prompt_tokens,
            completion_tokens=len(output.token_ids),
        )


def _finish_reason(output: Any) -> FinishReason:
    if output.finish_reason == "length":
        return FinishReason.LENGTH
    if output.finish_reason != "stop":
        raise ModelError(f"the engine gave a request up: {output.finish_reason}")
    return FinishReason.STOP if isinstance(output.stop_reason, str) else FinishReason.END
