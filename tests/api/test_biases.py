"""A repair that needs biases, end to end, on a model without them."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig, MistralForCausalLM

import surgeon
from surgeon.errors import InfeasibleError

IDS = torch.randint(3, 53, (8, 12), generator=torch.Generator().manual_seed(0))
RECIPE = """
surgeon: 1
calibration: {texts: ids.json, samples: 8, seq_len: 12}
steps:
  - {op: remove, select: {kind: ffn}, keep: {fraction: 0.5}, criterion: flap, repair: bias}
"""


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "ids.json").write_text(json.dumps({"input_ids": IDS.tolist()}))
    path = tmp_path / "flap.yaml"
    path.write_text(RECIPE)
    return path


def test_run_apply_and_verify(saved_llama, recipe, tmp_path):
    source = saved_llama(initializer_range=0.3)
    report = surgeon.run(recipe, model=source, out=tmp_path / "small")
    assert {row.field: row.new for row in report.ledger} == {"mlp_bias": True, "intermediate_size": 20}
    original = AutoModelForCausalLM.from_pretrained(source)
    assert report.before.parameters == original.num_parameters()
    small = AutoModelForCausalLM.from_pretrained(tmp_path / "small")
    assert all(layer.mlp.down_proj.bias.any() for layer in small.model.layers)
    assert not any(layer.mlp.up_proj.bias.any() for layer in small.model.layers)

    from surgeon.api.replay import replay
    from surgeon.api.verify import verify_folder

    replay(tmp_path / "small" / "plan.json", model=source, out=tmp_path / "again")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    assert torch.equal(again(input_ids=IDS).logits, small(input_ids=IDS).logits)
    comparison, _ = verify_folder(tmp_path / "small", source)
    assert comparison.ok


def test_plan_and_apply_in_memory(small_llama, recipe):
    model = small_llama(initializer_range=0.3)
    plan = surgeon.plan(model, surgeon.load_recipe(recipe))
    small = surgeon.apply(model, plan)
    assert small.config.mlp_bias
    assert surgeon.verify(model, small, plan).ok
    assert not model.config.mlp_bias


def test_a_family_without_biases_is_refused_before_weights_are_read(recipe):
    config = MistralConfig(vocab_size=53, hidden_size=32, intermediate_size=24, num_hidden_layers=2)
    config.num_attention_heads, config.num_key_value_heads, config.head_dim = 4, 2, 8
    with torch.device("meta"):
        model = MistralForCausalLM(config)
    with pytest.raises(
        InfeasibleError, match=r"step 0 'remove': the model has no 'model\.layers\.0\.mlp\.down_proj\.bias'"
    ):
        surgeon.plan(model, surgeon.load_recipe(recipe))
