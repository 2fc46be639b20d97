"""Every shipped recipe makes the same plan of a model that is streamed as of one that is loaded."""

from __future__ import annotations

import pytest
import torch
import transformers as hf

from surgeon.io import read_plan
from tests.api.recipes import DEEP, DEPTH, EXPERTS, WIDTH, called, checkpoints

SIZES = {
    "vocab_size": 1024,
    "hidden_size": 24,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "initializer_range": 0.2,
}
CONFIGS = {
    "dense": lambda: hf.LlamaConfig(**SIZES, num_hidden_layers=7, intermediate_size=40),
    "mixture": lambda: hf.Qwen3MoeConfig(
        **SIZES, num_hidden_layers=5, moe_intermediate_size=16, num_experts=8, num_experts_per_tok=2
    ),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_model):
    return checkpoints(CONFIGS, tmp_path_factory.mktemp("streamed"), tiny_model)


@pytest.mark.parametrize("recipe", sorted({*WIDTH, *DEEP, *DEPTH, *EXPERTS}))
def test_the_plan_is_the_same(recipe, folders, tmp_path):
    model = folders("mixture" if recipe in EXPERTS else "dense")
    found = []
    for name, options in (("plain", ()), ("streamed", ("--stream",))):
        file = tmp_path / f"{name}.json"
        result = called("plan", recipe, model, "--out", file, *options)
        assert result.exit_code == 0, result.output
        found.append(read_plan(file))
    plain, streamed = found
    assert streamed.edits == plain.edits
    assert set(streamed.values) == set(plain.values)
    for name, value in plain.values.items():
        close = (streamed.values[name].double() - value.double()).norm() <= 1e-2 * value.double().norm()
        assert bool(torch.as_tensor(close)), name
