"""Which model the words on a command line mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from genprm.errors import ConfigError
from genprm.models.embedded import EMBEDDED, NO_ADAPTER, SHIPPED, shipped_adapter
from genprm.models.scripted import ScriptedModel
from genprm.options import Backend, ModelOptions, RunOptions, warning_of
from genprm.votes import VotePlan


@pytest.mark.parametrize(
    ("given", "is_shipped", "is_bare"),
    [
        ({}, True, False),
        ({"model": EMBEDDED}, True, False),
        ({"backend": Backend.VLLM}, True, False),
        ({"style": "direct>genprm"}, True, False),
        ({"adapter": NO_ADAPTER}, False, True),
        ({"style": "thinkprm"}, False, True),
        ({"adapter": "mine"}, False, False),
        ({"model": "GenPRM/GenPRM-7B"}, False, False),
        ({"base_url": "http://localhost:8000/v1"}, False, False),
    ],
)
def test_the_shipped_adapter_goes_with_the_embedded_model_in_its_style(given: dict, is_shipped: bool, is_bare: bool):
    options = RunOptions(**given)
    assert (options.is_shipped, options.is_embedded) == (is_shipped, is_bare)
    assert (options.lora == str(shipped_adapter())) is is_shipped
    assert (options.fingerprint_fields()["adapter"] == SHIPPED) is is_shipped


@pytest.mark.parametrize(
    ("given", "temperature", "is_likeliest_first"),
    [
        ({}, 0.6, True),
        ({"votes": VotePlan.fixed(4)}, 0.6, True),
        ({"temperature": 0.6}, 0.6, False),
        ({"temperature": 0}, 0, False),
        ({"adapter": NO_ADAPTER}, 0.6, False),
        ({"model": "GenPRM/GenPRM-7B"}, 0.6, False),
    ],
)
def test_the_embedded_verifier_does_not_draw_its_first_vote(given: dict, temperature: float, is_likeliest_first: bool):
    options = RunOptions(**given)
    assert (options.sampling.temperature, options.is_likeliest_first) == (temperature, is_likeliest_first)


def test_a_policy_is_never_the_adapter_that_judges():
    assert ModelOptions().lora is None
    assert ModelOptions().is_embedded
    assert ModelOptions(adapter=NO_ADAPTER).lora is None


def test_what_is_shipped_is_for_the_embedded_model_and_small():
    config = json.loads((shipped_adapter() / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert (shipped_adapter() / "adapter_model.safetensors").stat().st_size < 20_000_000
    assert "data" in (shipped_adapter() / "README.md").read_text()


def test_what_is_shipped_is_for_one_style():
    both = RunOptions(style="direct>genprm")
    direct, genprm = both.make_styles()
    said = "warning: the embedded model's adapter was trained for the style genprm, not for direct"
    assert warning_of(both, ScriptedModel([]), direct) == said
    assert warning_of(both, ScriptedModel([]), genprm) is None


def test_where_a_named_model_is_served_is_no_part_of_a_run():
    one, other = (RunOptions(model="m", base_url=f"http://{host}:8000/v1").fingerprint_fields() for host in "ab")
    assert one == other
    assert one != RunOptions(model="m").fingerprint_fields()
    one, other = (RunOptions(base_url=f"http://{host}:8000/v1").fingerprint_fields() for host in "ab")
    assert one != other, "which model that is, only its address says"


def test_a_run_does_not_go_on_with_what_was_trained_into_the_same_folder(tmp_path: Path):
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "README.md").write_text("A card.")
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(bytes(3 << 20))

    def mark(**given: str) -> dict[str, Any]:
        return RunOptions(**given).fingerprint_fields()

    first = mark(adapter=str(tmp_path))
    (tmp_path / "README.md").write_text("Another card.")
    assert mark(adapter=str(tmp_path)) == first
    weights.write_bytes(bytes((3 << 20) - 1) + b"x")
    assert mark(adapter=str(tmp_path)) != first
    assert mark(model=str(tmp_path)) != mark(model=str(tmp_path.parent))
    assert mark(model="GenPRM/GenPRM-7B")["files"] == [None]
    assert mark() == mark()


def test_an_adapter_of_a_baseline_is_warned_of_in_another_style(tmp_path: Path):
    (tmp_path / "training.json").write_text('{"task": "signs"}')
    options = RunOptions(adapter=str(tmp_path), style="genprm")
    [genprm] = options.make_styles()
    said = f"warning: the adapter {tmp_path} was trained for the style discriminative, not for genprm"
    assert warning_of(options, ScriptedModel([]), genprm) == said
    (tmp_path / "training.json").write_text('{"task": "sft"}')
    assert warning_of(options, ScriptedModel([]), genprm) is None


@pytest.mark.parametrize("name", ["model", "adapter", "base_url", "tokenizer"])
def test_an_empty_name_is_none(name: str):
    with pytest.raises(ConfigError, match=f"the option for the {name.replace('_', ' ')} is empty"):
        ModelOptions(**{name: ""}).check()
