"""Many completions at once on one local model: a thread that decodes all running requests step by step.

A request joins the batch at the next token and leaves it when it is done, so that a long rationale never
makes a short judgement wait. Requests that wait for a slot are served in the order of arrival.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from genprm.models.base import Completion, FinishReason, Sampling, TokenChoice

_LOG = logging.getLogger(__name__)
PREFILL_CHUNK = 512
"""Most prompt tokens fed in one forward pass."""
STOP_WINDOW = 24
"""Last tokens whose text is searched for a stop string; longer than any stop string of ours."""


SEAM = 8
"""Tokens of a prompt behind which a continuation is read as text."""
COPY_FROM = 64
"""Tokens that another slot must know more of a prompt, for its keys and values to be copied."""


class Cache(Protocol):
    """What is used of `genprm.models.slots.SlotCache`."""

    def forward(self, start: int, tokens: list[list[int]], positions: list[int]) -> torch.Tensor: ...

    def copy(self, source: int, target: int, length: int) -> None: ...

    def empty(self, slots: int) -> None: ...


@dataclass
class Request:
    """One completion to make."""

    prompt: list[int]
    stop: Sequence[str]
    max_tokens: int
    logprobs: int
    sampling: Sampling
    resolve: Callable[[Completion | Exception], None]
    """Called once, in the decoding thread, with what came of it."""
    forced: Sequence[int] = ()
    """Tokens to take instead of drawn ones: how likely they are is all that is asked."""
    cancelled: bool = False
    """Set by the caller when nobody waits for it any more."""
    written: list[int] = field(default_factory=list)
    choices: list[TokenChoice] = field(default_factory=list)
    generator: torch.Generator = field(default_factory=torch.Generator)


@dataclass
class Slot:
    """A sequence whose keys and values are in the cache."""

    tokens: list[int] = field(default_factory=list)
    """The tokens that the cache holds."""
    request: Request | None = None
    next_token: int = 0
    used: int = 0
    """When it was last used, by a counter."""


class Batcher:
    """Runs requests on the slots of one model. Made and closed by the backend."""

    def __init__(self, cache: Cache, tokenizer: Any, slots: int, end_tokens: set[int]) -> None:
        self._cache = cache
        self._tokenizer = tokenizer
        self._end_tokens = end_tokens
        self._slots = [Slot() for _ in range(slots)]
        self._waiting: deque[Request] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self._clock = 0
        self._thread = threading.Thread(target=self._run, name="decode", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Queue a request."""
        request.generator.manual_seed(request.sampling.seed)
        with self._wake:
            self._waiting.append(request)
            self._wake.notify()

    def close(self) -> None:
        """Stop decoding; requests that are not done fail."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join(timeout=30)
        gone = RuntimeError("the model was closed")
        self._fail(gone)
        while self._waiting:
            self._waiting.popleft().resolve(gone)

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._closed or self._waiting or any(slot.request for slot in self._slots)):
                    self._wake.wait()
                if self._closed:
                    return
            try:
                self._admit()
                self._step()
            except torch.OutOfMemoryError as error:
                self._make_room(error)
            except Exception as error:  # noqa: BLE001 - out of memory, say: every caller must hear of it
                self._fail(error)

    def _make_room(self, error: Exception) -> None:
        """Go on with half of the sequences at once; the others wait. What they have written stays."""
        active = [slot.request for slot in self._slots if slot.request]
        left = len(active) // 2
        self._slots = [Slot() for _ in range(max(1, left))]
        self._cache.empty(len(self._slots))
        if not left:
            for request in active:
                request.resolve(error)
            return
        _LOG.warning("out of memory: from here on %d sequences at once (--in-flight %d)", left, left)
        with self._wake:
            self._waiting.extendleft(reversed(active))

    def _fail(self, error: Exception) -> None:
        for slot in self._slots:
            if slot.request:
                slot.request.resolve(error)
            slot.request, slot.tokens = None, []

    def _admit(self) -> None:
        while True:
            free = [slot for slot in self._slots if slot.request is None]
            with self._wake:
                request = self._waiting.popleft() if free and self._waiting else None
            if request is None:
                return
            if request.cancelled:
                continue
            try:
                self._prefill(request, free)
            except Exception as error:
                if isinstance(error, torch.OutOfMemoryError) and any(slot.request is request for slot in self._slots):
                    raise  # for all, with fewer at once
                for slot in self._slots:
                    if slot.request is request:
                        slot.request, slot.tokens = None, []
                request.resolve(error)

    def _prefill(self, request: Request, free: list[Slot]) -> None:
        # The slot that holds most of this prompt; among equals, the one whose owner was seen longest ago.
        prompt = [*request.prompt, *request.written]  # it may have been begun, where memory ran out
        known = [_common(each.tokens, prompt) for each in self._slots]
        index = max((self._slots.index(each) for each in free), key=lambda at: (known[at], -self._slots[at].used))
        best = max(range(len(known)), key=known.__getitem__)
        if known[best] >= known[index] + COPY_FROM:
            self._cache.copy(best, index, known[best])
            known[index] = known[best]
        slot = self._slots[index]
        kept = min(known[index], len(prompt) - 1)
        slot.request, slot.tokens = request, prompt[:kept]
        for begin in range(kept, len(prompt), PREFILL_CHUNK):
            chunk = prompt[begin : begin + PREFILL_CHUNK]
            logits = self._cache.forward(index, [chunk], [begin])
            slot.tokens += chunk
        self._take_token(slot, logits[0])

    def _step(self) -> None:
        for slot in self._slots:
            if slot.request and slot.request.cancelled:
                slot.request = None
        active = [index for index, slot in enumerate(self._slots) if slot.request]
        if not active:
            return
        covered = self._slots[: active[-1] + 1]
        # Idle slots in between are computed along with the rest; what that writes is past their end.
        logits = self._cache.forward(0, [[slot.next_token] for slot in covered], [len(slot.tokens) for slot in covered])
        for index in active:
            slot = self._slots[index]
            slot.tokens.append(slot.next_token)
            request = slot.request
            try:
                self._take_token(slot, logits[index])
            except Exception as error:  # noqa: BLE001 - no probabilities in it, say: the others go on
                slot.request, slot.tokens = None, []
                if request is not None:
                    request.resolve(error)

    def _take_token(self, slot: Slot, logits: torch.Tensor) -> None:
        request = slot.request
        assert request is not None
        self._clock += 1
        slot.used = self._clock
        token = request.forced[len(request.written)] if request.forced else _draw(logits, request)
        if request.logprobs:
            # Also where the model ends its text: what else it might have said is what a judgement is read from.
            request.choices.append(self._choice(logits, token, request.logprobs))
        if token in self._end_tokens and not request.forced:
            self._finish(slot, FinishReason.END, None)
            return
        request.written.append(token)
        slot.next_token = token
        ending = self._tokenizer.decode(request.written[-STOP_WINDOW:], skip_special_tokens=True)
        if any(stop in ending for stop in request.stop):
            self._finish(slot, FinishReason.STOP, request.stop)
        elif len(request.written) >= request.max_tokens:
            self._finish(slot, FinishReason.LENGTH, None)

    def _finish(self, slot: Slot, reason: FinishReason, stop: Sequence[str] | None) -> None:
        request, slot.request = slot.request, None
        assert request is not None
        text = self._text(request)
        ends = [text.find(each) for each in stop or () if each in text]
        if ends:
            text = text[: min(ends)]
        request.resolve(
            Completion(
                text=text, finish_reason=reason, tokens=tuple(request.choices), prompt_tokens=len(request.prompt),
                completion_tokens=len(request.written),
            )
        )  # fmt: skip

    def _text(self, request: Request) -> str:
        """What was written. A first token has its space only where something stands before it (SentencePiece)."""
        before = request.prompt[-SEAM:]
        said, whole = (
            self._tokenizer.decode(each, skip_special_tokens=True) for each in (before, before + request.written)
        )
        if whole.startswith(said):
            return str(whole[len(said) :])
        return str(self._tokenizer.decode(request.written, skip_special_tokens=True))

    def _choice(self, logits: torch.Tensor, token: int, count: int) -> TokenChoice:
        logprobs = torch.log_softmax(logits, dim=-1)
        top = torch.topk(logprobs, count)
        alternatives: dict[str, float] = {}
        for index, value in zip(top.indices.tolist(), top.values.tolist(), strict=True):
            text = self._tokenizer.decode([index])
            if text not in alternatives:
                alternatives[text] = value
            elif text.strip(" \ufffd"):  # one word, with its space before it, and without
                alternatives[text] = math.log(math.exp(alternatives[text]) + math.exp(value))
        return TokenChoice(text=self._tokenizer.decode([token]), logprob=float(logprobs[token]), top=alternatives)


def _common(left: list[int], right: list[int]) -> int:
    """Length of the longest common prefix."""
    size = min(len(left), len(right))
    if left[:size] == right[:size]:
        return size
    return next(index for index in range(size) if left[index] != right[index])


def _draw(logits: torch.Tensor, request: Request) -> int:
    """Draw a token: the ``top_k`` likeliest, of those the fewest that hold ``top_p`` of the probability."""
    sampling = request.sampling
    if sampling.temperature == 0:
        return int(logits.argmax())
    # On the model's device, which is faster than to copy all of them; drawn on the CPU, where a seed means the same.
    values, indices = (part.cpu() for part in torch.topk(logits, min(sampling.top_k, logits.shape[-1])))
    probabilities = torch.softmax(values / sampling.temperature, dim=-1)
    before = torch.cumsum(probabilities, dim=-1) - probabilities
    kept = torch.where(before < sampling.top_p, probabilities, 0.0)
    return int(indices[torch.multinomial(kept, 1, generator=request.generator)])
