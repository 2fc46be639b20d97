"""The state of a state-space layer is removed by a recipe like any other width."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, Mamba2Config, MambaConfig

import surgeon

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 50, "state_size": 8}
CONFIGS = {
    "one": lambda: MambaConfig(**SMALL),
    "two": lambda: Mamba2Config(**SMALL, num_heads=4, head_dim=8, n_groups=1, chunk_size=16),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_quarter_of_the_state_goes(tmp_path, kind):
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(CONFIGS[kind]()).save_pretrained(tmp_path / "model")
    step = {"op": "remove", "select": {"kind": "state"}, "keep": {"fraction": 0.75}, "criterion": "magnitude"}
    report = surgeon.run({"surgeon": 1, "steps": [step]}, model=tmp_path / "model", out=tmp_path / "small")
    assert report.measured["comparison"]["ok"]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "small").config.state_size == 6
