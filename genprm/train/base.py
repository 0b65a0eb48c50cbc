"""The model that is trained, before and after: opened, wrapped in LoRA, and what came of it saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from genprm.errors import InputError, ModelError
from genprm.models.chat import first_line, load_tokenizer
from genprm.models.embedded import EMBEDDED, EMBEDDED_HUB_ID, model_source
from genprm.report import write_text
from genprm.train.recipes import LoRA
from genprm.train.trainer import in_bfloat16

HEADS = ["score", "classifier"]
"""What a two-class head is called in transformers: it is trained as a whole."""
EAGER_LENGTH = 1024
"""Up to here a CPU is faster with attention in plain products, and there is memory for them."""


class Base(NamedTuple):
    """The model to train, before it is loaded."""

    name: str
    """Its hub id or folder, as an adapter names it."""
    source: str
    tokenizer: Any
    marker: bool
    """Whether a token was added to the tokenizer."""


def open_base(name: str, max_length: int, marker: str | None = None) -> Base:
    """Find a base model, and see whether it can do what is asked.

    Args:
        name: hub id, folder, or `EMBEDDED`.
        max_length: most tokens of a conversation.
        marker: a token that it needs beside its own.

    Raises:
        ModelError: there is no such model.
        InputError: its context is shorter.
    """
    from transformers import AutoConfig

    source = model_source(name)
    tokenizer = load_tokenizer(source)
    try:
        room = AutoConfig.from_pretrained(source).get_text_config().max_position_embeddings
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"the model {name!r} cannot be loaded: {first_line(error)}") from error
    if max_length > room:
        raise InputError(f"--max-length {max_length}: the context of {name} is {room} tokens")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    added = tokenizer.add_special_tokens({"additional_special_tokens": [marker]}) if marker else 0
    return Base(EMBEDDED_HUB_ID if name == EMBEDDED else name, source, tokenizer, bool(added))


L = TypeVar("L", bound=LoRA)


def started(recipe: L, start: str | None) -> L:
    """The recipe with the shape of the adapter that is gone on from.

    Raises:
        InputError: the folder has no adapter.
    """
    if start is None:
        return recipe
    try:
        shape = json.loads((Path(start) / "adapter_config.json").read_text())
        found = {"rank": shape["r"], "alpha": shape["lora_alpha"], "dropout": shape["lora_dropout"]}
        return type(recipe).model_validate(recipe.model_dump() | found)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{start}: no folder of a LoRA adapter (adapter_config.json)") from error


def load_for_training(
    base: Base, lora: LoRA, max_length: int, start: str | None = None, *, mixed: bool = False, head: bool = False
) -> Any:
    """The base model with LoRA matrices to train: new ones, or those of an adapter.

    Args:
        base: the model.
        lora: the shape of new ones.
        max_length: most tokens of a sequence.
        start: the folder of an adapter to go on from.
        mixed: with its own weights, which are not trained, in bfloat16 on a CPU, too, if that can multiply them.
        head: with a two-class head in the place of the language model's.

    Raises:
        ModelError: the model or the adapter cannot be loaded.
    """
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

    given: dict[str, Any] = {"dtype": torch.bfloat16 if in_bfloat16(mixed) else torch.float32}
    if not torch.cuda.is_available() and max_length <= EAGER_LENGTH:
        given["attn_implementation"] = "eager"
    try:
        if head:
            model = AutoModelForTokenClassification.from_pretrained(base.source, num_labels=2, **given)
            model.dropout.p = lora.dropout  # else 0.1, whatever was asked for
        else:
            model = AutoModelForCausalLM.from_pretrained(base.source, **given)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"the model {base.name!r} cannot be loaded: {first_line(error)}") from error
    if base.marker:
        model.resize_token_embeddings(len(base.tokenizer))
    if start is not None:
        try:
            going_on = PeftModel.from_pretrained(model, start, is_trainable=True)
        except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as error:
            raise ModelError(
                f"the adapter {start} does not fit the model {base.name!r}: {first_line(error)}"
            ) from error
        # Else peft asks the hub for the base's configuration at each checkpoint.
        going_on.active_peft_config.base_model_name_or_path = base.source
        return going_on
    shape = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules="all-linear",
        exclude_modules=HEADS if head else None, task_type="TOKEN_CLS" if head else "CAUSAL_LM",
    )  # fmt: skip
    wrapped = get_peft_model(model, shape)
    for trained in wrapped.parameters():
        if trained.requires_grad:  # a head is of the model's type, too coarse for an optimizer's small changes
            trained.data = trained.data.float()
    return wrapped


def save_adapter(model: Any, base: Base, folder: Path) -> None:
    """Save the LoRA matrices in bfloat16: half of the size, and as good."""
    import torch

    model.to(torch.bfloat16).save_pretrained(folder)
    saved = folder / "adapter_config.json"  # it names the folder that the base was loaded from
    text = json.dumps({**json.loads(saved.read_text()), "base_model_name_or_path": base.name}, indent=1)
    write_text(saved, text + "\n")
