"""The key/value cache of many sequences at once, in slots that outlive a request.

A chain calls the model several times with a prompt that only grows. Its slot keeps what was computed, so that
a call pays for the new tokens alone; and sequences of different lengths share a batch without being copied
together, because every slot has its place in one tensor per layer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.cache_utils import Cache, CacheLayerMixin

GROWTH = 1024
"""Tokens by which the slots' length grows."""


@dataclass
class Plan:
    """Which slots the forward pass at hand covers, and where its tokens go. Shared by all layers."""

    start: int = 0
    stop: int = 0
    positions: torch.Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.long))
    """Index of every new token in its sequence, ``[slots, tokens]``."""
    length: int = 0
    """Tokens that are visible to at least one of the new ones."""


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer, ``[slots, heads, capacity, width]``."""

    def __init__(self, plan: Plan, slots: int) -> None:
        super().__init__()
        self._plan = plan
        self._slots = slots

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        shape = (self._slots, key_states.shape[1], GROWTH)
        self.keys = key_states.new_zeros(*shape, key_states.shape[3])
        self.values = value_states.new_zeros(*shape, value_states.shape[3])
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: object, **_kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store the new tokens' keys and values; returns those of every visible token."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        plan = self._plan
        self.keys = _with_room(self.keys, plan.length)
        self.values = _with_room(self.values, plan.length)
        rows = torch.arange(plan.start, plan.stop, device=key_states.device)[:, None]
        self.keys[rows, :, plan.positions] = key_states.transpose(1, 2)
        self.values[rows, :, plan.positions] = value_states.transpose(1, 2)
        return (
            self.keys[plan.start : plan.stop, :, : plan.length],
            self.values[plan.start : plan.stop, :, : plan.length],
        )

    def get_seq_length(self) -> int:
        return 0  # positions and masks are always given explicitly

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._plan.length, 0

    def get_max_length(self) -> int:
        return -1


def _with_room(tensor: torch.Tensor, length: int) -> torch.Tensor:
    missing = length - tensor.shape[2]
    if missing <= 0:
        return tensor
    extra = -(-missing // GROWTH) * GROWTH
    return torch.cat([tensor, tensor.new_zeros(*tensor.shape[:2], extra, tensor.shape[3])], dim=2)


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float | None = None,
    **_options: object,
) -> tuple[torch.Tensor, None]:
    """Attention where several query heads share a key head, without copying keys and values for each of them.

    The query heads of a group are laid end to end as if they were more tokens of one head. Decoding reads the whole
    cache for every token, so the copies of the stock implementation cost more than the attention itself.

    Args:
        module: the attention layer.
        query: ``[slots, query heads, tokens, width]``.
        key: ``[slots, key heads, length, width]``; ``value`` likewise.
        attention_mask: True where a token may look, ``[slots, 1, tokens, length]``.
        scaling: factor of the dot products.

    Returns:
        ``[slots, tokens, query heads, width]``, and None for the weights.
    """
    slots, heads, tokens, width = query.shape
    groups = heads // key.shape[1]
    folded = query.reshape(slots, key.shape[1], groups * tokens, width)
    mask = attention_mask.repeat(1, 1, groups, 1)
    mixed = torch.nn.functional.scaled_dot_product_attention(folded, key, value, attn_mask=mask, scale=scaling)
    return mixed.reshape(slots, heads, tokens, width).transpose(1, 2), None


AttentionInterface.register("genprm_slots", grouped_attention)


class SlotCache:
    """A model with slots: forward passes over some of them."""

    def __init__(self, model: Any, slots: int) -> None:
        model.set_attn_implementation("genprm_slots")
        self._model = model
        self._plan = Plan()
        self._device = next(model.parameters()).device
        self.empty(slots)

    def empty(self, slots: int) -> None:
        """Forget everything, and have so many slots from now on."""
        layers = self._model.config.get_text_config().num_hidden_layers
        self._cache = Cache(layers=[SlotLayer(self._plan, slots) for _ in range(layers)])
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def forward(self, start: int, tokens: list[list[int]], positions: list[int]) -> torch.Tensor:
        """Feed equally many ``tokens`` to each of the slots from ``start`` on.

        Args:
            start: the first slot.
            tokens: new token ids, ``[slots][tokens]``.
            positions: index of the first new token in each slot's sequence.

        Returns:
            Logits after the last new token, float32, ``[slots, vocabulary]``, on the model's device.
        """
        plan = self._plan
        ids = torch.tensor(tokens, device=self._device)
        first = torch.tensor(positions, device=self._device)[:, None]
        plan.positions = first + torch.arange(ids.shape[1], device=self._device)[None, :]
        plan.start, plan.stop = start, start + len(tokens)
        plan.length = max(positions) + ids.shape[1]
        visible = torch.arange(plan.length, device=self._device)[None, None, None, :]
        mask = visible <= plan.positions[:, None, :, None]
        output = self._model(
            input_ids=ids, attention_mask=mask, position_ids=plan.positions, past_key_values=self._cache,
            use_cache=True, logits_to_keep=1,
        )  # fmt: skip
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def copy(self, source: int, target: int, length: int) -> None:
        """Give slot ``target`` the first ``length`` tokens' keys and values of slot ``source``."""
        for layer in self._cache.layers:
            layer.keys[target, :, :length] = layer.keys[source, :, :length]
            layer.values[target, :, :length] = layer.values[source, :, :length]
