"""A discriminative PRM with a two-class head, in this process: Qwen2.5-Math-PRM, or any token classifier."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

from genprm.errors import ContextFullError, ModelError
from genprm.models.base import Completion, Message, ModelBackend, Sampling
from genprm.models.chat import first_line, load_tokenizer, render_chat

QWEN_PRM = "Qwen2ForProcessRewardModel"
"""The architecture that Qwen2.5-Math-PRM's configuration names; its code is built here, none is downloaded."""
IN_FLIGHT = 4


class RewardHead(ModelBackend):
    """A model that says a number at every marker, and writes nothing."""

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        self.name = name
        self.concurrency = IN_FLIGHT
        self._model: Any = model
        self._tokenizer = tokenizer
        self._context = int(model.config.max_position_embeddings)
        self._lock = threading.Lock()

    @classmethod
    def load(cls, name: str) -> RewardHead:
        """Load a model with its head.

        Raises:
            ModelError: there is no such model, or it has no two-class head, or weights of it are missing.
        """
        tokenizer = load_tokenizer(name)
        import torch
        from safetensors import SafetensorError
        from transformers import AutoConfig, AutoModelForTokenClassification
        from transformers.utils import logging

        logging.disable_progress_bar()
        gpu = torch.cuda.is_available()
        dtype = "auto" if gpu else torch.float32
        try:
            config = AutoConfig.from_pretrained(name)
            kinds = config.architectures or []
            if QWEN_PRM in kinds:
                kind = _qwen_prm()
            elif any(kind.endswith("ForTokenClassification") for kind in kinds):
                kind = AutoModelForTokenClassification
            else:
                raise ModelError(f"{name} has no reward head: it is a {', '.join(kinds) or config.model_type}")
            model, report = kind.from_pretrained(name, dtype=dtype, output_loading_info=True)
            if report["missing_keys"]:  # they would be random numbers
                raise ModelError(f"{name}: its weights lack {', '.join(sorted(report['missing_keys']))}")
            if model.config.num_labels != 2:
                raise ModelError(f"{name}: its head has {model.config.num_labels} classes, expected 2")
            model = model.to("cuda" if gpu else "cpu").eval()
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise ModelError(f"the model {name!r} cannot be loaded: {first_line(error)}") from error
        return cls(model, tokenizer, name)

    async def complete(
        self, prompt: str, *, stop: Sequence[str], max_tokens: int, logprobs: int = 0, n: int = 1, sampling: Sampling
    ) -> list[Completion]:
        raise ModelError(f"{self.name} has a reward head: it writes nothing")

    async def step_rewards(self, text: str, marker: str) -> list[float]:
        return await asyncio.to_thread(self._rewards, text, marker)

    def _rewards(self, text: str, marker: str) -> list[float]:
        import torch

        tokens = self._tokenizer.encode(text, add_special_tokens=False)
        if len(tokens) > self._context:
            raise ContextFullError(f"{len(tokens)} tokens do not fit the context of {self._context}")
        mark = self._tokenizer.convert_tokens_to_ids(marker)
        if mark is None or mark == self._tokenizer.unk_token_id:
            raise ModelError(f"{marker} is no token of {self.name}")
        places = [place for place, token in enumerate(tokens) if token == mark]
        try:
            with self._lock, torch.inference_mode():
                if self._model is None:
                    raise ModelError(f"{self.name} was closed")
                ids = torch.tensor([tokens], device=self._model.device)
                logits = self._model(input_ids=ids).logits[0, places].float()
        except RuntimeError as error:
            raise ModelError(f"{self.name}: {first_line(error)}") from error
        return [float(value) for value in torch.softmax(logits, dim=-1)[:, 1]]

    def render(self, messages: Sequence[Message], prefix: str) -> str:
        return render_chat(self._tokenizer, messages, prefix)

    async def close(self) -> None:
        self._model = None


def _qwen_prm() -> Any:
    """The class of Qwen2.5-Math-PRM: a Qwen2 with a two-layer head at every token."""
    import torch
    from transformers import Qwen2Config, Qwen2Model
    from transformers.modeling_outputs import TokenClassifierOutput
    from transformers.models.qwen2.modeling_qwen2 import Qwen2PreTrainedModel

    class Qwen2ForProcessRewardModel(Qwen2PreTrainedModel):  # type: ignore[misc]
        def __init__(self, config: Qwen2Config) -> None:
            super().__init__(config)
            size = config.hidden_size
            self.model = Qwen2Model(config)
            self.score = torch.nn.Sequential(
                torch.nn.Linear(size, size), torch.nn.ReLU(), torch.nn.Linear(size, config.num_labels)
            )
            self.post_init()

        def forward(self, input_ids: torch.Tensor) -> TokenClassifierOutput:
            hidden = self.model(input_ids=input_ids, use_cache=False).last_hidden_state
            return TokenClassifierOutput(logits=self.score(hidden))

    return Qwen2ForProcessRewardModel
