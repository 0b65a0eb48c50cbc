"""The ``transformers`` backend: any causal language model of the hub or a local folder, on CPU or GPU.

Made for small models and short jobs on the machine at hand; a GPU with a large model is served better by vLLM
through the ``openai`` backend.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genprm.errors import ConfigError, ContextFullError, ModelError
from genprm.models.base import Completion, Message, ModelBackend, Sampling, fitting
from genprm.models.chat import (
    encode,
    first_line,
    is_one_token,
    load_tokenizer,
    render_chat,
    render_plain,
    split_tokens,
)
from genprm.models.embedded import EMBEDDED, EMBEDDED_HUB_ID, model_source

if TYPE_CHECKING:
    from genprm.models.batching import Batcher

SLOTS = 32
"""Sequences decoded at once. On two CPU cores they write 1.4 times as much as 16 would, and 64 would 1.9 times."""
MAX_LOGPROBS = 20
_LOG = logging.getLogger(__name__)


class TransformersModel(ModelBackend):
    """A model in this process."""

    def __init__(self, model: Any, tokenizer: Any, name: str, slots: int = SLOTS) -> None:
        from genprm.models.batching import Batcher
        from genprm.models.slots import SlotCache

        self.name = name
        self.concurrency = slots
        self._tokenizer = tokenizer
        config = model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        if kinds != {"full_attention"}:
            raise ModelError(f"{name}: layers of kind {sorted(kinds)} are not supported here; serve it with vLLM")
        self._context = int(config.max_position_embeddings)
        window = None if getattr(config, "layer_types", None) else getattr(config, "sliding_window", None)
        if window is not None:  # as far as that a sliding window sees everything
            self._context = min(self._context, int(window))
        generation = getattr(model, "generation_config", None)
        ends = getattr(generation, "eos_token_id", None) or tokenizer.eos_token_id
        end_tokens = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
        self._batcher: Batcher | None = Batcher(SlotCache(model, slots), tokenizer, slots, end_tokens)

    @classmethod
    def load(cls, name: str, adapter: str | None = None, slots: int = SLOTS) -> TransformersModel:
        """Load a model and put a LoRA adapter on it.

        Args:
            name: hub id, local folder, or `EMBEDDED`.
            adapter: hub id or folder of a peft adapter that was trained on this model.
            slots: sequences decoded at once.

        Raises:
            ModelError: there is no such model or adapter, or the adapter is for another base.
        """
        source = model_source(name)
        tokenizer = load_tokenizer(source)
        import torch
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        gpu = torch.cuda.is_available()
        dtype: Any = "auto" if gpu else torch.float32
        if gpu:
            # cuDNN makes a plan, some 30 ms, for every new length, which decoding has at each token.
            torch.backends.cuda.enable_cudnn_sdp(False)
            if not torch.cuda.is_bf16_supported(including_emulation=False):
                dtype = torch.float16
        try:
            model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise ModelError(f"the model {name!r} cannot be loaded: {first_line(error)}") from error
        if adapter is not None:
            model = with_adapter(model, name, adapter)
        try:
            model = model.to("cuda" if gpu else "cpu").eval()
        except RuntimeError as error:
            raise ModelError(
                f"the model {name!r} does not fit the GPU; vllm serve --tensor-parallel-size spreads it over several: "
                f"{first_line(error)}"
            ) from error
        return cls(model, tokenizer, _full_name(name, adapter), slots)

    async def complete(
        self, prompt: str, *, stop: Sequence[str], max_tokens: int, logprobs: int = 0, n: int = 1, sampling: Sampling
    ) -> list[Completion]:
        if logprobs > MAX_LOGPROBS:
            raise ConfigError(f"logprobs is {logprobs}, at most {MAX_LOGPROBS} can be had")
        tokens = await encode(self._tokenizer, prompt)
        most = fitting(self.name, len(tokens), max_tokens, self._context)
        draws = [sampling.model_copy(update={"seed": sampling.seed + draw}) for draw in range(n)]
        work = [self._one(tokens, stop, most, logprobs, draw) for draw in draws]
        return list(await asyncio.gather(*work))

    async def _one(
        self,
        tokens: list[int],
        stop: Sequence[str],
        max_tokens: int,
        logprobs: int,
        sampling: Sampling,
        forced: Sequence[int] = (),
    ) -> Completion:
        from genprm.models.batching import Request

        if self._batcher is None:
            raise ModelError(f"{self.name} was closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Completion] = loop.create_future()

        def settle(outcome: Completion | Exception) -> None:
            if future.done():
                return
            if isinstance(outcome, Exception):
                future.set_exception(ModelError(f"{self.name}: {first_line(outcome)}"))
            else:
                future.set_result(outcome)

        def resolve(outcome: Completion | Exception) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, outcome)

        request = Request(tokens, stop, max_tokens, logprobs, sampling, resolve, forced)
        self._batcher.submit(request)
        try:
            return await future
        finally:
            request.cancelled = True

    async def score(self, prompt: str, continuations: Sequence[str]) -> list[float]:
        return list(await asyncio.gather(*(self._logprob(prompt, text) for text in continuations)))

    async def _logprob(self, prompt: str, text: str) -> float:
        tokens, forced = split_tokens(self._tokenizer, prompt, text)
        if len(tokens) + len(forced) > self._context:
            raise ContextFullError(f"{len(tokens) + len(forced)} tokens do not fit the context of {self._context}")
        completion = await self._one(tokens, (), len(forced), 1, Sampling(temperature=0), forced)
        return sum(token.logprob for token in completion.tokens)

    def is_token(self, word: str) -> bool:
        return is_one_token(self._tokenizer, word)

    def render(self, messages: Sequence[Message], prefix: str) -> str:
        return render_chat(self._tokenizer, messages, prefix)

    def plain(self, text: str) -> str:
        return render_plain(self._tokenizer, text)

    async def close(self) -> None:
        batcher, self._batcher = self._batcher, None
        if batcher:
            await asyncio.to_thread(batcher.close)


def _full_name(name: str, adapter: str | None) -> str:
    return name if adapter is None else f"{name}+{Path(adapter).name}"


def with_adapter(model: Any, name: str, adapter: str) -> Any:
    """A model with a LoRA adapter merged into its weights.

    Raises:
        ModelError: the adapter cannot be had, or is for another base than ``name``.
    """
    from safetensors import SafetensorError

    try:
        from peft import PeftModel
    except ImportError as error:
        raise ModelError("--adapter needs the extra 'transformers': pip install 'genprm[transformers]'") from error
    config = Path(adapter) / "adapter_config.json"
    if Path(adapter).exists() and not config.exists():
        raise ModelError(f"{adapter} is no adapter: it has no adapter_config.json")
    try:
        base = json.loads(config.read_text())["base_model_name_or_path"] if config.exists() else None
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{config} is no adapter's configuration: {first_line(error)}") from error
    except KeyError as error:
        raise ModelError(f"{config} is no adapter's configuration: it has no field {error}") from error
    if _are_others(base, name):
        _LOG.warning("the adapter %s was trained on %s, and not on %s", adapter, base, name)
    try:
        return PeftModel.from_pretrained(model, adapter).merge_and_unload()
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as error:
        if isinstance(error, OSError | ValueError) and not Path(adapter).exists():
            raise ModelError(
                f"the adapter {adapter} is no folder here, nor can it be had: {first_line(error)}"
            ) from error
        hint = f"it was trained on {base!r}" if base else first_line(error)
        raise ModelError(f"the adapter {adapter} does not fit the model {name!r}: {hint}") from error


def _are_others(base: str | None, name: str) -> bool:
    """Whether an adapter's base is another than a model on the hub. What a folder holds, its name does not say."""
    name = EMBEDDED_HUB_ID if name == EMBEDDED else name
    return bool(base) and not any(Path(each).exists() for each in (base or "", name)) and base != name
